"""Object stores: names to bytes, with create-if-absent.

`LocalStore` is ours because what the commit log needs from a file system (atomic create,
durable before it returns) is what general file layers leave out. `MemoryStore` is for tests
and examples. S3 is in `store_s3`. All pass one behaviour suite.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from statefun_checkpoints import layout
from statefun_checkpoints.errors import (
    StoreError,
    StoreRefused,
    StoreUnavailable,
    StoreUnsuitable,
    UnsafePath,
)
from statefun_checkpoints.store_requests import ObjectStore as ObjectStore
from statefun_checkpoints.store_requests import perform as perform
from statefun_checkpoints.store_requests import run_store as run_store

# A name never starts with a dot: such files are ours while they are being written.
_SEGMENT = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_~.=+@-]*")


def open_store(uri: str, *, probe: bool = False) -> ObjectStore:
    """Open the store at ``uri``.

    Args:
        uri: ``file:///dir``, a bare path, ``s3://bucket/prefix`` or ``memory://name`` (shared
            within the process).
        probe: check that creating twice is refused. For writers; readers must not write.

    Raises:
        ValueError: another scheme, or an incomplete URI.
        StoreUnsuitable: the probe was overwritten.
        StoreUnavailable, StoreRefused: the probe could not be written.
    """
    store = _open(uri)
    if probe:
        probe_store(store)
    return store


def _open(uri: str) -> ObjectStore:
    parts = urlsplit(uri)
    if "://" not in uri:
        return LocalStore(Path(uri).absolute())
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ValueError(f"{uri!r} is not a file URI; write file:///absolute/dir")
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return MemoryStore.shared(parts.netloc + parts.path)
    if parts.scheme == "s3":
        from statefun_checkpoints.store_s3 import S3Store  # brings in botocore, a second of start-up

        return S3Store(parts.netloc, parts.path.strip("/"))
    raise ValueError(f"storage {uri!r}: the scheme is {parts.scheme!r}, use file, s3 or memory")


def probe_store(store: ObjectStore) -> None:
    """Create an object twice; the second must be refused, or no commit log is safe there.

    Raises:
        StoreUnsuitable: it was not.
    """
    path = layout.probe_path(secrets.token_hex(16))
    store.create(path, b"1")
    created = store.create(path, b"2")
    content = store.get(path)
    store.delete(path)
    if created or content != b"1":
        raise StoreUnsuitable(path, "probe", "the second create of one name replaced the first")


def check_path(path: str, operation: str) -> str:
    """Return ``path`` if it is a safe object name.

    Raises:
        UnsafePath: it is empty, absolute, has a segment starting with a dot, or odd characters.
    """
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise UnsafePath(
                path,
                operation,
                f"{segment!r} is not a name of letters, digits, '_~.=+@-' with no leading dot",
            )
    return path


def check_prefix(prefix: str) -> str:
    """As `check_path`; a prefix may also be empty or end in a slash."""
    return check_path(prefix.removesuffix("/"), "list") and prefix if prefix else ""


class MemoryStore:
    """Objects in a dictionary. Gone with the process."""

    _shared: dict[str, MemoryStore] = {}  # noqa: RUF012  # by name, for memory:// URIs

    def __init__(self, name: str = "") -> None:
        self.uri = f"memory://{name}"
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def shared(cls, name: str) -> MemoryStore:
        """Return the process's store of that name."""
        return cls._shared.setdefault(name, cls(name))

    def get(self, path: str) -> bytes | None:
        return self.objects.get(check_path(path, "get"))

    def put(self, path: str, data: bytes) -> None:
        self.objects[check_path(path, "put")] = data

    def create(self, path: str, data: bytes) -> bool:
        check_path(path, "create")
        with self._lock:
            if path in self.objects:
                return False
            self.objects[path] = data
            return True

    def list(self, prefix: str, start_after: str = "") -> list[str]:
        check_prefix(prefix)
        return sorted(name for name in list(self.objects) if name.startswith(prefix) and name > start_after)

    def delete(self, path: str) -> None:
        self.objects.pop(check_path(path, "delete"), None)


