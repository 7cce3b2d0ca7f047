"""The cuts of one worker: what goes into each, what is written of it, and what its fate sets free.

A cut is one call, :meth:`Cuts.cut`. Everything in it belongs to one instant, so what the worker
itself holds then is handed over as one value, an :class:`Instant`; the keyed store, the outbox and
the channels do their own part. What is written of a snapshot, and when that begins:

=============  ===================================================================================
part           begins
=============  ===================================================================================
``delta``      at the cut: the layers of dirty keys, which the cut has frozen
``transient``  when every channel has delivered its marker: mailbox, recordings, outbox
``base``       between two snapshots, now and then; attached to one that is cut after it was finished
=============  ===================================================================================

Not here: which channels are still recorded (``Participant``), when snapshots are due and whether
they are committed (the coordinator), how parts are encoded and stored (the driver).

Invariants: I1 (snapshots in order, one at a time) is asserted in ``Participant``; markers go out
behind everything emitted before the cut and before anything emitted after it; nothing of the outbox
leaves before its snapshot is known to be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from statefun_checkpoints.model import Entry, FunctionSpec, PartDescriptor, Position
from statefun_checkpoints.participant import Participant
from statefun_ray.core.channel import OutChannel
from statefun_ray.core.control import Ack, SnapshotWanted
from statefun_ray.core.effects import Publish, SendFrame, SplitsCommitted, Tell, WorkerEffect, WritePart
from statefun_ray.core.feeds import LogFeeds
from statefun_ray.core.message import Message
from statefun_ray.core.outbox import Outbox
from statefun_ray.core.snapshots import FinishedBase, OpenSnapshot, transient_slices
from statefun_ray.core.splits import SPLIT_PREFIX
from statefun_ray.core.state import KeyedStore
from statefun_ray.core.worker_config import WorkerConfig


@dataclass(frozen=True, slots=True)
class Instant:
    """What a worker holds at the moment of its cut, beside store, outbox and channels; containers are copies."""

    now_ms: int
    mailbox: list[Message]
    waiting_count: int
    """Messages in the queues of addresses, those in flight included; they are rows of the keyed store."""
    ordinal: int
    """The last one given to a timer, a message that waits, or a dead letter."""
    positions: list[Position]
    counters: dict[str, int]
    functions: dict[str, FunctionSpec]
    """What is known of functions that live elsewhere."""


class Cuts:
    """The snapshots of one worker, one at a time."""

    __slots__ = (
        "_base",
        "_base_due",
        "_base_running",
        "_channels",
        "_config",
        "_delta_rows",
        "_deltas",
        "_emit",
        "_feeds",
        "_outbox",
        "_participant",
        "_shard_bounds",
        "_snapshot",
        "_store",
        "_wanted_after",
        "last_committed",
    )

    def __init__(
        self,
        config: WorkerConfig,
        *,
        store: KeyedStore,
        outbox: Outbox,
        feeds: LogFeeds,
        channels: Mapping[int, OutChannel],
        shard_bounds: list[int],
        emit: Callable[[WorkerEffect], None],
    ) -> None:
        """Args:
        channels: to every peer, by its index; it sends as many to us.
        shard_bounds: first key group of every shard.
        emit: takes effects, in order.
        """
        self._config = config
        self._store = store
        self._outbox = outbox
        self._feeds = feeds
        self._channels = channels
        self._shard_bounds = shard_bounds
        self._emit = emit
        self._participant: Participant[Message] = Participant(channels, last_cut=0)
        self._snapshot: OpenSnapshot | None = None
        """The cut whose fate is not known yet."""
        self.last_committed = 0
        """The newest snapshot that is known to be committed, 0 for none."""
        self._wanted_after = -1
        """The cut after which a snapshot was asked for last."""
        self._base: FinishedBase | None = None
        """A base that no committed snapshot has yet."""
        self._base_running = False
        self._base_due = False
        self._deltas = 0
        """Committed periodic deltas since the last base; after a restore, about as many parts as a worker has."""
        self._delta_rows = 0
        """Rows of all committed deltas since the last base."""

    @property
    def last_cut(self) -> int:
        """The snapshot that was cut last, whatever became of it; 0 for none."""
        return self._participant.last_cut

    # --- life -------------------------------------------------------------------------------------

    def restore(self, entry: Entry, key_groups: tuple[int, int]) -> None:
        """Go on from a commit-log entry.

        Args:
            entry: the one that was loaded.
            key_groups: of this worker, as ``[first, end)``.
        """
        low, high = key_groups
        self._participant.last_cut = self.last_committed = entry.snapshot_id
        self._deltas = len(entry.parts) // entry.worker_count
        # Parts written for other key groups stay in every entry until each worker has a base.
        self._base_due = any(
            part.key_groups != key_groups and part.key_groups[0] < high and low < part.key_groups[1]
            for part in entry.parts
            if part.kind != "transient"
        )

    def start(self) -> None:
        """The worker begins: what the restored snapshot holds of the outbox may not have left yet."""
        self._publish(0, self.last_committed)

    # --- the cut ----------------------------------------------------------------------------------

    def wants_cut(self, snapshot_id: int) -> bool:
        """Whether a trigger or marker of ``snapshot_id`` is the first that is heard of it."""
        return self._participant.wants_cut(snapshot_id)

    def cut(self, snapshot_id: int, rhythm: str, committed: int, instant: Instant) -> None:
        """Take this worker's part of a snapshot; to be called when `wants_cut` says so.

        Args:
            snapshot_id: of the snapshot that begins.
            rhythm: ``reply`` for one that somebody waits for; its delta is a small one.
            committed: the newest committed snapshot: settles the last one, if its fate was not heard.
            instant: what the worker holds now.
        """
        # Everything in this method belongs to one instant: nothing may be processed in between.
        if self._snapshot is not None:
            self.committed(committed)
        if self._snapshot is not None:
            self._abort(self._snapshot)
        snapshot = self._snapshot = OpenSnapshot(snapshot_id, periodic=rhythm != "reply")
        self._participant.begin(snapshot_id)
        self._store.freeze()
        self._outbox.cut(snapshot_id)
        snapshot.mailbox = instant.mailbox
        snapshot.outbox = self._outbox.capture(self._shard_bounds)
        snapshot.base = self._base
        snapshot.ack = Ack(
            generation=self._config.generation,
            worker=self._config.worker,
            snapshot_id=snapshot_id,
            parts=snapshot.parts,
            based_on=snapshot.base.snapshot_id if snapshot.base is not None else 0,
            positions=instant.positions,
            out_seq=dict(self._outbox.next_sequence),
            counters=instant.counters,
            in_flight=len(instant.mailbox) + instant.waiting_count,
            timer_next=instant.ordinal,
            cut_ms=instant.now_ms,
            functions=instant.functions,
        )
        # Markers go out behind everything emitted before the cut, and before anything emitted after it.
        for peer, channel in self._channels.items():
            for frame in channel.marker(snapshot_id, rhythm, committed):
                self._emit(SendFrame(peer, frame))
        periodic = snapshot.periodic
        self._emit(
            WritePart(
                snapshot_id,
                "delta",
                "periodic" if periodic else "small",
                self._store.delta_slices(periodic=periodic),
                self._store.dirty_rows(periodic=periodic),
            )
        )
        self._finish_recording()

    def record(self, peer: int, messages: list[Message]) -> None:
        """Messages have come from ``peer``: between our cut and its marker, they are in flight."""
        self._participant.record(peer, messages)

    def marker(self, peer: int, snapshot_id: int) -> None:
        """The marker of ``peer`` has come; the cut was made before, at the latest for this marker."""
        self._participant.marker(peer, snapshot_id)
        self._finish_recording()

    def _finish_recording(self) -> None:
        snapshot = self._snapshot
        if snapshot is None or snapshot.ack is None or not self._participant.is_complete:
            return
        recorded = self._participant.recorded()
        self._participant.close()
        snapshot.ack = msgspec.structs.replace(snapshot.ack, in_flight=snapshot.ack.in_flight + len(recorded))
        messages = snapshot.mailbox + recorded
        slices = transient_slices(messages, snapshot.outbox, self._config.key_group_count)
        self._emit(WritePart(snapshot.snapshot_id, "transient", "", slices, len(messages)))

    def part_written(self, snapshot_id: int, kind: str, descriptor: PartDescriptor | None) -> None:
        """A ``WritePart`` effect is done; ``descriptor`` is None when there were no rows."""
        if kind == "base":
            self._base_running = False
            self._base = FinishedBase(snapshot_id, descriptor)
            return
        snapshot = self._snapshot
        if snapshot is None or snapshot.snapshot_id != snapshot_id:
            return
        snapshot.awaited.remove(kind)
        if descriptor is not None:
            snapshot.parts.append(descriptor)
        if not snapshot.awaited and snapshot.ack is not None:
            if snapshot.base is not None and snapshot.base.part is not None:
                snapshot.parts.append(snapshot.base.part)
            self._emit(Tell(snapshot.ack))

    # --- its fate ---------------------------------------------------------------------------------

    def committed(self, snapshot_id: int) -> None:
        """The newest committed snapshot is ``snapshot_id``: settle the open one if it is that."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.snapshot_id != snapshot_id:
            return
        self._snapshot = None
        self.last_committed = snapshot_id
        self._store.committed(periodic=snapshot.periodic)
        for part in snapshot.parts:
            if part.kind == "delta":
                self._delta_rows += part.rows
                self._deltas += snapshot.periodic
        if snapshot.base is not None:
            self._base = None
            self._delta_rows, self._deltas = 0, 0
        self._publish(snapshot_id - 1, snapshot_id)
        self._feeds.committed(snapshot_id)
        if snapshot.ack is not None:
            positions = {
                position.log_id: position.next_seq
                for position in snapshot.ack.positions
                if position.log_id.startswith(SPLIT_PREFIX)
            }
            if positions:
                self._emit(SplitsCommitted(positions))

    def aborted(self, snapshot_id: int) -> None:
        """This snapshot will never be committed: what it was to set free waits for the next one."""
        if self._snapshot is not None and self._snapshot.snapshot_id == snapshot_id:
            self._abort(self._snapshot)

    def _abort(self, snapshot: OpenSnapshot) -> None:
        self._snapshot = None
        self._participant.close()
        self._outbox.reopen(snapshot.snapshot_id)

    def _publish(self, after: int, until: int) -> None:
        for shard, epoch, rows in self._outbox.epochs(after, until):
            self._emit(Publish(shard, epoch, rows))
        self._feeds.release(after, until)

    # --- between snapshots ------------------------------------------------------------------------

    def want_snapshot(self) -> None:
        """Ask for the next snapshot, once, if somebody waits for what has happened since the last cut."""
        after = self._participant.last_cut
        if (self._outbox.is_awaited or self._feeds.has_reads) and self._wanted_after < after:
            self._wanted_after = after
            self._emit(Tell(SnapshotWanted(self._config.generation, self._config.worker, after)))

    def schedule_base(self) -> None:
        """Begin a base if one is due and none is being written or waits for its snapshot."""
        if self._base_running or self._base is not None or not self.last_committed:
            return
        if self._base_due or self._deltas >= self._config.base_deltas_max or self._is_delta_large():
            self._base_due = False
            self._base_running = True
            self._deltas, self._delta_rows = 0, 0
            rows = self._store.key_count()
            self._emit(WritePart(self.last_committed, "base", "", self._store.base_slices(), rows))

    def _is_delta_large(self) -> bool:
        # In this order: counting the keys of all tables in every turn would cost more than a message.
        return (
            self._delta_rows >= self._config.base_rows_min
            and self._delta_rows >= self._store.key_count() * self._config.base_rows_ratio
        )
