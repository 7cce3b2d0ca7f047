"""Length-prefixed frames over TCP: the wire under channels, control and heartbeats.

A frame is a u32 in network order and that many bytes. This is a bare ``asyncio.Protocol``: no
streams, no coroutine and no future per frame. It is *not* reliable delivery: a connection that
breaks is reported once, with a reason, and whoever uses it decides (a broken channel ends the
generation). What holds here:

- frames arrive in the order sent, whole, or not at all;
- reading never stops, so a slow reader of ours can not make two workers wait for each other;
- ``send`` never waits; what the kernel did not take yet is visible as ``unsent_bytes``;
- frames sent in one turn of the loop leave in one system call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, cast

from statefun_ray.io.handshake import (
    HANDSHAKE_FRAME_BYTES_MAX,
    NONCE_BYTES,
    Admit,
    CallerHandshake,
    HandshakeRefused,
    Hello,
    ListenerHandshake,
    refusal_frame,
)

logger = logging.getLogger(__name__)

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bounds what one frame may ask a receiver to hold. A channel frame is some hundred kilobytes; a
plan carries a commit-log entry with up to 64 KB of inline parts per worker."""

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""From TCP connect to welcome; a caller that is silent for longer is dropped."""

HEADER_BYTES: Final = 4

OnFrame: TypeAlias = "Callable[[FrameConnection, bytes], None]"
OnClose: TypeAlias = "Callable[[FrameConnection, str], None]"
OnOpen: TypeAlias = "Callable[[FrameConnection], tuple[OnFrame, OnClose]]"


class FrameTooLarge(ConnectionError):
    """A frame is longer than this connection allows; the stream can not be trusted any more."""

    def __init__(self, size_bytes: int, size_bytes_max: int) -> None:
        super().__init__(size_bytes, size_bytes_max)
        self.size_bytes, self.size_bytes_max = size_bytes, size_bytes_max

    def __str__(self) -> str:
        return (
            f"a frame of {self.size_bytes:,} bytes exceeds the limit of {self.size_bytes_max:,}; "
            "either the peer speaks another protocol or one message is far too large"
        )


class FrameParser:
    """Cuts a byte stream into frames, however the network split or merged them."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        """May be changed between two frames: the handshake allows less than what follows it."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every frame that ``data`` completes; to be exhausted before the next call.

        Raises:
            FrameTooLarge: a header announces more than ``frame_bytes_max``.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < HEADER_BYTES:
                return
            if len(rest) < HEADER_BYTES + self._checked(int.from_bytes(rest[:HEADER_BYTES], "big")):
                return  # still the same long frame: nothing is copied until it is complete
            data = bytes(rest)
            rest.clear()
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            start = at + HEADER_BYTES
            stop = start + self._checked(int.from_bytes(data[at:start], "big"))
            if stop > end:
                break
            yield data[start:stop]
            at = stop
        if at < end:
            rest += data[at:] if at else data

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._rest)

    def _checked(self, size_bytes: int) -> int:
        if size_bytes > self.frame_bytes_max:
            raise FrameTooLarge(size_bytes, self.frame_bytes_max)
        return size_bytes


