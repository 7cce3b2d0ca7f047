"""A worker's connection to the feed of one ingress log: opened again whenever it breaks.

The ingress is outside of the rollback domain, so a lost feed is no failure of the generation: the
worker waits, and its next hello says where to go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from statefun_ray.io.transport import FrameConnection, connect_plain

logger = logging.getLogger(__name__)

RECONNECT_S_FIRST: Final = 0.02
RECONNECT_S_MAX: Final = 0.5
"""A restarted ingress listens within a second; half a second more is not noticed."""


class FeedClient:
    """Keeps one log's feed connected."""

    def __init__(
        self,
        log_id: str,
        address: tuple[str, int],
        *,
        on_open: Callable[[str], None],
        on_frame: Callable[[str, bytes], None],
        on_close: Callable[[str], None],
    ) -> None:
        """All callbacks are given the log id. Between ``on_open`` and ``on_close`` frames may be sent."""
        self.log_id = log_id
        self.address = address
        self._on_open = on_open
        self._on_frame = on_frame
        self._on_close = on_close
        self._connection: FrameConnection | None = None
        self._closed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent now."""
        return self._connection is not None and self._connection.is_open

    def send(self, frame: bytes) -> None:
        """Send a frame, which includes its length; dropped while the feed is not connected."""
        if self._connection is not None:
            self._connection.send_framed(frame)

    def move(self, address: tuple[str, int]) -> None:
        """The log is served elsewhere now: leave, and connect there."""
        if address != self.address:
            self.address = address
            if self._connection is not None:
                connection, self._connection = self._connection, None
                connection.close()
                self._on_close(self.log_id)
                self._closed.set()

    def leave(self) -> None:
        """Disconnect for good, after what was sent has been written; no callback."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Disconnect for good and at once, without a callback."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _run(self) -> None:
        delay_s = RECONNECT_S_FIRST
        is_first_failure = True
        while True:
            self._closed.clear()
            try:
                connection = await connect_plain(
                    *self.address,
                    on_frame=lambda _connection, frame: self._on_frame(self.log_id, frame),
                    on_close=self._lost,
                )
            except OSError as error:
                if is_first_failure:
                    logger.warning(
                        "feed not reachable, trying again log=%s address=%s: %s",
                        self.log_id,
                        self.address,
                        error,
                    )
                    is_first_failure = False
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RECONNECT_S_MAX)
                continue
            if not connection.is_open:
                continue
            self._connection = connection
            delay_s, is_first_failure = RECONNECT_S_FIRST, True
            self._on_open(self.log_id)
            await self._closed.wait()
            # A feed that refuses us at once must not be asked again without a pause.
            await asyncio.sleep(RECONNECT_S_FIRST)

    def _lost(self, connection: FrameConnection, reason: str) -> None:
        if connection is self._connection:
            logger.warning("feed lost, connecting again log=%s: %s", self.log_id, reason)
            self._connection = None
            self._on_close(self.log_id)
            self._closed.set()
