"""Redirects: followed with okhttp, to wherever they lead, and not for ever."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.redirects import REDIRECTS_MAX
from statefun_ray.module.model import AsyncTransport, OkHttpTransport
from tests.unit.statefun_ray.io.remote.posting import post
from tests.unit.statefun_ray.io.remote.raw_server import ok, served, target_at
from tests.unit.statefun_ray.io.remote.test_manners import Certificates


def moved(location: str, status: int = 307) -> bytes:
    """Return an answer that redirects."""
    return f"HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 3\r\n\r\nbye".encode()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(OkHttpTransport(call_ms=5_000, connect_ms=5_000, read_ms=5_000, write_ms=5_000))
    yield made
    await made.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("status", [307, 308])
async def test_the_same_request_is_made_again(client: HttpClient, status: int) -> None:
    async with served(moved("/there", status), ok(b"abc")) as server:
        assert await post(client, server.target, b"body") == b"abc"
        assert server.lines == ["POST /fn?x=1", "POST /there"]
        assert server.requests[1].endswith(b"\r\nContent-Length: 4\r\n\r\nbody")
        assert server.connections == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303])
async def test_a_get_without_a_body_follows_most_redirects(client: HttpClient, status: int) -> None:
    async with served(moved("/there", status), ok(b"abc")) as server:
        assert await post(client, server.target, b"body") == b"abc"
        assert server.lines == ["POST /fn?x=1", "GET /there"]
        assert server.requests[1].endswith(b"\r\n\r\n")
        assert b"content-" not in server.requests[1].lower()
        assert server.connections == 1


async def test_a_get_that_is_redirected_stays_one(client: HttpClient) -> None:
    async with served(moved("/1", 303), moved("/2", 307), ok(b"abc")) as server:
        assert await post(client, server.target, b"body") == b"abc"
        assert server.lines[1:] == ["GET /1", "GET /2"]


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("other?y=2#part", "/other?y=2"),
        ("?y=2", "/fn?y=2"),
        ("./a/../b", "/b"),
        ("/ä b", "/%C3%A4%20b"),
        ("/%7Euser", "/%7Euser"),
    ],
)
async def test_where_a_redirect_leads_may_be_relative_and_not_quite_a_url(
    client: HttpClient, location: str, path: str
) -> None:
    async with served(moved(location), ok(b"abc")) as server:
        assert await post(client, server.target, b"x") == b"abc"
        assert server.lines[1] == f"POST {path}"


@pytest.mark.parametrize("form", ["http://{}/there", "//{}/there"])
async def test_another_port_has_connections_of_its_own(client: HttpClient, form: str) -> None:
    async with served(ok(b"abc")) as there, served(moved(form.format(there.target.authority))) as here:
        for _ in range(3):
            assert await post(client, here.target, b"x") == b"abc"
        assert (here.connections, there.connections) == (1, 1)
        assert f"\r\nHost: {there.target.authority}\r\n".encode() in there.requests[0]


async def test_a_redirect_may_lead_to_tls_and_back(
    client: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    tls = certificates.of_service(mutual=False)
    async with (
        served(ok(b"abc")) as last,
        served(moved(last.url), tls=tls) as middle,
        served(moved(middle.url)) as first,
    ):
        assert await post(client, first.target, b"x") == b"abc"


async def test_a_loop_ends(client: HttpClient) -> None:
    async with served(moved("/fn?x=1")) as server:
        with pytest.raises(BadAnswer, match="redirects once more, and 20 times in a row are enough"):
            await post(client, server.target, b"x")
        assert len(server.requests) == REDIRECTS_MAX + 1


async def test_a_chain_may_be_as_long_as_it_may_be(client: HttpClient) -> None:
    async with served(*(moved(f"/{n}") for n in range(REDIRECTS_MAX)), ok(b"abc")) as server:
        assert await post(client, server.target, b"x") == b"abc"
        assert server.connections == 1


async def test_a_chain_takes_no_longer_than_one_request_may() -> None:
    client = HttpClient(OkHttpTransport(call_ms=200, connect_ms=200, read_ms=200, write_ms=200))
    async with served(moved("/fn"), wait_s=0.06) as server:
        with pytest.raises(CallTimedOut, match=r"redirected from .*did not answer within 200 ms"):
            await post(client, server.target, b"x")
        assert 1 < len(server.requests) < 5
    await client.close()


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http+unix:///run/f.sock/fn", "must begin with http"),
        ("https+unix:///run/f.sock/fn", "must begin with http"),
        ("unix:///run/f.sock", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("ftp://h/x", "must begin with http"),
        ("https:///x", "must begin with http"),
        ("http://[::1", "not valid"),
        ("http://h:99999/", "not valid"),
    ],
)
async def test_what_leads_nowhere_that_is_spoken_to_is_no_result(
    client: HttpClient, location: str, problem: str
) -> None:
    async with served(moved(location)) as server:
        with pytest.raises(BadAnswer, match=f"answered 307, and where it redirects to, .*{problem}") as bad:
            await post(client, server.target, b"x")
        assert bad.value.is_final
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_that_does_not_say_where_to_is_no_result(client: HttpClient, status: int) -> None:
    answer = b"HTTP/1.1 %d Moved\r\ncontent-length: 0\r\n\r\n" % status
    async with served(answer) as server:
        with pytest.raises(BadAnswer, match=f"answered {status}"):
            await post(client, server.target, b"x")


async def test_other_statuses_below_400_lead_nowhere(client: HttpClient) -> None:
    async with served(moved("/there", 305)) as server:
        with pytest.raises(BadAnswer, match="answered 305"):
            await post(client, server.target, b"x")


async def test_the_async_transport_takes_a_redirect_for_the_answer() -> None:
    client = HttpClient(AsyncTransport())
    async with served(moved("/there"), ok(b"abc")) as server:
        with pytest.raises(BadAnswer, match="answered 307"):
            await post(client, server.target, b"x")
        assert len(server.requests) == 1
    await client.close()


@pytest.mark.parametrize("location", ["/there", "http://elsewhere.invalid/there"])
async def test_from_a_unix_socket_a_redirect_leads_to_the_same_one(
    client: HttpClient, tmp_path: Path, location: str
) -> None:
    async with served(moved(location), ok(b"abc"), socket=tmp_path / "f.sock") as server:
        assert await post(client, server.target, b"x") == b"abc"
        assert server.lines[1] == "POST /there"
        assert server.connections == 1


async def test_from_a_unix_socket_no_redirect_leads_to_tls(client: HttpClient, tmp_path: Path) -> None:
    async with served(moved("https://localhost/"), socket=tmp_path / "f.sock") as server:
        with pytest.raises(BadAnswer, match="TLS over a Unix socket"):
            await post(client, server.target, b"x")


async def test_what_goes_wrong_elsewhere_says_where_and_how_it_came_there(client: HttpClient) -> None:
    gone = f"http://127.0.0.1:{await _free_port()}/there"
    busy = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
    async with served(moved(gone, 302), moved("/there", 302), busy) as server:
        with pytest.raises(ServiceUnavailable) as unavailable:
            await post(client, server.target, b"x")
        assert str(unavailable.value).startswith(f"{gone} (GET, redirected from {server.target.url}): ")
        with pytest.raises(ServiceUnavailable, match="answered 503") as unavailable:
            await post(client, server.target, b"x")
        assert unavailable.value.retry_after_ms == 7_000


async def test_a_connection_that_was_kept_elsewhere_and_is_closed_is_replaced(client: HttpClient) -> None:
    async with served(ok(b"abc"), then_close=True) as there, served(moved(there.url)) as here:
        for _ in range(3):
            assert await post(client, here.target, b"x") == b"abc"
        assert here.connections == 1


async def test_a_compressed_answer_may_come_from_elsewhere(client: HttpClient) -> None:
    packed = ok(gzip.compress(b"abc"), b"content-encoding: gzip\r\n")
    async with served(moved("/there"), packed) as server:
        assert await post(client, server.target, b"x") == b"abc"
        assert b"\r\nAccept-Encoding: gzip\r\n" in server.requests[1]


async def _free_port() -> int:
    async with served(b"") as server:
        return target_at(server.url).port
