"""One address, or one endpoint, that is wrong: all others never notice, and it ends as documented."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from cryptography import x509

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import AsyncTransport, Endpoint, Module
from tests.remote.gateway import HEAD, Talk, gateway
from tests.remote.test_end_to_end import functions, module
from tests.unit.statefun_ray.io.remote.test_manners import Certificates

REPLY_S_MAX = 2.0
"""Until another address of the endpoint has its reply."""

CALL_MS = 3_000
"""Longer, so that no time-out of the bad address lets others go on."""


def writes(answer: bytes) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return talk


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drips(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def never_ends(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        await writer.drain()


async def closes(_writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("talk", "error"),
    [
        pytest.param(writes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"), "answered 500", id="500"),
        pytest.param(hangs, f"did not answer within {CALL_MS} ms", id="hang"),
        pytest.param(drips, f"did not answer within {CALL_MS} ms", id="drip"),
        pytest.param(
            writes(HEAD + b"content-length: 3\r\n\r\n\xff\xff\xff"), "no FromFunction", id="garbage"
        ),
        pytest.param(writes(b"what is this?\r\n\r\n"), "no answer that is HTTP", id="not HTTP"),
        pytest.param(writes(HEAD + b"content-length: 99\r\n\r\nhalf"), "broke off", id="half a response"),
        pytest.param(never_ends, "more than 100000 bytes", id="without end"),
        pytest.param(
            writes(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n"),
            "content type 'text/html'",
            id="wrong content type",
        ),
        pytest.param(
            writes(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
            "answered 302",
            id="redirect",
        ),
        pytest.param(closes, "broke before an answer", id="connection close"),
        pytest.param(
            writes(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"), "answered 502", id="502"
        ),
        pytest.param(
            writes(b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
            "answered 503",
            id="503",
        ),
    ],
)
def test_others_of_its_endpoint_get_their_replies_and_it_becomes_a_dead_letter(
    talk: Talk, error: str
) -> None:
    patient = AsyncTransport(call_ms=CALL_MS, payload_max_bytes=100_000)
    with (
        gateway(functions, talk) as service,
        LocalApplication(
            module=module(service.url, transport=patient), workers=1, worker={"retry_deadline_ms": 0}
        ) as app,
    ):
        assert app.ask("shop/counter", "ada", "1") == 1
        app.send("shop/counter", "poison", "x")
        slowest_s, number = 0.0, 0
        deadline_s = time.monotonic() + 30
        while app.status()["dead_letters"] == 0:
            assert time.monotonic() < deadline_s, app.status()
            before_s = time.monotonic()
            assert app.ask("shop/counter", f"id{number}", "1") == 1
            slowest_s = max(slowest_s, time.monotonic() - before_s)
            number += 1
        assert slowest_s < REPLY_S_MAX
        [letter] = app.client.dead_letters()["dead_letters"]
        assert (letter["function"], letter["id"]) == ("shop/counter", "poison")
        assert error in letter["error"]
        assert app.ask("shop/counter", "ada", "2", wait_s=REPLY_S_MAX) == 2


@pytest.mark.slow
def test_others_go_on_while_one_address_is_asked_to_come_much_later() -> None:
    later = writes(b"HTTP/1.1 429 Later\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")
    with (
        gateway(functions, later) as service,
        LocalApplication(module=module(service.url), workers=1) as app,
    ):
        app.send("shop/counter", "poison", "x")
        app.wait_until(lambda: "poison" in service.requests)
        for number in range(20):
            assert app.ask("shop/counter", f"id{number}", "1", wait_s=REPLY_S_MAX) == 1
        assert service.requests.count("poison") == 1
        app.wait_until(lambda: app.status()["backlog"] == 1)


@pytest.mark.slow
def test_a_hot_address_whose_service_hangs_stops_the_sources_for_a_moment_only() -> None:
    with gateway(functions, hangs, id="hot") as hanging, gateway(functions) as other:
        described = Module(
            endpoints=(
                Endpoint("shop/*", hanging.url, 5, AsyncTransport(call_ms=60_000)),
                Endpoint("other/echo", other.url),
            )
        )
        # A narrow window, as a source of many events would have used up any.
        with LocalApplication(module=described, workers=1, worker={"feed_window": 8}) as app:
            assert app.ask("other/echo", "ada", "1") == "1"
            for number in range(30):
                app.send("shop/counter", "hot", str(number))
            for number in range(20):
                assert app.ask("other/echo", "ada", str(number), wait_s=REPLY_S_MAX) == str(number)
            assert set(hanging.requests) == {"hot"}


def goes_on_beside(wrong: Endpoint, cause: str) -> None:
    """Check that an endpoint works while another one does not, and that its messages wait."""
    with gateway(functions) as right:
        described = Module(endpoints=(wrong, Endpoint("other/echo", right.url)))
        with LocalApplication(module=described, workers=1, worker={"retry_deadline_ms": 0}) as app:
            for number in range(5):
                app.send("shop/counter", f"id{number}", "x")
            app.wait_until(lambda: cause in app.status()["workers"][0]["trouble"])
            for number in range(20):
                assert app.ask("other/echo", "ada", str(number), wait_s=REPLY_S_MAX) == str(number)
            assert app.status()["dead_letters"] == 0
            assert app.status()["backlog"] == 5, "nothing is lost, nobody is blamed"


def test_a_host_that_does_not_exist_is_nobodys_fault_and_delays_no_other_endpoint() -> None:
    goes_on_beside(Endpoint("shop/*", "http://does-not-exist.invalid/x"), "does-not-exist.invalid")


def test_a_certificate_for_another_host_is_not_trusted_and_delays_no_other_endpoint(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path, x509.DNSName("elsewhere.example"))
    trusting = AsyncTransport(trust_cacerts=str(certificates.authority))
    with gateway(functions, tls=certificates.of_service(mutual=False)) as service:
        wrong = Endpoint("shop/*", f"https://127.0.0.1:{service.port}", transport=trusting)
        goes_on_beside(wrong, "certificate is not valid for '127.0.0.1'")
        assert service.requests == []
