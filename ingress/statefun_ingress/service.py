"""One ingress in a running event loop: HTTP in front, the log behind it, workers beside.

Everything runs on the loop it is started in, except writing and syncing (one thread). It
also works under uvloop in a thread that is not the main one, as in an async actor: it
installs no signal handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn

from statefun_ingress.asgi import HotRoutes, Receive, Scope, Send, UnreadBodies
from statefun_ingress.committer import Committer
from statefun_ingress.config import IngressConfig
from statefun_ingress.core import IngressCore
from statefun_ingress.errors import CannotListen, RequestRefused
from statefun_ingress.feed import Feed, State
from statefun_ingress.feed_server import FeedServer
from statefun_ingress.http_app import create_app
from statefun_ingress.log import IngressLog
from statefun_ingress.metrics import Row, metrics_text
from statefun_ingress.playground import PlaygroundEgressApp, PlaygroundIngressApp
from statefun_ingress.protocol import BoundedProtocol, bounded_protocol
from statefun_ingress.record import NO_PRODUCER, Events, encode_chunk
from statefun_ingress.registry import Registry
from statefun_ingress.topics import PlaygroundTopics

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
"""How often deadlines are compared and idle positions moved on."""

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

EVENTS_AT_ONCE: Final = 1_000
"""Events of our own in one record of the log."""

Register = Callable[[str], Awaitable[None]]
"""Makes a log id known to whoever restores the application; awaited before anything is accepted. Or takes that back."""


class IngressService:
    """One ingress.

    Args:
        config: how to listen and what to bound.
        log: opened; the service closes it.
        registry: the functions of the application.
        register: awaited with the log's id before the first event can be accepted, so that
            no acknowledged event is ever in a log nobody knows of.
        unregister: awaited with the log's id when it is closed and holds nothing unread.
    """

    def __init__(
        self,
        config: IngressConfig,
        log: IngressLog,
        registry: Registry,
        *,
        register: Register | None = None,
        unregister: Register | None = None,
    ) -> None:
        self.config = config
        self.registry = registry
        self.core = IngressCore(
            log,
            app_name=config.app_name,
            key_group_count=config.key_group_count,
            pending_max=config.pending_replies_max,
            topics=PlaygroundTopics(config.playground_topics),
        )
        self.unread = UnreadBodies(config.unread_bytes_max)
        self._register = register
        self._unregister = unregister
        self._hot = HotRoutes(self)
        self._refusal: RequestRefused | None = None
        self._is_draining = False
        self._is_started = False
        self._servers: list[tuple[_Server, asyncio.Task[None]]] = []
        self.http_address = ("", 0)
        """Host and port of HTTP, once started."""
        self.playground_address = self.playground_egress_address = ("", 0)
        """Likewise of the playground, where it is served."""
        self.feed_address = ("", 0)
        """Host and port for workers, once started."""

    # --- life --------------------------------------------------------------------------

    async def start(self) -> None:
        """Register the log, then listen for workers and for HTTP.

        Raises:
            CannotListen: an address is taken or not ours.
            Exception: whatever ``register`` raised; nothing was accepted.
        """
        config = self.config
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            http = _bind(config.http_host, config.http_port, "--http")
            undo.callback(http.close)
            feed = _bind(config.feed_host, config.feed_port, "the feed address")
            undo.callback(feed.close)
            apps: list[tuple[socket.socket, ASGI]] = [(http, create_app(self))]
            if config.playground_port is not None:
                bound = _bind(config.http_host, config.playground_port, "the playground ingress")
                undo.callback(bound.close)
                apps.append((bound, PlaygroundIngressApp(self)))
                self.playground_address = bound.getsockname()[:2]
            if config.playground_egress_port is not None:
                bound = _bind(config.http_host, config.playground_egress_port, "the playground egress")
                undo.callback(bound.close)
                apps.append((bound, PlaygroundEgressApp(self.core.topics, self.unread)))
                self.playground_egress_address = bound.getsockname()[:2]
            if self._register is not None:
                await self._register(self.core.log.log_id)
            undo.pop_all()
        self.http_address = http.getsockname()[:2]
        self.feed_address = feed.getsockname()[:2]
        self._committer = Committer(self.core, self._synced)
        self._feeds = FeedServer(self.core, self._committer, self._update_admission)
        await self._feeds.start(feed)
        for listener, app in apps:
            server = self._server(app)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="ingress-http")
            self._servers.append((server, serving))
        self._tick_task = asyncio.create_task(self._tick(), name="ingress-tick")
        for server, serving in self._servers:
            await server.wait_started(serving)
        self._is_started = True
        self._update_admission()
        logger.info(
            "ingress listening http=%s:%d feed=%s:%d log=%s",
            *self.http_address,
            *self.feed_address,
            self.core.log.incarnation,
        )

    def drain(self) -> None:
        """Refuse new events from now on (503), and say so on /readyz."""
        self._is_draining = True
        self._update_admission()
        if self._is_started:
            # The last snapshot is near: let it say how far the log has been read.
            self._feeds.advance_idle()

    async def stop(self, read_to: int = 0) -> None:
        """Refuse new events, finish those under way, close everything.

        Requests that still wait for a reply are answered 202: their event is accepted.

        Args:
            read_to: everything below this sequence is in a committed snapshot. A log that ends there is not
                needed any more, and nobody has to look for it.
        """
        if not self._is_started:
            return
        self._is_started = False
        self.drain()
        try:
            async with asyncio.timeout(self.config.drain_timeout_s):
                await self._committer.wait_idle()
        except TimeoutError:
            logger.warning("ingress stops with events not yet durable; they were not acknowledged")
        self.core.pending.abandon()
        self._tick_task.cancel()
        for server, _ in self._servers:
            server.should_exit = True
        for _, serving in self._servers:
            await serving
        await self._feeds.stop()
        await self._committer.stop()
        log = self.core.log
        if self._unregister is not None and log.failure is None and log.end_seq <= read_to:
            # Before the log is closed: until then nobody else can open it, register it and accept.
            await self._unregister(log.log_id)
        await self._loop.run_in_executor(None, log.close)

    def _server(self, app: ASGI) -> _Server:
        config = self.config
        return _Server(
            uvicorn.Config(
                app,
                http=bounded_protocol(
                    config, says_status=isinstance(app, PlaygroundIngressApp | PlaygroundEgressApp)
                ),
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=2048,
                timeout_keep_alive=config.keep_alive_s,
                timeout_graceful_shutdown=max(1, round(config.drain_timeout_s)),
            )
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._loop.time()
            self.core.pending.expire(self.now_ms())
            self._feeds.tick(now)
            for server, _ in self._servers:
                for connection in list(server.server_state.connections):
                    if isinstance(connection, BoundedProtocol):
                        connection.expire(now)
            self._update_admission()

    # --- what the application asks for -------------------------------------------------

    def admit(self) -> None:
        """Raise RequestRefused (429 or 503) if nothing may be accepted now."""
        if self._refusal is not None:
            raise self._refusal

    def appended(self) -> None:
        """Note that something was appended and wants to become durable."""
        self._committer.appended()

    def now_ms(self) -> int:
        """Return milliseconds on a steady clock, for deadlines."""
        return int(self._loop.time() * 1000)

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, for people; nothing is ordered by it."""
        return time.time_ns() // 1_000_000

    def unreadiness(self) -> str | None:
        """Return why no events should be sent here, or None."""
        if self._is_draining:
            return "it is stopping"
        if self.core.log.failure is not None:
            return str(self.core.log.failure)
        return None

    async def query_state(self, function_type: str, id: str, *, wait_commit: bool) -> State:
        """Return the state of an address from the worker that owns it.

        Raises:
            RequestRefused: 503, that worker is not connected or does not answer.
        """
        future: asyncio.Future[State | None] = self._loop.create_future()

        def settle(state: State | None) -> None:
            if not future.done():
                future.set_result(state)

        query_id = self.core.query(function_type, id, wait_commit=wait_commit, waiter=settle)
        found = None
        if query_id is not None:
            self._feeds.flush()
            try:
                async with asyncio.timeout(self.config.query_timeout_s):
                    found = await future
            except TimeoutError:
                raise RequestRefused(
                    503,
                    "The worker does not answer",
                    f"no answer within {self.config.query_timeout_s:g} s; it may be busy or recovering, retry",
                    1,
                ) from None
            finally:
                self.core.forget_query(query_id)
        if found is None:
            raise RequestRefused(
                503,
                "The worker is not connected",
                f"the worker that owns {function_type}/{id[:100]} is starting or recovering; retry",
                1,
            )
        return found

    async def query_letters(self, id: str | None = None, function: str = "") -> list[State]:
        """Return what every worker says of its dead letters, those of one id or function if it is given.

        Raises:
            RequestRefused: 503, a worker is not connected or does not answer.
        """
        feeds = self.core.feeds.serving
        if not feeds or len(feeds) < self.core.feeds.worker_count:
            raise RequestRefused(
                503,
                "A worker is not connected",
                f"{len(feeds)} of {self.core.feeds.worker_count} workers are connected, and each has letters of its "
                "own; the others are starting or recovering, retry",
                1,
            )
        answers = [self._ask(feed, function, id) for feed in feeds]
        self._feeds.flush()
        try:
            async with asyncio.timeout(self.config.query_timeout_s):
                found = [await answer for answer in answers]
        except TimeoutError:
            found = [None]
        letters = [state for state in found if state is not None]
        if len(letters) < len(feeds):
            raise RequestRefused(
                503, "A worker does not answer", "it may be busy, recovering or unable to commit; retry", 1
            )
        return letters

    def _ask(self, feed: Feed, function: str, id: str | None) -> asyncio.Future[State | None]:
        future: asyncio.Future[State | None] = self._loop.create_future()

        def settle(state: State | None) -> None:
            if not future.done():
                future.set_result(state)

        if self.core.query_letters(feed, function, id, settle) is None:
            future.set_result(None)
        return future

    async def append(self, events: list[Events]) -> None:
        """Make events of our own durable.

        Raises:
            RequestRefused: 429 or 503, nothing can be accepted now.
        """
        self.admit()
        for at in range(0, len(events), EVENTS_AT_ONCE):
            parts = [(event, encode_chunk(event)) for event in events[at : at + EVENTS_AT_ONCE]]
            await self._hot.accept(parts, "", NO_PRODUCER)

    def status(self) -> dict[str, Any]:
        """Return figures for people and tools."""
        core = self.core
        failure = core.log.failure
        return {
            "log_id": core.log.log_id,
            "incarnation": core.log.incarnation,
            "state": "failed" if failure is not None else "draining" if self._is_draining else "accepting",
            "failure": str(failure) if failure is not None else None,
            "http": list(self.http_address),
            "feed": list(self.feed_address),
            "accepted": core.log.durable_seq,
            "lag": core.lag,
            "first_seq": core.log.first_seq,
            "pending_replies": len(core.pending),
            "replies_dropped": core.replies_dropped,
            "producers": len(core.log.producers),
            "generation": core.feeds.generation,
            "workers_connected": len(core.feeds.serving),
            "workers_expected": core.feeds.worker_count,
            "retrying": sum(feed.figures.retrying_count for feed in core.feeds.serving),
            "retrying_addresses": [
                {
                    "function": function,
                    "id": id,
                    "attempts": attempts,
                    "since_ms": since_ms,
                    "next_attempt_ms": next_ms or None,
                    "error": error,
                }
                for feed in core.feeds.serving
                for function, id, attempts, since_ms, next_ms, error in feed.figures.retrying
            ],
        }

    def metrics(self) -> str:
        """Return everything for Prometheus, of this ingress and of the workers connected to it."""
        core = self.core
        own: list[Row] = [
            ("statefun_ingress_accepted_total", "", core.log.durable_seq),
            ("statefun_ingress_lag", "", core.lag),
            ("statefun_ingress_pending_replies", "", len(core.pending)),
            ("statefun_ingress_replies_dropped_total", "", core.replies_dropped),
            ("statefun_ingress_workers_connected", "", len(core.feeds.serving)),
            ("statefun_ingress_workers_expected", "", core.feeds.worker_count),
            ("statefun_ingress_is_failed", "", int(core.log.failure is not None)),
        ]
        return metrics_text(
            own,
            {
                feed.hello.worker_index: feed.figures.rows
                for feed in core.feeds.serving
                if feed.hello is not None
            },
        )

    # --- inside ------------------------------------------------------------------------

    def _synced(self) -> None:
        self._feeds.pump()

    def _update_admission(self) -> None:
        """Decide, when something has changed, what every request until then is told."""
        core, config = self.core, self.config
        if self._is_draining:
            self._refusal = RequestRefused(
                503, "The ingress is stopping", "send to another ingress, or again once it is back", 2
            )
        elif core.log.failure is not None:
            self._refusal = RequestRefused(503, "The ingress log is not writable", str(core.log.failure), 5)
        elif core.lag > config.lag_events_max:
            self._refusal = RequestRefused(
                429,
                "The workers cannot keep up",
                f"{core.lag} accepted events wait for their workers, at most {config.lag_events_max} may; "
                "send more slowly, or add workers",
                2,
            )
        elif core.log.buffered_bytes > config.unsynced_bytes_max:
            self._refusal = RequestRefused(
                429, "The disk cannot keep up", f"{core.log.buffered_bytes} bytes wait to be synced; retry", 1
            )
        else:
            self._refusal = None


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: they belong to the process, not to an ingress in it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_listening.set()

    async def wait_started(self, serving: asyncio.Task[None]) -> None:
        """Wait until connections are accepted, or raise what prevented it."""
        listening = asyncio.create_task(self._is_listening.wait())
        await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            listening.cancel()
            serving.result()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int, option: str) -> socket.socket:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = infos[0]
        return socket.create_server(
            (str(address[0]), int(address[1])), family=family, backlog=2048, reuse_port=False
        )
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        cause = "another process listens there already" if taken else str(error)
        raise CannotListen(host, port, option, cause) from error
