"""The files a log is kept in, as a protocol: real ones in ``files.py``, simulated ones in tests."""

from __future__ import annotations

from typing import Protocol


class LogFiles(Protocol):
    """The files of one log: a flat directory, blocking calls, failures as OSError.

    ``append`` and ``sync`` are called from the committer thread, everything else from the
    owner of the log; different files or disjoint bytes are touched at the same time.
    """

    def list(self) -> list[str]:
        """Return the names of all files."""
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end of the file."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Write all of ``data`` at the end of a file, creating it if need be."""
        ...

    def sync(self, name: str) -> None:
        """Make everything appended to the file survive a power loss."""
        ...

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Write ``data`` over existing bytes; after a crash each byte is old or new."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off at ``size`` bytes."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Durably make ``data`` the content of a file: afterwards, or after a crash, old or new."""
        ...

    def sync_directory(self) -> None:
        """Make creations and removals survive a power loss."""
        ...

    def close(self) -> None:
        """Release the directory, so that another process may open the log."""
        ...