class FrameConnection(asyncio.Protocol):
    """One TCP connection that carries frames. Made by :func:`connect` and :class:`FrameServer`."""

    def __init__(
        self,
        on_frame: OnFrame,
        on_close: OnClose,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self.on_frame = on_frame
        self.on_close = on_close
        self.hello: Hello | None = None
        """Who is at the other end of an accepted connection, or who we said we are."""
        self.peer = "?"
        self.is_open = False
        self._frame_bytes_max = frame_bytes_max
        self._parser = FrameParser(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_flush_due = False
        self._close_reason: str | None = None

    # --- what a user calls --------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queue one frame; it leaves at the end of this turn of the loop. Dropped once closed.

        Raises:
            FrameTooLarge: the peer would refuse it.
        """
        self.enqueue(frame)
        self._flush_soon()

    def enqueue(self, frame: bytes) -> None:
        """As ``send``, but the caller calls ``flush`` when it has queued all it has."""
        size_bytes = len(frame)
        if size_bytes > self._frame_bytes_max:
            raise FrameTooLarge(size_bytes, self._frame_bytes_max)
        if not self.is_open:
            return
        self._out.append(size_bytes.to_bytes(HEADER_BYTES, "big"))
        self._out.append(frame)
        self._out_bytes += size_bytes + HEADER_BYTES

    def send_framed(self, data: bytes) -> None:
        """As ``send``, for bytes that start with their length already."""
        if self.is_open:
            self._out.append(data)
            self._out_bytes += len(data)
            self._flush_soon()

    def flush(self) -> None:
        """Hand everything queued to the kernel, or to the buffer in front of it."""
        self._is_flush_due = False
        if self._out and self._transport is not None:
            out, self._out, self._out_bytes = self._out, [], 0
            self._transport.writelines(out)

    @property
    def unsent_bytes(self) -> int:
        """Bytes sent by us that the kernel has not taken."""
        queued = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._out_bytes + queued

    def close(self) -> None:
        """Close from this side, after what is queued has been written; ``on_close`` is not called."""
        self.flush()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
        self._end(None)

    def abort(self) -> None:
        """Cut the connection at once, as a crash would; ``on_close`` is not called."""
        if self._transport is not None:
            self._transport.abort()
        self._end(None)

    # --- what asyncio calls -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: nothing waits for more data to fill a segment, nothing is paused."""
        self._transport = cast("asyncio.Transport", transport)
        tcp = transport.get_extra_info("socket")
        if tcp is not None:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Cut into frames and pass them on, one by one, until someone closes."""
        try:
            for frame in self._parser.feed(data):
                if not self.is_open:
                    return
                self.on_frame(self, frame)
        except FrameTooLarge as error:
            self._break(str(error))
        except Exception as error:
            # The receiver failed over this frame. Going on would lose it silently.
            logger.exception("frame handler failed peer=%s", self.peer)
            self._break(f"handling a frame failed: {type(error).__name__}: {error}")

    def eof_received(self) -> bool:
        """The peer closed: what is still to be sent has no reader."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end, unless it came from this side."""
        self._end(f"connection lost: {exc}" if exc is not None else "the peer closed the connection")

    # --- inside -------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def _break(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _end(self, reason: str | None) -> None:
        """Become closed, once; with a reason, tell the user."""
        if self.is_open:
            self.is_open = False
            self._out, self._out_bytes = [], 0
            if reason is not None:
                self.on_close(self, reason)

    def _allow(self, frame_bytes_max: int) -> None:
        self._parser.frame_bytes_max = frame_bytes_max


async def connect_plain(
    host: str,
    port: int,
    *,
    on_frame: OnFrame,
    on_close: OnClose,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> FrameConnection:
    """Return an open connection without a handshake: for peers with a protocol of their own.

    Raises:
        OSError: nothing listens there, or it took longer than ``timeout_s`` (TimeoutError).
    """
    async with asyncio.timeout(timeout_s):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: FrameConnection(on_frame, on_close, frame_bytes_max=frame_bytes_max), host, port
        )
    return connection


async def connect(
    host: str,
    port: int,
    hello: Hello,
    *,
    on_frame: OnFrame,
    on_close: OnClose,
    secret: bytes | None = None,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> FrameConnection:
    """Return a connection that the listener at ``host:port`` has welcomed.

    Raises:
        HandshakeRefused: the listener is not who we look for, or does not want us; its text says why.
        OSError: nothing listens there, or it took longer than ``timeout_s`` (TimeoutError).
    """
    welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handshake = CallerHandshake(hello, nonce=os.urandom(NONCE_BYTES), secret=secret, peer=f"{host}:{port}")

    def on_handshake(connection: FrameConnection, frame: bytes) -> None:
        try:
            answer = handshake.received(frame)
        except HandshakeRefused as error:
            connection.abort()
            if not welcomed.done():
                welcomed.set_exception(error)
            return
        if answer is not None:
            connection.send(answer)
        if handshake.is_done:
            # From the very next frame on: it may be in the buffer already.
            connection._allow(frame_bytes_max)
            connection.on_frame, connection.on_close = on_frame, on_close
            if not welcomed.done():
                welcomed.set_result(None)

    def on_early_close(connection: FrameConnection, reason: str) -> None:
        if not welcomed.done():
            welcomed.set_exception(
                ConnectionResetError(f"{host}:{port} hung up during the handshake: {reason}")
            )

    async with asyncio.timeout(timeout_s):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: FrameConnection(on_handshake, on_early_close, frame_bytes_max=frame_bytes_max), host, port
        )
        connection.hello = hello
        connection._allow(HANDSHAKE_FRAME_BYTES_MAX)
        connection.send(handshake.hello_frame)
        try:
            await welcomed
        except BaseException:
            connection.abort()
            raise
    return connection


class FrameServer:
    """Listens, lets the right callers in, and gives each connection its callbacks.

    ``admit`` decides on the hello; ``on_open`` is called once per welcomed connection and returns
    the pair (on_frame, on_close) for it.
    """

    def __init__(
        self,
        *,
        admit: Admit,
        on_open: OnOpen,
        secret: bytes | None = None,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self._admit = admit
        self._on_open = on_open
        self._secret = secret
        self._frame_bytes_max = frame_bytes_max
        self._handshake_timeout_s = handshake_timeout_s
        self._server: asyncio.Server | None = None
        self._connections: set[FrameConnection] = set()
        self.address: tuple[str, int] = ("", 0)

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Bind and return the address; port 0 takes a free one.

        Raises:
            OSError: the address is in use or not ours.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, host, port)
        name = self._server.sockets[0].getsockname()
        self.address = (name[0], name[1])
        return self.address

    def close(self) -> None:
        """Stop listening and close every connection accepted here."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.close()
        self._connections.clear()

    def abort(self) -> None:
        """Stop listening and cut every connection, as a crash would."""
        for connection in list(self._connections):
            connection.abort()
        self.close()

    @property
    def connections(self) -> set[FrameConnection]:
        """Open connections, welcomed or still in their handshake."""
        self._connections = {connection for connection in self._connections if connection.is_open}
        return set(self._connections)

    def _accepted(self) -> FrameConnection:
        handshake: ListenerHandshake | None = None
        loop = asyncio.get_running_loop()

        def on_handshake(connection: FrameConnection, frame: bytes) -> None:
            nonlocal handshake
            if handshake is None:
                nonce = os.urandom(NONCE_BYTES)
                handshake = ListenerHandshake(
                    self._admit, nonce=nonce, secret=self._secret, peer=connection.peer
                )
            try:
                answer = handshake.received(frame)
            except HandshakeRefused as error:
                logger.warning("%s", error)
                connection.send(refusal_frame(error.text))
                connection.close()
                self._connections.discard(connection)
                return
            connection.send(answer)
            if handshake.is_done:
                timer.cancel()
                connection._allow(self._frame_bytes_max)
                connection.hello = handshake.hello
                on_frame, on_close = self._on_open(connection)
                connection.on_frame = on_frame
                connection.on_close = _forgetting(self._connections, on_close)

        def on_early_close(connection: FrameConnection, reason: str) -> None:
            timer.cancel()
            self._connections.discard(connection)

        def on_silence() -> None:
            logger.warning(
                "caller dropped peer=%s: no handshake in %g s", connection.peer, self._handshake_timeout_s
            )
            connection.abort()
            self._connections.discard(connection)

        connection = FrameConnection(on_handshake, on_early_close, frame_bytes_max=self._frame_bytes_max)
        connection._allow(HANDSHAKE_FRAME_BYTES_MAX)
        timer = loop.call_later(self._handshake_timeout_s, on_silence)
        self._connections.add(connection)
        return connection


def _forgetting(connections: set[FrameConnection], on_close: OnClose) -> OnClose:
    def forget(connection: FrameConnection, reason: str) -> None:
        connections.discard(connection)
        on_close(connection, reason)

    return forget
