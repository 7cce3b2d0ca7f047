"""The life of snapshots, one at a time: begin, acknowledgements, the entry to commit. Pure.

Knows which parts make up the current state of the application: per worker a chain of a base and
the deltas after it. Three rules keep a chain complete:

* a periodic delta replaces the small deltas of its own generation, because it holds all keys they
  hold; small deltas from before the restore stay, because the restored worker did not write them
  again;
* a base labelled n replaces everything up to n of its worker, and nothing after it;
* parts that speak for other key groups than a worker's, written with another number of workers,
  are *inherited*: they stay until every worker of the generation has written a base. A worker's
  index says nothing about them, for after a rescale it stands for other key groups.

Nothing changes until a snapshot is committed; an aborted one leaves no trace here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from statefun_checkpoints.model import Entry, FunctionSpec, KeyGroups, PartDescriptor, Position, Rhythm


class WorkerPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker acknowledges for one snapshot.

    Attributes:
        parts: new parts: delta, transient, and a base when one was finished before the cut.
        based_on: label of that base (its scan may have found nothing to write); 0 for none.
        positions: where the worker reads each ingress log.
        out_seq: next sequence of each egress shard the worker owns.
        counters: totals since this generation started.
        in_flight: messages in its transient part and queues.
        timer_next: next free ordinal.
        cut_ms: wall clock of the cut.
        functions: what the worker has learned of functions that live elsewhere.
    """

    parts: list[PartDescriptor]
    based_on: int
    positions: list[Position]
    out_seq: dict[int, int]
    counters: dict[str, int]
    in_flight: int
    timer_next: int
    cut_ms: int
    functions: dict[str, FunctionSpec] = {}


@dataclass
class OpenSnapshot:
    """A snapshot that has been triggered and is neither committed nor aborted."""

    snapshot_id: int
    rhythm: Rhythm
    begun_ms: int
    acks: dict[int, WorkerPart] = field(default_factory=dict)


