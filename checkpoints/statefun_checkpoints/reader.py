"""A commit-log entry to rows: fetch the parts, verify them, apply them in order.

What the state is, per key: the newest part that has it says so. Parts are therefore read newest
first and a key once seen is skipped in older parts. Where a base covers a key group nothing
older counts, not even for keys the base does not have (they were deleted). At equal snapshots
a base is newer than the deltas: it is "as of" that cut. Periodic and small deltas of one cut
agree where they overlap.

Nothing read here is trusted: length and hash of each part are compared with the entry, and
every failure names the object.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
import xxhash

from statefun_checkpoints import arrow_format, entry_format, layout
from statefun_checkpoints.errors import CorruptPart, MissingPart, StoreUnavailable
from statefun_checkpoints.model import Entry, KeyGroups, PartDescriptor, Rows
from statefun_checkpoints.store_requests import Get, StoreSteps

GETS_MAX = 5  # tries of one object

_AGE = {("delta", "periodic"): 0, ("delta", "small"): 1, ("base", None): 2}


class Loaded(msgspec.Struct, frozen=True):
    """What a snapshot holds for a range of key groups.

    Attributes:
        state: user state and keyed reserved tables, one row per key, no tombstones.
        transient: ~inflight and ~outbox rows, in the order they were captured.
    """

    state: Rows
    transient: Rows


class PartSource:
    """Fetches the parts of one entry. Keeps the older entries that hold inline parts."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._entries: dict[int, Entry] = {entry.slot: entry}
        self._referrer = f"snapshot {entry.snapshot_id} (log slot {entry.slot})"

    def fetch(self, part: PartDescriptor) -> StoreSteps[bytes]:
        """Return the verified bytes of ``part``.

        Raises:
            MissingPart: the object is not there.
            CorruptPart: its length or hash is not what the entry says.
            CorruptEntry: the older entry that holds it cannot be read.
        """
        name = self.name_of(part)
        if part.path is not None:
            data = yield from _get(part.path)
            if data is None:
                raise MissingPart(name, self._referrer)
        else:
            data = yield from self._inline(part, name)
        if len(data) != part.bytes:
            raise CorruptPart(name, f"{len(data)} bytes long, {self._referrer} says {part.bytes}")
        found = xxhash.xxh3_128_hexdigest(data)
        if found != part.xxh3_128:
            raise CorruptPart(name, f"its xxh3_128 is {found}, {self._referrer} says {part.xxh3_128}")
        return data

    def object_of(self, part: PartDescriptor) -> str:
        """Return the object that holds ``part``."""
        if part.path is not None:
            return part.path
        return layout.slot_path(self._entry.slot if part.slot is None else part.slot)

    def name_of(self, part: PartDescriptor) -> str:
        """Name ``part`` for people."""
        return part.path if part.path is not None else f"{self.object_of(part)} ({part.where})"

    def _inline(self, part: PartDescriptor, name: str) -> StoreSteps[bytes]:
        holder = part
        if part.slot is not None:
            assert part.index is not None
            entry = yield from self._entry_at(part.slot)
            if not 0 <= part.index < len(entry.parts):
                raise MissingPart(name, self._referrer)
            holder = entry.parts[part.index]
        if holder.inline is None:
            raise MissingPart(name, self._referrer)
        try:
            return base64.b64decode(holder.inline, validate=True)
        except binascii.Error as error:
            raise CorruptPart(name, f"not base64: {error}") from error

    def _entry_at(self, slot: int) -> StoreSteps[Entry]:
        if slot not in self._entries:
            path = layout.slot_path(slot)
            data = yield from _get(path)
            if data is None:
                raise MissingPart(path, self._referrer)
            self._entries[slot] = entry_format.decode_entry(data, path)
        return self._entries[slot]


