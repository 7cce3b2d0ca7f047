"""The channels of one worker: a TCP connection to every other worker, and one from each.

Worker i connects to worker j and sends on that connection only, so each channel is FIFO by
itself. A channel that breaks is never mended: its messages may be lost, and the generation ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from statefun_ray.io.handshake import Hello, refusal_of
from statefun_ray.io.transport import FrameConnection, FrameServer, OnClose, OnFrame, connect

logger = logging.getLogger(__name__)

CHANNEL_GRACE_S: Final = 1.0
"""Between the loss of a channel and the end of this worker."""


class Mesh:
    """Both directions of all channels of one worker."""

    def __init__(
        self,
        *,
        app: str,
        generation: int,
        worker: int,
        secret: bytes | None,
        on_frame: Callable[[int, bytes], None],
        on_broken: Callable[[str], None],
    ) -> None:
        """Args:
        on_frame: told ``(peer, frame)``.
        on_broken: told why, some time after a channel was lost.
        """
        self._app = app
        self._generation = generation
        self._worker = worker
        self._secret = secret
        self._on_frame = on_frame
        self._on_broken = on_broken
        self._server = FrameServer(admit=self._admit, on_open=self._opened, secret=secret)
        self._out: dict[int, FrameConnection] = {}
        self._in: dict[int, FrameConnection] = {}
        self._in_changed = asyncio.Event()
        self._unflushed: set[FrameConnection] = set()
        self._grace_handles: list[asyncio.TimerHandle] = []
        self._is_leaving = False

    async def listen(self, host: str) -> tuple[str, int]:
        """Begin to accept the channels of peers; return the address for them."""
        return await self._server.listen(host)

    async def connect(self, peers: Sequence[tuple[str, int]], timeout_s: float) -> None:
        """Return when all channels to and from the others are open.

        Args:
            peers: addresses by worker index, our own included.

        Raises:
            OSError: a peer did not accept, or it took longer than ``timeout_s`` (TimeoutError).
        """
        others = [peer for peer in range(len(peers)) if peer != self._worker]
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(self._connect_one(peer, peers[peer]) for peer in others))
            while not all(peer in self._in for peer in others):
                self._in_changed.clear()
                await self._in_changed.wait()

    def send(self, peer: int, frame: bytes) -> None:
        """Append a frame to the channel to ``peer``; it leaves with the next ``flush``."""
        connection = self._out[peer]
        connection.enqueue(frame)
        self._unflushed.add(connection)

    def flush(self) -> None:
        """Hand all appended frames to the kernel."""
        for connection in self._unflushed:
            connection.flush()
        self._unflushed.clear()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that peers have not taken yet."""
        return sum(connection.unsent_bytes for connection in self._out.values())

    def expect_leaving(self) -> None:
        """From now on a lost channel is a peer that leaves in order."""
        self._is_leaving = True
        for handle in self._grace_handles:
            handle.cancel()

    def close(self) -> None:
        """Close all channels after what was sent has been written."""
        self.expect_leaving()
        for connection in [*self._out.values(), *self._in.values()]:
            connection.close()
        self._server.close()

    def abort(self) -> None:
        """Cut all channels as a crash would."""
        self.expect_leaving()
        for connection in [*self._out.values(), *self._in.values()]:
            connection.abort()
        self._server.abort()

    # --- inside ---------------------------------------------------------------------------

    async def _connect_one(self, peer: int, address: tuple[str, int]) -> None:
        self._out[peer] = await connect(
            *address,
            Hello(self._app, self._generation, "channel", self._worker, peer),
            on_frame=lambda _connection, _frame: self._lost(f"worker {peer} sent data against the direction"),
            on_close=lambda _connection, reason: self._lost(f"the channel to worker {peer} broke: {reason}"),
            secret=self._secret,
        )

    def _admit(self, hello: Hello) -> str:
        refusal = refusal_of(
            hello, app=self._app, generation=self._generation, roles=("channel",), target=self._worker
        )
        if not refusal and hello.source in self._in:
            return f"worker {hello.source} is connected already"
        return refusal

    def _opened(self, connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        assert connection.hello is not None
        peer = connection.hello.source
        self._in[peer] = connection
        self._in_changed.set()
        return (
            lambda _connection, frame: self._on_frame(peer, frame),
            lambda _connection, reason: self._lost(f"the channel from worker {peer} broke: {reason}"),
        )

    def _lost(self, reason: str) -> None:
        # In an orderly stop a peer may leave before we are told to. Waiting costs nothing: the
        # coordinator sees a dead peer by itself, and without this channel no snapshot completes.
        if not self._is_leaving:
            logger.info("worker %d: %s", self._worker, reason)
            loop = asyncio.get_running_loop()
            self._grace_handles.append(loop.call_later(CHANNEL_GRACE_S, self._on_broken, reason))
