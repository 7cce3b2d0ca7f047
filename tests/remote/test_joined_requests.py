"""Many addresses in one request: agreed on, failing apart, and forgotten when the service is older again."""

from __future__ import annotations

from statefun_ray.local import LocalApplication
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec
from statefun_sdk.batches import HEADER
from tests.remote.serving import Service, serving
from tests.remote.test_end_to_end import counted, module

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


def test_many_addresses_travel_together_and_fail_apart() -> None:
    with (
        serving(functions, speaks_batches=True) as service,
        LocalApplication(module=module(service.url), workers=1) as app,
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
