"""Plain HTTP/1.1 to a service, as thin as it gets: one connection, one request at a time, no more.

Over half of what aiohttp does for a request is of no use here. This client knows one kind of
request and one kind of answer; parsing is httptools', as in uvicorn. Whatever needs more, TLS,
Unix sockets, redirects, compressed answers, goes through `client.AiohttpClient`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, cast

import httptools

from statefun_ray.io.remote.answers import check_head
from statefun_ray.io.remote.client import too_large
from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, ServiceUnavailable
from statefun_ray.io.remote.target import Target
from statefun_ray.module.model import AsyncTransport
from statefun_sdk import batches

JOINED_MAX: Final = 128
"""Requests that travel as one: enough that the request itself costs little."""

ALONE_S: Final = 60.0
"""After a time-out of joined requests."""

JOINED_BYTES_MAX: Final = 4 << 20

HEAD_BYTES_MAX: Final = 65_536
"""Of an answer; the parser itself would take any number."""


_BATCH_HEADER: Final = batches.HEADER.encode()


class _Broken(Exception):
    """The connection ended before the head of an answer was complete."""


class ThinClient:
    """Requests to services over plain HTTP, on connections that are kept."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._call_s = transport.call_ms / 1000
        self._connect_s = transport.connect_ms / 1000
        self._keep_s = transport.pool_ttl_ms / 1000 or float("inf")
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._heads: dict[tuple[str, str], bytes] = {}
        self._joining: set[tuple[str, str]] = set()
        """``(url, function type)`` whose service takes many requests in one."""
        self._alone_until_s: dict[str, float] = {}
        """By url: until when requests are not joined, after one that was not answered in time."""
        self._gathered: dict[str, list[tuple[bytes, str, asyncio.Future[bytes]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def post(self, target: Target, body: bytes, function_type: str = "") -> bytes:
        """See `client.Client.post`."""
        if (target.url, function_type) not in self._joining:
            answer, offers = await self._post(target, body, CONTENT_TYPE)
            if offers and asyncio.get_running_loop().time() >= self._alone_until_s.get(target.url, 0.0):
                self._joining.add((target.url, function_type))
            return answer
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        waiting = self._gathered.get(target.url)
        if waiting is None:
            waiting = self._gathered[target.url] = []
            # What else begins in this turn of the loop comes along.
            loop.call_soon(self._send_gathered, target)
        waiting.append((body, function_type, answered))
        return await answered

    def _send_gathered(self, target: Target) -> None:
        waiting = self._gathered.pop(target.url)
        while waiting:
            count, size = 0, 0
            for body, _, _ in waiting[:JOINED_MAX]:
                size += len(body)
                if count and size > JOINED_BYTES_MAX:
                    break
                count += 1
            task = asyncio.get_running_loop().create_task(self._post_joined(target, waiting[:count]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            waiting = waiting[count:]

    async def _post_joined(
        self, target: Target, items: list[tuple[bytes, str, asyncio.Future[bytes]]]
    ) -> None:
        """Send many requests as one, and give each its answer, or what went wrong with all."""
        try:
            body = batches.join_requests(item[0] for item in items)
            answer, _ = await self._post(target, body, batches.CONTENT_TYPE)
            answers = _split(target, answer, len(items))
        except CallTimedOut as error:
            # One of them, probably. Alone, each is answered for itself; and for a while, or the one would
            # hold up others again as soon as any has succeeded.
            self._alone_until_s[target.url] = asyncio.get_running_loop().time() + ALONE_S
            self._joining.difference_update((target.url, item[1]) for item in items)
            _fail(items, error)
        except BadAnswer:
            # An older version of the service, perhaps: one at a time is what everybody knows.
            self._joining.difference_update((target.url, item[1]) for item in items)
            alone = [self._settle(answered, self._post_alone(target, one)) for one, _, answered in items]
            await asyncio.gather(*alone)
        except BaseException as error:
            _fail(items, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, _, answered), (outcome, data) in zip(items, answers, strict=True):
                if answered.done():
                    continue
                if outcome == batches.DONE:
                    answered.set_result(data)
                else:
                    answered.set_exception(BadAnswer(f"{target.url}: {data.decode(errors='replace')}"))

    async def _post_alone(self, target: Target, body: bytes) -> bytes:
        answer, _ = await self._post(target, body, CONTENT_TYPE)
        return answer

    @staticmethod
    async def _settle(answered: asyncio.Future[bytes], work: Awaitable[bytes]) -> None:
        try:
            answer = await work
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer gets it
            if not answered.done():
                answered.set_exception(error)
        else:
            if not answered.done():
                answered.set_result(answer)

    async def _post(self, target: Target, body: bytes, content_type: str) -> tuple[bytes, bool]:
        """Return the answer, and whether the service takes many requests in one."""
        loop = asyncio.get_running_loop()
        connection = self._kept(target, loop.time())
        if connection is not None:
            try:
                return await self._exchange(connection, target, body, content_type, loop)
            except _Broken:
                pass  # the service had closed it: that says nothing of the service
        connection = await self._connect(target, loop)
        try:
            return await self._exchange(connection, target, body, content_type, loop)
        except _Broken as broken:
            raise ServiceUnavailable(
                f"{target.url}: the connection broke before an answer: {broken}"
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        for task in list(self._tasks):
            task.cancel()

    def _kept(self, target: Target, now_s: float) -> _Connection | None:
        idle = self._idle.get((target.host, target.port))
        while idle:
            connection = idle.pop()  # the last one used: the others may grow old
            if connection.is_open and now_s < connection.fresh_until_s:
                return connection
            connection.abort()
        return None

    async def _connect(self, target: Target, loop: asyncio.AbstractEventLoop) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_s):
                _, protocol = await loop.create_connection(
                    lambda: _Connection(self._transport.payload_max_bytes, self._open.discard),
                    target.host,
                    target.port,
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"{target.url}: no connection within {self._transport.connect_ms} ms"
            ) from None
        except OSError as error:
            raise ServiceUnavailable(f"{target.url}: {error}") from None
        protocol.fresh_until_s = loop.time() + self._keep_s
        self._open.add(protocol)
        return protocol

    async def _exchange(
        self,
        connection: _Connection,
        target: Target,
        body: bytes,
        content_type: str,
        loop: asyncio.AbstractEventLoop,
    ) -> tuple[bytes, bool]:
        answered = connection.send(self._head(target, content_type) + b"%d\r\n\r\n" % len(body), body)
        timer = loop.call_later(self._call_s, connection.time_out)
        try:
            await answered
        except BaseException as error:
            connection.abort()
            if isinstance(error, TimeoutError):
                raise CallTimedOut(
                    f"{target.url} did not answer within {self._transport.call_ms} ms"
                ) from None
            if isinstance(error, _TooLarge):
                raise too_large(target, self._transport.payload_max_bytes) from None
            if isinstance(error, _NotHttp):
                raise BadAnswer(f"{target.url}: {error}") from None
            raise
        finally:
            timer.cancel()
        if connection.is_reusable:
            self._idle.setdefault((target.host, target.port), deque()).append(connection)
        else:
            connection.abort()
        if connection.status != 200 or connection.content_type != content_type:
            check_head(
                target.url,
                connection.status,
                connection.content_type,
                connection.retry_after,
                is_case_sensitive=False,
                now=datetime.now(UTC),
            )
            if content_type != CONTENT_TYPE:
                raise BadAnswer(f"{target.url} does not answer many requests in one")
        if connection.encoding:
            raise BadAnswer(f"{target.url} answered with content encoding {connection.encoding!r}, unasked")
        return connection.take_body(), connection.offers_batches

    def _head(self, target: Target, content_type: str) -> bytes:
        head = self._heads.get((target.url, content_type))
        if head is None:
            head = self._heads[target.url, content_type] = (
                f"POST {target.path} HTTP/1.1\r\n"
                f"Host: {target.authority}\r\n"
                f"Content-Type: {content_type}\r\n"
                f"Accept: {content_type}\r\n"
                f"{batches.HEADER}: {batches.VERSION}\r\n"
                "User-Agent: statefun\r\n"
                "Connection: keep-alive\r\n"
                "Content-Length: "
            ).encode("latin-1")
        return head


def _split(target: Target, body: bytes, count: int) -> list[tuple[int, bytes]]:
    try:
        answers = batches.split_answers(body)
    except ValueError as error:
        raise BadAnswer(f"{target.url}: {error}") from None
    if len(answers) != count:
        raise BadAnswer(f"{target.url} answered {len(answers)} of {count} requests")
    return answers


def _fail(items: list[tuple[bytes, str, asyncio.Future[bytes]]], error: BaseException) -> None:
    for _, _, answered in items:
        if not answered.done():
            if isinstance(error, Exception):
                answered.set_exception(error)
            else:
                answered.cancel()


class _TooLarge(Exception):
    """The answer has more bytes than the transport allows."""


class _NotHttp(Exception):
    """What came is no answer, or not all of one."""


class _Connection(asyncio.Protocol):
    """One connection; of httptools' callbacks it has those it needs."""

    def __init__(self, bytes_max: int, on_lost: Callable[[_Connection], None]) -> None:
        self._bytes_max = bytes_max
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._has_begun = False
        self._has_end = False
        self._has_head = False
        self._head_size = 0
        self.is_open = False
        self.is_reusable = False
        self.fresh_until_s = 0.0
        self.status = 0
        self.content_type = self.retry_after = self.encoding = ""
        self.offers_batches = False

    # --- what the client does -------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> asyncio.Future[None]:
        """Send a request; the future is done when its answer is complete."""
        answered = self._answered = asyncio.get_running_loop().create_future()
        transport = self._transport
        if transport is None or not self.is_open:
            answered.set_exception(_Broken("it was closed"))
            return answered
        self._chunks = []
        self._size = 0
        self._has_begun = self._has_end = self._has_head = False
        self._head_size = 0
        self.status = 0
        self.content_type = self.retry_after = self.encoding = ""
        self.offers_batches = False
        if len(body) < 65_536:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return answered

    def take_body(self) -> bytes:
        """Return the body of the answer."""
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def time_out(self) -> None:
        """The answer takes too long."""
        self._fail(TimeoutError())

    def abort(self) -> None:
        """Close at once."""
        self.is_open = self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    # --- asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes, only behave as they do.
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(_NotHttp(f"no answer that is HTTP: {error}"))
            self.abort()
            return
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > HEAD_BYTES_MAX:
                self._fail(_NotHttp(f"the head of its answer is longer than {HEAD_BYTES_MAX} bytes"))
                self.abort()

    def eof_received(self) -> None:
        # Without a length or chunks, the end of the connection is the end of the answer.
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = self.is_reusable = False
        self._on_lost(self)
        answered = self._answered
        if answered is None or answered.done():
            return
        if not self._has_begun:
            self._fail(_Broken(str(error) if error else "it was closed"))
        elif not self.status or self._has_end:
            self._fail(_NotHttp(f"the answer broke off after {self._size} bytes of its body"))
        else:
            answered.set_result(None)

    # --- httptools --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == b"retry-after":
            self.retry_after = value.decode("latin-1")
        elif name == _BATCH_HEADER:
            self.offers_batches = value == batches.VERSION.encode()
        elif name == b"content-encoding":
            self.encoding = value.decode("latin-1")
        elif name in (b"content-length", b"transfer-encoding"):
            self._has_end = True  # told by the answer itself, not by the end of the connection

    def on_headers_complete(self) -> None:
        self._has_head = True
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._bytes_max:
            self._fail(_TooLarge())
            self.abort()
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200:  # an interim answer, such as 100
            return
        self.is_reusable = self.is_open and self._parser.should_keep_alive()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
