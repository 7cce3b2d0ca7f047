"""What a transport says is done: certificates, Unix sockets, time-outs, kept connections."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from statefun_ray.io.remote import manners
from statefun_ray.io.remote.errors import CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.target import target_of
from statefun_ray.module.model import AsyncTransport, Endpoint, OkHttpTransport, Transport
from statefun_sdk.errors import UserValueError
from tests.unit.statefun_ray.io.remote.posting import post
from tests.unit.statefun_ray.io.remote.raw_server import ok
from tests.unit.statefun_ray.io.remote.raw_server import served as served_raw

OCTETS = "application/octet-stream"
PASSWORD = b"secret\n"
LOCALHOST = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@asynccontextmanager
async def served(*, tls: ssl.SSLContext | None = None, socket: Path | None = None) -> AsyncIterator[str]:
    """Run a service that answers with what it was sent; yield its URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path == "/slow":
            await asyncio.sleep(1)
        return web.Response(body=body + request.raw_path.encode(), content_type=OCTETS)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    if socket is not None:
        await web.UnixSite(runner, str(socket)).start()
        yield f"http+unix://{socket}"
    else:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        [(_, port)] = runner.addresses
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    await runner.cleanup()


async def posted(url: str, transport: Transport, body: bytes = b"x") -> bytes:
    client = HttpClient(transport)
    try:
        return await post(client, target_of(Endpoint("ns/*", url, transport=transport), "ns/f"), body)
    finally:
        await client.close()
        await asyncio.sleep(0)


