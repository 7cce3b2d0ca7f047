"""The keyed store of one worker: user state and the runtime's reserved tables, as immutable bytes.

One table per state of each function type, from id to serialised value. Reading is one lookup in
``live``. Writing goes to ``live`` and to ``delta``, the layer of keys dirty since the last cut.
Freezing replaces ``delta`` by an empty dictionary, so a cut costs the same at any number of keys,
and a frozen layer is never changed again: an aborted snapshot's layers are *carried* into the
next one instead of being merged back.

Two levels of delta: a *small* cut writes what changed since the last cut; a *periodic* cut writes
what changed since the last periodic one and so replaces the small ones in between. The layers
for that are kept by reference; nothing is read back from storage.

A base is all keys, scanned in portions while the worker goes on. It may hold values newer than
the snapshot it is labelled with; it is attached only to a snapshot cut after the scan, whose
deltas overwrite every such key (a key written after the label is dirty in one of them).

Only bytes are kept: no object that user code could still change, and nothing for the garbage
collector to traverse. (Messages that wait are tuples of them, which it stops to track; they are
packed when a part is written, as most are gone before that.) A state with expiration packs its expiry time in front of the value; so does
every *dynamic* one, declared while running by a function that lives elsewhere, as that may give it
an expiration or take it away while frozen layers wait to be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Final, Protocol, TypeAlias, cast

from statefun_checkpoints.model import (
    DEAD,
    FAILURES,
    KEYED_RESERVED,
    QUEUE,
    TIMERS,
    FunctionSpec,
    Rows,
    StateSpec,
    state_table,
)
from statefun_ray.core.expiry import lifetime_ms
from statefun_ray.core.key_groups import key_group_of
from statefun_ray.core.message import Message, ordinal_of, ordinal_sub, pack_message, unpack_message

SLICE_ROWS: Final = 2_000
"""Rows per slice: encoding one stays within the loop's turn of about a millisecond or two."""

EXPIRY_BYTES: Final = 8
NEVER: Final = 2**63 - 1
"""Expiry of a value in a dynamic table that does not expire."""
_NEVER: Final = NEVER.to_bytes(EXPIRY_BYTES, "little")
_NEVER_END: Final = _NEVER[-1]
"""No other expiry ends like this one: it would be in a hundred million years."""

Key: TypeAlias = Any
"""``str`` (the id) in user tables, ``(id, sub)`` in reserved ones."""

QueueKey: TypeAlias = int | tuple[str, int]
"""The ordinal of a message, or, for a tombstone, ``(id of the target, ordinal)``."""

Stored: TypeAlias = Any
"""``bytes``, but a message in the table of those that wait."""

Layer: TypeAlias = dict[Key, Stored | None]
"""Changed keys; None is a tombstone."""


