"""Group commit: while one batch is being synced, the next one gathers.

One daemon thread writes and syncs; everything else happens on the event loop. There is no
artificial delay: a batch is taken as soon as the disk is free, so it is small when the
ingress is idle and large when it is busy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from statefun_ingress.core import IngressCore
from statefun_ingress.log import Batch

logger = logging.getLogger(__name__)


class Committer:
    """Drives the batches of one core.

    Args:
        core: of the ingress.
        on_synced: called on the loop after a batch was acknowledged, or failed for good.
    """

    def __init__(self, core: IngressCore, on_synced: Callable[[], None]) -> None:
        self._core = core
        self._on_synced = on_synced
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Batch | list[str] | None] = SimpleQueue()
        self._is_scheduled = False
        self._idle: list[asyncio.Future[None]] = []
        # A daemon: a thread that outlives its actor would keep the process alive.
        self._thread = threading.Thread(target=self._run, name="ingress-committer", daemon=True)
        self._thread.start()

    def appended(self) -> None:
        """Take a batch at the end of this turn of the loop, so that its requests share it."""
        if not self._is_scheduled and not self._core.log.is_writing:
            self._is_scheduled = True
            self._loop.call_soon(self._begin)

    def remove(self, names: list[str]) -> None:
        """Remove trimmed segments in the background."""
        self._work.put(names)

    async def wait_idle(self) -> None:
        """Wait until everything appended so far is durable, or the log has failed."""
        while self._core.log.failure is None and self._core.log.buffered_bytes:
            future = self._loop.create_future()
            self._idle.append(future)
            self.appended()
            await future

    async def stop(self) -> None:
        """Let the thread finish what it was given, and end it."""
        self._work.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _begin(self) -> None:
        self._is_scheduled = False
        batch = self._core.take_batch()
        if batch is not None:
            self._work.put(batch)

    def _synced(self, batch: Batch) -> None:
        self._core.batch_synced(batch)
        if self._core.log.failure is not None:
            logger.error("ingress log failed log=%s cause=%s", self._core.log.log_id, batch.error)
        self._begin()
        self._on_synced()
        idle, self._idle = self._idle, []
        for future in idle:
            if not future.done():
                future.set_result(None)

    def _run(self) -> None:
        log = self._core.log
        while True:
            work = self._work.get()
            if work is None:
                return
            if isinstance(work, list):
                try:
                    log.remove_segments(work)
                except OSError:
                    # They are removed after the next start; nothing depends on it.
                    logger.warning("trimmed segments not removed names=%s", work, exc_info=True)
                continue
            try:
                log.write_batch(work)
            except Exception as error:
                # Whatever it was, the batch must end as failed: its clients are waiting.
                logger.exception("ingress log write failed unexpectedly log=%s", log.log_id)
                work.error = repr(error)
            try:
                self._loop.call_soon_threadsafe(self._synced, work)
            except RuntimeError:
                return  # the loop is closed: nobody is left to be answered
