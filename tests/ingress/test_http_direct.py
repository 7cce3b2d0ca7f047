"""The most frequent requests go past ASGI; nobody can tell by their answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from statefun_ingress.asgi import HotRoutes
from tests.ingress.conftest import Ingress, Start, until

PUT = b"PUT /v1/functions/n/any/k HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ONE = PUT + b"content-length: 1\r\n\r\n1"


async def answers(ingress: Ingress, data: bytes, count: int) -> list[bytes]:
    """Send ``data`` on a connection of its own and return the first answers, without their date."""
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(data)
    found = []
    for _ in range(count):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        found.append(re.sub(rb"date: .*\r\n", b"", head) + await reader.readexactly(int(length[1])))
    writer.close()
    return found


@pytest.fixture
def past_asgi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which requests were taken which way: "direct" or "asgi"."""
    ways: list[str] = []
    take: Callable[..., None] = HotRoutes.take
    call: Callable[..., Awaitable[None]] = HotRoutes.__call__

    def note_take(self: HotRoutes, *arguments: Any) -> None:
        ways.append("direct")
        take(self, *arguments)

    async def note_call(self: HotRoutes, *arguments: Any) -> None:
        ways.append("asgi")
        await call(self, *arguments)

    monkeypatch.setattr(HotRoutes, "take", note_take)
    monkeypatch.setattr(HotRoutes, "__call__", note_call)
    return ways


async def test_a_plain_event_goes_directly_and_anything_unusual_does_not(
    ingress: Ingress, past_asgi: list[str], subtests: pytest.Subtests
) -> None:
    forms = {
        "plain": ("direct", ONE),
        "POST": ("direct", b"POST" + ONE[3:]),
        "with keep-alive": ("direct", PUT + b"connection: keep-alive\r\ncontent-length: 1\r\n\r\n1"),
        "a length of four digits": ("direct", PUT + b"content-length: 0001\r\n\r\n1"),
        "of HTTP/1.0": ("asgi", ONE.replace(b"HTTP/1.1", b"HTTP/1.0")),
        "the last one": ("asgi", PUT + b"connection: close\r\ncontent-length: 1\r\n\r\n1"),
        "chunked": ("asgi", PUT + b"transfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n"),
        "with a query": ("asgi", ONE.replace(b"/k ", b"/k?x=y ")),
        "with a wait": ("asgi", PUT + b"prefer: wait=0\r\ncontent-length: 1\r\n\r\n1"),
        "large": ("asgi", PUT + b"content-length: 70002\r\n\r\n" + b'"%s"' % (b"x" * 70_000)),
    }
    for name, (way, data) in forms.items():
        with subtests.test(form=name):
            past_asgi.clear()
            (answer,) = await answers(ingress, data, 1)
            assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
            assert past_asgi == [way]


async def test_both_ways_give_the_same_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [
        ONE,
        ONE.replace(b"n/any/k", b"n/any/%C3%A4"),
        ONE.replace(b"n/any/k", b"n/any/%ff"),
        ONE.replace(b"n/any/k", b"n/inty/k"),
        ONE.replace(b"application/json", b"application/x"),
        PUT + b"producer-id: p\r\nproducer-sequence: 1\r\ncontent-length: 1\r\n\r\n1",
        PUT + b"producer-id: p\r\nproducer-sequence: 1\r\ncontent-length: 1\r\n\r\n1",
        PUT + b"producer-id: p\r\nproducer-sequence: 900000\r\ncontent-length: 1\r\n\r\n1",
        PUT + b"producer-sequence: 1\r\ncontent-length: 1\r\n\r\n1",
        PUT + b"content-length: 0\r\n\r\n",
    ]
    ingress = await start()
    directly = [await answers(ingress, data, 1) for data in requests]
    monkeypatch.setattr("statefun_ingress.protocol.BoundedProtocol._direct_cycle", lambda self: None)
    ingress = await start()

    assert [await answers(ingress, data, 1) for data in requests] == directly


async def test_pipelined_requests_of_both_kinds_are_answered_in_order(
    ingress: Ingress, past_asgi: list[str]
) -> None:
    waiting = PUT + b"prefer: wait=0.05\r\ncontent-length: 1\r\n\r\n1"
    ready = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"

    found = await answers(ingress, ONE + waiting + ready + ONE, 4)
    again = await answers(ingress, ready + ONE, 2)

    assert [b"ready" in answer for answer in found + again] == [False, False, True, False, True, False]
    assert past_asgi[0] == "direct"
    assert ingress.service.core.log.durable_seq == 4


async def test_a_kept_connection_is_closed_after_a_while_without_a_word(start: Start) -> None:
    ingress = await start(keep_alive_s=0.2, header_timeout_s=0.1)
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(ONE)
    await reader.readuntil(b"}")

    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_client_that_goes_before_its_answer_leaves_nothing_behind(ingress: Ingress) -> None:
    _, writer = await asyncio.open_connection(*ingress.address)
    writer.write(ONE)
    await writer.drain()
    writer.transport.abort()

    await until(lambda: ingress.service.core.log.durable_seq == 1)
    assert (await ingress.put("n/any/k")).json()["sequence"] == 1


async def test_a_fault_of_ours_is_answered_500_and_logged(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("statefun_ingress.asgi.encode_chunk", fail)

    (answer,) = await answers(ingress, ONE, 1)

    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"connection: close" in answer
    assert "request failed path=b'/v1/functions/n/any/k'" in caplog.text
