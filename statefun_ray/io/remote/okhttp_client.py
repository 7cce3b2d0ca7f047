"""HTTP to a service as OkHttp does it, through aiohttp: Unix sockets, redirects, compressed answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import aiohttp
from yarl import URL

from statefun_ray.io.remote.answers import check_head
from statefun_ray.io.remote.client import Request, too_large
from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.resolver import Resolver
from statefun_ray.io.remote.target import Target
from statefun_ray.module.model import OkHttpTransport

ANSWER_BYTES_MAX: Final = 33_554_432
"""Of a response; in StateFun this transport has no limit of its own."""

CONNECTIONS: Final = 1_024
KEEP_S: Final = 60.0
"""How long an idle connection is kept."""

HEADERS: Final = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE, "User-Agent": "statefun"}


class OkHttpClient:
    """The client of endpoints with that transport."""

    def __init__(self, transport: OkHttpTransport) -> None:
        self._transport = transport
        self._timeout = aiohttp.ClientTimeout(
            total=transport.call_ms / 1000,
            sock_connect=transport.connect_ms / 1000,
            sock_read=transport.read_ms / 1000,
        )
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver = Resolver()

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
        await self._resolver.close()

    async def _attempt(self, target: Target, body: bytes) -> bytes:
        try:
            async with self._session(target).post(_url(target), data=body, timeout=self._timeout) as response:
                check_head(
                    target.url,
                    response.status,
                    response.headers.get("Content-Type", ""),
                    response.headers.get("Retry-After", ""),
                    is_case_sensitive=True,
                    now=datetime.now(UTC),
                )
                return await self._read(target, response)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            raise
        except aiohttp.ConnectionTimeoutError as error:
            raise ServiceUnavailable(f"{target.url}: no connection in time: {error}") from None
        except aiohttp.ServerTimeoutError:
            raise CallTimedOut(
                f"{target.url} sent nothing for {self._transport.read_ms} ms, the read time-out of its transport"
            ) from None
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
        if length is not None and length > ANSWER_BYTES_MAX:
            raise too_large(target, ANSWER_BYTES_MAX)
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise too_large(target, ANSWER_BYTES_MAX)
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
        if socket:
            return aiohttp.UnixConnector(socket, limit=CONNECTIONS, keepalive_timeout=KEEP_S)
        return aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_S, resolver=self._resolver)


def _url(target: Target) -> URL:
    if target.socket:
        return URL(f"{target.scheme}://localhost{target.path}", encoded=True)
    return URL(target.url, encoded=True)


def _reason(error: BaseException) -> str:
    text = str(error)
    return text if text else type(error).__name__