class Table:
    """One state of one function type, or one reserved table."""

    __slots__ = (
        "carried",
        "delta",
        "expire_ms",
        "is_dynamic",
        "is_stamped",
        "lasts_until_ms",
        "lifetime_ms",
        "live",
        "name",
        "now_ms",
        "on_call",
        "reserved",
        "since_periodic",
        "typename",
    )

    def __init__(
        self,
        name: str,
        typename: str,
        *,
        expire_ms: int = 0,
        on_call: bool = False,
        is_dynamic: bool = False,
    ) -> None:
        self.name = name
        self.typename = typename
        self.reserved = name in KEYED_RESERVED
        """Not by its first character: a function type may begin with any."""
        self.expire_ms = expire_ms
        """Milliseconds after which a value may go, 0 for never."""
        self.is_dynamic = is_dynamic
        """Whether type and expiration were not known from the start."""
        self.is_stamped = expire_ms > 0 or is_dynamic
        """Whether each value stands behind its expiry."""
        self.on_call = on_call
        """Whether an invocation refreshes the expiry, and not only a write."""
        self.lifetime_ms = lifetime_ms(expire_ms, on_call=on_call)
        """Milliseconds after which a value goes that was just stamped, 0 for never."""
        self.lasts_until_ms = 0
        """Where values expire: none does later, of those that were ever here."""
        self.now_ms = 0
        self.live: dict[Key, Stored] = {}
        self.delta: Layer = {}
        self.carried: list[Layer] = []
        """Layers of aborted cuts, oldest first: part of whatever is cut next."""
        self.since_periodic: list[Layer] = []
        """Layers of committed small cuts since the last committed periodic one."""

    def put(self, key: Key, value: bytes) -> None:
        """Store ``value``; its expiry, if the table has one, starts now."""
        if self.is_stamped:
            if self.lifetime_ms:
                expires_at_ms = self.now_ms + self.lifetime_ms
                if expires_at_ms > self.lasts_until_ms:
                    self.lasts_until_ms = expires_at_ms
                value = expires_at_ms.to_bytes(EXPIRY_BYTES, "little") + value
            else:
                value = _NEVER + value
        self.live[key] = value
        self.delta[key] = value

    def delete(self, key: Key) -> None:
        """Remove ``key`` if it is there."""
        if self.live.pop(key, None) is not None:
            self.delta[key] = None

    def get(self, key: Key) -> bytes | None:
        """Return the value, or None when it is absent or has expired."""
        value: bytes | None = self.live.get(key)
        if value is None or not self.is_stamped:
            return value
        if (
            value[EXPIRY_BYTES - 1] != _NEVER_END
            and int.from_bytes(value[:EXPIRY_BYTES], "little") <= self.now_ms
        ):
            return None
        return value[EXPIRY_BYTES:]

    def refresh(self, key: Key) -> None:
        """Restart the expiry of a value read by an invocation, unless it was restarted lately."""
        value = self.live.get(key)
        if value is None:
            return
        left_ms = int.from_bytes(value[:EXPIRY_BYTES], "little") - self.now_ms
        if 0 < left_ms < self.expire_ms:
            self.put(key, value[EXPIRY_BYTES:])

    def change_expiration(self, expire_ms: int, *, on_call: bool) -> None:
        """Let a dynamic state expire otherwise than before; it walks over all values if it must.

        As after a restart: what never expired begins to age now, what would have expired later stays
        for ever, and another duration counts from when a value was stamped last.
        """
        assert self.is_dynamic, f"{self.name} was declared with the application"
        before_ms, now_ms = self.lifetime_ms, lifetime_ms(expire_ms, on_call=on_call)
        self.expire_ms, self.on_call, self.lifetime_ms = expire_ms, on_call, now_ms
        if before_ms == now_ms:
            return
        if before_ms and now_ms:
            self.lasts_until_ms += now_ms - before_ms
            for key in self.live:
                self.shift(key, now_ms - before_ms)
            return
        for key in list(self.live):
            value = self.get(key)
            if value is None:
                self.delete(key)
            else:
                self.put(key, value)

    def shift(self, key: Key, by_ms: int) -> None:
        """Let a value that is here expire so much later: it was stamped under another duration."""
        value = self.live[key]
        expires_at_ms = max(0, int.from_bytes(value[:EXPIRY_BYTES], "little") + by_ms)
        if expires_at_ms > self.lasts_until_ms:
            self.lasts_until_ms = expires_at_ms
        self.live[key] = self.delta[key] = (
            expires_at_ms.to_bytes(EXPIRY_BYTES, "little") + value[EXPIRY_BYTES:]
        )

    @property
    def has_values(self) -> bool:
        """Whether there is any value that has not expired; perhaps also when only those were deleted."""
        return bool(self.live) and (not self.lifetime_ms or self.lasts_until_ms > self.now_ms)

    def freeze(self) -> None:
        """Set the layer of dirty keys aside; an empty one takes its place."""
        if self.delta:
            self.carried.append(self.delta)
            self.delta = {}

    @property
    def row_count(self) -> int:
        """Rows that are here now."""
        return len(self.live)

    def scan(self) -> Iterator[tuple[Key, Stored]]:
        """Yield the rows for a base: those that are here now, unless they go before it is their turn.

        Values that have expired are removed on the way: this scan is also the clean-up.
        """
        for key in list(self.live):
            value = self.live.get(key)
            if value is None:
                continue
            if self.is_stamped and int.from_bytes(value[:EXPIRY_BYTES], "little") <= self.now_ms:
                self.delete(key)
                continue
            yield key, value

    def merged(self, layers: list[Layer]) -> Layer:
        """Return layers as one, oldest first; the newest of a key wins."""
        if len(layers) == 1:
            return layers[0]
        merged: Layer = {}
        for layer in layers:
            merged.update(layer)
        return merged

    def frozen(self, *, periodic: bool) -> list[Layer]:
        """Return the layers that a cut of this rhythm must write, oldest first."""
        return [*self.since_periodic, *self.carried] if periodic else list(self.carried)

    def committed(self, *, periodic: bool) -> None:
        """Forget what the committed snapshot wrote; a periodic one covers the small ones before it."""
        self.since_periodic = [] if periodic else self.since_periodic + self.carried
        self.carried = []

    def load(self, key: Key, value: bytes, expires_at_ms: int | None) -> None:
        """Take a row from a snapshot, which is clean by definition.

        Unless the state has gained or lost its expiration since: what never expired begins to age now,
        and what would expire later stays for ever. What has expired does not come back. That is
        written, or it would begin anew with every restart.
        """
        is_changed = False
        if not self.expire_ms and expires_at_ms is not None and expires_at_ms <= self.now_ms:
            if not self.is_dynamic:  # of those, the row may be another table's as soon as it is written
                self.delta[key] = None
            return
        if self.is_stamped:
            if expires_at_ms is None:
                is_changed = self.lifetime_ms > 0
                expires_at_ms = self.now_ms + self.lifetime_ms if is_changed else NEVER
            if expires_at_ms > self.lasts_until_ms:
                self.lasts_until_ms = expires_at_ms
            value = expires_at_ms.to_bytes(EXPIRY_BYTES, "little") + value
        elif expires_at_ms is not None:
            is_changed = True
        self.live[key] = value
        if is_changed:
            self.delta[key] = value

    @property
    def is_plain(self) -> bool:
        """Whether keys are ids, and values nothing but bytes of the user."""
        return not self.reserved and not self.is_stamped

    def load_many(self, ids: list[str], values: list[bytes | None]) -> None:
        """As :meth:`load` of each, in a plain table, of rows that never expire."""
        assert None not in values, f"a restored row of {self.name} is a tombstone"
        self.live.update(zip(ids, cast("list[bytes]", values), strict=True))

    def rows(self, items: Iterable[tuple[Key, Stored | None]], key_group_count: int) -> Rows:
        """Return rows for ``items`` as they stand in a part."""
        keys, values = [], []
        for key, value in items:
            keys.append(key)
            values.append(value)
        ids = [key[0] for key in keys] if self.reserved else keys
        subs = [key[1] for key in keys] if self.reserved else [""] * len(keys)
        expires: list[int | None] = [None] * len(keys)
        if self.is_stamped:
            for index, value in enumerate(values):
                if value is not None:
                    expires_at_ms = int.from_bytes(value[:EXPIRY_BYTES], "little")
                    expires[index] = None if expires_at_ms == NEVER else expires_at_ms
                    values[index] = value[EXPIRY_BYTES:]
        return self._of_columns(ids, subs, values, expires, key_group_count)

    def _of_columns(
        self,
        ids: list[str],
        subs: list[str],
        values: list[bytes | None],
        expires: list[int | None],
        key_group_count: int,
    ) -> Rows:
        return Rows.of_columns(
            key_group=[key_group_of(id, key_group_count) for id in ids],
            table=[self.name] * len(ids),
            id=ids,
            sub=subs,
            typename=[self.typename] * len(ids),
            value=values,
            expires_at_ms=expires,
        )


