"""HTTP to a service of functions, through aiohttp: TLS, Unix sockets, redirects, compression.

One request is one attempt. Trying again is the core's: it knows the batch, its address and how
long it has failed. Only a kept connection that turns out to be closed is replaced here, once:
services close idle connections when they like, and that says nothing of them.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from yarl import URL

from statefun_ray.io.remote.answers import check_head
from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.target import Target
from statefun_ray.module.model import AsyncTransport, OkHttpTransport, Transport
from statefun_sdk.errors import UserValueError

ANSWER_BYTES_MAX: Final = 33_554_432
"""Of a response over okhttp, which has no limit of its own in StateFun."""

OKHTTP_CONNECTIONS: Final = 1_024

HEADERS: Final = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE, "User-Agent": "statefun"}


class Request(Protocol):
    """One request, and who is called back at its end: once, and not before `Client.start` has returned."""

    target: Target
    """Where to."""
    body: bytes
    """A ``ToFunction``."""
    function_type: str
    """That it is for; requests for functions that allow it may travel together."""
    is_alone: bool
    """Whether it must not travel with others, who would have to wait for it: the one before it failed."""

    def answered(self, answer: bytes) -> None:
        """The service has answered with a success, and this body."""

    def failed(self, error: Exception) -> None:
        """There is no such answer.

        ``ServiceUnavailable``: nobody is there, or says that it cannot answer now. ``CallTimedOut``:
        no answer within the time of the transport. ``BadAnswer``: one that is no success. Anything
        else is a bug.
        """


class Client(Protocol):
    """Makes requests to one service."""

    def start(self, request: Request) -> None:
        """Make a request."""

    async def close(self) -> None:
        """Close all connections; requests that are not answered yet are forgotten."""


class AiohttpClient:
    """The client that can do everything."""

    def __init__(self, transport: Transport) -> None:
        """Read certificates; nothing is connected.

        Raises:
            UserValueError: a certificate or key cannot be read.
        """
        self._transport = transport
        self._ssl = tls_context(transport)
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if isinstance(transport, AsyncTransport):
            self._bytes_max = transport.payload_max_bytes
            self._silence = f"did not answer within {transport.call_ms} ms"
            self._timeout = aiohttp.ClientTimeout(
                total=transport.call_ms / 1000, connect=transport.connect_ms / 1000
            )
        else:
            self._bytes_max = ANSWER_BYTES_MAX
            self._silence = f"sent nothing for {transport.read_ms} ms, the read time-out of its transport"
            self._timeout = aiohttp.ClientTimeout(
                total=transport.call_ms / 1000,
                sock_connect=transport.connect_ms / 1000,
                sock_read=transport.read_ms / 1000,
            )

    def start(self, request: Request) -> None:
        """See `Client.start`."""
        task = asyncio.get_running_loop().create_task(self._run(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, request: Request) -> None:
        try:
            answer = await self._answer(request.target, request.body)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            request.failed(error)
        else:
            request.answered(answer)

    async def _answer(self, target: Target, body: bytes) -> bytes:
        try:
            return await self._attempt(target, body)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            pass  # a kept connection that the service has closed meanwhile, perhaps
        try:
            return await self._attempt(target, body)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError) as error:
            raise ServiceUnavailable(
                f"{target.url}: the connection broke before an answer: {error}"
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def _attempt(self, target: Target, body: bytes) -> bytes:
        is_okhttp = isinstance(self._transport, OkHttpTransport)
        try:
            async with self._session(target).post(
                _url(target), data=body, allow_redirects=is_okhttp, timeout=self._timeout
            ) as response:
                check_head(
                    target.url,
                    response.status,
                    response.headers.get("Content-Type", ""),
                    response.headers.get("Retry-After", ""),
                    is_case_sensitive=is_okhttp,
                    now=datetime.now(UTC),
                )
                return await self._read(target, response)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            raise
        except aiohttp.ConnectionTimeoutError as error:
            raise ServiceUnavailable(f"{target.url}: no connection in time: {error}") from None
        except aiohttp.ServerTimeoutError:
            raise CallTimedOut(f"{target.url} {self._silence}") from None
        except TimeoutError:
            raise CallTimedOut(f"{target.url} did not answer within {self._transport.call_ms} ms") from None
        except aiohttp.ClientPayloadError as error:
            raise BadAnswer(f"{target.url}: the answer broke off: {error}") from None
        except aiohttp.ClientConnectionError as error:
            raise ServiceUnavailable(f"{target.url}: {_reason(error)}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise BadAnswer(f"{target.url}: no answer that is HTTP: {_reason(error)}") from None

    async def _read(self, target: Target, response: aiohttp.ClientResponse) -> bytes:
        length = response.content_length
        if length is not None and length > self._bytes_max:
            raise too_large(target, self._bytes_max)
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._bytes_max:
                raise too_large(target, self._bytes_max)
            chunks.append(chunk)
        return b"".join(chunks)

    def _session(self, target: Target) -> aiohttp.ClientSession:
        session = self._sessions.get(target.socket)
        if session is None:
            session = self._sessions[target.socket] = aiohttp.ClientSession(
                connector=self._connector(target.socket), headers=HEADERS, cookie_jar=aiohttp.DummyCookieJar()
            )
        return session

    def _connector(self, socket: str) -> aiohttp.BaseConnector:
        transport = self._transport
        if isinstance(transport, AsyncTransport):
            limit, keep_s = transport.pool_size, transport.pool_ttl_ms / 1000 or 86_400.0
        else:
            limit, keep_s = OKHTTP_CONNECTIONS, 60.0
        if socket:
            return aiohttp.UnixConnector(socket, limit=limit, keepalive_timeout=keep_s)
        return aiohttp.TCPConnector(limit=limit, keepalive_timeout=keep_s, ssl=self._ssl)


def too_large(target: Target, bytes_max: int) -> BadAnswer:
    """Return what is said of an answer that is larger than the transport allows."""
    return BadAnswer(
        f"{target.url} answered more than {bytes_max} bytes; answer less, or raise payload_max_bytes of its transport"
    )


def tls_context(transport: Transport) -> ssl.SSLContext | bool:
    """Return how to speak TLS: True for the usual way.

    Raises:
        UserValueError: a certificate or key cannot be read.
    """
    if not isinstance(transport, AsyncTransport) or not (transport.trust_cacerts or transport.client_cert):
        return True
    try:
        context = ssl.create_default_context(cafile=_path(transport.trust_cacerts) or None)
        if transport.client_cert:
            password = None
            if transport.client_key_password:
                # As it is: StateFun does not cut off a line break either.
                password = Path(_path(transport.client_key_password)).read_bytes()
            context.load_cert_chain(_path(transport.client_cert), _path(transport.client_key), password)
    except (OSError, ssl.SSLError) as error:
        raise UserValueError(
            f"the certificates of a transport cannot be used: trust_cacerts {transport.trust_cacerts!r}, client_cert "
            f"{transport.client_cert!r}, client_key {transport.client_key!r}: {error}"
        ) from None
    return context


def _path(location: str) -> str:
    """Return the file that a location names: a plain path, or a file: URL."""
    return location.removeprefix("file://").removeprefix("file:")


def _url(target: Target) -> URL:
    if target.socket:
        return URL(f"{target.scheme}://localhost{target.path}", encoded=True)
    return URL(target.url, encoded=True)


def _reason(error: BaseException) -> str:
    text = str(error)
    return text if text else type(error).__name__
