"""Everything the core may ask its driver to do: the complete list.

Effects are per batch, never per message. A driver performs them in list order; what it learns
comes back as a method call on the core (named in each docstring). Nothing in the core waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from statefun_checkpoints.model import Rows
from statefun_checkpoints.store_requests import StoreRequest
from statefun_ray.core.control import ToCoordinator, ToWorker
from statefun_ray.core.message import Message

# --- a worker's effects -------------------------------------------------------------------------


@dataclass(slots=True)
class SendFrame:
    """Append ``frame`` to the FIFO channel to worker ``peer``."""

    peer: int
    frame: bytes


@dataclass(slots=True)
class Tell:
    """Send a control message to the coordinator."""

    message: ToCoordinator


@dataclass(slots=True)
class Invoke:
    """Run an awaiting invocation; answer with ``invocation_done``.

    ``messages`` are run in order, against one view of the address's state, and succeed or fail
    together. The address is locked meanwhile, so its state may be read at any time.
    """

    invocation_id: int
    function_type: str
    id: str
    messages: list[Message]


@dataclass(slots=True)
class WritePart:
    """Encode and store one part of a snapshot; answer with ``part_written``.

    ``slices`` yields rows in bounded portions and may be consumed a portion per loop turn; its
    layers are immutable. It may be dropped when the snapshot is aborted. A part without rows is
    not written and answered with None.
    """

    snapshot_id: int
    """For a base: the snapshot as of which it is labelled."""
    kind: str
    """delta | base | transient."""
    level: str
    """small | periodic for a delta, else empty."""
    slices: Iterator[Rows]
    rows: int
    """How many rows to expect, about; 0 means nothing to write."""


@dataclass(slots=True)
class Publish:
    """Publish committed egress rows of one shard and epoch; answer with ``published``.

    ``rows`` are ``(sequence, egress typename, value typename, value)``, gap-free and in order; the
    same (shard, epoch) always holds the same rows.
    """

    shard: int
    epoch: int
    rows: list[tuple[int, str, str, bytes | None]]


@dataclass(slots=True)
class FeedFrame:
    """Send a frame, its length included, to an ingress log's feed; dropped when that is not connected."""

    log_id: str
    frame: bytes


@dataclass(slots=True)
class EgressAcknowledged:
    """An ingress has taken the egress rows that were sent to it in a frame with this number."""

    ack_id: int


@dataclass(slots=True)
class SplitsCommitted:
    """A snapshot with these positions of splits exists; sources may show it to people."""

    positions: dict[str, int]


@dataclass(slots=True)
class Die:
    """End this worker's process: its generation cannot go on, for the given reason."""

    reason: str


WorkerEffect: TypeAlias = (
    SendFrame | Tell | Invoke | WritePart | Publish | FeedFrame | EgressAcknowledged | SplitsCommitted | Die
)

# --- the coordinator's effects ------------------------------------------------------------------


@dataclass(slots=True)
class StoreCall:
    """Perform one store request; answer with ``store_done(call_id, result)`` or ``store_failed``."""

    call_id: int
    request: StoreRequest


@dataclass(slots=True)
class StartWorkers:
    """Create ``count`` worker processes of ``generation``; each says hello over TCP."""

    generation: int
    count: int


@dataclass(slots=True)
class StopWorkers:
    """End every worker process of ``generation`` and below; nobody waits for proof of death."""

    generation: int


@dataclass(slots=True)
class SendControl:
    """Send a control message to a worker of the current generation, if it is connected."""

    worker: int
    message: ToWorker


@dataclass(slots=True)
class Collect:
    """Delete data objects that none of these retained entries references, in the background."""

    retained_slots: list[int]
    generation: int


@dataclass(slots=True)
class Report:
    """Write a line to the log: the core itself does not."""

    level: str
    """info | warning | error."""
    text: str


@dataclass(slots=True)
class Stopped:
    """The coordinator is done: ``error`` is empty after a clean stop."""

    error: str
    details: dict[str, Any]


CoordinatorEffect: TypeAlias = (
    StoreCall | StartWorkers | StopWorkers | SendControl | Collect | Report | Stopped
)
