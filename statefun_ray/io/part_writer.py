"""Writing the parts of snapshots without stopping the loop.

A small part is encoded at once, on the loop: handing it to a thread would take longer, and it
usually stays inline and needs no I/O at all. A large one is turned into Arrow a slice per turn of
the loop; joining, compressing, hashing and storing then happen in a thread, for the most part
without the interpreter's lock. A base waits whenever something else is to be written.

Nothing is reported before it is in the store, so an acknowledgement can only name what is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from typing import Final, cast

from statefun_checkpoints import arrow_format, writer
from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.model import KeyGroups, Level, PartDescriptor, PartKind, Rows
from statefun_checkpoints.store import ObjectStore, run_store
from statefun_ray.core.effects import WritePart

logger = logging.getLogger(__name__)

INLINE_ROWS_MAX: Final = 2_000
"""Encoded on the loop at once: about a millisecond."""

INLINE_VALUE_BYTES_MAX: Final = 262_144
"""... unless their values are larger than this together."""

BASE_SLICE_GAP_S: Final = 0.02
"""Between two slices of a base while messages wait: at most a tenth of the loop's time."""

RETRY_S_FIRST: Final = 0.2
RETRY_S_MAX: Final = 5.0

OnWritten = Callable[[int, str, PartDescriptor | None], None]


