"""Every error of this package.

::

    CheckpointsError
    ├── StoreError                  storage; always names the object
    │   ├── StoreUnavailable        no definite answer: a write may or may not have happened
    │   ├── StoreRefused            a definite no that retrying will not change
    │   ├── StoreUnsuitable         the store cannot create-if-absent
    │   └── UnsafePath              an object name that could leave the store's root
    └── CheckpointError             what is stored, or is missing, is not what it should be
        ├── CorruptObject           names the object
        │   ├── CorruptEntry        a commit-log entry
        │   ├── CorruptPart         an Arrow part
        │   └── CorruptValue        a state value that its type cannot read
        ├── MissingObject           names the object
        │   ├── MissingEntry
        │   └── MissingPart
        ├── UnsupportedFormat       written by a version this one does not know
        ├── NoApplication           no job.json under this storage
        ├── NoSnapshot              nothing to restore or to read
        ├── NoTable                 no such function type in the snapshot
        ├── JobMismatch             the storage belongs to an application set up differently
        ├── FunctionsChanged        a snapshot's functions cannot be restored by this application
        ├── ClaimContended          other coordinators kept winning
        └── MissingExtra            an optional package is not installed

All survive pickling: the data goes to ``super().__init__`` and the text is built on demand.
"""

from __future__ import annotations


class CheckpointsError(Exception):
    """Root of everything this package raises on purpose."""


DAMAGE_ADVICE = (
    "'statefun-ray verify' with the URI of the storage names all that is damaged; put each of these objects back as it "
    "was, from a copy or an older version in the bucket. No older snapshot is taken instead: it could contradict replies "
    "that were released. 'When something stored is damaged' in docs/guide/operating.md says what else can be saved"
)
"""What to do about an object that is corrupt or missing."""


def advised(error: CheckpointsError) -> str:
    """Return the text of ``error``; with `DAMAGE_ADVICE` if it is about damage."""
    if isinstance(error, CorruptObject | MissingObject) and not isinstance(error, CorruptValue):
        return f"{error}; {DAMAGE_ADVICE}"
    return str(error)


# --- storage ---------------------------------------------------------------------------


class StoreError(CheckpointsError):
    """A store operation failed.

    Args:
        name: the object, or the prefix for a listing.
        operation: get, put, create, list, delete, probe.
        cause: what the store said.
    """

    def __init__(self, name: str, operation: str, cause: str) -> None:
        super().__init__(name, operation, cause)
        self.name, self.operation, self.cause = name, operation, cause

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.name}: {self.cause}"


class StoreUnavailable(StoreError):
    """The store gave no definite answer; a write may or may not have happened.

    Never guess after this one: read the object again and compare.
    """

    def __str__(self) -> str:
        return f"no answer to {self.operation} {self.name}, its outcome is unknown: {self.cause}"


class StoreRefused(StoreError):
    """The store said no, and asking again will not help: credentials, bucket, permissions."""


class StoreUnsuitable(StoreError):
    """The store overwrites where it was asked to create: the commit log would not be safe on it."""

    def __str__(self) -> str:
        return (
            f"this storage does not create-if-absent ({self.name}: {self.cause}); two coordinators could "
            "both believe they committed. Use a file system with hard links, or an S3 service that honours "
            "If-None-Match on PutObject"
        )


class UnsafePath(StoreError):
    """An object name that is empty, absolute, or could leave the store's root."""


# --- what is stored --------------------------------------------------------------------


class CheckpointError(CheckpointsError):
    """What is stored, or is missing, is not what it should be."""


