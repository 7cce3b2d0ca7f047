"""The frames between an ingress and its workers, and their codec.

On the wire a frame is its length (u32, big-endian) and a msgpack array whose first item
names it. Both sides use the classes below; their fields are the array's other items, in
order. Counters are absolute, never differences, so a lost or repeated frame cannot skew
them; a broken connection is started over with a new ``hello``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from statefun_ingress.errors import FrameError

FRAME_BYTES_MAX: Final = 64 << 20
"""A longer frame is refused: the largest is one chunk of a bulk request, 16 MB by default."""

StateRow = tuple[str, str, bytes | None]
"""Name of a state, its typename, its value; None if it is not set."""

ReplyRow = tuple[str, str, bytes | None]
"""Request id, typename and value of the reply; None for a message without a value."""


RetryRow = tuple[str, str, int, int, int, str]
"""Of an address that is tried again: function type, id, attempts, since when, when next (0: now), both
in milliseconds since 1970, and the last error."""


class Hello(msgspec.Struct, array_like=True, tag="hello", frozen=True):
    """Worker: I own these key groups and want their events from these positions on.

    Attributes:
        app_name: must be the name the ingress was started with.
        generation: of the worker; lower than one seen before is refused.
        worker_index, worker_count: which of how many.
        positions: ``[first key group, key group behind the last, next sequence]`` intervals;
            together the key groups of this worker.
        credit_events: how many events it takes to begin with.
    """

    app_name: str
    generation: int
    worker_index: int
    worker_count: int
    positions: list[tuple[int, int, int]]
    credit_events: int


class Credit(msgspec.Struct, array_like=True, tag="credit", frozen=True):
    """Worker: I take this many events in all since my hello, its ``credit_events`` included."""

    total_events: int


class Trim(msgspec.Struct, array_like=True, tag="trim", frozen=True):
    """Worker: no retained snapshot needs my events below this sequence."""

    next_seq: int


class Reply(msgspec.Struct, array_like=True, tag="reply", frozen=True):
    """Worker: committed replies for requests of one incarnation of this ingress."""

    ack_id: int
    incarnation: str
    replies: list[ReplyRow]


class EgressRows(msgspec.Struct, array_like=True, tag="egress", frozen=True):
    """Worker: committed rows of one shard for the egress that this ingress serves, in order.

    Sent again until they are acknowledged; a row is known by shard and sequence.
    """

    ack_id: int
    shard: int
    rows: list[tuple[int, str, bytes | None]]


class Figures(msgspec.Struct, array_like=True, tag="figures", frozen=True):
    """Worker, about once a second: how it fares; the newest counts.

    Attributes:
        rows: ``(name, labels, value)`` for Prometheus.
        retrying_count: addresses whose message keeps failing and is tried again.
        retrying: the first of them.
    """

    rows: list[tuple[str, str, float]]
    retrying_count: int = 0
    retrying: list[RetryRow] = []


class State(msgspec.Struct, array_like=True, tag="state", frozen=True):
    """Worker: the answer to a query.

    Attributes:
        found: False if the address holds no state.
        is_cut: of dead letters: there may be more than are said.
    """

    query_id: int
    generation: int
    snapshot_id: int
    found: bool
    states: list[StateRow]
    is_cut: bool = False


class Welcome(msgspec.Struct, array_like=True, tag="welcome", frozen=True):
    """Ingress: the answer to a hello; ``end_seq`` is the durable end of the log."""

    log_id: str
    incarnation: str
    end_seq: int


class EventsFrame(msgspec.Struct, array_like=True, tag="events", frozen=True, gc=False):
    """Ingress: all events of the worker's key groups with ``from_seq <= seq < to_seq``.

    Each frame begins where the one before ended. Without events it only moves the position
    past other workers' events.
    """

    from_seq: int
    to_seq: int
    seqs: list[int]
    target_types: list[str]
    ids: list[str]
    caller_types: list[str]
    caller_ids: list[str]
    value_types: list[str]
    values: list[bytes | None]


class ReplyAck(msgspec.Struct, array_like=True, tag="reply_ack", frozen=True):
    """Ingress: the replies of that frame were handed on or dropped; do not send them again."""

    ack_id: int


class EgressAck(msgspec.Struct, array_like=True, tag="egress_ack", frozen=True):
    """Ingress: the rows of that frame are taken; do not send them again."""

    ack_id: int


class Query(msgspec.Struct, array_like=True, tag="query", frozen=True):
    """Ingress: what is the state of this address, at once or as of the next commit?

    Dead letters are asked for in the same way, those of one id, or all if it is None.
    """

    query_id: int
    function_type: str
    id: str | None
    wait_commit: bool


class Refused(msgspec.Struct, array_like=True, tag="refused", frozen=True):
    """Ingress: this connection is not served, and why; the ingress closes it."""

    text: str


WorkerFrame = Hello | Credit | Trim | Reply | EgressRows | Figures | State
"""What a worker sends."""

IngressFrame = Welcome | EventsFrame | ReplyAck | EgressAck | Query | Refused
"""What an ingress sends."""

_encode = msgspec.msgpack.Encoder().encode
_worker_decoder: msgspec.msgpack.Decoder[WorkerFrame] = msgspec.msgpack.Decoder(WorkerFrame)
_ingress_decoder: msgspec.msgpack.Decoder[IngressFrame] = msgspec.msgpack.Decoder(IngressFrame)


_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_frame(frame: WorkerFrame | IngressFrame) -> bytes:
    """Return a frame as it goes on the wire, length included."""
    body = _encode(frame)
    return len(body).to_bytes(4, "big") + body


def decode_worker_frame(body: bytes) -> WorkerFrame:
    """Return the frame a worker sent; ``body`` is without the length.

    Raises:
        FrameError: it is not one.
    """
    try:
        return _worker_decoder.decode(body)
    except _UNDECODABLE as error:
        raise FrameError(f"from a worker: {error}") from error


def decode_ingress_frame(body: bytes) -> IngressFrame:
    """Return the frame an ingress sent; ``body`` is without the length.

    Raises:
        FrameError: it is not one.
    """
    try:
        return _ingress_decoder.decode(body)
    except _UNDECODABLE as error:
        raise FrameError(f"from an ingress: {error}") from error


class FrameSplitter:
    """Cuts a stream of bytes into frame bodies.

    Args:
        frame_bytes_max: a longer frame is an error.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Take received bytes; return the bodies of the frames that are now complete.

        Raises:
            FrameError: a frame announces more than ``frame_bytes_max`` bytes.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        at, size = 0, len(buffer)
        while size - at >= 4:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if length > self._frame_bytes_max:
                raise FrameError(f"a frame of {length} bytes, at most {self._frame_bytes_max} are taken")
            if size - at - 4 < length:
                break
            bodies.append(bytes(buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        if at:
            del buffer[:at]
        return bodies
