"""The words of this package as types: rows, parts, commit-log entries. Pure.

Not here: names of objects (`layout`), bytes on disk (`entry_format`, `arrow_format`), and any
decision. Invariants of single values are checked when they are made, so an entry that exists
is well formed, whether it was just built or just read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Literal, TypeAlias

import msgspec
import xxhash

FORMAT: Literal[1] = 1
KEY_HASH = "xxh3_64"
KEY_GROUP_COUNT_DEFAULT = 1_024
KEY_GROUP_COUNT_MAX = 65_536  # the column is uint16
EGRESS_SHARDS_DEFAULT = 128
INLINE_BYTES_MAX = 65_536  # above it a part is a file: an entry must stay quick to read and write

# Names for plain integers. Aliases and not NewTypes: they cross four packages and two wire
# formats, and wrapping each one said less than it cost.
KeyGroup: TypeAlias = int
Slot: TypeAlias = int
Generation: TypeAlias = int
SnapshotId: TypeAlias = int
WorkerIndex: TypeAlias = int
KeyGroups: TypeAlias = tuple[int, int]  # [first, end)

EntryKind: TypeAlias = Literal["claim", "snapshot", "stop"]
PartKind: TypeAlias = Literal["delta", "base", "transient"]
Level: TypeAlias = Literal["small", "periodic"]
Rhythm: TypeAlias = Literal["periodic", "reply", "final"]
ExpireMode: TypeAlias = Literal["none", "after_write", "after_call"]

QUEUE = "~queue"
TIMERS = "~timers"
FAILURES = "~failures"
DEAD = "~dead"
INFLIGHT = "~inflight"
OUTBOX = "~outbox"
KEYED_RESERVED = (QUEUE, TIMERS, FAILURES, DEAD)  # kept, written and merged like user state
TRANSIENT_TABLES = (INFLIGHT, OUTBOX)  # whole in every snapshot


def key_group_of(id: str, key_group_count: int) -> KeyGroup:
    """Return the key group of every address with this id, in ``[0, key_group_count)``.

    By id alone, so all function types of one id live on one worker.
    """
    return xxhash.xxh3_64_intdigest(id.encode()) % key_group_count


def state_table(function_type: str, state: str) -> str:
    """Return the table that holds one state of one function type."""
    return f"{function_type}.{state}"


Row: TypeAlias = tuple[int, str, str, str, str, bytes | None, int | None]


class Rows:
    """Rows of a part, one list per column, all of the same length.

    ============== ============== =====================================================
    column         type           meaning
    ============== ============== =====================================================
    key_group      int            of the id
    table          str            ``namespace/type.state``, or a reserved one of those above
    id             str            of the address
    sub            str            second key in reserved tables; "" in user state
    typename       str            of the value
    value          bytes or None  exact bytes; None is a tombstone
    expires_at_ms  int or None    wall clock; None is never
    ============== ============== =====================================================

    Columns and not row objects, because a worker has a million of them.
    """

    __slots__ = ("expires_at_ms", "id", "key_group", "sub", "table", "typename", "value")

    def __init__(self) -> None:
        self.key_group: list[int] = []
        self.table: list[str] = []
        self.id: list[str] = []
        self.sub: list[str] = []
        self.typename: list[str] = []
        self.value: list[bytes | None] = []
        self.expires_at_ms: list[int | None] = []

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        """Build from tuples in column order."""
        made = cls()
        for row in rows:
            made.append(*row)
        return made

    @classmethod
    def of_columns(
        cls,
        *,
        key_group: list[int],
        table: list[str],
        id: list[str],
        sub: list[str],
        typename: list[str],
        value: list[bytes | None],
        expires_at_ms: list[int | None],
    ) -> Rows:
        """Build from whole columns of equal length; they are taken over, not copied."""
        made = cls()
        made.key_group, made.table, made.id, made.sub = key_group, table, id, sub
        made.typename, made.value, made.expires_at_ms = typename, value, expires_at_ms
        return made

    def append(
        self,
        key_group: int,
        table: str,
        id: str,
        sub: str,
        typename: str,
        value: bytes | None,
        expires_at_ms: int | None,
    ) -> None:
        """Add one row."""
        self.key_group.append(key_group)
        self.table.append(table)
        self.id.append(id)
        self.sub.append(sub)
        self.typename.append(typename)
        self.value.append(value)
        self.expires_at_ms.append(expires_at_ms)

    def extend(self, other: Rows) -> None:
        """Add all rows of ``other``."""
        for mine, theirs in zip(self._columns(), other._columns(), strict=True):
            mine.extend(theirs)

    def slice(self, start: int, end: int) -> Rows:
        """Return rows ``[start, end)``."""
        made = Rows()
        for ours, theirs in zip(made._columns(), self._columns(), strict=True):
            ours.extend(theirs[start:end])
        return made

    def take(self, indexes: list[int]) -> Rows:
        """Return the rows at ``indexes``, in that order."""
        made = Rows()
        for ours, theirs in zip(made._columns(), self._columns(), strict=True):
            ours.extend(map(theirs.__getitem__, indexes))
        return made

    def where(self, mask: list[bool]) -> Rows:
        """Return the rows at which ``mask`` is true, in their order."""
        made = Rows()
        for ours, theirs in zip(made._columns(), self._columns(), strict=True):
            ours.extend(compress(theirs, mask))
        return made

    def select(self, key_groups: KeyGroups) -> Rows:
        """Return the rows whose key group is in ``[first, end)``, in their order."""
        first, end = key_groups
        return self.take([i for i, group in enumerate(self.key_group) if first <= group < end])

    def of_table(self, table: str) -> Rows:
        """Return the rows of one table, in their order."""
        return self.take([i for i, name in enumerate(self.table) if name == table])

    def _columns(self) -> tuple[list[object], ...]:
        return tuple(getattr(self, name) for name in COLUMNS)

    def __len__(self) -> int:
        return len(self.id)

    def __iter__(self) -> Iterator[Row]:
        return zip(
            self.key_group,
            self.table,
            self.id,
            self.sub,
            self.typename,
            self.value,
            self.expires_at_ms,
            strict=True,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self._columns() == other._columns()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Rows {len(self)}>"


COLUMNS = ("key_group", "table", "id", "sub", "typename", "value", "expires_at_ms")


class PartDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one part's rows are, and what they must be. Travels in acknowledgements and entries.

    Attributes:
        kind: "delta": keys dirty since a cut, last writer wins, with tombstones; "base": all keys
            as of ``snapshot``; "transient": in-flight and outbox rows of exactly ``snapshot``.
        worker: who wrote it. Only a name: key groups say whose rows they are.
        snapshot: the cut it belongs to.
        level: of a delta. "periodic" ones hold what changed since the last periodic cut and
            replace the "small" ones up to it.
        key_groups: [first, end) that the part speaks for. A base is complete for these.
        rows: how many.
        bytes: length of the encoded part.
        xxh3_128: hash of the encoded part, 32 hex digits.
        path: of a file; or
        inline: the part itself, base64; or
        slot, index: it is inline in the entry at this slot, at this index of its parts.
    """

    kind: PartKind
    worker: WorkerIndex
    snapshot: SnapshotId
    key_groups: KeyGroups
    rows: int
    bytes: int
    xxh3_128: str
    level: Level | None = None
    path: str | None = None
    inline: str | None = None
    slot: Slot | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        places = (self.path is not None) + (self.inline is not None) + (self.slot is not None)
        if places != 1 or (self.slot is None) != (self.index is None):
            raise ValueError("a part has exactly one of path, inline, or slot with index")
        if (self.kind == "delta") != (self.level is not None):
            raise ValueError(f"a {self.kind} part {'needs a' if self.kind == 'delta' else 'has no'} level")
        first, end = self.key_groups
        if not 0 <= first < end <= KEY_GROUP_COUNT_MAX:
            raise ValueError(f"key groups [{first}, {end}) are not a range")
        if self.rows < 1 or self.bytes < 1:
            raise ValueError("an empty part is never written")

    @property
    def where(self) -> str:
        """Name the place for people."""
        if self.path is not None:
            return self.path
        if self.slot is not None:
            return f"part {self.index} inline in log slot {self.slot}"
        return f"inline {self.kind} part of worker {self.worker} for snapshot {self.snapshot}"


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where key groups ``[first, end)`` go on reading a log: all below ``next_seq`` is applied or in flight."""

    log_id: str
    first: KeyGroup
    end: KeyGroup
    next_seq: int


class StateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a function declared about one state.

    Attributes:
        type: typename of the values.
        expire: when the clock of expiry starts anew.
        expire_ms: duration; 0 with "none".
        json: the values are UTF-8 JSON, whatever the typename.
    """

    type: str
    expire: ExpireMode = "none"
    expire_ms: int = 0
    json: bool = False


