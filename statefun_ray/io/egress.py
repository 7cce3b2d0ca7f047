"""Publishing what committed snapshots release: in order per shard, retried until it is done.

The core says what to publish; sinks know how. Between them stand queues: one for each sink that
publishes all shards together, one per shard for the others. A queue keeps the order, retries with
a growing pause, and never publishes for a worker that has been fenced. A sink that gives no
answer holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

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

BATCH_ROWS: Final = 10_000
"""Rows given to a sink at once, about: what a repetition repeats."""

ShardRows: TypeAlias = tuple[int, list[EgressRow]]
"""A shard and rows of it, in order."""

OnPublished = Callable[[int, int], None]


class SinkUnavailable(Exception):
    """A sink gave no answer; whether the rows exist is unknown, and publishing again is safe."""


class SinkRefused(Exception):
    """A sink cannot be opened, or go on, before a person has decided something; trying again does not help."""


@dataclass(frozen=True, slots=True)
class RestoredShards:
    """What the restored snapshot says of the shards of one worker."""

    next_sequence: Mapping[int, int]
    """Shard -> of its next row, for every shard of the worker."""
    unconfirmed: Mapping[tuple[str, int], int]
    """Egress and shard -> its first row in the snapshot; all below were confirmed by then."""


class Sink(Protocol):
    """Where the rows of one egress go."""

    def open(self) -> None:
        """Keep earlier owners from publishing, before anything is processed. May block.

        Raises:
            SinkUnavailable: no answer, so it is not known whether they are kept from it.
            SinkRefused: a person has to decide something first.
        """

    @property
    def joins_shards(self) -> bool:
        """Whether rows of all shards are best published together; else each shard goes its own way."""

    def publish(self, batch: Sequence[ShardRows]) -> None:
        """Make the rows exist, exactly once however often this is called. May block.

        A shard may come several times in a batch, its rows in order.

        Raises:
            SinkUnavailable, StoreError: no answer; the call is repeated later.
            SinkRefused: a record is refused for good, in a strict application.
        """

    def flush(self, timeout_s: float) -> None:
        """Let leave what was published and nobody waits for; before an orderly end. May block."""

    def close(self) -> None:
        """Let go of connections; nothing is published any more. May be called from any thread."""


class Sinks:
    """Finds the sink of an egress: the configured one, or files in the application's storage."""

    def __init__(
        self, storage: ObjectStore, uris: Mapping[str, str], further: Mapping[str, Sink] | None = None
    ) -> None:
        """Open the sinks.

        Args:
            storage: the application's; egresses without a sink of their own go to
                ``egress/<namespace>/<name>/`` in it, so nothing that a function sends is lost.
            uris: egress typename -> ``file://…`` or ``s3://…``.
            further: egress typename -> its sink.

        Raises:
            ValueError: a sink URI of an unknown scheme.
        """
        self._storage = storage
        self._sinks: dict[str, Sink] = {
            egress: FileSink(open_store(uri), egress) for egress, uri in uris.items()
        }
        self._sinks.update(further or {})

    def for_egress(self, egress: str) -> Sink:
        """Return the sink of ``egress``."""
        sink = self._sinks.get(egress)
        if sink is None:
            sink = self._sinks[egress] = FileSink(self._storage, egress, DEFAULT_SINK_PREFIX)
        return sink

    def open(self) -> None:
        """Open all that are configured; see `Sink.open`."""
        for sink in self._sinks.values():
            sink.open()

    def flush(self, timeout_s: float) -> None:
        """Flush all of them, one after the other; see `Sink.flush`."""
        deadline_s = time.monotonic() + timeout_s
        for sink in self._sinks.values():
            sink.flush(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """Close all of them."""
        for sink in self._sinks.values():
            sink.close()


@dataclass(slots=True)
class _Publication:
    """One `Publish` effect under way."""

    shard: int
    epoch: int
    queues_left: int


@dataclass(slots=True)
class _Queue:
    """What one sink, or one shard of it, has to publish."""

    egress: str
    sink: Sink
    waiting: deque[tuple[_Publication, list[EgressRow]]]
    trouble: str = ""


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
        on_published: told ``(shard, epoch)`` when the sinks have all its rows for good.
        on_failed: told why when publishing can never succeed.
        """
        self._sinks = sinks
        self._executor = executor
        self._may_publish = may_publish
        self._on_published = on_published
        self._on_failed = on_failed
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._backlog = 0

    def add(self, effect: Publish) -> None:
        """Publish after everything added before for the same shard and egress."""
        by_egress: dict[str, list[EgressRow]] = {}
        for row in effect.rows:
            by_egress.setdefault(row[1], []).append(row)
        publication = _Publication(effect.shard, effect.epoch, len(by_egress))
        self._backlog += 1
        for egress, rows in by_egress.items():
            sink = self._sinks.for_egress(egress)
            key = egress, -1 if sink.joins_shards else effect.shard
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(egress, sink, deque())
            queue.waiting.append((publication, rows))
            if key not in self._tasks:
                self._tasks[key] = asyncio.get_running_loop().create_task(self._drain(key, queue))

    @property
    def backlog(self) -> int:
        """Publications that are not done yet."""
        return self._backlog

    @property
    def last_error(self) -> str:
        """Why publishing is being retried right now; empty when it is not."""
        return next((queue.trouble for queue in self._queues.values() if queue.trouble), "")

    def close(self) -> None:
        """Stop; what is queued stays in the outbox of the last snapshot."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._queues.clear()
        self._backlog = 0
        self._sinks.close()

    async def _drain(self, key: tuple[str, int], queue: _Queue) -> None:
        retry_ms = RETRY_MS_FIRST
        try:
            while queue.waiting:
                count, batch = _next_batch(queue.waiting)
                if not self._may_publish():
                    return
                try:
                    await asyncio.get_running_loop().run_in_executor(
                        self._executor, self._publish, queue.sink, batch
                    )
                except (SinkUnavailable, StoreError) as error:
                    queue.trouble = f"egress {queue.egress}: {error}"
                    logger.warning("egress retried egress=%s delay_ms=%d: %s", queue.egress, retry_ms, error)
                    await asyncio.sleep(retry_ms / 1000)
                    retry_ms = min(retry_ms * 2, RETRY_MS_MAX)
                    continue
                retry_ms, queue.trouble = RETRY_MS_FIRST, ""
                for _ in range(count):
                    publication, _ = queue.waiting.popleft()
                    publication.queues_left -= 1
                    if publication.queues_left == 0:
                        self._backlog -= 1
                        self._on_published(publication.shard, publication.epoch)
            self._queues.pop(key, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("egress failed egress=%s", queue.egress)
            self._on_failed(f"egress {queue.egress}: {type(error).__name__}: {error}")
        finally:
            self._tasks.pop(key, None)

    def _publish(self, sink: Sink, batch: Sequence[ShardRows]) -> None:
        if not self._may_publish():
            raise PermissionError("this worker's lease has ended")
        sink.publish(batch)


def _next_batch(waiting: deque[tuple[_Publication, list[EgressRow]]]) -> tuple[int, list[ShardRows]]:
    """Return how many entries to publish together, and their rows."""
    batch: list[ShardRows] = []
    rows_total = 0
    for publication, rows in waiting:
        batch.append((publication.shard, rows))
        rows_total += len(rows)
        if rows_total >= BATCH_ROWS:
            break
    return len(batch), batch
