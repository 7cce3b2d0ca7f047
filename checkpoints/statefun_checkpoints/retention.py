"""Which snapshots to keep and which data objects may go. The decisions are pure.

An object may go if no retained entry refers to it **and** none ever will. The second half is
what makes collection dangerous; per object of (generation, snapshot, worker):

===========================  ==========================================================
its generation               it may still be referred to by a later entry
===========================  ==========================================================
above ours                   yes: it is we who are stale. Keep.
ours, delta or transient     until a retained snapshot is newer than it
ours, base                   until every retained entry has a newer base of its worker: a
                             base is written in the background and attached long after
                             the cut it is named after
below ours                   no: its generation is fenced and commits nothing any more
===========================  ==========================================================

And even then it goes only after being seen unreferenced for a grace period, so that someone
reading an old snapshot can finish. Log slots are never deleted: a stalled writer could create
an old one again and believe it committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from statefun_checkpoints import entry_format, layout
from statefun_checkpoints.errors import CheckpointError, StoreRefused
from statefun_checkpoints.model import Entry
from statefun_checkpoints.store_requests import Delete, Get, List, ObjectStore, StoreSteps, run_store

SNAPSHOTS_KEPT_DEFAULT = 3
GRACE_MS_DEFAULT = 60_000  # longer than reading a snapshot takes


def retained(entries: Iterable[Entry], keep: int = SNAPSHOTS_KEPT_DEFAULT) -> list[Entry]:
    """Return the entries to keep, newest first.

    Args:
        entries: newest first; claims are skipped.
        keep: how many periodic and final ones. The newest snapshot stays whatever its kind.
    """
    kept: list[Entry] = []
    counted = 0
    for entry in entries:
        if counted == keep:
            break
        if entry.is_snapshot and (entry.rhythm != "reply" or not kept):
            kept.append(entry)
            counted += entry.rhythm != "reply"
    return kept


def referenced_paths(entries: Iterable[Entry]) -> set[str]:
    """Return the data objects that any of ``entries`` needs."""
    return {part.path for entry in entries for part in entry.parts if part.path is not None}


def trim_positions(entries: Sequence[Entry]) -> dict[str, int]:
    """Return, by log, the sequence number below which no retained entry will read again.

    A log that some retained entry does not know for all key groups is left out: restored from
    there, it would be read from its start. A worker that has not reached an ingress yet has no
    position in its log, and must find everything there when it does.
    """
    lowest: dict[str, int] = {}
    known = set.intersection(*map(_known_logs, entries)) if entries else set()
    for entry in entries:
        for position in entry.positions:
            if position.log_id in known:
                lowest[position.log_id] = min(
                    lowest.get(position.log_id, position.next_seq), position.next_seq
                )
    return dict(sorted(lowest.items()))


def _known_logs(entry: Entry) -> set[str]:
    covered: dict[str, int] = {}
    for position in entry.positions:
        size = position.end - position.first
        covered[position.log_id] = covered.get(position.log_id, 0) + size
    return {log_id for log_id, size in covered.items() if size == entry.key_group_count}


class Collector:
    """Plans deletions. Remembers since when it has seen each object unreferenced; a restart forgets it."""

    def __init__(self, grace_ms: int = GRACE_MS_DEFAULT) -> None:
        self._grace_ms = grace_ms
        self._unreferenced_since: dict[str, int] = {}

    def plan(
        self, *, entries: Sequence[Entry], names: Iterable[str], generation: int, now_ms: int
    ) -> list[str]:
        """Return the data objects to delete now.

        Args:
            entries: all retained ones, newest first. Empty plans nothing.
            names: data objects in the store.
            generation: ours, which holds the commit log.
            now_ms: a monotonic clock.
        """
        garbage = unreferenced(entries=entries, names=names, generation=generation)
        self._unreferenced_since = {name: self._unreferenced_since.get(name, now_ms) for name in garbage}
        return [name for name in garbage if now_ms - self._unreferenced_since[name] >= self._grace_ms]

    def run(self, *, retained_slots: Sequence[int], generation: int, now_ms: int) -> StoreSteps[list[str]]:
        """Read the retained entries, list, plan and delete; return what was deleted.

        Args:
            retained_slots: of all retained entries.
            generation: ours, which holds the commit log.
            now_ms: a monotonic clock.

        Raises:
            StoreUnavailable: no answer; what was not deleted is found again by the next run.
            StoreRefused: the store said no, or a retained entry cannot be read: then nothing is
                deleted, for nothing is known to be safe.
        """
        entries = []
        for slot in retained_slots:
            path = layout.slot_path(slot)
            data: bytes | None = yield Get(path)
            try:
                entries.append(entry_format.decode_entry(data or b"", path))
            except CheckpointError as error:
                raise StoreRefused(path, "collect the data objects that", str(error)) from error
        names: list[str] = yield List(layout.DATA_PREFIX)
        garbage = self.plan(entries=entries, names=names, generation=generation, now_ms=now_ms)
        for name in garbage:
            yield Delete(name)
        return garbage


def collect(
    store: ObjectStore,
    retained_slots: Sequence[int],
    generation: int,
    *,
    collector: Collector | None = None,
    now_ms: int = 0,
) -> list[str]:
    """Delete what no retained entry needs and return the names. Blocking; may take a while.

    Args:
        store: of the application.
        retained_slots: of all retained entries. Empty deletes nothing.
        generation: ours, which holds the commit log.
        collector: kept between calls, it grants the grace period; without one there is none.
        now_ms: a monotonic clock, for the collector.

    Raises:
        StoreError: some or all may be left, for the next call.
    """
    chosen = collector or Collector(grace_ms=0)
    return run_store(store, chosen.run(retained_slots=retained_slots, generation=generation, now_ms=now_ms))


def unreferenced(*, entries: Sequence[Entry], names: Iterable[str], generation: int) -> list[str]:
    """Return the data objects that no retained entry refers to and none ever will, by name."""
    if not entries:
        return []  # nothing is known to be safe, so everything stays
    needed = referenced_paths(entries)
    oldest = min(entry.snapshot_id for entry in entries)
    bases = _oldest_bases(entries, generation)
    garbage = []
    for name in names:
        part = layout.parse_part(name)
        if part is None or name in needed or part.generation > generation:
            continue
        if part.generation == generation:
            horizon = bases.get(part.worker, 0) if part.kind == "base" else oldest
            if part.snapshot >= horizon:
                continue
        garbage.append(name)
    return sorted(garbage)


def _oldest_bases(entries: Sequence[Entry], generation: int) -> dict[int, int]:
    """By worker: the oldest among the newest bases that each entry has of it in ``generation``."""
    per_entry: list[dict[int, int]] = []
    for entry in entries:
        newest: dict[int, int] = {}
        for part in entry.parts:
            name = layout.parse_part(part.path) if part.path is not None else None
            if part.kind == "base" and name is not None and name.generation == generation:
                newest[part.worker] = max(newest.get(part.worker, 0), part.snapshot)
        per_entry.append(newest)
    workers = set.intersection(*map(set, per_entry))
    return {worker: min(newest[worker] for newest in per_entry) for worker in sorted(workers)}
