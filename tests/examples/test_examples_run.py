"""The examples as applications: the local driver, real HTTP, snapshots and crashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.flights import data, expected
from examples.flights.functions import AIRCRAFT, AIRPORT, FLIGHT
from examples.flights.functions import functions as flights
from examples.greeter.main import functions as greeter
from examples.shopping_cart.functions import CART, INVENTORY, RECEIPTS
from examples.shopping_cart.functions import functions as shop
from statefun_ray import StatefulFunctions, open_checkpoint
from statefun_ray.testing import LocalApplication

pytestmark = pytest.mark.slow

Start = Callable[[StatefulFunctions], LocalApplication]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one application whose storage is ``tmp_path/storage``, and ends it."""
    started: list[LocalApplication] = []

    def start_one(functions: StatefulFunctions) -> LocalApplication:
        app = LocalApplication(
            functions,
            storage=tmp_path / "storage",
            log_dir=tmp_path / "log",
            workers=2,
            snapshot_interval_s=0.2,
        )
        started.append(app)
        return app.start()

    yield start_one
    for app in started:
        app.close()


def test_the_greeter_answers_and_remembers_across_a_restart(start: Start) -> None:
    app = start(greeter)

    assert app.ask("example/greeter", "ada", "hi") == "Hello ada, this is visit number 1."
    app.restart(workers=3)
    assert app.ask("example/greeter", "ada", "hi") == "Hello ada, this is visit number 2."


def test_the_shop_sells_nothing_twice_while_workers_die(start: Start) -> None:
    app = start(shop)
    app.send(INVENTORY, "socks", {"do": "restock", "quantity": 100, "cents_each": 700})

    for number in range(30):
        user = f"user-{number % 10}"
        added = app.ask(CART, user, {"do": "add", "article": "socks", "quantity": 2})
        assert added["added"] is True
        if number % 10 == 5:
            app.kill_worker(number // 10 % 2)
        if number % 3 == 2:
            app.ask(CART, user, {"do": "check out"})
    app.wait_idle()

    stock = app.state(INVENTORY, "socks")
    receipts = [json.loads(row.value or b"") for row in published(app, 10)]
    sold = sum(item["quantity"] for receipt in receipts for item in receipt["items"])
    assert stock["available"] + stock["reserved"] + stock["sold"] == 100
    assert stock["available"] == 100 - 30 * 2
    assert stock["sold"] == sold


def published(app: LocalApplication, count: int) -> list[Any]:
    """The receipts, once there are so many."""
    app.wait_until(lambda: len(app.egress(RECEIPTS)) >= count, what=f"{count} receipts")
    return app.egress(RECEIPTS)


def test_the_twins_are_exact_after_a_worker_and_the_ingress_died(start: Start, tmp_path: Path) -> None:
    limit, batch = 6_000, 500
    app = start(flights)

    events = data.flight_events(limit)
    for number in range(0, limit, batch):
        lines = [
            {"target": AIRCRAFT, "id": event.tail_number, "type": FLIGHT.typename, "value": event.flight}
            for event in events[number : number + batch]
        ]
        producer = ("flights", number // batch + 1)
        app.client.send_many(lines, producer=producer)
        if number == 2_000:
            app.kill_worker(0)
        if number == 4_000:
            app.kill_ingress()
            # Whether the request was answered before the crash, nobody can know.
            app.client.send_many(lines, producer=producer)
    app.wait_idle()
    app.stop()

    checkpoint = open_checkpoint(str(tmp_path / "storage"))
    table = expected.read_flights(limit)
    for function_type, wanted in (
        (AIRCRAFT, expected.expected_aircraft(table)),
        (AIRPORT, expected.expected_airports(table)),
    ):
        found = {row.pop("id"): row for row in checkpoint.table(function_type).to_pylist()}
        assert expected.differences(wanted, found) == []
