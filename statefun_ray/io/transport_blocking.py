"""The frames and handshake of ``transport`` on a blocking socket: for a thread without an event loop."""

from __future__ import annotations

import os
import socket
import time

from statefun_ray.io.handshake import NONCE_BYTES, CallerHandshake, Hello
from statefun_ray.io.transport import HANDSHAKE_TIMEOUT_S, HEADER_BYTES, FrameParser


class BlockingConnection:
    """The same frames and handshake on a blocking socket: for a thread without an event loop."""

    def __init__(self, tcp: socket.socket, peer: str) -> None:
        self._tcp = tcp
        self._parser = FrameParser()
        self._frames: list[bytes] = []
        self.peer = peer

    @classmethod
    def open(
        cls,
        host: str,
        port: int,
        hello: Hello,
        *,
        secret: bytes | None = None,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> BlockingConnection:
        """Return a welcomed connection.

        Raises:
            HandshakeRefused: the listener does not want us; its text says why.
            OSError: nothing listens there, or it took longer than ``timeout_s`` (TimeoutError).
        """
        peer = f"{host}:{port}"
        deadline = time.monotonic() + timeout_s
        tcp = socket.create_connection((host, port), timeout=timeout_s)
        try:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = cls(tcp, peer)
            handshake = CallerHandshake(hello, nonce=os.urandom(NONCE_BYTES), secret=secret, peer=peer)
            connection.send(handshake.hello_frame)
            while not handshake.is_done:
                frame = connection.receive(max(0.001, deadline - time.monotonic()))
                if frame is None:
                    raise TimeoutError(f"no handshake with {peer} within {timeout_s:g} s")
                answer = handshake.received(frame)
                if answer is not None:
                    connection.send(answer)
        except BaseException:
            tcp.close()
            raise
        return connection

    def send(self, frame: bytes) -> None:
        """Write one frame; blocks until the kernel has it, at most the timeout set by ``receive``.

        Raises:
            OSError: the connection is broken.
        """
        self._tcp.sendall(len(frame).to_bytes(HEADER_BYTES, "big") + frame)

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next frame, or None when none came within ``timeout_s``.

        Raises:
            OSError: the connection is broken or closed by the peer.
        """
        deadline = time.monotonic() + timeout_s
        while not self._frames:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return None
            self._tcp.settimeout(remaining_s)
            try:
                data = self._tcp.recv(65_536)
            except TimeoutError:
                return None
            if not data:
                raise ConnectionResetError(f"{self.peer} closed the connection")
            self._frames.extend(self._parser.feed(data))
        return self._frames.pop(0)

    def close(self) -> None:
        """Close; a thread blocked in ``receive`` wakes up with an error."""
        try:
            self._tcp.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster
        self._tcp.close()
