"""What holds of a client whatever its transport, against servers that answer byte for byte what a story says."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from statefun_ray.io.remote import manners
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.http_connection import HEAD_BYTES_MAX
from statefun_ray.io.remote.target import target_of
from statefun_ray.module.model import AsyncTransport, Endpoint, OkHttpTransport
from tests.unit.statefun_ray.io.remote.posting import post
from tests.unit.statefun_ray.io.remote.raw_server import OK, ok, served

BYTES_MAX = 1_000
IMPATIENT = AsyncTransport(call_ms=300, connect_ms=300, payload_max_bytes=BYTES_MAX)
IMPATIENT_OKHTTP = OkHttpTransport(call_ms=300, connect_ms=300)


@pytest.fixture(params=[IMPATIENT, IMPATIENT_OKHTTP], ids=["async", "okhttp"])
async def client(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HttpClient]:
    monkeypatch.setattr(manners, "ANSWER_BYTES_MAX", BYTES_MAX)
    made = HttpClient(request.param)
    yield made
    await made.close()
    await asyncio.sleep(0)


async def test_a_request_and_its_answer(client: HttpClient) -> None:
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
        assert sent.get("accept-encoding", "") == client.manners.accept_encoding


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 3\r\n\r\nabc",
        OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 3\r\n\r\nabc",
    ],
)
async def test_connections_are_kept(client: HttpClient, answer: bytes) -> None:
    async with served(answer) as server:
        for _ in range(3):
            assert await post(client, server.target, b"x") == b"abc"
        assert server.connections == 1


async def test_an_empty_answer_is_one(client: HttpClient) -> None:
    async with served(OK + b"content-length: 0\r\n\r\n") as server:
        assert await post(client, server.target, b"x") == b""


async def test_an_answer_may_end_with_its_connection(client: HttpClient) -> None:
    async with served(OK + b"\r\nabc", then_close=True) as server:
        for _ in range(2):
            assert await post(client, server.target, b"x") == b"abc"
        assert server.connections == 2


async def test_requests_at_the_same_time_have_connections_of_their_own(client: HttpClient) -> None:
    async with served(OK + b"content-length: 1\r\n\r\na", pause_s=0.001) as server:
        assert await asyncio.gather(*(post(client, server.target, b"x") for _ in range(5))) == [b"a"] * 5
        assert server.connections == 5


async def test_a_kept_connection_that_the_service_has_closed_is_replaced(client: HttpClient) -> None:
    async with served(OK + b"content-length: 1\r\n\r\na", then_close=True) as server:
        for _ in range(3):
            assert await post(client, server.target, b"x") == b"a"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops", "answered 500: oops$"),
        (b"HTTP/1.1 500 Oops\r\ncontent-encoding: br\r\ncontent-length: 4\r\n\r\noops", "answered 500$"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "no content type"),
        (OK + b"content-length: 2000\r\n\r\n" + b"x" * 2_000, "more than 1000 bytes"),
        (b"no http at all\r\n\r\n", "no answer that is HTTP"),
    ],
)
async def test_answers_that_are_no_results(client: HttpClient, answer: bytes, text: str) -> None:
    async with served(answer) as server:
        with pytest.raises(BadAnswer, match=text):
            await post(client, server.target, b"x")


async def test_half_an_answer(client: HttpClient) -> None:
    async with served(OK + b"content-length: 9\r\n\r\nabc", then_close=True) as server:
        with pytest.raises(BadAnswer, match="broke off"):
            await post(client, server.target, b"x")


async def test_a_service_that_hangs_up_without_an_answer(client: HttpClient) -> None:
    async with served(b"", then_close=True) as server:
        with pytest.raises(ServiceUnavailable, match="broke before an answer"):
            await post(client, server.target, b"x")


async def test_nobody_there(client: HttpClient) -> None:
    async with served(OK) as server:
        target = server.target
    with pytest.raises(ServiceUnavailable) as unavailable:
        await post(client, target, b"x")
    assert not unavailable.value.answered


async def test_a_name_that_does_not_exist(client: HttpClient) -> None:
    target = target_of(Endpoint("ns/*", "http://does-not-exist.invalid/x"), "ns/f")
    with pytest.raises(ServiceUnavailable):
        await post(client, target, b"x")


async def test_a_name_whose_look_up_hangs_delays_no_other(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
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
async def test_a_service_that_does_not_answer_or_drips(client: HttpClient, answer: bytes) -> None:
    async with served(answer, pause_s=0.1) as server:
        with pytest.raises(CallTimedOut, match="within 300 ms"):
            await post(client, server.target, b"x")


async def test_a_pause_that_is_asked_for(client: HttpClient) -> None:
    answer = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
    async with served(answer) as server:
        with pytest.raises(ServiceUnavailable) as unavailable:
            await post(client, server.target, b"x")
        assert (unavailable.value.answered, unavailable.value.retry_after_ms) == (True, 7_000)


async def test_a_head_without_end(client: HttpClient) -> None:
    async with served(OK + b"x-long: " + b"y" * HEAD_BYTES_MAX) as server:
        with pytest.raises(BadAnswer, match="head of its answer is longer"):
            await post(client, server.target, b"x")


GZIP = b"content-encoding: gzip\r\n"


@pytest.mark.parametrize("encoding", [GZIP, b"Content-Encoding: X-GZIP\r\n"])
async def test_an_answer_that_comes_compressed_is_what_it_holds(client: HttpClient, encoding: bytes) -> None:
    async with served(*(ok(gzip.compress(text), encoding) for text in (b"abc", b"def", b""))) as server:
        assert [await post(client, server.target, b"x") for _ in range(3)] == [b"abc", b"def", b""]
        assert server.connections == 1


async def test_a_compressed_answer_may_come_in_pieces_and_chunks(client: HttpClient) -> None:
    packed = gzip.compress(b"abc")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in packed) + b"0\r\n\r\n"
    async with served(OK + GZIP + b"transfer-encoding: chunked\r\n\r\n" + chunks, pause_s=0.0001) as server:
        assert await post(client, server.target, b"x") == b"abc"


async def test_an_answer_may_say_that_it_is_not_compressed(client: HttpClient) -> None:
    async with served(ok(b"abc", b"content-encoding: identity\r\n")) as server:
        assert await post(client, server.target, b"x") == b"abc"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(ok(gzip.compress(b"x" * 1_001), GZIP), "more than 1000 bytes", id="one byte too much"),
        pytest.param(ok(gzip.compress(b"x" * 900_000), GZIP), "more than 1000 bytes", id="bomb"),
        pytest.param(ok(gzip.compress(b"abc")[:-1], GZIP), "broke off within its gzip", id="cut off"),
        pytest.param(ok(b"", GZIP), "broke off within its gzip", id="nothing"),
        pytest.param(ok(b"no gzip at all", GZIP), "what is no gzip", id="garbage"),
        pytest.param(ok(gzip.compress(b"abc")[:-8] + bytes(8), GZIP), "what is no gzip", id="wrong sum"),
        pytest.param(ok(gzip.compress(b"abc") + b"more", GZIP), "4 bytes behind the end", id="excess"),
        pytest.param(ok(b"abc", b"content-encoding: br\r\n"), "content encoding 'br', unasked", id="other"),
    ],
)
async def test_what_comes_compressed_and_is_no_result(client: HttpClient, answer: bytes, text: str) -> None:
    async with served(answer) as server:
        with pytest.raises(BadAnswer, match=text):
            await post(client, server.target, b"x")


async def test_an_answer_whose_head_is_known_has_its_own_body(client: HttpClient) -> None:
    async with served(ok(b"abc"), ok(b"def"), ok(b"ghi")) as server:
        assert [await post(client, server.target, b"x") for _ in range(3)] == [b"abc", b"def", b"ghi"]
        assert server.connections == 1


@pytest.mark.parametrize("known", [False, True])
async def test_an_answer_in_pieces_is_one_answer_whether_its_head_is_known_or_not(
    client: HttpClient, known: bool
) -> None:
    answer = ok(b"abc" * 10)
    if known:
        async with served(answer) as server:
            assert await post(client, server.target, b"x") == b"abc" * 10
    async with served(answer, pause_s=0.0001) as server:
        for _ in range(2):
            assert await post(client, server.target, b"x") == b"abc" * 10
        assert server.connections == 1


@pytest.mark.parametrize("known", [False, True])
async def test_more_than_was_asked_for_ends_the_connection_and_answers_nothing_else(
    client: HttpClient, known: bool
) -> None:
    answers = [ok(b"abc"), ok(b"abc") + ok(b"xyz"), ok(b"def")]
    async with served(*answers[not known :]) as server:
        if known:
            assert await post(client, server.target, b"x") == b"abc"
        assert await post(client, server.target, b"x") == b"abc"
        assert await post(client, server.target, b"x") == b"def"
        assert server.connections == 2


async def test_a_request_that_was_given_up_does_not_get_the_answer_of_another(client: HttpClient) -> None:
    async with served(ok(b"a"), pause_s=0.2) as server:
        with pytest.raises(CallTimedOut):
            await post(client, server.target, b"x")
    async with served(ok(b"b")) as server:
        assert await post(client, server.target, b"y") == b"b"


async def test_a_connection_that_is_as_old_as_pool_ttl_is_not_used() -> None:
    client = HttpClient(AsyncTransport(pool_ttl_ms=1))
    async with served(ok(b"")) as server:
        await post(client, server.target, b"x")
        await asyncio.sleep(0.01)
        await post(client, server.target, b"x")
        assert server.connections == 2
    await client.close()
