"""HTTP/1.1 to services, as thin as it gets: one connection, one request at a time.

It knows one kind of request and one kind of answer, and calls back instead of being awaited: a task
and a few coroutines for each request would cost as much as the request. A connection is
`http_connection`'s, how to get one is `connector`'s, many requests in one are `joined`'s. In what
the transports of StateFun differ, `manners` says.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from statefun_ray.io.remote.answers import check_head, decoded, too_large
from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.connector import Connector
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, RemoteError, ServiceUnavailable
from statefun_ray.io.remote.http_connection import Connection, Exchange, Head
from statefun_ray.io.remote.joined import Joiner
from statefun_ray.io.remote.manners import manners_of
from statefun_ray.io.remote.redirects import REDIRECTS, Redirected
from statefun_ray.io.remote.request import Request
from statefun_ray.io.remote.target import Target
from statefun_ray.io.remote.tls import tls_context
from statefun_ray.module.model import Transport

HEADS_MAX: Final = 1_000
"""Heads of answers that are remembered: their date makes new ones every second."""

SWEEP_S_MAX: Final = 0.25
SWEEP_S_MIN: Final = 0.005
"""Answers are looked after every twentieth of the time they may take, within these bounds."""


class HttpClient:
    """Requests to the services of one endpoint, on connections that are kept."""

    def __init__(self, transport: Transport) -> None:
        """Read certificates; nothing is connected.

        Raises:
            UserValueError: a certificate or key cannot be read.
        """
        self.manners = manners = manners_of(transport)
        self._call_s = manners.call_ms / 1000
        self._is_call_whole = manners.is_call_whole
        self._connect_s = manners.connect_ms / 1000
        self._age_s = manners.age_ms_max / 1000 or math.inf
        self._idle_s = manners.idle_ms_max / 1000
        self._connector = Connector(tls_context(transport))
        self._idle: dict[tuple[str, str, int, str], deque[Connection]] = {}
        """By peer, the one used last at the end."""
        self._open: set[Connection] = set()
        self._request_heads: dict[tuple[str, str], bytes] = {}
        self._answer_heads: dict[bytes, Head] = {}
        self._joiner = Joiner(self, self._call_s)
        self._agreed = self._joiner.agreed
        self._tasks: set[asyncio.Task[None]] = set()
        shortest_ms = min(each for each in (manners.call_ms, manners.read_ms, manners.write_ms) if each)
        self._sweep_s = min(SWEEP_S_MAX, max(SWEEP_S_MIN, shortest_ms / 20_000))
        self._sweep_handle: asyncio.TimerHandle | None = None

    def start(self, request: Request) -> None:
        """Make a request."""
        if (request.target.url, request.function_type) not in self._agreed or request.is_alone:
            self.begin(_Single(self, request))
        else:
            self._joiner.add(request)

    async def close(self) -> None:
        """Close all connections; requests that are not answered yet are forgotten."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        for task in list(self._tasks):
            task.cancel()
        self._connector.close()

    # --- exchanges --------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        """See `joined.Sender`."""
        now_s = asyncio.get_running_loop().time()
        if self._is_call_whole:
            exchange.until_s = min(exchange.until_s, now_s + self._call_s)
        idle = self._idle.get(exchange.target.peer)
        while idle:
            connection = idle.pop()  # the last one used: the others may grow old
            if connection.is_open and now_s < connection.fresh_until_s:
                self._send(connection, exchange, now_s)
                return
            connection.abort()
        self._spawn(self._begin_anew(exchange))

    def begin_alone(self, request: Request) -> None:
        """See `joined.Sender`."""
        self.begin(_Single(self, request))

    async def _begin_anew(self, exchange: Exchange) -> None:
        """Send a request through a connection of its own."""
        target, loop = exchange.target, asyncio.get_running_loop()
        until_s = loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(min(until_s, exchange.until_s)):
                connection = await self._connector.connect(target, lambda: Connection(self, self.manners))
        except TimeoutError:
            if exchange.until_s < until_s:
                self.timed_out(exchange, f"did not answer within {self.manners.call_ms} ms")
            else:
                exchange.failed(
                    ServiceUnavailable(f"{target.url}: no connection within {self.manners.connect_ms} ms")
                )
        except (OSError, UnicodeError) as error:
            exchange.failed(ServiceUnavailable(f"{target.url}: {error}"))
        except Exception as error:  # noqa: BLE001 - a bug, but whoever waits is told
            exchange.failed(error)
        else:
            if not connection.is_open:
                self.broke(exchange, "it was closed", was_kept=False)
                return
            self._open.add(connection)
            now_s = loop.time()
            connection.fresh_until_s = now_s + self._age_s
            self._send(connection, exchange, now_s)

    def _send(self, connection: Connection, exchange: Exchange, now_s: float) -> None:
        exchange.sent_s = now_s
        until_s = now_s + (exchange.wait_s or self._call_s)
        connection.send(exchange, now_s, until_s if until_s < exchange.until_s else exchange.until_s)
        if self._sweep_handle is None:
            self._sweep_later()

    def head_of(self, target: Target, content_type: str) -> bytes:
        """See `joined.Sender`."""
        head = self._request_heads.get((target.url, content_type))
        if head is None:
            head = self.manners.head("POST", target, content_type)
            self._request_heads[target.url, content_type] = head
        return head

    def offered(self, request: Request, sent_s: float) -> None:
        """A service takes requests for this function many in one."""
        self._joiner.offered(request, sent_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep_later(self) -> None:
        self._sweep_handle = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)

    def _sweep(self) -> None:
        """Give up answers that take too long: one timer for all, as most never need theirs."""
        self._sweep_handle = None
        now_s = asyncio.get_running_loop().time()
        busy = [connection for connection in self._open if connection.exchange is not None]
        for connection in busy:
            connection.check_time(now_s)
        for peer, idle in list(self._idle.items()):
            while idle and not (idle[0].is_open and now_s < idle[0].fresh_until_s):
                idle.popleft().abort()
            if not idle:
                del self._idle[peer]
        if busy and self._sweep_handle is None:  # who was given up may have begun anew
            self._sweep_later()

    # --- what connections tell ----------------------------------------------------------------

    def complete(self, connection: Connection, exchange: Exchange, head: Head, body: bytes) -> None:
        """See `http_connection.Owner`."""
        if connection.is_reusable:
            if self._idle_s:
                connection.fresh_until_s = asyncio.get_running_loop().time() + self._idle_s
            idle = self._idle.get(exchange.target.peer)
            if idle is None:
                idle = self._idle[exchange.target.peer] = deque()
            idle.append(connection)
        else:
            connection.abort()
        if head.status == 200 and head.content_type == exchange.content_type and not head.encoding:
            exchange.answered(body, head.offers_batches)
        else:
            self._complete_unusual(exchange, head, body)

    def _complete_unusual(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Take an answer that is not simply a success: it may still be one, or lead to one."""
        try:
            if self.manners.follows_redirects and head.location and head.status in REDIRECTS:
                elsewhere = Redirected(exchange, head.status, head.location, self.manners)
            else:
                elsewhere = None
                body = self._checked(exchange, head, body)
        except RemoteError as error:
            exchange.failed(error)
            return
        if elsewhere is None:
            exchange.answered(body, head.offers_batches)
        else:
            self.begin(elsewhere)

    def _checked(self, exchange: Exchange, head: Head, body: bytes) -> bytes:
        """Return the body of a success.

        Raises:
            RemoteError: it is none, or its body cannot be read; the former tells more.
        """
        unreadable: BadAnswer | None = None
        try:
            body = decoded(exchange.target.url, head.encoding, body, self.manners.answer_bytes_max)
        except BadAnswer as error:
            unreadable, body = error, b""
        if head.status != 200 or head.content_type != exchange.content_type:
            self._check(exchange, head, body)
        if unreadable is not None:
            raise unreadable
        return body

    def _check(self, exchange: Exchange, head: Head, body: bytes) -> None:
        """Refuse an answer that is no success, though it may be an unusual one.

        Raises:
            RemoteError: what it is instead.
        """
        check_head(
            exchange.target.url,
            head.status,
            head.content_type,
            head.retry_after,
            is_case_sensitive=self.manners.is_case_sensitive,
            now=datetime.now(UTC),
            body=body,
        )
        if exchange.content_type != CONTENT_TYPE:
            raise BadAnswer(f"{exchange.target.url} does not answer many requests in one")

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
        exchange.failed(too_large(exchange.target.url, self.manners.answer_bytes_max))

    def timed_out(self, exchange: Exchange, reason: str) -> None:
        """See `http_connection.Owner`."""
        exchange.failed(CallTimedOut(f"{exchange.target.url} {reason}"))

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

    __slots__ = ("_client", "_request", "head", "sent_s", "target", "until_s")
    content_type = CONTENT_TYPE
    wait_s = 0.0
    redirects = 0
    sent_s: float

    def __init__(self, client: HttpClient, request: Request) -> None:
        self._client = client
        self._request = request
        self.target = request.target
        self.head = client.head_of(request.target, CONTENT_TYPE)
        self.until_s = math.inf

    @property
    def body(self) -> bytes:
        return self._request.body

    def answered(self, body: bytes, offers_batches: bool) -> None:
        if offers_batches:
            self._client.offered(self._request, self.sent_s)
        self._request.answered(body)

    def failed(self, error: Exception) -> None:
        self._request.failed(error)
