"""Clients against servers that answer byte for byte what a story says."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from statefun_ray.io.remote import okhttp_client
from statefun_ray.io.remote.client import Client
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.http_connection import HEAD_BYTES_MAX
from statefun_ray.io.remote.okhttp_client import OkHttpClient
from statefun_ray.io.remote.target import Target, target_of
from statefun_ray.io.remote.thin_client import JOINED_FACTOR, JOINED_S_MIN, ThinClient
from statefun_ray.module.model import AsyncTransport, Endpoint, OkHttpTransport
from tests.unit.statefun_ray.io.remote.posting import post

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
IMPATIENT = AsyncTransport(call_ms=300, connect_ms=300, payload_max_bytes=1_000)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """What is listened to, and what it has heard."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.target: Target

    async def hear(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the next request, None when there is none any more."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        return request


@asynccontextmanager
async def served(*answers: bytes, then_close: bool = False, pause_s: float = 0) -> AsyncIterator[Server]:
    """Answer the requests of all connections with ``answers``, the last one again and again."""
    server = Server()
    left = list(answers)
    writers: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.add(writer)
        while await server.hear(reader) is not None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            for piece in [answer[at : at + 7] for at in range(0, len(answer), 7)] if pause_s else [answer]:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            if then_close:
                break
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    server.target = target_of(Endpoint("ns/*", f"http://127.0.0.1:{port}/fn?x=1"), "ns/f")
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


@pytest.fixture(params=["thin", "okhttp"])
async def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(okhttp_client, "ANSWER_BYTES_MAX", IMPATIENT.payload_max_bytes)
    made = ThinClient(IMPATIENT) if request.param == "thin" else OkHttpClient(OkHttpTransport(300, 300))
    yield made
    await made.close()
    await asyncio.sleep(0)


async def test_a_request_and_its_answer(client: Client) -> None:
    async with served(OK + b"content-length: 3\r\n\r\nabc") as server:
        assert await post(client, server.target, b"body") == b"abc"

        [request] = server.requests
        head, _, body = request.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        sent = {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)}
        assert line == "POST /fn?x=1 HTTP/1.1"
        assert body == b"body"
        assert sent["content-type"] == sent["accept"] == "application/octet-stream"
        assert sent["user-agent"] == "statefun"
        assert sent["content-length"] == "4"
        assert sent["host"] == server.target.authority


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 3\r\n\r\nabc",
        OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 3\r\n\r\nabc",
    ],
)
async def test_connections_are_kept(client: Client, answer: bytes) -> None:
    async with served(answer) as server:
        for _ in range(3):
            assert await post(client, server.target, b"x") == b"abc"
        assert server.connections == 1


async def test_an_empty_answer_is_one(client: Client) -> None:
    async with served(OK + b"content-length: 0\r\n\r\n") as server:
        assert await post(client, server.target, b"x") == b""


async def test_an_answer_may_end_with_its_connection(client: Client) -> None:
    async with served(OK + b"\r\nabc", then_close=True) as server:
        for _ in range(2):
            assert await post(client, server.target, b"x") == b"abc"
        assert server.connections == 2


async def test_requests_at_the_same_time_have_connections_of_their_own(client: Client) -> None:
    async with served(OK + b"content-length: 1\r\n\r\na", pause_s=0.001) as server:
        assert await asyncio.gather(*(post(client, server.target, b"x") for _ in range(5))) == [b"a"] * 5
        assert server.connections == 5


async def test_a_kept_connection_that_the_service_has_closed_is_replaced(client: Client) -> None:
    async with served(OK + b"content-length: 1\r\n\r\na", then_close=True) as server:
        for _ in range(3):
            assert await post(client, server.target, b"x") == b"a"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops", "answered 500"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "no content type"),
        (OK + b"content-length: 2000\r\n\r\n" + b"x" * 2_000, "more than 1000 bytes"),
        (b"no http at all\r\n\r\n", "no answer that is HTTP"),
    ],
)
async def test_answers_that_are_no_results(client: Client, answer: bytes, text: str) -> None:
    async with served(answer) as server:
        with pytest.raises(BadAnswer, match=text):
            await post(client, server.target, b"x")


async def test_half_an_answer(client: Client) -> None:
    async with served(OK + b"content-length: 9\r\n\r\nabc", then_close=True) as server:
        with pytest.raises(BadAnswer, match="broke off"):
            await post(client, server.target, b"x")


async def test_a_service_that_hangs_up_without_an_answer(client: Client) -> None:
    async with served(b"", then_close=True) as server:
        with pytest.raises(ServiceUnavailable, match="broke before an answer"):
            await post(client, server.target, b"x")


async def test_nobody_there(client: Client) -> None:
    async with served(OK) as server:
        target = server.target
    with pytest.raises(ServiceUnavailable) as unavailable:
        await post(client, target, b"x")
    assert not unavailable.value.answered


async def test_a_name_that_does_not_exist(client: Client) -> None:
    target = target_of(Endpoint("ns/*", "http://does-not-exist.invalid/x"), "ns/f")
    with pytest.raises(ServiceUnavailable):
        await post(client, target, b"x")


