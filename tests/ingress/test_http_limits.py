"""What a hostile or broken client may not do: be slow, be large, be ambiguous."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.ingress.conftest import Ingress, Start


async def exchange(ingress: Ingress, data: bytes, *, more: bytes = b"", every_s: float = 0.0) -> list[bytes]:
    """Send ``data``, then ``more`` again and again; return the answers until the connection ends."""
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(data)

    async def drip() -> None:
        while more:
            await asyncio.sleep(every_s)
            writer.write(more)

    dripping = asyncio.create_task(drip())
    received = b""
    try:
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                received += data
    except ConnectionError:
        pass  # the server closed while we were still sending; what it said before counts
    finally:
        dripping.cancel()
        writer.close()
    return [b"HTTP/1.1 " + part for part in received.split(b"HTTP/1.1 ")[1:]]


def detail(answer: bytes, status: int) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split(b" ")[1]) == status, answer
    assert b"application/problem+json" in head
    return str(json.loads(body)["detail"])


HEAD = b"PUT /v1/functions/n/any/k HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


async def test_slow_headers_are_cut_off(start: Start) -> None:
    ingress = await start(header_timeout_s=0.3)

    (answer,) = await exchange(ingress, HEAD, more=b"x: y\r\n", every_s=0.05)

    assert "headers were not complete after 0.3 s" in detail(answer, 408)


async def test_a_connection_that_says_nothing_is_closed(start: Start) -> None:
    ingress = await start(header_timeout_s=0.2)

    answers = await exchange(ingress, b"")

    assert len(answers) == 1


async def test_a_slow_body_is_cut_off_and_nothing_is_appended(start: Start) -> None:
    ingress = await start(body_timeout_s=0.3)

    (answer,) = await exchange(ingress, HEAD + b"content-length: 100\r\n\r\n", more=b" ", every_s=0.05)

    assert "body was not complete 0.3 s after the headers" in detail(answer, 408)
    assert ingress.service.core.log.end_seq == 0
    assert (await ingress.put("n/any/k")).status_code == 202


@pytest.mark.slow
async def test_an_idle_connection_between_requests_is_not_cut_off(start: Start) -> None:
    ingress = await start(header_timeout_s=0.2, body_timeout_s=0.2)
    reader, writer = await asyncio.open_connection(*ingress.address)
    for _ in range(2):
        writer.write(HEAD + b"content-length: 1\r\n\r\n1")
        assert b"202" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}")
        await asyncio.sleep(0.5)  # the time itself is what is tested
    writer.close()


@pytest.mark.slow
async def test_a_request_that_waits_for_its_reply_is_not_cut_off(start: Start) -> None:
    ingress = await start(header_timeout_s=0.2, body_timeout_s=0.2)

    assert (await ingress.put("n/any/k", prefer="wait=0.6")).status_code == 202


async def test_large_headers_are_refused_whatever_their_form(
    ingress: Ingress, subtests: pytest.Subtests
) -> None:
    end = b"content-length: 1\r\n\r\n1"
    forms = {
        "one": HEAD + b"x: " + b"y" * 70_000 + b"\r\n" + end,
        "many": HEAD + b"x: y\r\n" * 12_000 + end,
        "path": b"PUT /v1/functions/n/any/" + b"k" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n" + end,
    }
    for name, data in forms.items():
        with subtests.test(form=name):
            (answer,) = await exchange(ingress, data)
            assert "more than 65536 bytes; send" in detail(answer, 431)
    with subtests.test(form="one that never ends"):
        (answer,) = await exchange(ingress, HEAD + b"x: ", more=b"y" * 30_000, every_s=0.01)
        assert "more than 65536 bytes; send" in detail(answer, 431)
    assert ingress.service.core.log.end_seq == 0


async def test_a_longer_url_than_can_be_parsed_is_refused_as_that(start: Start) -> None:
    ingress = await start(header_bytes_max=1 << 20)
    (answer,) = await exchange(
        ingress, b"PUT /v1/functions/n/any/" + b"k" * 70_000 + b" HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
    )
    assert "at most 65535 can be parsed; send an event with a long id as a line of POST" in detail(
        answer, 414
    )


async def test_an_ambiguous_end_of_the_body_is_refused(ingress: Ingress, subtests: pytest.Subtests) -> None:
    smuggled = b"PUT /v1/functions/n/any/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    forms = {
        "length and chunked": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunked and length": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        "the same length twice": b"content-length: 5\r\ncontent-length: 5\r\n\r\n12345",
        "two encodings": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "an unknown encoding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "a length with a sign": b"content-length: +5\r\n\r\n12345",
        "a space before the colon": b"content-length : 5\r\n\r\n12345",
        "a folded header": b"x: y\r\n content-length: 5\r\n\r\n12345",
        "a bare line feed": b"content-length: 0\n\r\n",
        "a bad chunk size": b"transfer-encoding: chunked\r\n\r\nxyz\r\n\r\n",
    }
    for name, rest in forms.items():
        with subtests.test(form=name):
            answers = await exchange(ingress, HEAD + rest + smuggled)
            assert len(answers) == 1, answers
            detail(answers[0], 400)
    assert ingress.service.core.log.end_seq == 0


async def test_what_is_not_http_is_refused_as_a_problem(ingress: Ingress) -> None:
    (answer,) = await exchange(
        ingress, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n"
    )

    assert "cannot be parsed as HTTP/1.1" in detail(answer, 400)


async def test_connections_are_bounded(start: Start) -> None:
    ingress = await start(connections_max=2)
    first = await asyncio.open_connection(*ingress.address)
    second = await asyncio.open_connection(*ingress.address)

    (answer,) = await exchange(ingress, b"")

    assert "2 connections are open" in detail(answer, 503)
    for _, writer in (first, second):
        writer.close()


async def test_pipelined_requests_are_answered_in_order(ingress: Ingress) -> None:
    one = HEAD + b"content-length: 1\r\n\r\n1"
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(one * 5)

    received = b""
    while received.count(b"sequence") < 5:
        received += await asyncio.wait_for(reader.read(65536), 10)

    assert [
        json.loads(part.split(b"\r\n\r\n")[1])["sequence"] for part in received.split(b"HTTP/1.1 ")[1:]
    ] == [
        0,
        1,
        2,
        3,
        4,
    ]
    writer.close()


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(ingress: Ingress) -> None:
    _, writer = await asyncio.open_connection(*ingress.address)
    writer.write(HEAD + b"content-length: 10\r\n\r\n12345")
    await writer.drain()
    writer.close()

    assert (await ingress.put("n/any/k")).json()["sequence"] == 0


async def test_a_continue_is_sent_before_the_body(ingress: Ingress) -> None:
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\n")

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"1")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202")
    writer.close()
