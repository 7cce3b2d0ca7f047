"""The TCP side of the feeds: sockets in, frames to the core, frames out."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, cast

from statefun_ingress.committer import Committer
from statefun_ingress.core import IngressCore
from statefun_ingress.errors import FrameError, LogError
from statefun_ingress.feed import Feed, FrameSplitter, decode_worker_frame

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 1_024
"""Workers and their predecessors; anything beyond is not a worker."""

HELLO_TIMEOUT_S: Final = 5.0
"""A connection that has not said hello by then is no worker."""

WRITE_BUFFER_BYTES: Final = 4 << 20
"""Sent and not taken by the worker; beyond it its feed pauses."""


class FeedServer:
    """Serves the workers of one core.

    Args:
        core: of the ingress.
        committer: removes trimmed segments.
        on_change: called after positions may have moved.
    """

    def __init__(self, core: IngressCore, committer: Committer, on_change: Callable[[], None]) -> None:
        self.core = core
        self.committer = committer
        self.on_change = on_change
        self.connections: set[FeedConnection] = set()
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.AbstractServer | None = None
        self._is_pump_scheduled = False

    async def start(self, listener: socket.socket) -> None:
        """Listen on a bound socket."""
        self._server = await self._loop.create_server(lambda: FeedConnection(self), sock=listener)

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.flush()
            connection.transport.close()
        if self._server is not None:
            await self._server.wait_closed()

    def schedule_pump(self) -> None:
        """Feed what may be fed, in the next turn of the loop."""
        if not self._is_pump_scheduled:
            self._is_pump_scheduled = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Give every feed one frame; go on in the next turn if there is more."""
        self._is_pump_scheduled = False
        has_more = False
        for connection in list(self.connections):
            try:
                has_more |= self.core.feeds.pump(connection.feed)
            except (LogError, OSError):
                logger.exception("events could not be read back log=%s", self.core.log.log_id)
        self.flush()
        self.on_change()
        if has_more:
            self.schedule_pump()

    def flush(self) -> None:
        """Send what gathered for any worker."""
        for connection in list(self.connections):
            connection.flush()

    def advance_idle(self) -> None:
        """Tell every worker how far the log has been read for it."""
        self.core.feeds.advance_idle()
        self.flush()

    def tick(self, now: float) -> None:
        """Move idle positions on and close connections that never said hello."""
        self.advance_idle()
        for connection in list(self.connections):
            if connection.feed.hello is None and now > connection.hello_deadline:
                connection.feed.close(f"no hello within {HELLO_TIMEOUT_S:g} s")
            connection.flush()


class FeedConnection(asyncio.Protocol):
    """One connection of a worker."""

    transport: asyncio.Transport

    def __init__(self, server: FeedServer) -> None:
        self._server = server
        self._splitter = FrameSplitter()
        self.feed: Feed = server.core.feeds.open()
        self.hello_deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes, only behave as they do.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.hello_deadline = asyncio.get_running_loop().time() + HELLO_TIMEOUT_S
        self._server.connections.add(self)
        if len(self._server.connections) > CONNECTIONS_MAX:
            self.feed.close(f"{CONNECTIONS_MAX} connections are open, which is the limit")
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._server.core.closed(self.feed)
        self._server.on_change()

    def data_received(self, data: bytes) -> None:
        server = self._server
        try:
            for body in self._splitter.receive(data):
                if self.feed.closing is not None:
                    return  # what a refused worker still says does not count
                names = server.core.receive(self.feed, decode_worker_frame(body))
                if names:
                    server.committer.remove(names)
        except FrameError as error:
            logger.warning("feed connection refused cause=%s", error)
            self.feed.close(str(error))
        server.flush()
        server.schedule_pump()

    def pause_writing(self) -> None:
        self.feed.is_paused = True

    def resume_writing(self) -> None:
        self.feed.is_paused = False
        self._server.schedule_pump()

    def flush(self) -> None:
        """Send what the feed has gathered; close if it is over."""
        feed = self.feed
        if feed.outgoing:
            self.transport.write(b"".join(feed.take_outgoing()))
        if feed.closing is not None and not self.transport.is_closing():
            self.transport.close()
