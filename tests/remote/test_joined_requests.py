"""Many addresses in one request: agreed on, failing apart, and forgotten when the service is older again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import AsyncTransport, OkHttpTransport, Transport
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec
from statefun_sdk.batches import HEADER
from statefun_sdk.protocol import ToFunction
from tests.remote.serving import Answer, Service, serving
from tests.remote.test_end_to_end import counted, module
from tests.unit.statefun_ray.io.remote.test_manners import Certificates

functions = StatefulFunctions()


@functions.bind("shop/counter", specs=[ValueSpec("count", IntType)])
def count(context: Context, message: Message) -> None:
    context.storage.count = (context.storage.count or 0) + 1
    if message.as_string() == "poison":
        raise ValueError("as told")


def joined(service: Service) -> int:
    """Return how many requests held many."""
    return sum(headers["content-type"] != "application/octet-stream" for headers in service.headers)


def send(app: LocalApplication, ids: range, text: str = "x") -> None:
    app.client.send_many(
        {"target": "shop/counter", "id": f"id{n}", "type": "io.statefun.types/string", "value": text}
        for n in ids
    )


@pytest.mark.parametrize("over", ["plain", "tls", "okhttp"])
def test_many_addresses_travel_together_and_fail_apart(over: str, tmp_path: Path) -> None:
    certificate: tuple[Path, Path] | None = None
    transport: Transport = OkHttpTransport() if over == "okhttp" else AsyncTransport()
    if over == "tls":
        certificates = Certificates(tmp_path)
        certificate = certificates.certificate, certificates.key
        transport = AsyncTransport(trust_cacerts=str(certificates.authority))
    with (
        serving(functions, speaks_batches=True, certificate=certificate) as service,
        LocalApplication(module=module(service.url, transport=transport), workers=1) as app,
    ):
        send(app, range(300))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(300)))
        assert joined(service) > 0
        assert len(service.headers) < 300
        send(app, range(3), "poison")
        send(app, range(3, 300))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 2 for n in range(3, 300)))
        assert [counted(app, f"id{n}") for n in range(3)] == [1, 1, 1]


def test_a_service_that_knows_it_no_more_is_asked_one_by_one() -> None:
    with (
        serving(functions, speaks_batches=True) as service,
        LocalApplication(module=module(service.url), workers=1) as app,
    ):
        send(app, range(100))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(100)))
        assert joined(service) > 0
        service.speaks_batches = False
        before = len(service.headers)
        send(app, range(100))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 2 for n in range(100)))
        assert HEADER in service.headers[-1]
        assert joined(service) > 0
        assert len(service.headers) - before >= 100


@pytest.mark.parametrize(
    "answer", [b"\x00\x00\x00\x00\x09x", b"", b"nonsense"], ids=["cut off", "none", "nonsense"]
)
def test_an_answer_that_is_no_row_of_outcomes_ends_the_agreement(answer: bytes) -> None:
    with (
        serving(functions, speaks_batches=True) as service,
        LocalApplication(module=module(service.url), workers=1) as app,
    ):
        send(app, range(100))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(100)))
        service.batch_answer = answer
        send(app, range(100))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 2 for n in range(100)))
        assert app.status()["dead_letters"] == 0


@pytest.mark.parametrize(
    "impatient",
    [AsyncTransport(call_ms=500), OkHttpTransport(call_ms=20_000, read_ms=500)],
    ids=["async", "okhttp"],
)
def test_one_that_hangs_holds_up_its_neighbours_once(impatient: Transport) -> None:
    hanging = threading.Event()
    slow = StatefulFunctions()

    @slow.bind("shop/counter", specs=[ValueSpec("count", IntType)])
    def count_slowly(context: Context, message: Message) -> None:
        context.storage.count = (context.storage.count or 0) + 1
        if message.as_string() == "hang" and not hanging.is_set():
            hanging.set()
            time.sleep(1.5)

    with (
        serving(slow, speaks_batches=True) as service,
        LocalApplication(module=module(service.url, transport=impatient), workers=1) as app,
    ):
        send(app, range(60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(60)))
        before = joined(service)
        assert before > 0
        send(app, range(1), "hang")
        send(app, range(1, 60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 2 for n in range(60)))
        after = joined(service)
        send(app, range(60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 3 for n in range(60)))
        assert joined(service) == after


def test_one_that_hangs_does_not_hold_up_its_neighbours_for_as_long_as_a_request_may_take() -> None:
    async def hang(request: ToFunction, _body: bytes) -> Answer | None:
        if request.invocation.target.id == "id0":
            await asyncio.sleep(60)
        return None

    patient = AsyncTransport(call_ms=30_000)
    with (
        serving(functions, speaks_batches=True) as service,
        LocalApplication(module=module(service.url, transport=patient), workers=1) as app,
    ):
        send(app, range(60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(60)))
        service.joined.clear()
        service.behaviour = hang
        send(app, range(60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 2 for n in range(1, 60)), 3)
        assert service.joined.count("id0") == 1
        service.behaviour = None


def test_an_address_that_has_failed_travels_alone_until_it_succeeds() -> None:
    with (
        serving(functions, speaks_batches=True) as service,
        LocalApplication(module=module(service.url), workers=1, worker={"retry_deadline_ms": 500}) as app,
    ):
        send(app, range(60))
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(60)))
        service.joined.clear()
        send(app, range(1), "poison")
        send(app, range(1, 60))
        rounds = 2
        while app.status()["dead_letters"] == 0:
            app.wait_until(lambda rounds=rounds: all(counted(app, f"id{n}") == rounds for n in range(1, 60)))  # type: ignore[misc]
            send(app, range(1, 60))
            rounds += 1
        assert service.joined.count("id0") <= 1
        assert [each.invocation.target.id for each in service.requests].count("id0") > 3
