"""Log files in memory that forget what was not synced, tear writes and fail when told to."""

from __future__ import annotations

from collections.abc import Callable


class FaultyFiles:
    """``LogFiles`` in memory.

    ``crash`` returns the files as a power loss leaves them: per file the synced bytes, and
    of the rest as much as ``keep_unsynced`` says. Files and removals not covered by
    ``sync_directory`` may be undone too.
    """

    def __init__(self) -> None:
        self.current: dict[str, bytearray] = {}
        self.synced: dict[str, bytes] = {}
        self.directory: set[str] = set()  # durable names
        self.fail_sync: Callable[[str], bool] = lambda name: False
        self.fail_append: Callable[[str], bool] = lambda name: False
        self.is_closed = False
        self.operations: list[str] = []

    def list(self) -> list[str]:
        return sorted(self.current)

    def size(self, name: str) -> int:
        return len(self.current[name])

    def read(self, name: str, offset: int, length: int) -> bytes:
        return bytes(self.current[name][offset : offset + length])

    def append(self, name: str, data: bytes) -> None:
        self.operations.append(f"append {name}")
        if self.fail_append(name):
            self.current.setdefault(name, bytearray()).extend(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        self.current.setdefault(name, bytearray()).extend(data)

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self.current[name])
        self.current[name][offset : offset + len(data)] = data

    def sync(self, name: str) -> None:
        self.operations.append(f"sync {name}")
        if self.fail_sync(name):
            raise OSError(5, "Input/output error")
        self.synced[name] = bytes(self.current[name])

    def truncate(self, name: str, size: int) -> None:
        del self.current[name][size:]

    def remove(self, name: str) -> None:
        del self.current[name]

    def replace(self, name: str, data: bytes) -> None:
        self.current[name] = bytearray(data)
        self.synced[name] = bytes(data)
        self.directory.add(name)

    def sync_directory(self) -> None:
        self.operations.append("sync directory")
        self.directory = set(self.current)

    def close(self) -> None:
        self.is_closed = True

    def crash(self, keep_unsynced: int = 0, *, keep_directory: bool = False) -> FaultyFiles:
        """Return what a power loss leaves, with ``keep_unsynced`` bytes of each unsynced tail."""
        after = FaultyFiles()
        for name in self.directory | (set(self.current) if keep_directory else set()):
            synced = self.synced.get(name, b"")
            current = bytes(self.current.get(name, synced))
            kept = synced + current[len(synced) : len(synced) + keep_unsynced]
            after.current[name] = bytearray(kept)
            after.synced[name] = kept
        after.directory = set(after.current)
        return after

    def kill(self) -> FaultyFiles:
        """Return what the death of the process leaves: everything written."""
        after = FaultyFiles()
        after.current = {name: bytearray(data) for name, data in self.current.items()}
        after.synced = dict(self.synced)
        after.directory = set(self.directory)
        return after
