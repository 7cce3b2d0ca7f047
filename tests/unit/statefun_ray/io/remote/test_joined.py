"""Requests that travel as one, seen from the client. What a runtime makes of it is in ``tests/remote``."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.joined import JOINED_FACTOR, JOINED_S_MIN, Joiner
from statefun_ray.module.model import AsyncTransport, OkHttpTransport, Transport
from statefun_sdk import batches
from tests.unit.statefun_ray.io.remote.posting import post
from tests.unit.statefun_ray.io.remote.raw_server import Server, ok, served

OFFER = ok(b"first", f"{batches.HEADER}: {batches.VERSION}\r\n".encode())
ROW = batches.join_answers([(batches.DONE, b"a"), (batches.DONE, b"b")])


def row(body: bytes, headers: bytes = b"") -> bytes:
    """Return an answer to many requests."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {batches.CONTENT_TYPE}\r\n".encode()
    return head + headers + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def asked(server: Server, transport: Transport) -> list[bytes]:
    """Make one request, and then two at once; return the answers to these."""
    client = HttpClient(transport)
    try:
        assert await post(client, server.target, b"0") == b"first"
        return await asyncio.gather(*(post(client, server.target, body) for body in (b"1", b"2")))
    finally:
        await client.close()


@pytest.mark.parametrize("transport", [AsyncTransport(), OkHttpTransport()], ids=["async", "okhttp"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(row(ROW), id="plain"),
        pytest.param(row(gzip.compress(ROW), b"content-encoding: gzip\r\n"), id="gzip"),
    ],
)
async def test_what_begins_together_travels_together_once_the_service_has_offered_it(
    transport: Transport, answer: bytes
) -> None:
    async with served(OFFER, answer) as server:
        assert await asked(server, transport) == [b"a", b"b"]
        assert len(server.requests) == 2
        assert server.requests[1].endswith(b"\r\n\r\n" + batches.join_requests([b"1", b"2"]))


async def test_joined_requests_follow_a_redirect_that_keeps_what_they_are() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"
    async with served(OFFER, moved, row(ROW)) as server:
        assert await asked(server, OkHttpTransport()) == [b"a", b"b"]
        assert server.lines[1:] == ["POST /fn?x=1", "POST /there"]


async def test_joined_requests_whose_redirect_is_a_get_are_made_one_by_one() -> None:
    moved = b"HTTP/1.1 302 Moved\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"
    async with served(OFFER, moved, ok(b"hello"), ok(b"alone")) as server:
        assert await asked(server, OkHttpTransport()) == [b"alone", b"alone"]
        assert server.lines[1:] == ["POST /fn?x=1", "GET /there", "POST /fn?x=1", "POST /fn?x=1"]


async def test_joined_requests_that_run_into_read_are_made_one_by_one() -> None:
    silent = OkHttpTransport(call_ms=5_000, connect_ms=5_000, read_ms=60)
    async with served(OFFER, b"", ok(b"alone")) as server:
        assert await asked(server, silent) == [b"alone", b"alone"]


def test_many_requests_in_one_are_waited_for_as_long_as_such_usually_take_ten_times_over() -> None:
    joiner = Joiner(HttpClient(AsyncTransport()), call_s=30)
    assert joiner.wait_s("url", 100) == JOINED_S_MIN, "nothing is known"
    for _ in range(20):
        joiner.took("url", 0.01)
    assert joiner.wait_s("url", 1) == JOINED_S_MIN
    assert joiner.wait_s("url", 100) == pytest.approx(JOINED_FACTOR * 100 * 0.01)
    assert joiner.wait_s("url", 1_000) == 30, "never longer than a request may take"