class Certificates:
    """An authority, and a certificate that it has signed for both sides."""

    def __init__(self, place: Path, host: x509.GeneralName = LOCALHOST) -> None:
        """``host`` is whom the certificate names."""
        self._host = host
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority = self._sign(
            "authority", authority_key.public_key(), "authority", authority_key, is_ca=True
        )
        certificate = self._sign("service", key.public_key(), "authority", authority_key, is_ca=False)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self.authority, self.certificate = place / "ca.pem", place / "cert.pem"
        self.key, self.locked_key, self.password = place / "key.pem", place / "locked.pem", place / "password"
        self.authority.write_bytes(authority.public_bytes(pem))
        self.certificate.write_bytes(certificate.public_bytes(pem))
        self.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        self.locked_key.write_bytes(
            key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(PASSWORD))
        )
        self.password.write_bytes(PASSWORD)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        is_ca: bool,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([self._host]),
                critical=False,
            )
            .sign(issuer_key, hashes.SHA256())
        )

    def of_service(self, *, mutual: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_a_service_is_trusted_by_its_authority(certificates: Certificates) -> None:
    async with served(tls=certificates.of_service(mutual=False)) as url:
        trusting = AsyncTransport(trust_cacerts=str(certificates.authority))
        assert await posted(url + "/fn", trusting) == b"x/fn"
        assert (
            await posted(url + "/fn", AsyncTransport(trust_cacerts=f"file://{certificates.authority}"))
            == b"x/fn"
        )
        with pytest.raises(ServiceUnavailable, match="certificate"):
            await posted(url + "/fn", AsyncTransport())


async def test_requests_over_tls_share_a_connection_and_may_be_large(certificates: Certificates) -> None:
    heard: set[object] = set()

    async def answer(request: web.Request) -> web.Response:
        heard.add(request.transport)
        return web.Response(body=await request.read(), content_type=OCTETS)

    application = web.Application(client_max_size=10_000_000)
    application.router.add_post("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.of_service(mutual=False)).start()
    [(_, port)] = runner.addresses
    transport = AsyncTransport(trust_cacerts=str(certificates.authority))
    client = HttpClient(transport)
    target = target_of(Endpoint("ns/*", f"https://127.0.0.1:{port}/", transport=transport), "ns/f")
    for size in (1, 100, 3_000_000, 5):
        assert await post(client, target, b"x" * size) == b"x" * size
    assert len(heard) == 1
    await client.close()
    await runner.cleanup()


async def test_a_client_shows_its_certificate_with_a_key_behind_a_password(
    certificates: Certificates,
) -> None:
    async with served(tls=certificates.of_service(mutual=True)) as url:
        transport = AsyncTransport(
            trust_cacerts=str(certificates.authority),
            client_cert=str(certificates.certificate),
            client_key=str(certificates.locked_key),
            client_key_password=str(certificates.password),
        )
        assert await posted(url + "/fn", transport) == b"x/fn"
        with pytest.raises(ServiceUnavailable):
            await posted(url + "/fn", AsyncTransport(trust_cacerts=str(certificates.authority)))


def test_certificates_that_cannot_be_read(certificates: Certificates) -> None:
    with pytest.raises(UserValueError, match="trust_cacerts '/not/there'"):
        HttpClient(AsyncTransport(trust_cacerts="/not/there"))
    certificates.password.write_bytes(b"wrong")
    with pytest.raises(UserValueError, match="certificates"):
        HttpClient(
            AsyncTransport(
                client_cert=str(certificates.certificate),
                client_key=str(certificates.locked_key),
                client_key_password=str(certificates.password),
            )
        )


async def test_a_unix_socket_gets_its_path_as_one_segment(tmp_path: Path) -> None:
    async with served(socket=tmp_path / "f.sock") as url:
        assert await posted(url + "/path/of/url", OkHttpTransport()) == b"x/%2Fpath%2Fof%2Furl"
        assert await posted(url, OkHttpTransport()) == b"x/%2F"
    with pytest.raises(ServiceUnavailable):
        await posted(f"http+unix://{tmp_path}/gone.sock/x", OkHttpTransport())


async def test_connections_to_a_unix_socket_are_kept(tmp_path: Path) -> None:
    client = HttpClient(OkHttpTransport())
    async with served_raw(ok(b"a"), socket=tmp_path / "f.sock") as server:
        for _ in range(3):
            assert await post(client, server.target, b"x") == b"a"
        assert server.connections == 1
        assert b"\r\nHost: localhost\r\n" in server.requests[0]
    await client.close()


async def test_okhttp_waits_for_a_byte_no_longer_than_it_may() -> None:
    async with served() as url:
        with pytest.raises(CallTimedOut, match="sent nothing for 50 ms, the read time-out"):
            await posted(url + "/slow", OkHttpTransport(read_ms=50))
        with pytest.raises(CallTimedOut, match="did not answer within 60 ms"):
            await posted(url + "/slow", OkHttpTransport(call_ms=60))


LENIENT = OkHttpTransport(call_ms=5_000, connect_ms=5_000, read_ms=5_000, write_ms=5_000)


async def test_okhttp_gives_up_an_answer_that_pauses_for_longer_than_read() -> None:
    async with served_raw(ok(b"x" * 100), pause_s=0.2) as server:
        with pytest.raises(CallTimedOut, match="sent nothing for 50 ms, the read time-out"):
            await posted(server.url + "/fn", replace(LENIENT, read_ms=50))


@pytest.mark.slow
async def test_okhttp_takes_an_answer_that_drips_for_longer_than_read_and_no_longer_than_call() -> None:
    async with served_raw(ok(b"x" * 100), pause_s=0.06) as server:
        assert await posted(server.url + "/fn", replace(LENIENT, read_ms=1_000)) == b"x" * 100
        with pytest.raises(CallTimedOut, match="did not answer within 300 ms"):
            await posted(server.url + "/fn", replace(LENIENT, read_ms=1_000, call_ms=300))


@asynccontextmanager
async def reading(bytes_each: int, pause_s: float) -> AsyncIterator[str]:
    """Read requests so slowly, and answer one that has been read; yield the URL."""
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while left:
                await asyncio.sleep(pause_s)
                left -= len(await reader.readexactly(min(left, bytes_each)))
            writer.write(ok(b"a"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it was given up
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/fn"
    listening.close()
    for writer in writers:
        writer.close()
    await asyncio.sleep(0)


LARGE = b"x" * 20_000_000


async def test_okhttp_gives_up_a_request_of_which_nothing_is_taken_for_longer_than_write() -> None:
    async with reading(100, pause_s=1) as url:
        with pytest.raises(CallTimedOut, match="took nothing of a request for 60 ms, the write time-out"):
            await posted(url, replace(LENIENT, write_ms=60), LARGE)


@pytest.mark.slow
async def test_a_request_that_is_taken_slowly_runs_into_neither_write_nor_read() -> None:
    async with reading(500_000, pause_s=0.04) as url:
        assert await posted(url, replace(LENIENT, read_ms=1_000, write_ms=1_000), LARGE) == b"a"


async def test_okhttp_keeps_connections_by_when_they_were_last_used(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, passed_s = asyncio.get_running_loop(), 0.0
    real_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: real_time() + passed_s)
    idle_s = manners.OKHTTP_IDLE_MS / 1000
    client = HttpClient(OkHttpTransport())
    async with served_raw(ok(b"a")) as server:
        for _ in range(5):
            await post(client, server.target, b"x")
            passed_s += idle_s / 2
        assert server.connections == 1
        passed_s += idle_s
        await post(client, server.target, b"x")
        assert server.connections == 2
    await client.close()


@pytest.mark.slow
async def test_connections_that_are_no_longer_needed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manners, "OKHTTP_IDLE_MS", 100)
    client = HttpClient(OkHttpTransport())
    async with served_raw(ok(b"a"), wait_s=0.01) as server:
        await asyncio.gather(*(post(client, server.target, b"x") for _ in range(5)))
        assert server.open == 5
        while server.open > 1:
            await post(client, server.target, b"x")
        assert server.connections == 5
    await client.close()
