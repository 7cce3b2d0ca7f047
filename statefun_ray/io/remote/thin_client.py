"""HTTP/1.1 to a service, with TLS or without, as thin as it gets: one connection, one request at a time.

Over half of what aiohttp does for a request is of no use here: it took 76 us of CPU time where this
takes 20, TLS included. This client knows one kind of request and one kind of answer, and calls back
instead of being awaited: a task and a few coroutines for each request would cost as much as the
request. A connection is `http_connection`'s. Whatever needs more, Unix sockets, redirects,
compressed answers, is of the okhttp transport, and goes through `okhttp_client`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from statefun_ray.io.remote.answers import check_head
from statefun_ray.io.remote.client import Request, too_large
from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, RemoteError, ServiceUnavailable
from statefun_ray.io.remote.http_connection import Connection, Exchange, Head
from statefun_ray.io.remote.resolver import Resolver
from statefun_ray.io.remote.target import Target
from statefun_ray.io.remote.tls import tls_context
from statefun_ray.module.model import AsyncTransport
from statefun_sdk import batches

JOINED_MAX: Final = 128
"""Requests that travel as one: enough that the request itself costs little."""

JOINED_S_MIN: Final = 1.0
JOINED_FACTOR: Final = 10
"""Joined requests are waited for as long as ten times what so many usually take, and at least a second: no
pause of a service that is well takes longer. Then they are asked one by one, as one of them may hang
for as long as a request may take. It may have been run all the same, which does no harm: effects come
with answers alone."""

ALONE_S: Final = 60.0
"""After a time-out of joined requests."""

JOINED_BYTES_MAX: Final = 4 << 20

HEADS_MAX: Final = 1_000
"""Heads of answers that are remembered: their date makes new ones every second."""

SWEEP_S_MAX: Final = 0.25
SWEEP_S_MIN: Final = 0.005
"""Answers are looked after every twentieth of the time they may take, within these bounds."""


class ThinClient:
    """Requests to the services of one endpoint, on connections that are kept."""

    def __init__(self, transport: AsyncTransport) -> None:
        """Read certificates; nothing is connected.

        Raises:
            UserValueError: a certificate or key cannot be read.
        """
        self._transport = transport
        self._call_s = transport.call_ms / 1000
        self._connect_s = transport.connect_ms / 1000
        self._keep_s = transport.pool_ttl_ms / 1000 or float("inf")
        self._tls = tls_context(transport)
        self._resolver = Resolver()
        self._idle: dict[tuple[str, int], deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._request_heads: dict[tuple[str, str], bytes] = {}
        self._answer_heads: dict[bytes, Head] = {}
        self._joining: set[tuple[str, str]] = set()
        """``(url, function type)`` whose service takes many requests in one."""
        self._alone_until_s: dict[str, float] = {}
        """By url: until when requests are not joined, after one that was not answered in time."""
        self._usual_s: dict[str, float] = {}
        """By url: what one of many requests takes, as an average; at first, what a single one took."""
        self._gathered: dict[str, list[Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep_handle: asyncio.TimerHandle | None = None

    def start(self, request: Request) -> None:
        """See `client.Client.start`."""
        if (request.target.url, request.function_type) not in self._joining or request.is_alone:
            self._begin(_Single(self, request))
            return
        waiting = self._gathered.get(request.target.url)
        if waiting is None:
            waiting = self._gathered[request.target.url] = []
            # What else begins in this turn of the loop comes along.
            asyncio.get_running_loop().call_soon(self._send_gathered, request.target)
        waiting.append(request)

    async def close(self) -> None:
        """Close all connections."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        for task in list(self._tasks):
            task.cancel()
        await self._resolver.close()

    # --- many requests in one -------------------------------------------------------------

    def _send_gathered(self, target: Target) -> None:
        waiting = self._gathered.pop(target.url)
        while waiting:
            count, size = 0, 0
            for request in waiting[:JOINED_MAX]:
                size += len(request.body)
                if count and size > JOINED_BYTES_MAX:
                    break
                count += 1
            self._begin(_Joined(self, target, waiting[:count]))
            waiting = waiting[count:]

    def _offered(self, request: Request, sent_s: float) -> None:
        """The service takes requests for this function many in one, too."""
        url, now_s = request.target.url, asyncio.get_running_loop().time()
        self._usual_s.setdefault(url, now_s - sent_s)
        if now_s >= self._alone_until_s.get(url, 0.0):
            self._joining.add((url, request.function_type))

    def _joined_wait_s(self, url: str, count: int) -> float:
        """Return how long so many requests in one may take."""
        return min(self._call_s, max(JOINED_S_MIN, JOINED_FACTOR * count * self._usual_s.get(url, 0.0)))

    def _took(self, url: str, each_s: float) -> None:
        usual_s = self._usual_s.get(url, each_s)
        self._usual_s[url] = usual_s + (each_s - usual_s) / 4

    def _part(self, requests: list[Request]) -> None:
        """Ask for these functions one by one again."""
        self._joining.difference_update((request.target.url, request.function_type) for request in requests)

    def _leave_alone(self, target: Target) -> None:
        self._alone_until_s[target.url] = asyncio.get_running_loop().time() + ALONE_S

    # --- connections ------------------------------------------------------------------------

    def _begin(self, exchange: Exchange) -> None:
        target = exchange.target
        idle = self._idle.get((target.host, target.port))
        now_s = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()  # the last one used: the others may grow old
            if connection.is_open and now_s < connection.fresh_until_s:
                self._send(connection, exchange, now_s)
                return
            connection.abort()
        self._spawn(self._begin_anew(exchange))

    async def _begin_anew(self, exchange: Exchange) -> None:
        """Send a request through a connection of its own."""
        target = exchange.target
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._connected(target)
        except TimeoutError:
            exchange.failed(
                ServiceUnavailable(f"{target.url}: no connection within {self._transport.connect_ms} ms")
            )
        except (OSError, UnicodeError) as error:
            exchange.failed(ServiceUnavailable(f"{target.url}: {error}"))
        else:
            if not connection.is_open:
                self.broke(exchange, "it was closed", was_kept=False)
                return
            self._open.add(connection)
            now_s = asyncio.get_running_loop().time()
            connection.fresh_until_s = now_s + self._keep_s
            self._send(connection, exchange, now_s)

    async def _connected(self, target: Target) -> Connection:
        """Return a new connection, to the first address of the host that takes one.

        Raises:
            OSError: none does, or it has none.
            UnicodeError: its name is none.
        """
        tls: dict[str, Any] = {}
        if target.scheme == "https":
            if self._tls is None:
                # A hundredth of a second of reading, in which the loop can do something else.
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            tls = {"ssl": self._tls, "server_hostname": target.host}
        problem = OSError(f"{target.host} has no address")
        for address in await self._resolver.resolve(target.host, target.port):
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, self._transport.payload_max_bytes),
                    address["host"],
                    target.port,
                    **tls,
                )
            except OSError as error:
                problem = error
            else:
                return connection
        raise problem

    def _send(self, connection: Connection, exchange: Exchange, now_s: float) -> None:
        head = self._request_heads.get((exchange.target.url, exchange.content_type))
        if head is None:
            head = self._request_head(exchange.target, exchange.content_type)
        exchange.sent_s = now_s
        connection.send(exchange, head, now_s + (exchange.wait_s or self._call_s))
        if self._sweep_handle is None:
            self._sweep_later()

    def _request_head(self, target: Target, content_type: str) -> bytes:
        head = self._request_heads[target.url, content_type] = (
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep_later(self) -> None:
        delay_s = min(SWEEP_S_MAX, max(SWEEP_S_MIN, self._call_s / 20))
        self._sweep_handle = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Give up answers that take too long: one timer for all, as most never need theirs."""
        self._sweep_handle = None
        now_s = asyncio.get_running_loop().time()
        busy = [connection for connection in self._open if connection.exchange is not None]
        for connection in busy:
            if connection.deadline_s <= now_s:
                connection.time_out()
        if busy:
            self._sweep_later()

    # --- what connections tell ----------------------------------------------------------------

    def complete(self, connection: Connection, exchange: Exchange, head: Head, body: bytes) -> None:
        """See `http_connection.Owner`."""
        target = exchange.target
        if connection.is_reusable:
            self._idle.setdefault((target.host, target.port), deque()).append(connection)
        else:
            connection.abort()
        error = None
        if head.status != 200 or head.content_type != exchange.content_type or head.encoding:
            error = self._refusal(exchange, head)
        if error is None:
            exchange.answered(body, head.offers_batches)
        else:
            exchange.failed(error)

    def _refusal(self, exchange: Exchange, head: Head) -> RemoteError | None:
        """Return what is wrong with an answer; None if it is one after all."""
        url = exchange.target.url
        try:
            check_head(
                url,
                head.status,
                head.content_type,
                head.retry_after,
                is_case_sensitive=False,
                now=datetime.now(UTC),
            )
        except RemoteError as error:
            return error
        if exchange.content_type != CONTENT_TYPE and head.content_type != exchange.content_type:
            return BadAnswer(f"{url} does not answer many requests in one")
        if head.encoding:
            return BadAnswer(f"{url} answered with content encoding {head.encoding!r}, unasked")
        return None

    def broke(self, exchange: Exchange, reason: str, *, was_kept: bool) -> None:
        """A connection ended before an answer began."""
        if was_kept:
            # The service had closed it, as services do when they like: that says nothing of it.
            self._spawn(self._begin_anew(exchange))
        else:
            exchange.failed(
                ServiceUnavailable(f"{exchange.target.url}: the connection broke before an answer: {reason}")
            )

    def failed(self, exchange: Exchange, reason: str) -> None:
        """See `http_connection.Owner`."""
        exchange.failed(BadAnswer(f"{exchange.target.url}: {reason}"))

    def too_large(self, exchange: Exchange) -> None:
        """See `http_connection.Owner`."""
        exchange.failed(too_large(exchange.target, self._transport.payload_max_bytes))

    def too_late(self, exchange: Exchange) -> None:
        """See `http_connection.Owner`."""
        exchange.failed(
            CallTimedOut(f"{exchange.target.url} did not answer within {self._transport.call_ms} ms")
        )

    def closed(self, connection: Connection) -> None:
        """See `http_connection.Owner`."""
        self._open.discard(connection)

    def known(self, head: bytes) -> Head | None:
        """Return what an answer with this head says, if one had it before."""
        return self._answer_heads.get(head)

    def remember(self, head: bytes, meaning: Head) -> None:
        """See `http_connection.Owner`."""
        if len(self._answer_heads) >= HEADS_MAX:
            self._answer_heads.clear()
        self._answer_heads[head] = meaning


class _Single:
    """An exchange for one request."""

    __slots__ = ("_client", "_request", "sent_s", "target")
    content_type = CONTENT_TYPE
    wait_s = 0.0
    sent_s: float

    def __init__(self, client: ThinClient, request: Request) -> None:
        self._client = client
        self._request = request
        self.target = request.target

    @property
    def body(self) -> bytes:
        return self._request.body

    def answered(self, body: bytes, offers_batches: bool) -> None:
        if offers_batches:
            self._client._offered(self._request, self.sent_s)
        self._request.answered(body)

    def failed(self, error: Exception) -> None:
        self._request.failed(error)


class _Joined:
    """An exchange for many requests: each gets its own answer, or what went wrong with all."""

    __slots__ = ("_client", "_requests", "body", "sent_s", "target", "wait_s")
    content_type = batches.CONTENT_TYPE
    sent_s: float

    def __init__(self, client: ThinClient, target: Target, requests: list[Request]) -> None:
        self._client = client
        self._requests = requests
        self.target = target
        self.wait_s = client._joined_wait_s(target.url, len(requests))
        self.body = batches.join_requests(request.body for request in requests)

    def answered(self, body: bytes, offers_batches: bool) -> None:
        url, requests = self.target.url, self._requests
        try:
            answers = batches.split_answers(body)
        except ValueError as error:
            self.failed(BadAnswer(f"{url}: {error}"))
            return
        if len(answers) != len(requests):
            self.failed(BadAnswer(f"{url} answered {len(answers)} of {len(requests)} requests"))
            return
        took_s = asyncio.get_running_loop().time() - self.sent_s
        self._client._took(url, took_s / len(requests))
        for request, (outcome, data) in zip(requests, answers, strict=True):
            if outcome == batches.DONE:
                request.answered(data)
            else:
                request.failed(BadAnswer(f"{url}: {data.decode(errors='replace')}"))

    def failed(self, error: Exception) -> None:
        if isinstance(error, BadAnswer):
            # An older version of the service, perhaps: one at a time is what everybody knows. Or one of
            # them hangs: alone, each is answered for itself; and for a while, or the one would hold up
            # others again as soon as any has succeeded.
            self._client._part(self._requests)
            if isinstance(error, CallTimedOut):
                self._client._leave_alone(self.target)
            for request in self._requests:
                self._client._begin(_Single(self._client, request))
            return
        for request in self._requests:
            request.failed(error)