def _no_states() -> dict[str, StateSpec]:
    return {}


class FunctionSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The states of one function type, by name.

    Attributes:
        remote: it lives elsewhere and says itself what its states are, so it may come, change and
            go without a restart; then only states that have values are listed.
        differing: where workers know it otherwise, because its service was changed and not every
            one has called it since: their word on states, by worker (a decimal string).
    """

    states: dict[str, StateSpec] = msgspec.field(default_factory=_no_states)  # written even when empty
    remote: bool = False
    differing: dict[str, dict[str, StateSpec]] = {}


def _format() -> Literal[1]:
    return FORMAT


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the commit log.

    Attributes:
        kind: "claim": a new generation begins; "snapshot": a cut exists; "stop": the last cut
            before an orderly stop.
        slot: its number, without gaps.
        generation: who wrote it. Never decreases along the log.
        nonce: unique to the attempt, so that a writer without an answer can tell its own success.
        created_at_ms: wall clock, for people and for expiry on the read side; never for ordering.

        The rest belongs to "snapshot" and "stop":

        snapshot_id: strictly increasing over the application's life.
        parent: slot of the snapshot before, None for the first.
        rhythm: "periodic" and "final" ones are retained, "reply" ones superseded.
        parts: all that is needed to restore, older parts included.
        positions: where each log is read from.
        out_seq: by egress shard (a decimal string), the next sequence number.
        counters: summed over the workers, for conservation (`verify`).
        in_flight: rows in ~inflight and ~queue.
        timer_next: next timer number.
        functions: what was bound, to compare at a restart.
    """

    kind: EntryKind
    slot: Slot
    generation: Generation
    nonce: str
    created_at_ms: int
    format: Literal[1] = msgspec.field(default_factory=_format)  # a factory, or it would be left out
    snapshot_id: SnapshotId = 0
    parent: Slot | None = None
    rhythm: Rhythm | None = None
    key_group_count: int = 0
    worker_count: int = 0
    parts: tuple[PartDescriptor, ...] = ()
    positions: tuple[Position, ...] = ()
    out_seq: dict[str, int] = {}
    counters: dict[str, int] = {}
    in_flight: int = 0
    timer_next: int = 0
    functions: dict[str, FunctionSpec] = {}

    def __post_init__(self) -> None:
        if self.slot < 0 or self.generation < 0:
            raise ValueError(f"slot {self.slot} and generation {self.generation} must not be negative")
        if self.kind == "claim":
            if self.snapshot_id or self.parts:
                raise ValueError("a claim carries no snapshot")
            return
        if self.snapshot_id < 1:
            raise ValueError(f"a {self.kind} needs a snapshot_id of at least 1, not {self.snapshot_id}")
        if self.rhythm is None:
            raise ValueError(f"a {self.kind} needs a rhythm")
        if self.key_group_count < 1 or self.worker_count < 1:
            raise ValueError("a snapshot needs its key_group_count and worker_count")
        if self.parent is not None and self.parent >= self.slot > 0:
            raise ValueError(f"the parent {self.parent} must lie below slot {self.slot}")

    @property
    def is_snapshot(self) -> bool:
        """Whether it can be restored from."""
        return self.kind != "claim"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """job.json: what is fixed for the life of an application.

    Attributes:
        incarnation: drawn when the storage was new, so it tells this application from every other
            one of its name, the one that had this storage before it was emptied included. Not there
            in a storage that is older than the field.
    """

    name: str
    key_group_count: int = KEY_GROUP_COUNT_DEFAULT
    egress_shards: int = EGRESS_SHARDS_DEFAULT
    key_hash: str = KEY_HASH
    incarnation: str | msgspec.UnsetType = msgspec.UNSET
    format: Literal[1] = FORMAT


class Boundary(msgspec.Struct, frozen=True, kw_only=True):
    """boundary.json: log slots below ``first_slot``, a multiple of a thousand, may be gone."""

    first_slot: Slot
    format: Literal[1] = FORMAT
