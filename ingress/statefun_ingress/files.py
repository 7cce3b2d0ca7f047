"""The files of a log on a real disk.

A lock on the directory's ``lock`` file keeps a second process out, also a zombie that was
declared dead and still runs; the kernel drops it with the process.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from statefun_ingress.errors import LogLocked

LOCK_NAME: Final = "lock"
_READERS_MAX: Final = 8


class OsLogFiles:
    """``LogFiles`` in one directory, locked while this object is open.

    Args:
        directory: created if missing; on a local disk, since locks and fsync of network
            file systems do not promise enough.

    Raises:
        LogLocked: another live process holds it.
        OSError: it cannot be created or opened.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        self._lock = os.open(self._path(LOCK_NAME), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise LogLocked(self.directory) from error
        self._writer_name = ""
        self._writer = -1
        self._readers: dict[str, int] = {}
        _sync_directory(os.path.dirname(self.directory))

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def list(self) -> list[str]:
        """Return the names of the log's files."""
        return sorted(
            name for name in os.listdir(self.directory) if name != LOCK_NAME and not name.endswith(".new")
        )

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return os.stat(self._path(name)).st_size

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end of the file."""
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= _READERS_MAX:
                os.close(self._readers.pop(next(iter(self._readers))))
            reader = self._readers[name] = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(reader, length, offset)
        while len(data) < length:
            more = os.pread(reader, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def append(self, name: str, data: bytes) -> None:
        """Write all of ``data`` at the end of a file, creating it if need be."""
        writer = self._open_writer(name)
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]

    def sync(self, name: str) -> None:
        """Make everything appended to the file survive a power loss."""
        os.fdatasync(self._open_writer(name))

    def _open_writer(self, name: str) -> int:
        if name != self._writer_name:
            if self._writer >= 0:
                os.close(self._writer)
                self._writer = -1
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._writer = os.open(self._path(name), flags, 0o600)
            self._writer_name = name
        return self._writer

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Write ``data`` over existing bytes."""
        # Not through the appending descriptor: Linux appends there whatever the offset says.
        descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off at ``size`` bytes."""
        os.truncate(self._path(name), size)

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already counts as removed."""
        reader = self._readers.pop(name, None)
        if reader is not None:
            os.close(reader)
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return

    def replace(self, name: str, data: bytes) -> None:
        """Durably make ``data`` the content of a file."""
        temporary = self._path(name + ".new")
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self._path(name))
        self.sync_directory()

    def sync_directory(self) -> None:
        """Make creations and removals survive a power loss."""
        _sync_directory(self.directory)

    def close(self) -> None:
        """Close all files and let go of the lock."""
        for descriptor in (*self._readers.values(), self._writer, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._readers.clear()
        self._writer = self._lock = -1
        self._writer_name = ""


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
