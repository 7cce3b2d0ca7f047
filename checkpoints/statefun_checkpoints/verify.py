"""Check a stored application from the outside: chain, hashes, conservation. Reads only.

For every retained snapshot, and every log slot from the oldest of them on:

- the slots have no gap, each entry matches its hash, generations never decrease, snapshot ids
  grow, and each parent is an older snapshot (I5);
- every part is there with the recorded length and hash, holds as many rows as recorded, only of
  its key groups, and only of tables that belong in a part of its kind (I4);
- nothing is lost and nothing doubled, as far as counting can tell (I10):

  =====================================  =============================================
  ``admitted + emitted + timers_fired``  ``applied + in_flight + timers_replied``: each message
                                         that came to be was applied, is waiting, or was a
                                         delayed reply
  ``in_flight``                          rows in ~inflight and ~queue
  ``timers_set``                         ``timers_fired + timers_cancelled`` + rows in
                                         ~timers
  ``buried``                             ``unburied`` + rows in ~dead: each dead letter is
                                         there until it is redriven or dropped
  sum of ``out_seq``                     ``egress_rows``
  =====================================  =============================================
"""

from __future__ import annotations

from collections import Counter

import msgspec

from statefun_checkpoints import arrow_format, layout
from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.errors import CheckpointError
from statefun_checkpoints.model import (
    DEAD,
    INFLIGHT,
    QUEUE,
    TIMERS,
    TRANSIENT_TABLES,
    Entry,
    PartDescriptor,
    Rows,
)
from statefun_checkpoints.reader import Merge, PartSource, newest_first
from statefun_checkpoints.retention import SNAPSHOTS_KEPT_DEFAULT
from statefun_checkpoints.store_requests import StoreSteps