class SnapshotCoordinator:
    """Composes the snapshots of one generation."""

    def __init__(
        self,
        *,
        key_groups: Sequence[KeyGroups],
        functions: Mapping[str, FunctionSpec],
        restored: Entry | None,
    ) -> None:
        """Args:
        key_groups: of every worker, in worker order; together all there are.
        functions: as they are recorded in the entries.
        restored: what this generation begins from.
        """
        worker_count = len(key_groups)
        self._worker_count = worker_count
        self._key_group_count = key_groups[-1][1]
        self._functions = dict(functions)
        self._restored_id = restored.snapshot_id if restored is not None else 0
        self._restored_counters = dict(restored.counters) if restored is not None else {}
        self._restored_timer_next = restored.timer_next if restored is not None else 0
        self._chains: dict[int, list[PartDescriptor]] = {worker: [] for worker in range(worker_count)}
        self._inherited: list[PartDescriptor] = []
        self._without_base: set[int] = set()
        if restored is not None:
            for part in lasting_parts(restored):
                is_own = part.worker < worker_count and part.key_groups == key_groups[part.worker]
                (self._chains[part.worker] if is_own else self._inherited).append(part)
            newest = max((part.snapshot for part in self._inherited), default=0)
            self._without_base = {
                worker
                for worker, chain in self._chains.items()
                if not any(part.kind == "base" and part.snapshot >= newest for part in chain)
            }
        self.parent_slot = restored.slot if restored is not None else None
        self.last_id = self.committed_id = self._restored_id
        self.open: OpenSnapshot | None = None

    def begin(self, rhythm: Rhythm, now_ms: int) -> OpenSnapshot:
        """Open the next snapshot."""
        assert self.open is None, f"snapshot {self.open} is open; one at a time"
        self.last_id += 1
        self.open = OpenSnapshot(self.last_id, rhythm, now_ms)
        return self.open

    def acknowledge(self, worker: int, snapshot_id: int, part: WorkerPart) -> bool:
        """Take a worker's part; return whether the snapshot is now complete. Late ones are ignored."""
        if self.open is None or self.open.snapshot_id != snapshot_id:
            return False
        self.open.acks[worker] = part
        return len(self.open.acks) == self._worker_count

    def abort(self) -> int | None:
        """Give up the open snapshot; return its id, or None if there is none."""
        snapshot, self.open = self.open, None
        return None if snapshot is None else snapshot.snapshot_id

    def entry(self, *, now_ms: int) -> Entry:
        """Return the entry to commit for the complete open snapshot; the log fills in slot and nonce."""
        snapshot = self.open
        assert snapshot is not None, "no snapshot is open"
        assert len(snapshot.acks) == self._worker_count, "not every worker has acknowledged"
        acks = [snapshot.acks[worker] for worker in range(self._worker_count)]
        chains, inherited, _ = self._advanced(snapshot)
        parts = inherited + [part for worker in range(self._worker_count) for part in chains[worker]]
        parts += [part for ack in acks for part in ack.parts if part.kind == "transient"]
        counters = dict(self._restored_counters)
        for ack in acks:
            for name, count in ack.counters.items():
                counters[name] = counters.get(name, 0) + count
        return Entry(
            kind="stop" if snapshot.rhythm == "final" else "snapshot",
            slot=0,
            generation=0,
            nonce="",
            created_at_ms=now_ms,
            snapshot_id=snapshot.snapshot_id,
            parent=self.parent_slot,
            rhythm=snapshot.rhythm,
            key_group_count=self._key_group_count,
            worker_count=self._worker_count,
            parts=tuple(parts),
            positions=tuple(position for ack in acks for position in ack.positions),
            out_seq={str(shard): sequence for ack in acks for shard, sequence in sorted(ack.out_seq.items())},
            counters=counters,
            in_flight=sum(ack.in_flight for ack in acks),
            timer_next=max(self._restored_timer_next, *(ack.timer_next for ack in acks)),
            functions=merged_functions(self._functions, [ack.functions for ack in acks]),
        )

    def committed(self, entry: Entry) -> None:
        """The entry is in the log: its parts are what the next snapshot builds on."""
        snapshot = self.open
        assert snapshot is not None, "no snapshot is open"
        assert snapshot.snapshot_id == entry.snapshot_id, "another snapshot was committed"
        _, inherited, self._without_base = self._advanced(snapshot)
        parts = lasting(entry)
        self._inherited = [part for part in parts[: len(inherited)] if part is not None]
        self._chains = {worker: [] for worker in range(self._worker_count)}
        for part in parts[len(inherited) :]:
            if part is not None:
                self._chains[part.worker].append(part)
        self.parent_slot = entry.slot
        self.committed_id = entry.snapshot_id
        self.open = None

    def small_deltas(self) -> int:
        """Return how many small deltas the longest chain holds since the last periodic snapshot."""
        return max(
            sum(part.level == "small" and part.snapshot > self._restored_id for part in chain)
            for chain in self._chains.values()
        )

    def _advanced(
        self, snapshot: OpenSnapshot
    ) -> tuple[dict[int, list[PartDescriptor]], list[PartDescriptor], set[int]]:
        without_base = self._without_base - {worker for worker, ack in snapshot.acks.items() if ack.based_on}
        inherited = self._inherited if without_base else []
        chains = {}
        for worker, ack in snapshot.acks.items():
            chain = self._chains[worker]
            if snapshot.rhythm != "reply":
                chain = [
                    part for part in chain if part.level != "small" or part.snapshot <= self._restored_id
                ]
            # A base without rows leaves no part that could hide inherited rows: tombstones must.
            if ack.based_on and (not inherited or any(part.kind == "base" for part in ack.parts)):
                chain = [part for part in chain if part.snapshot > ack.based_on]
            chains[worker] = chain + [part for part in ack.parts if part.kind != "transient"]
        return chains, inherited, without_base


def merged_functions(
    embedded: Mapping[str, FunctionSpec], learned: Sequence[Mapping[str, FunctionSpec]]
) -> dict[str, FunctionSpec]:
    """Return the functions to record: the embedded ones, and what the workers learned of others.

    Workers that disagree about a state, as during an upgrade of its service, keep their rows with the
    types and expirations these have: the first worker's word is recorded, and what others say instead.
    """
    merged = dict(embedded)
    for worker, functions in enumerate(learned):
        for function_type, spec in functions.items():
            known = merged.get(function_type)
            if known is None:
                merged[function_type] = spec
            elif known.remote:
                states = {**spec.states, **known.states}
                others = {name: state for name, state in spec.states.items() if state != states[name]}
                differing = {**known.differing, str(worker): others} if others else known.differing
                merged[function_type] = FunctionSpec(states, remote=True, differing=differing)
    return merged


def lasting(entry: Entry) -> list[PartDescriptor | None]:
    """Return the entry's parts as later entries refer to them; None for those that end with it.

    A part that is inline in the entry is referred to by slot and index: its bytes stand once.
    """
    return [
        None
        if part.kind == "transient"
        else part
        if part.inline is None
        else msgspec.structs.replace(part, inline=None, slot=entry.slot, index=index)
        for index, part in enumerate(entry.parts)
    ]


def lasting_parts(entry: Entry) -> list[PartDescriptor]:
    """Return what :func:`lasting` keeps."""
    return [part for part in lasting(entry) if part is not None]