class LocalStore:
    """Objects as files under a directory.

    - *create*: a temporary file in the same directory, fsync, hard link to the name (fails if it
      is taken), unlink, fsync of the directory. *put*: the same with a rename. So a reader never
      sees half an object, and what was answered survives a power cut.
    - A crash leaves at most a ``.…tmp`` file, which no listing shows.
    """

    def __init__(self, root: Path) -> None:
        """Args:
        root: made when first written to.
        """
        self.root = root
        self.uri = root.as_uri()

    def get(self, path: str) -> bytes | None:
        try:
            return self._file(path, "get").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed(path, "get", error) from error

    def put(self, path: str, data: bytes) -> None:
        self._write(path, "put", data)

    def create(self, path: str, data: bytes) -> bool:
        return self._write(path, "create", data)

    def list(self, prefix: str, start_after: str = "") -> list[str]:
        check_prefix(prefix)
        folder, _, _ = prefix.rpartition("/")
        try:
            return sorted(self._walk(folder + "/" if folder else "", prefix, start_after))
        except OSError as error:
            raise self._failed(prefix, "list", error) from error

    def delete(self, path: str) -> None:
        file = self._file(path, "delete")
        try:
            file.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._failed(path, "delete", error) from error
        self._remove_empty(file.parent)

    def _file(self, path: str, operation: str) -> Path:
        return self.root / check_path(path, operation)

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[str]:
        try:
            scan = os.scandir(self.root / folder)
        except (FileNotFoundError, NotADirectoryError):
            return  # no such prefix, or removed by a collection meanwhile
        with scan:
            for item in scan:
                name = folder + item.name
                if item.name.startswith("."):
                    continue
                if item.is_dir():
                    inside = name + "/"
                    # All names inside share this beginning, so one comparison can skip a folder.
                    behind = inside > start_after or start_after.startswith(inside)
                    if behind and (inside.startswith(prefix) or prefix.startswith(inside)):
                        yield from self._walk(inside, prefix, start_after)
                elif name.startswith(prefix) and name > start_after:
                    yield name

    def _write(self, path: str, operation: str, data: bytes) -> bool:
        file = self._file(path, operation)
        replace = operation == "put"
        try:
            if not replace and file.exists():
                return False  # spares writing a temporary file; the link below is what decides
            temporary = self._temporary(file, data)
            try:
                if replace:
                    os.replace(temporary, file)
                else:
                    os.link(temporary, file)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(file.parent)
        except OSError as error:
            raise self._failed(path, operation, error) from error
        return True

    def _temporary(self, file: Path, data: bytes) -> Path:
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            self._make_directory(file.parent)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as handle:
                view = memoryview(data)
                while view:  # one write may take less than all of it
                    view = view[handle.write(view) :]
                os.fsync(handle.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _make_directory(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make_directory(directory.parent)
            directory.mkdir(exist_ok=True)
            _sync_directory(directory.parent)

    def _remove_empty(self, directory: Path) -> None:
        # A snapshot's folder goes with its last file. A writer may just be making it: `rmdir`
        # refuses a folder in use, and `_temporary` makes it again if it was quicker.
        while directory != self.root:
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent

    def _failed(self, path: str, operation: str, error: OSError) -> StoreError:
        """Return what went wrong as a sentence about the folder, not about our temporary files."""
        reason = error.strerror or str(error)
        if not os.path.isdir(self.root):
            folders = (self.root, *self.root.parents)
            there = next(index for index, folder in enumerate(folders) if os.path.exists(folder))
            if not os.path.isdir(folders[there]):
                reason = f"{folders[there]} is not a folder"
            else:
                reason = f"the folder {folders[there - 1]} cannot be made: {reason}"
        kind = StoreRefused if isinstance(error, PermissionError) else StoreUnavailable
        return kind(path, operation, reason)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