ROWS_NAMED_MAX = 3  # examples given in one finding


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        name: the object.
        text: what was found and what was expected.
    """

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class Report(msgspec.Struct, frozen=True):
    """What `verify` looked at and what it found.

    Attributes:
        application: its name.
        snapshots: ids checked, newest first.
        slots: how many log slots were read.
        parts, rows, bytes: how much was read and hashed.
        dead_letters: how many each snapshot holds, by id; without those that cannot be read completely.
        findings: empty if all is well.
    """

    application: str
    snapshots: tuple[int, ...]
    slots: int
    parts: int
    rows: int
    bytes: int
    dead_letters: dict[int, int]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def lines(self) -> list[str]:
        """Return the report for people, a finding a line."""
        what = (
            f"{self.application}: {len(self.snapshots)} snapshots, {self.slots} log slots, "
            f"{self.parts} parts, {self.rows} rows, {self.bytes} bytes"
        )
        for newest in self.snapshots[:1]:
            what += f", {self.dead_letters.get(newest, 'unknown')} dead letters in snapshot {newest}"
        return [what, *map(str, self.findings)] if self.findings else [f"{what}: sound"]


def verify(snapshots_kept: int = SNAPSHOTS_KEPT_DEFAULT) -> StoreSteps[Report]:
    """Check the application in a store.

    Args:
        snapshots_kept: how many snapshots to check; those that retention keeps, by default.

    Raises:
        NoApplication: there is none.
        StoreError: the store gave no answer, so nothing can be said.
    """
    log = LogReader()
    job = yield from log.open()
    check = _Check(key_group_count=job.key_group_count)
    entries = yield from check.chain(log, snapshots_kept)
    for entry in entries:
        yield from check.snapshot(entry)
    return Report(
        application=job.name,
        snapshots=tuple(entry.snapshot_id for entry in entries),
        slots=check.slots,
        parts=check.parts,
        rows=check.rows,
        bytes=check.bytes,
        dead_letters=check.dead_letters,
        findings=tuple(check.findings),
    )


class _Check:
    """Collects findings, and remembers parts that several snapshots share."""

    def __init__(self, key_group_count: int) -> None:
        self.key_group_count = key_group_count
        self.findings: list[Finding] = []
        self.slots = self.parts = self.rows = self.bytes = 0
        self.dead_letters: dict[int, int] = {}
        self._seen: set[tuple[str, str]] = set()  # object and hash of parts whose rows have been checked

    def chain(self, log: LogReader, count: int) -> StoreSteps[list[Entry]]:
        """Read entries from the newest down until ``count`` snapshots are found; check their links."""
        kept: list[Entry] = []
        retained = 0
        newer: Entry | None = None
        newer_snapshot: Entry | None = None
        for slot in range(log.newest_slot, log.first_slot - 1, -1):
            self.slots += 1
            try:
                entry = yield from log.read(slot)
            except CheckpointError as error:
                self._find(layout.slot_path(slot), str(error))
                newer = newer_snapshot = None
                continue
            self._links(entry, slot, newer, newer_snapshot)
            newer = entry
            if entry.is_snapshot:
                newer_snapshot = entry
                if retained < count and (entry.rhythm != "reply" or not kept):
                    kept.append(entry)
                    retained += entry.rhythm != "reply"
            if retained >= count:
                break
        return kept

    def snapshot(self, entry: Entry) -> StoreSteps[None]:
        """Check one snapshot's parts and its arithmetic."""
        name = layout.slot_path(entry.slot)
        if entry.key_group_count != self.key_group_count:
            self._find(name, f"{entry.key_group_count} key groups, job.json says {self.key_group_count}")
        source = PartSource(entry)
        merge = Merge()
        transient: Counter[str] = Counter()
        complete = True
        states = newest_first(list(entry.parts))
        for part in [*states, *(part for part in entry.parts if part.kind == "transient")]:
            try:
                data = yield from source.fetch(part)
                rows = arrow_format.decode_part(data, name=source.name_of(part))
            except CheckpointError as error:
                self._find(source.name_of(part), str(error))
                complete = False
                continue
            self._rows(part, rows, source.name_of(part), source.object_of(part))
            if part.kind == "transient":
                transient.update(rows.table)
            else:
                merge.add(part, rows)
        if complete:  # else the sums are off for a reason already given
            count = Counter(merge.rows().table) + transient
            self.dead_letters[entry.snapshot_id] = count[DEAD]
            self._conservation(entry, name, count)

    def _links(self, entry: Entry, slot: int, newer: Entry | None, newer_snapshot: Entry | None) -> None:
        name = layout.slot_path(slot)
        if entry.slot != slot:
            self._find(name, f"it says that it is slot {entry.slot}")
        if newer is not None and newer.generation < entry.generation:
            self._find(
                layout.slot_path(newer.slot),
                f"generation {newer.generation} after generation {entry.generation} in slot {slot}",
            )
        if newer_snapshot is None or not entry.is_snapshot:
            return
        newer_name = layout.slot_path(newer_snapshot.slot)
        if newer_snapshot.snapshot_id <= entry.snapshot_id:
            self._find(
                newer_name,
                f"snapshot {newer_snapshot.snapshot_id} after snapshot {entry.snapshot_id} in slot {slot}",
            )
        if newer_snapshot.parent is None:
            self._find(newer_name, f"it has no parent, but snapshot {entry.snapshot_id} is in slot {slot}")
        elif slot < newer_snapshot.parent:
            self._find(newer_name, f"its parent, slot {newer_snapshot.parent}, is not a snapshot")

    def _rows(self, part: PartDescriptor, rows: Rows, name: str, holder: str) -> None:
        if (holder, part.xxh3_128) in self._seen:
            return
        self._seen.add((holder, part.xxh3_128))
        self.parts += 1
        self.rows += len(rows)
        self.bytes += part.bytes
        if len(rows) != part.rows:
            self._find(name, f"it holds {len(rows)} rows, its entry says {part.rows}")
        first, end = part.key_groups
        strangers = [i for i, group in enumerate(rows.key_group) if not first <= group < end]
        if strangers:
            examples = ", ".join(
                f"{rows.table[i]} {rows.id[i]!r} (key group {rows.key_group[i]})"
                for i in strangers[:ROWS_NAMED_MAX]
            )
            self._find(name, f"{len(strangers)} rows are outside key groups [{first}, {end}): {examples}")
        wrong = [
            table for table in set(rows.table) if (table in TRANSIENT_TABLES) != (part.kind == "transient")
        ]
        if wrong:
            self._find(name, f"a {part.kind} part holds rows of {', '.join(sorted(wrong))}")

    def _conservation(self, entry: Entry, name: str, rows: Counter[str]) -> None:
        count = Counter(entry.counters)
        came = count["admitted"] + count["emitted"] + count["timers_fired"]
        gone = count["applied"] + entry.in_flight + count["timers_replied"]
        if came != gone:
            self._find(
                name,
                f"{abs(came - gone)} messages {'lost' if came > gone else 'doubled'}: "
                f"admitted {count['admitted']} + emitted {count['emitted']} + timers_fired {count['timers_fired']}"
                f" = {came}, applied {count['applied']} + in_flight {entry.in_flight} + timers_replied "
                f"{count['timers_replied']} = {gone}",
            )
        waiting = rows[INFLIGHT] + rows[QUEUE]
        if entry.in_flight != waiting:
            self._find(
                name,
                f"in_flight is {entry.in_flight}, but there are {rows[INFLIGHT]} rows in {INFLIGHT} "
                f"and {rows[QUEUE]} in {QUEUE}",
            )
        ended = count["timers_fired"] + count["timers_cancelled"] + rows[TIMERS]
        if count["timers_set"] != ended:
            self._find(
                name,
                f"timers_set is {count['timers_set']}, but timers_fired {count['timers_fired']} + timers_cancelled "
                f"{count['timers_cancelled']} + {rows[TIMERS]} rows in {TIMERS} = {ended}",
            )
        if count["buried"] != count["unburied"] + rows[DEAD]:
            self._find(
                name,
                f"buried is {count['buried']}, but unburied {count['unburied']} + {rows[DEAD]} rows in {DEAD} "
                f"= {count['unburied'] + rows[DEAD]}",
            )
        numbered = sum(entry.out_seq.values())
        if numbered != count["egress_rows"]:
            self._find(
                name, f"the out_seq of all shards sum to {numbered}, egress_rows is {count['egress_rows']}"
            )

    def _find(self, name: str, text: str) -> None:
        self.findings.append(Finding(name, text.removeprefix(f"{name} ").removeprefix("is corrupt: ")))