class Waiting(Protocol):
    """An address and what waits for it."""

    id: str
    waiting: list[Message]
    ordinals: list[int]
    """Of these messages, which they ascend by."""


class QueueTable(Table):
    """``~queue``: messages that wait, by id of the target and an ordinal that no other message has.

    Messages stand in the lists of their addresses; here is what a cut has to write of them. A message
    that came and went between two cuts leaves no trace: its ordinal was never written, so no tombstone
    is needed. Unless a base may have seen it: then the delta after it has to say that it is gone.
    """

    __slots__ = ("_may_be_in_base", "_newest", "_restored", "addresses", "count")

    delta: dict[QueueKey, Message | None]

    def __init__(self) -> None:
        super().__init__(QUEUE, "")
        self.addresses: Mapping[tuple[str, str], Waiting] = {}
        """All that have waiting messages; theirs are the rows."""
        self.count = 0
        """Messages that wait."""
        self._restored: list[tuple[int, Message]] = []
        self._newest = -1
        self._may_be_in_base = False
        """Whether a base was begun since the last cut: it may hold what came since then."""

    def add(self, ordinal: int, message: Message) -> None:
        """A message begins to wait; ordinals increase with every call."""
        self.delta[ordinal] = message
        self._newest = ordinal
        self.count += 1

    def remove(self, id: str, ordinals: list[int]) -> None:
        """Forget messages for ``id`` that are done with."""
        delta, was_seen = self.delta, self._may_be_in_base
        pop = delta.pop
        for ordinal in ordinals:
            if pop(ordinal, None) is None or was_seen:
                delta[id, ordinal] = None
        self.count -= len(ordinals)

    @property
    def row_count(self) -> int:
        """See :meth:`Table.row_count`."""
        return self.count

    def freeze(self) -> None:
        """See :meth:`Table.freeze`."""
        super().freeze()
        self._may_be_in_base = False

    def scan(self) -> Iterator[tuple[int, Message]]:
        """See :meth:`Table.scan`."""
        self._may_be_in_base = True
        newest = self._newest
        for address in list(self.addresses.values()):
            for ordinal, message in zip(address.ordinals.copy(), address.waiting.copy(), strict=True):
                if ordinal <= newest:
                    yield ordinal, message

    def merged(self, layers: list[Layer]) -> Layer:
        """See :meth:`Table.merged`; a message and its tombstone have different keys."""
        merged = super().merged(layers)
        if len(layers) > 1:
            for key in [key for key, message in merged.items() if message is None]:
                merged.pop(key[1], None)
        return merged

    def load(self, key: tuple[str, str], value: bytes, expires_at_ms: int | None) -> None:
        """See :meth:`Table.load`; messages do not expire."""
        ordinal = ordinal_of(key[1])
        self._restored.append((ordinal, unpack_message(value)))
        self._newest = max(self._newest, ordinal)
        self.count += 1

    def take_restored(self) -> list[tuple[int, Message]]:
        """Return what was loaded, with its ordinals and in their order: its addresses are to have it."""
        restored, self._restored = sorted(self._restored, key=lambda item: item[0]), []
        return restored

    def rows(self, items: Iterable[tuple[Key, Stored | None]], key_group_count: int) -> Rows:
        """See :meth:`Table.rows`."""
        ids: list[str] = []
        subs: list[str] = []
        values: list[bytes | None] = []
        for key, message in items:
            if message is None:
                id, ordinal = key
                values.append(None)
            else:
                id, ordinal = message[1], key
                values.append(pack_message(message))
            ids.append(id)
            subs.append(ordinal_sub(ordinal))
        return self._of_columns(ids, subs, values, [None] * len(ids), key_group_count)