class PartWriter:
    """Performs the `WritePart` effects of one worker."""

    def __init__(
        self,
        store: ObjectStore,
        executor: Executor,
        *,
        generation: int,
        worker: int,
        key_groups: KeyGroups,
        on_written: OnWritten,
        on_failed: Callable[[str], None],
    ) -> None:
        """Args:
        on_written: told ``(snapshot id, kind, descriptor)``; without a descriptor if there was
            nothing to write.
        on_failed: told why a part can never be written.
        """
        self._store = store
        self._executor = executor
        self._generation = generation
        self._worker = worker
        self._key_groups = key_groups
        self._on_written = on_written
        self._on_failed = on_failed
        self._parts: deque[_Part] = deque()
        """Deltas and transient parts still to be encoded, in order."""
        self._base: _Part | None = None
        self._base_due_s = 0.0
        self._dropped_until = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_error = ""
        """Why a part is being written again right now; empty when none is."""

    def add(self, effect: WritePart) -> None:
        """Begin to write a part; a small one is encoded before this returns."""
        part = _Part(effect)
        if effect.kind == "base":
            self._base = part
            return
        self.drop(effect.snapshot_id - 1)
        if effect.rows <= INLINE_ROWS_MAX:
            while part.step():
                if part.rows > INLINE_ROWS_MAX or part.value_bytes > INLINE_VALUE_BYTES_MAX:
                    break
        if part.is_encoded:
            self._finish(part)
        else:
            self._parts.append(part)

    def drop(self, snapshot_id: int) -> None:
        """Stop writing for snapshots up to ``snapshot_id``: they are settled or given up. Bases go on."""
        self._dropped_until = max(self._dropped_until, snapshot_id)
        self._parts = deque(part for part in self._parts if part.snapshot_id > snapshot_id)

    def step(self, *, is_busy: bool) -> float | None:
        """Encode one slice; return in how many seconds to call again, None for not until ``add``.

        Args:
            is_busy: messages wait, so a base should take little time.
        """
        if self._parts:
            part = self._parts[0]
            if not part.step():
                self._parts.popleft()
                self._finish(part)
            return 0.0 if self._parts or self._base is not None else None
        if self._base is None:
            return None
        now_s = time.monotonic()
        if is_busy and now_s < self._base_due_s:
            return self._base_due_s - now_s
        if not self._base.step():
            base, self._base = self._base, None
            self._finish(base)
            return None
        self._base_due_s = time.monotonic() + BASE_SLICE_GAP_S
        return BASE_SLICE_GAP_S if is_busy else 0.0

    def close(self) -> None:
        """Stop; what a thread has begun it still ends, and nobody refers to it."""
        self._parts.clear()
        self._base = None
        for task in list(self._tasks):
            task.cancel()

    # --- inside -------------------------------------------------------------------------------

    def _finish(self, part: _Part) -> None:
        if not part.rows:
            self._on_written(part.snapshot_id, part.kind, None)
            return
        if (
            part.rows <= INLINE_ROWS_MAX
            and part.value_bytes <= INLINE_VALUE_BYTES_MAX
            and part.kind != "base"
        ):
            encoded = self._describe(part)
            if encoded.file is None:
                self._on_written(part.snapshot_id, part.kind, encoded.descriptor)
                return
            work: Callable[[], PartDescriptor] = lambda: run_store(self._store, writer.write(encoded))  # noqa: E731
        else:
            work = lambda: run_store(self._store, writer.write(self._describe(part)))  # noqa: E731
        task = asyncio.get_running_loop().create_task(self._store_part(part, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store_part(self, part: _Part, work: Callable[[], PartDescriptor]) -> None:
        retry_s = RETRY_S_FIRST
        while part.kind == "base" or part.snapshot_id > self._dropped_until:
            try:
                descriptor = await asyncio.get_running_loop().run_in_executor(self._executor, work)
            except StoreError as error:
                # Until the snapshot is given up: the coordinator decides how long that is.
                self.last_error = f"snapshot {part.snapshot_id}: {error}"
                logger.warning(
                    "part not stored, trying again snapshot=%d kind=%s delay_s=%g: %s",
                    part.snapshot_id,
                    part.kind,
                    retry_s,
                    error,
                )
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
            except Exception as error:
                logger.exception("part not written snapshot=%d kind=%s", part.snapshot_id, part.kind)
                self._on_failed(
                    f"{part.kind} part of snapshot {part.snapshot_id}: {type(error).__name__}: {error}"
                )
                return
            else:
                self.last_error = ""
                self._on_written(part.snapshot_id, part.kind, descriptor)
                return

    def _describe(self, part: _Part) -> writer.EncodedPart:
        return writer.describe(
            part.data(),
            kind=part.kind,
            level=part.level,
            generation=self._generation,
            snapshot=part.snapshot_id,
            worker=self._worker,
            key_groups=self._key_groups,
            rows=part.rows,
        )


def warm_up() -> None:
    """Encode one row and forget it: Arrow loads what it needs with the first array, half a second of it."""
    arrow_format.encode_part(Rows.of([(0, "a/b.c", "id", "", "a/b", b"value", None)]), "delta")


class _Part:
    """One part while it is being encoded: rows go in slice by slice, the file comes out at the end."""

    def __init__(self, effect: WritePart) -> None:
        self.snapshot_id = effect.snapshot_id
        self.kind = cast("PartKind", effect.kind)
        self.level = cast("Level | None", effect.level or None)
        self.rows = 0
        self.value_bytes = 0
        self.is_encoded = False
        self._slices: Iterator[Rows] = effect.slices
        self._waiting: deque[Rows] = deque()
        self._encoder: Generator[None, None, bytes] = arrow_format.encode_slices(self._take(), self.kind)
        self._data: bytes | None = None

    def step(self) -> bool:
        """Encode the next slice; return whether there may be more."""
        rows = next(self._slices, None)
        if rows is None:
            self.is_encoded = True
            return False
        if len(rows):
            self.rows += len(rows)
            self.value_bytes += sum(len(value) for value in rows.value if value is not None)
            self._waiting.append(rows)
            # The encoder yields after each slice of these rows and asks for the next rows when it
            # is resumed; it must not be, while there are none, for then it would write the file.
            for _ in range(-(-len(rows) // arrow_format.SLICE_ROWS)):
                next(self._encoder)
        return True

    def data(self) -> bytes:
        """Return the file; joins and compresses on the first call."""
        if self._data is None:
            try:
                while True:
                    next(self._encoder)
            except StopIteration as done:
                self._data = cast("bytes", done.value)
        return self._data

    def _take(self) -> Iterator[Rows]:
        while self._waiting:
            yield self._waiting.popleft()