async def test_a_name_whose_look_up_hangs_delays_no_other(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, released, hanging = socket.getaddrinfo, threading.Event(), []

    def look_up(host: str, *rest: object) -> object:
        if host == "hangs.invalid":
            hanging.append(host)
            released.wait(30)
        return real(host, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hangs = target_of(Endpoint("ns/*", "http://hangs.invalid/x"), "ns/f")
    try:
        async with served(OK + b"content-length: 3\r\n\r\nyes") as server:
            local = target_of(Endpoint("ns/*", f"http://localhost:{server.target.port}/"), "ns/g")
            for _ in range(3):
                waiting = [asyncio.create_task(post(client, hangs, b"x")) for _ in range(40)]
                assert await post(client, local, b"x") == b"yes"
                for refused in await asyncio.gather(*waiting, return_exceptions=True):
                    assert isinstance(refused, ServiceUnavailable | CallTimedOut)
        assert len(hanging) == 1, "one look-up, however often it was asked for"
    finally:
        released.set()


@pytest.mark.parametrize("answer", [b"", OK + b"content-length: 90\r\n\r\n" + b"x" * 90])
async def test_a_service_that_does_not_answer_or_drips(client: Client, answer: bytes) -> None:
    async with served(answer, pause_s=0.1) as server:
        with pytest.raises(CallTimedOut, match="within 300 ms"):
            await post(client, server.target, b"x")


async def test_a_pause_that_is_asked_for(client: Client) -> None:
    answer = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
    async with served(answer) as server:
        with pytest.raises(ServiceUnavailable) as unavailable:
            await post(client, server.target, b"x")
        assert (unavailable.value.answered, unavailable.value.retry_after_ms) == (True, 7_000)


async def test_a_head_without_end() -> None:
    client = ThinClient(IMPATIENT)
    async with served(OK + b"x-long: " + b"y" * HEAD_BYTES_MAX) as server:
        with pytest.raises(BadAnswer, match="head of its answer is longer"):
            await post(client, server.target, b"x")
    await client.close()


async def test_an_answer_that_is_compressed_unasked() -> None:
    client = ThinClient(IMPATIENT)
    async with served(OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc") as server:
        with pytest.raises(BadAnswer, match="content encoding 'gzip'"):
            await post(client, server.target, b"x")
    await client.close()


async def test_a_connection_that_is_too_old_is_not_used() -> None:
    client = ThinClient(AsyncTransport(pool_ttl_ms=1))
    async with served(OK + b"content-length: 0\r\n\r\n") as server:
        await post(client, server.target, b"x")
        await asyncio.sleep(0.01)
        await post(client, server.target, b"x")
        assert server.connections == 2
    await client.close()


async def test_an_answer_whose_head_is_known_has_its_own_body() -> None:
    client = ThinClient(IMPATIENT)
    head = OK + b"content-length: 3\r\n\r\n"
    async with served(head + b"abc", head + b"def", head + b"ghi") as server:
        assert [await post(client, server.target, b"x") for _ in range(3)] == [b"abc", b"def", b"ghi"]
        assert server.connections == 1
    await client.close()


@pytest.mark.parametrize("known", [False, True])
async def test_an_answer_in_pieces_is_one_answer_whether_its_head_is_known_or_not(known: bool) -> None:
    client = ThinClient(AsyncTransport(call_ms=5_000))
    answer = OK + b"content-length: 30\r\n\r\n" + b"abc" * 10
    if known:
        async with served(answer) as server:
            assert await post(client, server.target, b"x") == b"abc" * 10
    async with served(answer, pause_s=0.0001) as server:
        for _ in range(2):
            assert await post(client, server.target, b"x") == b"abc" * 10
        assert server.connections == 1
    await client.close()


@pytest.mark.parametrize("known", [False, True])
async def test_more_than_was_asked_for_ends_the_connection_and_answers_nothing_else(known: bool) -> None:
    client = ThinClient(IMPATIENT)
    answer = OK + b"content-length: 3\r\n\r\nabc"
    answers = [answer, answer + answer.replace(b"abc", b"xyz"), answer.replace(b"abc", b"def")]
    async with served(*answers[not known :]) as server:
        if known:
            assert await post(client, server.target, b"x") == b"abc"
        assert await post(client, server.target, b"x") == b"abc"
        assert await post(client, server.target, b"x") == b"def"
        assert server.connections == 2
    await client.close()


async def test_a_request_that_was_given_up_does_not_get_the_answer_of_another() -> None:
    client = ThinClient(IMPATIENT)
    async with served(OK + b"content-length: 1\r\n\r\na", pause_s=0.2) as server:
        with pytest.raises(CallTimedOut):
            await post(client, server.target, b"x")
    async with served(OK + b"content-length: 1\r\n\r\nb") as server:
        assert await post(client, server.target, b"y") == b"b"
    await client.close()


def test_many_requests_in_one_are_waited_for_as_long_as_such_usually_take_ten_times_over() -> None:
    client = ThinClient(AsyncTransport(call_ms=30_000))
    assert client._joined_wait_s("url", 100) == JOINED_S_MIN, "nothing is known"
    for _ in range(20):
        client._took("url", 0.01)
    assert client._joined_wait_s("url", 1) == JOINED_S_MIN
    assert client._joined_wait_s("url", 100) == pytest.approx(JOINED_FACTOR * 100 * 0.01)
    assert client._joined_wait_s("url", 1_000) == 30, "never longer than a request may take"