class KeyedStore:
    """All tables of one worker, and what a cut has to write of them."""

    def __init__(self, key_group_count: int) -> None:
        self._key_group_count = key_group_count
        self.tables: dict[str, Table] = {}
        """By name; a dynamic table of a second type of values by name and type."""
        self._named: dict[str, list[Table]] = {}
        """The same by name, as it is asked for every state of every function at every cut."""
        self.remembered: dict[tuple[str, str], StateSpec] = {}
        """By name of the table and type: what a restored snapshot says about dynamic states."""
        self._expiring: list[Table] = []
        self._now_ms = 0
        self.queue = QueueTable()
        self.add(self.queue)
        self.timers = self.add(Table(TIMERS, ""))
        self.failures = self.add(Table(FAILURES, ""))
        self.dead = self.add(Table(DEAD, ""))

    def add(self, table: Table) -> Table:
        """Register ``table`` under its name."""
        name = table.name if table.name not in self.tables else f"{table.name}\0{table.typename}"
        self.tables[name] = table
        self._named.setdefault(table.name, []).append(table)
        table.now_ms = self._now_ms
        if table.is_stamped:
            self._expiring.append(table)
        return table

    def set_now(self, now_ms: int) -> None:
        """Tell expiring tables the time; the store has no clock."""
        self._now_ms = now_ms
        for table in self._expiring:
            table.now_ms = now_ms

    def load(
        self, rows: Rows, now_ms: int, lifetimes: Mapping[tuple[str, str], Sequence[int]] | None = None
    ) -> int:
        """Fill the tables from restored rows, tombstones already removed; return their number.

        Args:
            rows: what was stored.
            now_ms: wall-clock time.
            lifetimes: by name of a table and type, for how long its values were stamped, by key
                group; 0 is not known. Where the table has another one by now, it counts from then.

        Rows of a state that nobody has declared yet are kept and written again: functions that live
        elsewhere declare theirs when they are called, and an owner that is gone may come back.
        """
        tables, stamped = self.tables, lifetimes or {}
        self._now_ms = now_ms
        for known in tables.values():
            known.now_ms = now_ms
        end = 0
        # A part has the rows of a table one after the other: a million rows are a few thousand runs.
        for name, run in groupby(rows.table):
            start, end = end, end + len(list(run))
            ids, values, expires = rows.id[start:end], rows.value[start:end], rows.expires_at_ms[start:end]
            table = tables.get(name)
            if table is not None and table.is_plain and expires.count(None) == len(expires):
                table.load_many(ids, values)
                continue
            for id, sub, typename, value, expires_at_ms, key_group in zip(
                ids,
                rows.sub[start:end],
                rows.typename[start:end],
                values,
                expires,
                rows.key_group[start:end],
                strict=True,
            ):
                table = tables.get(name)
                if table is None or (table.typename != typename and table.is_dynamic):
                    table = self.dynamic(name, typename)
                assert value is not None, f"a restored row of {name} is a tombstone"
                table.load((id, sub) if table.reserved else id, value, expires_at_ms)
                if expires_at_ms is not None and table.lifetime_ms and (name, typename) in stamped:
                    stamped_ms = stamped[name, typename][key_group]
                    if stamped_ms and stamped_ms != table.lifetime_ms:
                        table.shift(id, table.lifetime_ms - stamped_ms)
        return len(rows)

    def dynamic(self, name: str, typename: str) -> Table:
        """Return the table of a state that is declared while running, or not at all (yet).

        Values of one state may be of two types, while versions of a service disagree: each type has
        a table, both of the same name, so that no row ever changes its type.
        """
        for table in self.tables_named(name):
            if table.typename == typename:
                return table
        spec = self.remembered.get((name, typename))
        table = Table(name, typename, is_dynamic=True)
        if spec is not None:
            table.change_expiration(spec.expire_ms, on_call=spec.expire == "after_call")
        return self.add(table)

    def tables_named(self, name: str) -> Sequence[Table]:
        """Return the tables of one state: none, one, or one per type its values have."""
        return self._named.get(name, ())

    def freeze(self) -> None:
        """The cut: set every table's dirty layer aside."""
        for table in self.tables.values():
            table.freeze()

    def committed(self, *, periodic: bool) -> None:
        """The frozen layers are in a committed snapshot."""
        for table in self.tables.values():
            table.committed(periodic=periodic)

    def dirty_rows(self, *, periodic: bool) -> int:
        """Return an upper bound of the rows that :meth:`delta_slices` yields."""
        return sum(len(layer) for table in self.tables.values() for layer in table.frozen(periodic=periodic))

    def delta_slices(self, *, periodic: bool) -> Iterator[Rows]:
        """Yield the frozen layers as rows, in slices; the newest layer of a key wins.

        The layers are fixed when this is called, so that it may be consumed while later cuts happen.
        """
        frozen = [(table, table.frozen(periodic=periodic)) for table in self.tables.values()]
        return self._slices([(table, layers) for table, layers in frozen if layers])

    def _slices(self, frozen: list[tuple[Table, list[Layer]]]) -> Iterator[Rows]:
        for table, layers in frozen:
            items = iter(table.merged(layers).items())
            while portion := list(islice(items, SLICE_ROWS)):
                yield table.rows(portion, self._key_group_count)

    def key_count(self) -> int:
        """Return the number of rows in all tables."""
        return sum(table.row_count for table in self.tables.values())

    def base_slices(self) -> Iterator[Rows]:
        """Yield all keys as rows, in slices, reading each value when its slice is made."""
        for table in list(self.tables.values()):
            items = table.scan()
            while portion := list(islice(items, SLICE_ROWS)):
                yield table.rows(portion, self._key_group_count)


def tables_of(function_type: str, spec: FunctionSpec) -> list[Table]:
    """Return an empty table for every state of a function, in order of declaration."""
    return [
        Table(
            state_table(function_type, name),
            state.type,
            expire_ms=state.expire_ms,
            on_call=state.expire == "after_call",
        )
        for name, state in spec.states.items()
    ]