def load(entry: Entry, key_groups: KeyGroups | None = None) -> StoreSteps[Loaded]:
    """Read what ``entry`` holds for ``key_groups``, all by default.

    Raises:
        MissingPart, CorruptPart, CorruptEntry, UnsupportedFormat: named by object.
        StoreUnavailable: no answer, several times.
    """
    wanted = key_groups or (0, entry.key_group_count)
    source = PartSource(entry)
    relevant = [part for part in entry.parts if overlaps(part.key_groups, wanted)]
    merge = Merge()
    for part in newest_first(relevant):
        data = yield from source.fetch(part)
        merge.add(part, arrow_format.decode_part(data, _narrowed(part, wanted), name=source.name_of(part)))
    transient = Rows()
    for part in relevant:
        if part.kind == "transient":
            data = yield from source.fetch(part)
            transient.extend(
                arrow_format.decode_part(data, _narrowed(part, wanted), name=source.name_of(part))
            )
    return Loaded(merge.rows(), transient)


def overlaps(one: KeyGroups, other: KeyGroups) -> bool:
    """Return whether two ranges of key groups have one in common."""
    return one[0] < other[1] and other[0] < one[1]


def newest_first(parts: list[PartDescriptor]) -> list[PartDescriptor]:
    """Return the state parts in the order in which `Merge` must see them."""
    layers = [part for part in parts if part.kind != "transient"]
    return sorted(layers, key=lambda part: (part.snapshot, _AGE[part.kind, part.level]), reverse=True)


def _narrowed(part: PartDescriptor, wanted: KeyGroups) -> KeyGroups | None:
    """Return the selection to apply to a part, None if all its rows are wanted."""
    first, end = part.key_groups
    return None if wanted[0] <= first and end <= wanted[1] else wanted


class Merge:
    """Layers of state into one, newest first."""

    def __init__(self) -> None:
        self._layers: list[Rows] = []
        self._seen: set[tuple[str, str, str]] = set()
        self._seen_ids: set[str] = set()
        self._closed: set[int] = set()  # key groups for which a base has been seen

    def add(self, part: PartDescriptor, rows: Rows) -> None:
        """Add the next older layer."""
        if part.kind == "base":
            self._layers.append(self._unseen_of_base(rows))
            self._closed.update(range(*part.key_groups))
        else:
            self._layers.append(self._unseen_of_delta(rows))

    def rows(self) -> Rows:
        """Return the merged rows, oldest layer first; ends the merge."""
        # Into the oldest layer, which is nearly all of it.
        merged = self._layers.pop() if self._layers else Rows()
        for layer in reversed(self._layers):
            merged.extend(layer)
        return merged

    def _unseen_of_delta(self, rows: Rows) -> Rows:
        seen, closed = self._seen, self._closed
        keys = set(zip(rows.table, rows.id, rows.sub, strict=True))
        if len(keys) == len(rows) and not closed and seen.isdisjoint(keys):
            # The usual delta, of keys that are in none of the younger ones.
            seen |= keys
            self._seen_ids.update(rows.id)
            if None not in rows.value:
                return rows
            return rows.where([value is not None for value in rows.value])
        keep = []
        # Backwards, so that the later of two rows for a key wins here as well.
        for i in range(len(rows) - 1, -1, -1):
            key = (rows.table[i], rows.id[i], rows.sub[i])
            if rows.key_group[i] in closed or key in seen:
                continue
            seen.add(key)
            self._seen_ids.add(rows.id[i])
            if rows.value[i] is not None:
                keep.append(i)
        keep.reverse()
        return rows if len(keep) == len(rows) else rows.take(keep)

    def _unseen_of_base(self, rows: Rows) -> Rows:
        # A base has millions of rows and few of them are in the deltas, so ids are looked up
        # before any key is put together, and its own keys are not remembered: it closes its
        # key groups instead.
        seen, seen_ids, closed = self._seen, self._seen_ids, self._closed
        if closed or None in rows.value:
            rows = rows.where(
                [
                    value is not None and group not in closed
                    for group, value in zip(rows.key_group, rows.value, strict=True)
                ]
            )
        if not seen:
            return rows
        return rows.where(
            [
                id not in seen_ids or (table, id, sub) not in seen
                for table, id, sub in zip(rows.table, rows.id, rows.sub, strict=True)
            ]
        )


def _get(path: str) -> StoreSteps[bytes | None]:
    for _ in range(GETS_MAX - 1):
        try:
            data: bytes | None = yield Get(path)
            return data
        except StoreUnavailable:
            continue
    last: bytes | None = yield Get(path)
    return last
