"""Remote functions of our own SDK, through the whole runtime in one process."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from statefun_ray.io.client import RequestFailed
from statefun_ray.local import LocalApplication
from statefun_ray.module.model import AsyncTransport, Endpoint, Module, Transport
from statefun_sdk import Context, IntType, Message, StatefulFunctions, StringType, ValueSpec, message_builder
from statefun_sdk.protocol import ToFunction
from tests.remote.serving import OCTETS, Answer, serving
from tests.waiting import wait_until

functions = StatefulFunctions()
USUAL = AsyncTransport()


@functions.bind("shop/counter", specs=[ValueSpec("count", IntType), ValueSpec("last", StringType)])
def count(context: Context, message: Message) -> None:
    text = message.as_string()
    assert text is not None
    context.storage.count = (context.storage.count or 0) + 1
    context.storage.last = text
    if text.startswith("tell "):
        target = text.removeprefix("tell ")
        context.send(message_builder("shop/counter", target, str_value=f"from {context.address.id}"))
    if text == "later":
        context.send_after(
            timedelta(milliseconds=50), message_builder("shop/counter", context.address.id, str_value="now")
        )
    if text == "raise":
        raise ValueError("as told")
    if context.caller is not None and not text.startswith("from"):
        caller = context.caller
        context.send(message_builder(caller.typename, caller.id, int_value=context.storage.count))


@functions.bind("other/echo")
async def echo(context: Context, message: Message) -> None:
    if context.caller is not None:
        text = message.as_string() or ""
        context.send(message_builder(context.caller.typename, context.caller.id, str_value=text))


def module(url: str, other: str = "", transport: Transport = USUAL) -> Module:
    endpoints = [Endpoint("shop/*", url + "/{function.name}", transport=transport)]
    if other:
        endpoints.append(Endpoint("other/echo", other))
    return Module(endpoints=tuple(endpoints))


def counted(app: LocalApplication, id: str) -> int:
    try:
        value = app.state("shop/counter", id).get("count")
    except RequestFailed as error:
        if error.status != 503:  # its worker is recovering
            raise
        return -1
    assert value is None or isinstance(value, int)
    return value or 0


def test_events_replies_messages_and_delays() -> None:
    with serving(functions) as service, LocalApplication(module=module(service.url)) as app:
        assert app.ask("shop/counter", "ada", "hi") == 1
        assert app.ask("shop/counter", "ada", "tell bob") == 2
        app.wait_until(lambda: app.state("shop/counter", "bob") == {"count": 1, "last": "from ada"})
        app.send("shop/counter", "eve", "later")
        app.wait_until(lambda: counted(app, "eve") == 2)
        first, second = service.requests[:2]
        # The handshake: no state at first, then every one, those without a value by name alone.
        assert not first.invocation.state
        assert [state.state_name for state in second.invocation.state] == ["count", "last"]
        assert not any(state.HasField("state_value") for state in second.invocation.state)
        assert first.invocation.invocations == second.invocation.invocations
        headers = service.headers[0]
        assert headers["content-type"] == headers["accept"] == OCTETS
        assert headers["user-agent"] == "statefun"


def test_what_waits_for_an_address_is_its_next_batch() -> None:
    gate = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def wait(request: ToFunction, _body: bytes) -> Answer | None:
        loops.append(asyncio.get_running_loop())
        if request.invocation.state and not gate.is_set():
            await gate.wait()
        return None

    with serving(functions) as service, LocalApplication(module=module(service.url)) as app:
        service.behaviour = wait
        for number in range(20):
            app.send("shop/counter", "ada", str(number))
        wait_until(lambda: len(service.requests) >= 2)
        app.wait_until(lambda: app.status()["lag"] == 0)
        loops[0].call_soon_threadsafe(gate.set)
        app.wait_until(lambda: counted(app, "ada") == 20)
        sizes = [len(request.invocation.invocations) for request in service.requests]
        assert sum(sizes[1:]) == 20
        assert len(sizes) <= 5, sizes
        assert app.state("shop/counter", "ada")["last"] == "19"


def test_state_and_what_was_in_flight_survive_a_crash(tmp_path: Path) -> None:
    with serving(functions) as service:
        app = LocalApplication(module=module(service.url), storage=tmp_path / "s", log_dir=tmp_path / "l")
        with app:
            for number in range(50):
                app.send("shop/counter", f"id{number % 5}", f"tell id{(number + 1) % 5}")
            app.kill_worker(0)
            app.wait_until(lambda: sum(counted(app, f"id{n}") for n in range(5)) == 100)
            app.crash()
            app.start()
            app.wait_until(lambda: sum(counted(app, f"id{n}") for n in range(5)) == 100)
            app.restart(workers=3)
            app.send("shop/counter", "id0", "x")
            app.wait_until(lambda: counted(app, "id0") == 21)


def test_a_service_that_is_down_loses_nothing_and_delays_nobody_else() -> None:
    with (
        serving(functions) as down,
        serving(functions) as up,
        LocalApplication(module=module(down.url, up.url)) as app,
    ):
        assert app.ask("shop/counter", "ada", "1") == 1
        down.stop()
        for number in range(30):
            app.send("shop/counter", f"id{number}", "x")
        app.send("shop/counter", "ada", "2")
        for number in range(20):
            assert app.ask("other/echo", "e", str(number)) == str(number)
        down.start()
        app.wait_until(lambda: counted(app, "ada") == 2, 20)
        app.wait_until(lambda: all(counted(app, f"id{n}") == 1 for n in range(30)), 20)


async def _never(_request: ToFunction, _body: bytes) -> Answer | None:
    await asyncio.sleep(60)
    return None


def bad(status: int, headers: dict[str, str], body: bytes = b"") -> Answer:
    return status, headers, body


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(bad(500, {"content-type": OCTETS}), id="500"),
        pytest.param(bad(404, {"content-type": OCTETS}), id="404"),
        pytest.param(bad(301, {"location": "/elsewhere"}), id="redirect"),
        pytest.param(bad(200, {}), id="no content type"),
        pytest.param(bad(200, {"content-type": "text/html"}, b"<html>"), id="wrong content type"),
        pytest.param(bad(200, {"content-type": OCTETS}, b"\xff\xff\xff"), id="garbage"),
        pytest.param(bad(200, {"content-type": OCTETS, "content-length": "99"}, b"x"), id="half an answer"),
        pytest.param(bad(503, {"retry-after": "0"}), id="503"),
        pytest.param(bad(429, {}), id="429"),
        pytest.param(bad(200, {"content-type": OCTETS}, b"x" * 200_000), id="too large"),
        pytest.param(None, id="no answer"),
    ],
)
def test_a_service_that_misbehaves_is_tried_again_and_delays_nobody_else(answer: Answer | None) -> None:
    with serving(functions) as wrong, serving(functions) as right:
        wrongly = 0

        async def misbehave(request: ToFunction, body: bytes) -> Answer | None:
            nonlocal wrongly
            if request.invocation.state and wrongly < 3:
                wrongly += 1
                return answer if answer is not None else await _never(request, body)
            return None

        impatient = AsyncTransport(payload_max_bytes=100_000, call_ms=300)
        described = module(wrong.url, right.url, impatient)
        with LocalApplication(module=described) as app:
            wrong.behaviour = misbehave
            for number in range(3):
                app.send("shop/counter", "ada", str(number))
            for number in range(20):
                assert app.ask("other/echo", "e", str(number)) == str(number)
            app.wait_until(lambda: counted(app, "ada") == 3, 30)
            assert app.state("shop/counter", "ada") == {"count": 3, "last": "2"}
            assert wrongly == 3