class CorruptObject(CheckpointError):
    """An object is there but its content is wrong."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} is corrupt: {self.reason}"


class CorruptEntry(CorruptObject):
    """A commit-log entry (or job.json, boundary.json) does not decode or fails its hash."""


class CorruptPart(CorruptObject):
    """A snapshot part has the wrong length or hash, or is not the Arrow file it should be."""


class CorruptValue(CorruptObject):
    """A state value cannot be read as its declared type."""


class MissingObject(CheckpointError):
    """An object that something else refers to is not there."""

    def __init__(self, name: str, referrer: str) -> None:
        super().__init__(name, referrer)
        self.name, self.referrer = name, referrer

    def __str__(self) -> str:
        return f"{self.name} is missing; {self.referrer} refers to it"


class MissingEntry(MissingObject):
    """A slot of the commit log is empty although later ones are filled."""


class MissingPart(MissingObject):
    """A part that a commit-log entry lists is not in the store."""


class UnsupportedFormat(CheckpointError):
    """An object was written in a format this version does not know."""

    def __init__(self, name: str, found: str, supported: str) -> None:
        super().__init__(name, found, supported)
        self.name, self.found, self.supported = name, found, supported

    def __str__(self) -> str:
        return (
            f"{self.name} has format {self.found}, this version of statefun-ray reads {self.supported}; "
            "use a newer statefun-ray to read it"
        )


class NoApplication(CheckpointError):
    """There is no job.json, so no application has ever used this storage."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        location = self.uri or "this storage"
        return f"no application is stored at {location}: job.json is missing there; check the URI"


class NoSnapshot(CheckpointError):
    """There is no snapshot to use, or not the one asked for.

    Args:
        snapshot: the id asked for, None for the newest.
        available: ids that could have been used, newest first.
    """

    def __init__(self, snapshot: int | None, available: tuple[int, ...] = ()) -> None:
        super().__init__(snapshot, available)
        self.snapshot, self.available = snapshot, available

    def __str__(self) -> str:
        asked = (
            "no snapshot has been committed yet" if self.snapshot is None else f"no snapshot {self.snapshot}"
        )
        found = ", ".join(map(str, self.available))
        return asked + (f"; the nearest: {found}" if found else "")


class NoTable(CheckpointError):
    """The snapshot knows no such function type."""

    def __init__(self, table: str, available: tuple[str, ...]) -> None:
        super().__init__(table, available)
        self.table, self.available = table, available

    def __str__(self) -> str:
        return f"no table {self.table!r} in this snapshot; there are {', '.join(self.available) or 'none'}"


class JobMismatch(CheckpointError):
    """The storage was set up with another value of something that is fixed for an application's life."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(field, found, expected)
        self.field, self.found, self.expected = field, found, expected

    def __str__(self) -> str:
        return (
            f"job.json says {self.field}={self.found}, this application is started with "
            f"{self.field}={self.expected}; it is fixed for the life of an application: start with "
            f"{self.field}={self.found} or use another storage location"
        )


class FunctionsChanged(CheckpointError):
    """The application to start cannot take over the state of a snapshot.

    Args:
        snapshot: id of the snapshot compared.
        differences: one readable line each.
    """

    def __init__(self, snapshot: int, differences: tuple[str, ...]) -> None:
        super().__init__(snapshot, differences)
        self.snapshot, self.differences = snapshot, differences

    def __str__(self) -> str:
        lines = "".join(f"\n  - {line}" for line in self.differences)
        return (
            f"the functions differ from those of snapshot {self.snapshot} in ways that would lose state:{lines}\n"
            "bring them back (an unused function or state may stay declared), or start with another storage location"
        )


class ClaimContended(CheckpointError):
    """Other coordinators won every slot tried; they should not be many."""

    def __init__(self, attempts: int, slot: int) -> None:
        super().__init__(attempts, slot)
        self.attempts, self.slot = attempts, slot

    def __str__(self) -> str:
        return (
            f"lost {self.attempts} commit-log slots in a row to other coordinators (the last was slot {self.slot}); "
            "is the application started more than once on this storage?"
        )


class MissingExtra(CheckpointError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"{self.package} is not installed; pip install 'statefun-ray[{self.extra}]'"
