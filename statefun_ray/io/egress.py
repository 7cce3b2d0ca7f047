"""Publishing what committed snapshots release: in order per shard, retried until it is done.

The core says what to publish; sinks know how. Between them stands this queue per shard: it keeps
the order, retries with a growing pause, and never publishes for a worker that has been fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final, Protocol

from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.store import ObjectStore, open_store
from statefun_ray.core.effects import Publish
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress_file import FileSink

logger = logging.getLogger(__name__)

DEFAULT_SINK_PREFIX: Final = "egress"
"""Rows of an egress without a configured sink go here, inside the application's own storage."""

RETRY_MS_FIRST: Final = 100
RETRY_MS_MAX: Final = 10_000

OnPublished = Callable[[int, int], None]


class Sink(Protocol):
    """Where the rows of one egress go."""

    def publish(self, shard: int, rows: list[EgressRow]) -> None:
        """Make the rows exist, exactly once however often this is called. May block.

        Raises:
            StoreError: no answer; the call is repeated later.
        """
        ...


class Sinks:
    """Finds the sink of an egress: the configured one, or files in the application's storage."""

    def __init__(self, storage: ObjectStore, uris: Mapping[str, str]) -> None:
        """Open the sinks.

        Args:
            storage: the application's; egresses without a sink of their own go to
                ``egress/<namespace>/<name>/`` in it, so nothing that a function sends is lost.
            uris: egress typename -> ``file://…`` or ``s3://…``.

        Raises:
            ValueError: a sink URI of an unknown scheme.
        """
        self._storage = storage
        self._sinks: dict[str, Sink] = {
            egress: FileSink(open_store(uri), egress) for egress, uri in uris.items()
        }

    def for_egress(self, egress: str) -> Sink:
        """Return the sink of ``egress``."""
        sink = self._sinks.get(egress)
        if sink is None:
            sink = self._sinks[egress] = FileSink(self._storage, egress, DEFAULT_SINK_PREFIX)
        return sink


class Publisher:
    """Performs the `Publish` effects of one worker."""

    def __init__(
        self,
        sinks: Sinks,
        *,
        executor: Executor,
        may_publish: Callable[[], bool],
        on_published: OnPublished,
        on_failed: Callable[[str], None],
    ) -> None:
        """Args:
        executor: where sinks may block.
        may_publish: asked right before every attempt; false once the worker is fenced.
        on_published: told ``(shard, epoch)`` when the sink has all rows for good.
        on_failed: told why when publishing can never succeed.
        """
        self._sinks = sinks
        self._executor = executor
        self._may_publish = may_publish
        self._on_published = on_published
        self._on_failed = on_failed
        self._queues: dict[int, deque[Publish]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.last_error = ""
        """Why publishing is being retried right now; empty when it is not."""

    def add(self, effect: Publish) -> None:
        """Publish after everything added before for the same shard."""
        queue = self._queues.setdefault(effect.shard, deque())
        queue.append(effect)
        if effect.shard not in self._tasks:
            self._tasks[effect.shard] = asyncio.get_running_loop().create_task(
                self._drain(effect.shard, queue)
            )

    @property
    def backlog(self) -> int:
        """Publications that are not done yet."""
        return sum(map(len, self._queues.values()))

    def close(self) -> None:
        """Stop; what is queued stays in the outbox of the last snapshot."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._queues.clear()

    async def _drain(self, shard: int, queue: deque[Publish]) -> None:
        retry_ms = RETRY_MS_FIRST
        try:
            while queue:
                effect = queue[0]
                if not self._may_publish():
                    return
                try:
                    await asyncio.get_running_loop().run_in_executor(self._executor, self._publish, effect)
                except StoreError as error:
                    self.last_error = f"egress shard {shard}: {error}"
                    logger.warning(
                        "egress retried shard=%d epoch=%d delay_ms=%d: %s",
                        shard,
                        effect.epoch,
                        retry_ms,
                        error,
                    )
                    await asyncio.sleep(retry_ms / 1000)
                    retry_ms = min(retry_ms * 2, RETRY_MS_MAX)
                    continue
                retry_ms, self.last_error = RETRY_MS_FIRST, ""
                queue.popleft()
                self._on_published(shard, effect.epoch)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("egress failed shard=%d", shard)
            self._on_failed(f"egress shard {shard}: {type(error).__name__}: {error}")
        finally:
            self._tasks.pop(shard, None)

    def _publish(self, effect: Publish) -> None:
        by_egress: dict[str, list[EgressRow]] = {}
        for row in effect.rows:
            by_egress.setdefault(row[1], []).append(row)
        for egress, rows in by_egress.items():
            if not self._may_publish():
                raise PermissionError("this worker's lease has ended")
            self._sinks.for_egress(egress).publish(effect.shard, rows)
