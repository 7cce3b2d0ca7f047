"""Simulated storage: an object store that loses answers and a disk that loses unsynced bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statefun_checkpoints.errors import StoreError, StoreUnavailable
from statefun_checkpoints.store import MemoryStore, perform
from statefun_checkpoints.store_requests import StoreRequest

from statefun_ray.testing.faults import Faults
from statefun_ray.testing.world import Process, SimulatedCrash, World


class SimulatedStore:
    """Performs store requests of processes in simulated time, with the faults of the run.

    A request happens at one instant between asking and answer, whether or not the process that
    asked still lives: a dead process's write may still arrive.
    """

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self.objects = MemoryStore()

    def request(
        self, process: Process, request: StoreRequest, done: Callable[[Any], None], failed: Callable[[StoreError], None]
    ) -> None:
        """Perform ``request`` for ``process`` and tell it the outcome."""
        world, faults = self._world, self._faults
        is_faulty = world.time_ms < faults.duration_ms
        before_ms, after_ms = world.rng.uniform(0.1, 3.0), world.rng.uniform(0.1, 3.0)
        if is_faulty and world.chance(faults.store_stall):
            before_ms = world.rng.uniform(0, faults.stall_ms_max)
        path = getattr(request, "path", getattr(request, "prefix", ""))
        unavailable = StoreUnavailable(path, type(request).__name__.lower(), "simulated")
        if is_faulty and world.chance(faults.store_lost):
            world.after(before_ms, process, lambda: failed(unavailable))
            return
        is_ambiguous = is_faulty and world.chance(faults.store_ambiguous)

        def happen() -> None:
            result = perform(self.objects, request)
            if is_ambiguous:
                world.after(after_ms, process, lambda: failed(unavailable))
            else:
                world.after(after_ms, process, lambda: done(result))

        world.after(before_ms, None, happen)


class SimulatedFiles:
    """The directory of one ingress log: synced bytes survive a crash, of the others any prefix may."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._durable: dict[str, bytes] = {}
        self._files: dict[str, bytearray] = {}
        self.removals = 0

    def _maybe_crash(self) -> None:
        world = self._world
        if world.time_ms < self._faults.duration_ms and world.chance(self._faults.disk_crash):
            raise SimulatedCrash("at a disk operation")

    def crash(self) -> None:
        """The process died: keep what was synced and, of what was appended since, a random prefix."""
        for name in list(self._files):
            data, durable = self._files[name], self._durable.get(name)
            if durable is None:
                # Never synced; its directory entry may or may not have reached the disk.
                if self._world.rng.random() < 0.5:
                    del self._files[name]
                    continue
                durable = b""
            kept = len(durable)
            if len(data) > kept:
                kept = self._world.rng.randint(kept, len(data))
            self._files[name] = bytearray(durable + bytes(data[len(durable) : kept]))
            self._durable[name] = bytes(self._files[name])

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
        """Write at the end of a file."""
        self._maybe_crash()
        self._files.setdefault(name, bytearray()).extend(data)
        self._maybe_crash()

    def sync(self, name: str) -> None:
        """Make the file durable, or fail."""
        self._maybe_crash()
        if self._world.time_ms < self._faults.duration_ms and self._world.chance(self._faults.disk_error):
            raise OSError(5, "simulated fsync failure", name)
        self._durable[name] = bytes(self._files[name])
        self._maybe_crash()

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Write over existing bytes."""
        self._files[name][offset : offset + len(data)] = data

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off, durably."""
        del self._files[name][size:]
        self._durable[name] = bytes(self._files[name])

    def remove(self, name: str) -> None:
        """Remove a file."""
        del self._files[name]
        self._durable.pop(name, None)
        self.removals += 1

    def replace(self, name: str, data: bytes) -> None:
        """Durably make ``data`` the content of a file."""
        self._maybe_crash()
        self._files[name] = bytearray(data)
        self._durable[name] = data

    def sync_directory(self) -> None:
        """Make creations and removals durable; in this model they are at once."""

    def close(self) -> None:
        """Release the directory."""


class SimulatedSink:
    """A sink with create-if-absent per (shard, first row), as the file sink has."""

    def __init__(self) -> None:
        self.files: dict[tuple[int, int, int], list[tuple[int, str, str, bytes | None]]] = {}
        self.conflicts: list[str] = []

    def publish(self, shard: int, rows: list[tuple[int, str, str, bytes | None]]) -> None:
        """Create the file of these rows if it is not there."""
        name = (shard, rows[0][0], rows[-1][0])
        present = self.files.setdefault(name, rows)
        if present != rows:
            self.conflicts.append(f"shard {shard}, rows {rows[0][0]} to {rows[-1][0]}: published twice with other content")
