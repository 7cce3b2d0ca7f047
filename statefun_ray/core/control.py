"""What coordinator and workers tell each other, over one TCP connection per worker.

Every message names its generation and, where it has one, its snapshot: a receiver drops what
belongs to another generation, so a late or reordered message can change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from statefun_checkpoints.model import FunctionSpec, PartDescriptor, Position


class WorkerHello(msgspec.Struct, tag="hello", frozen=True):
    """worker -> coordinator, first: I exist and listen for my peers at ``host:port``."""

    generation: int
    worker: int
    host: str
    port: int
    pid: int
    node: str


class Plan(msgspec.Struct, tag="plan", frozen=True):
    """coordinator -> worker, when every worker has said hello: what to load and whom to connect."""

    generation: int
    worker_count: int
    key_group_count: int
    shard_count: int
    peers: list[tuple[str, int]]
    """Address of every worker, by index."""
    logs: dict[str, tuple[str, int]]
    """Ingress log id -> address of its feed."""
    workers_since: int
    """The largest number of workers of any generation since the restored snapshot, this one included."""
    entry: bytes | None
    """The commit-log entry to restore, as stored; None for an application without a snapshot."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """worker -> coordinator: state is loaded and every channel is connected in both directions."""

    generation: int
    worker: int
    keys: int
    """Rows loaded, for the log."""


class Start(msgspec.Struct, tag="start", frozen=True):
    """coordinator -> worker, when all are ready: begin to process."""

    generation: int


class Trigger(msgspec.Struct, tag="trigger", frozen=True):
    """coordinator -> worker: cut now, unless a marker was faster."""

    generation: int
    snapshot_id: int
    rhythm: str
    committed: int
    """The newest committed snapshot: settles the last one for whoever has not heard its fate yet."""


class Ack(msgspec.Struct, tag="ack", frozen=True):
    """worker -> coordinator: my parts of this snapshot are written and verified."""

    generation: int
    worker: int
    snapshot_id: int
    parts: list[PartDescriptor]
    """New parts; a base among them was scanned completely before this cut."""
    based_on: int
    """Label of the base finished before this cut, 0 for none; it may have found no rows."""
    positions: list[Position]
    out_seq: dict[int, int]
    counters: dict[str, int]
    """Totals since this generation started, as of the cut."""
    in_flight: int
    timer_next: int
    cut_ms: int
    """Wall-clock time of the cut at this worker."""
    functions: dict[str, FunctionSpec] = {}
    """What is known here of functions that live elsewhere: their states that have values."""


class Committed(msgspec.Struct, tag="committed", frozen=True):
    """coordinator -> worker: the entry exists; effects of this snapshot may leave."""

    generation: int
    snapshot_id: int
    trim: dict[str, int]
    """Log id -> first sequence that the oldest retained snapshot still needs."""


class Abort(msgspec.Struct, tag="abort", frozen=True):
    """coordinator -> worker: this snapshot will never be committed."""

    generation: int
    snapshot_id: int


class SnapshotWanted(msgspec.Struct, tag="wanted", frozen=True):
    """worker -> coordinator: replies (or committed reads) wait for a snapshot after ``after``."""

    generation: int
    worker: int
    after: int


class Heartbeat(msgspec.Struct, tag="heartbeat", frozen=True):
    """worker -> coordinator, from a side thread: I am alive, and this is how my loop fares."""

    generation: int
    worker: int
    tick_age_ms: int
    """Since the loop last turned; large while user code holds it."""
    busy_with: str
    """``namespace/type/id`` whose function runs now, or empty."""
    backlog: int
    """Messages in mailbox and queues, those of parked addresses aside."""
    processed: int
    parked: list[tuple[str, str, str, int]]
    """``(type, id, last error, messages)`` of parked addresses, bounded."""
    parked_count: int
    retrying: list[tuple[str, str, int, int, int, str]] = []
    """``(type, id, attempts, failing since ms, next attempt ms, last error)`` of addresses that are tried
    again, those that began first, bounded; the next attempt is 0 while it is due or being made."""
    retrying_count: int = 0
    dead_letters: int = 0
    trouble: str = ""
    """What is being tried again right now, for people: a sink or the store that does not answer."""


class Pulse(msgspec.Struct, tag="pulse", frozen=True):
    """coordinator -> worker, regularly: the lease is renewed; sources pause while ``paused``."""

    generation: int
    paused: bool


class Logs(msgspec.Struct, tag="logs", frozen=True):
    """coordinator -> worker: ingress feeds have moved."""

    generation: int
    logs: dict[str, tuple[str, int]]


class WorkerFailed(msgspec.Struct, tag="failed", frozen=True):
    """worker -> coordinator: this generation cannot go on, and why."""

    generation: int
    worker: int
    reason: str
    is_final: bool = False
    """Another generation would fail in the same way: a stored object is missing or corrupt."""


class Shutdown(msgspec.Struct, tag="shutdown", frozen=True):
    """coordinator -> worker: end your process."""

    generation: int


ToWorker: TypeAlias = Plan | Start | Trigger | Committed | Abort | Pulse | Logs | Shutdown
ToCoordinator: TypeAlias = WorkerHello | Ready | Ack | SnapshotWanted | Heartbeat | WorkerFailed

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_coordinator: msgspec.msgpack.Decoder[ToCoordinator] = msgspec.msgpack.Decoder(ToCoordinator)


def encode_control(message: ToWorker | ToCoordinator) -> bytes:
    """Return the body of one control frame."""
    return _encoder.encode(message)


def decode_to_worker(data: bytes) -> ToWorker:
    """Return what the coordinator said.

    Raises:
        msgspec.DecodeError: not a control frame for a worker.
    """
    return _to_worker.decode(data)


def decode_to_coordinator(data: bytes) -> ToCoordinator:
    """Return what a worker said.

    Raises:
        msgspec.DecodeError: not a control frame for the coordinator.
    """
    return _to_coordinator.decode(data)
