"""Strict applications: a request is tried within ``call`` as in StateFun, and then everything rolls back."""

from __future__ import annotations

import asyncio

import pytest

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import (
    AsyncTransport,
    Endpoint,
    FailurePolicy,
    Module,
    OkHttpTransport,
    Transport,
)
from statefun_sdk.protocol import ToFunction
from tests.remote.gateway import HEAD, Talk, gateway
from tests.remote.serving import Answer, serving
from tests.remote.test_end_to_end import counted, functions
from tests.remote.test_states_and_effects import NUMBER, missing, storing

CALL_MS = 700
ASYNC = AsyncTransport(call_ms=CALL_MS)
OKHTTP = OkHttpTransport(call_ms=CALL_MS, connect_ms=CALL_MS, read_ms=100)


def answers(status: int) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        await writer.drain()

    return talk


async def closes(_writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 3\r\n\r\n\xff\xff\xff")
    await writer.drain()


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def strict(url: str, transport: Transport, functions: str = "shop/*") -> LocalApplication:
    endpoint = Endpoint(functions, url, transport=transport)
    described = Module(endpoints=(endpoint,), failure_policy=FailurePolicy(strict=True))
    return LocalApplication(module=described, workers=1)


@pytest.mark.parametrize("transport", [ASYNC, OKHTTP], ids=["async", "okhttp"])
@pytest.mark.parametrize("talk", [answers(500), answers(503), closes, answers(408)])
def test_what_passes_within_the_time_of_a_call_ends_nothing(talk: Talk, transport: Transport) -> None:
    with gateway(functions, talk, times=4) as service, strict(service.url, transport) as app:
        assert app.ask("shop/counter", "poison", "x") == 1
        assert app.status()["generation"] == 1
        assert service.requests.count("poison") == 4 + 2, "and the handshake"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("talk", "transport", "cause", "attempts_min"),
    [
        pytest.param(answers(500), ASYNC, "answered 500", 5, id="500"),
        pytest.param(answers(404), ASYNC, "answered 404", 5, id="404"),
        pytest.param(answers(503), ASYNC, "answered 503", 5, id="503"),
        pytest.param(closes, ASYNC, "broke before an answer", 5, id="closes"),
        pytest.param(garbage, ASYNC, "no FromFunction", 5, id="garbage"),
        pytest.param(hangs, ASYNC, "did not answer", 1, id="hangs"),
        pytest.param(answers(500), OKHTTP, "answered 500", 4, id="okhttp 500"),
        pytest.param(hangs, OKHTTP, "for 100 ms", 3, id="okhttp hangs"),
        pytest.param(answers(404), OKHTTP, "okhttp transport does not try again", 1, id="okhttp 404"),
        pytest.param(garbage, OKHTTP, "okhttp transport does not try again", 1, id="okhttp garbage"),
    ],
)
def test_what_does_not_pass_ends_the_generation(
    talk: Talk, transport: Transport, cause: str, attempts_min: int
) -> None:
    with gateway(functions, talk) as service, strict(service.url, transport) as app:
        assert app.ask("shop/counter", "ada", "1") == 1
        app.send("shop/counter", "poison", "x")
        app.wait_until(lambda: app.status()["generation"] > 1)
        assert cause in app.status()["last_error"]
        assert "ends the generation" in app.status()["last_error"]
        assert service.requests.count("poison") >= attempts_min
        service.heal()
        app.wait_until(lambda: counted(app, "poison") == 1)
        assert app.status()["dead_letters"] == 0


def test_a_service_that_is_not_there_ends_the_generation_after_the_time_of_a_call() -> None:
    with gateway(functions) as service:
        url = service.url
    with strict(url, ASYNC) as app:
        app.send("shop/counter", "ada", "x")
        app.wait_until(lambda: app.status()["generation"] > 1)
        assert f"the {CALL_MS} ms of call are over" in app.status()["last_error"]
        app.crash()


@pytest.mark.slow
@pytest.mark.parametrize("transport", [ASYNC, OKHTTP], ids=["async", "okhttp"])
def test_each_round_of_a_handshake_has_the_time_of_a_call(transport: Transport) -> None:
    async def one_by_one(request: ToFunction, _body: bytes) -> Answer | None:
        await asyncio.sleep(0.05)
        count = len(request.invocation.state)
        return missing(f"s{count}") if count < 20 else None

    with serving(storing(NUMBER)) as service, strict(service.url, transport, "ns/*") as app:
        service.behaviour = one_by_one
        assert app.ask("ns/other", "a", "hello") == "hello"
        assert app.status()["generation"] == 1
        assert len(service.requests) == 21
