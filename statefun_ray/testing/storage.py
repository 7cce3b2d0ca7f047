"""Simulated storage: an object store that loses answers, a disk that loses bytes, and a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statefun_checkpoints import layout
from statefun_checkpoints.errors import StoreError, StoreUnavailable
from statefun_checkpoints.store import MemoryStore, perform
from statefun_checkpoints.store_requests import Create, StoreRequest, StoreSteps
from statefun_ray.testing.faults import Faults
from statefun_ray.testing.world import Process, SimulatedCrash, World


class SimulatedStore:
    """Performs store requests of processes in simulated time, with the faults of the run.

    A request happens at one instant between asking and answer, whether or not the process that
    asked still lives: a dead process's write may still arrive.
    """

    def __init__(self, world: World, faults: Faults, rival: Callable[[], None] = lambda: None) -> None:
        """Args:
        rival: lets somebody else take the next slot of the commit log.
        """
        self._world = world
        self._faults = faults
        self._rival = rival
        self.objects = MemoryStore()
        self._away_until_ms = 0.0

    def go_away(self, until_ms: float) -> None:
        """Answer nothing for a while."""
        self._away_until_ms = until_ms

    def request(
        self,
        process: Process,
        request: StoreRequest,
        done: Callable[[Any], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        """Perform ``request`` for ``process`` and tell it the outcome."""
        world, faults = self._world, self._faults
        is_faulty = world.time_ms < faults.duration_ms
        before_ms, after_ms = 0.1 + world.rng.random() * 2, 0.1 + world.rng.random() * 2
        path = getattr(request, "path", getattr(request, "prefix", ""))
        if is_faulty:
            stall = faults.commit_stall if isinstance(request, Create) else faults.store_stall
            if world.chance(stall):
                before_ms = world.rng.uniform(0, faults.stall_ms_max)
        unavailable = StoreUnavailable(path, type(request).__name__.lower(), "simulated")
        if world.time_ms < self._away_until_ms or (is_faulty and world.chance(faults.store_lost)):
            world.after(before_ms, process, lambda: failed(unavailable))
            return
        is_ambiguous = is_faulty and world.chance(faults.store_ambiguous)

        def happen() -> None:
            is_slot = isinstance(request, Create) and layout.parse_slot(path) is not None
            if is_slot and world.time_ms < faults.duration_ms and world.chance(faults.rival):
                self._rival()
            result = perform(self.objects, request)
            if is_slot:
                world.note(
                    f"{process.name} {'creates' if result else 'finds'} slot {layout.parse_slot(path)}"
                    f"{', and is not told' if is_ambiguous else ''}"
                )
            if is_ambiguous:
                # A client gives up at some moment; the write may land before or long after it.
                world.after(after_ms, process, lambda: failed(unavailable))
            else:
                world.after(after_ms, process, lambda: done(result))

        if is_ambiguous and world.rng.random() < 0.5:
            world.after(before_ms / 2, process, lambda: failed(unavailable))
            world.after(before_ms, None, lambda: self._perform(request))
        else:
            world.after(before_ms, None, happen)

    def _perform(self, request: StoreRequest) -> None:
        perform(self.objects, request)

    def run(
        self,
        process: Process,
        steps: StoreSteps[Any],
        finished: Callable[[Any], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        """Drive a procedure to its end for ``process``."""
        self._advance(process, lambda: steps.send(None), steps, finished, failed)

    def _advance(
        self,
        process: Process,
        step: Callable[[], StoreRequest],
        steps: StoreSteps[Any],
        finished: Callable[[Any], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        try:
            request = step()
        except StopIteration as stop:
            finished(stop.value)
        except StoreError as error:
            failed(error)
        else:
            self.request(
                process,
                request,
                lambda result: self._advance(process, lambda: steps.send(result), steps, finished, failed),
                lambda error: self._advance(process, lambda: steps.throw(error), steps, finished, failed),
            )


class SimulatedFiles:
    """The directory of one ingress log, on a disk with a page cache.

    The death of the process loses nothing that was written. A power loss keeps what was synced
    and, of what was appended since, any prefix, perhaps with a hole of zeros. A failed fsync leaves
    its pages clean: a later one that succeeds does not write them, unless they were written again.
    """

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._durable: dict[str, bytes] = {}
        self._files: dict[str, bytearray] = {}
        self._skipped: dict[str, tuple[int, int]] = {}
        """Bytes that a failed fsync dropped from the list of what is to be written."""

    def copy(self) -> SimulatedFiles:
        """Return the same files on a disk without faults."""
        other = SimulatedFiles(self._world, Faults(duration_ms=0))
        other._files = {name: bytearray(data) for name, data in self._files.items()}
        other._durable = dict(self._durable)
        return other

    def _is_faulty(self) -> bool:
        return self._world.time_ms < self._faults.duration_ms

    def _maybe_crash(self) -> None:
        if self._is_faulty() and self._world.chance(self._faults.disk_crash):
            raise SimulatedCrash("at a disk operation")

    def lose_power(self) -> None:
        """The machine stops: keep what is on the disk, and some of what was on its way there."""
        rng = self._world.rng
        for name in list(self._files):
            data, durable = self._files[name], self._durable.get(name)
            if durable is None:
                # Never synced; its directory entry may or may not have reached the disk.
                if rng.random() < 0.5:
                    del self._files[name]
                    continue
                durable = b""
            kept = bytearray(durable)
            if len(data) > len(durable):
                kept += data[len(durable) : rng.randint(len(durable), len(data))]
                if len(kept) - len(durable) > 20 and rng.random() < 0.3:
                    hole = rng.randrange(len(durable), len(kept) - 10)
                    kept[hole : hole + 10] = bytes(10)
            self._files[name] = kept
            self._durable[name] = bytes(kept)
        self._skipped.clear()

    def list(self) -> list[str]:
        """Return the names of all files."""
        return sorted(self._files)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return len(self._files[name])

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes."""
        return bytes(self._files[name][offset : offset + length])

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of a file; a crash in between leaves a part."""
        file = self._files.setdefault(name, bytearray())
        if self._is_faulty() and self._world.chance(self._faults.disk_crash):
            file.extend(data[: self._world.rng.randint(0, len(data))])
            raise SimulatedCrash("in the middle of a write")
        file.extend(data)

    def sync(self, name: str) -> None:
        """Make the file durable, or fail."""
        self._maybe_crash()
        data, durable = self._files[name], self._durable.get(name, b"")
        if self._is_faulty() and self._world.chance(self._faults.disk_error):
            self._skipped[name] = (len(durable), len(data))
            raise OSError(5, "simulated fsync failure", name)
        written = bytearray(data)
        if name in self._skipped:
            start, end = self._skipped[name]
            written[start:end] = bytes(end - start)
        self._durable[name] = bytes(written)
        self._maybe_crash()

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Write over existing bytes, which makes their pages dirty again."""
        self._files[name][offset : offset + len(data)] = data
        start, end = self._skipped.get(name, (0, 0))
        if offset <= start and end <= offset + len(data):
            self._skipped.pop(name, None)

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off, durably."""
        del self._files[name][size:]
        self._durable[name] = self._durable.get(name, b"")[:size]
        start, end = self._skipped.get(name, (0, 0))
        if end > size:
            self._skipped[name] = (min(start, size), size)

    def remove(self, name: str) -> None:
        """Remove a file."""
        del self._files[name]
        self._durable.pop(name, None)
        self._skipped.pop(name, None)

    def replace(self, name: str, data: bytes) -> None:
        """Durably make ``data`` the content of a file."""
        self._maybe_crash()
        self._files[name] = bytearray(data)
        self._durable[name] = data
        self._maybe_crash()

    def sync_directory(self) -> None:
        """Make creations and removals durable; in this model they are at once."""

    def close(self) -> None:
        """Release the directory."""


class SimulatedSink:
    """A sink with create-if-absent per shard and rows, as the file sink has."""

    def __init__(self) -> None:
        self.files: dict[tuple[int, int, int], list[tuple[int, str, str, bytes | None]]] = {}
        self.conflicts: list[str] = []

    def end(self, shard: int) -> int:
        """Return the number of the first row of a shard that is not here."""
        return max((last + 1 for of, _, last in self.files if of == shard), default=0)

    def publish(self, shard: int, rows: list[tuple[int, str, str, bytes | None]]) -> None:
        """Create the file of these rows if it is not there."""
        name = (shard, rows[0][0], rows[-1][0])
        present = self.files.setdefault(name, rows)
        if present != rows:
            self.conflicts.append(
                f"shard {shard}, rows {rows[0][0]} to {rows[-1][0]}: published twice with other content"
            )
