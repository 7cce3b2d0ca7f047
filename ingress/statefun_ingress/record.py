"""The format of one record of the log: the events of one request, all or nothing.

    magic      4 bytes  b"SFR1"; lets a reader find the next record behind a damaged one
    length     u32      bytes of the body
    checksum   u32      xxh32 over everything after this field, seeded with the length
    first_seq  u64      sequence of the first event; the n events take first_seq .. first_seq+n-1
    synced_seq u64      the log was durable below this sequence when the record was written
    count      u32      events in the body
    body       msgpack [received_at_ms, producer_id, producer_sequence, [chunk, ...]]

A chunk is the msgpack of ``[count, target_type, id, caller_type, caller_id, value_type,
value]``, each of the six a list with one item per event, or the item itself if all events
of the chunk share it. Chunks hold at most ``CHUNK_EVENTS_MAX`` events and are encoded on
their own, so that a large record is written and read in small steps. All integers of the
header are little-endian.

``synced_seq`` tells a torn tail from damage: a record that an intact later record knows to
have been synced was acknowledged, and must not be cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import xxhash

MAGIC: Final = b"SFR1"
HEADER: Final = struct.Struct("<4sIIQQI")
HEADER_BYTES: Final = HEADER.size
_CHECKED_FROM: Final = 12  # the checksum covers the record from here on
_CHECKED_HEADER: Final = struct.Struct("<QQI")

CHUNK_EVENTS_MAX: Final = 500
"""Events encoded and decoded in one step: about half a millisecond of work."""

CHUNK_BYTES_MAX: Final = 256 << 10
"""A chunk is closed once its values take this much; one larger value is a chunk of its own."""

BODY_BYTES_MAX: Final = 1 << 30
"""A length beyond this is damage, whatever follows it."""

NO_PRODUCER: Final = -1
"""The producer sequence of a record that has none."""


class Events:
    """Events in columns: item i of each list belongs to event i.

    Attributes:
        target_types, ids: the address the event is for.
        caller_types, caller_ids: where a reply goes; empty strings mean nowhere.
        value_types: typename of the value.
        values: the value's bytes; None is a message without a value.
    """

    __slots__ = ("caller_ids", "caller_types", "ids", "target_types", "value_types", "values")

    def __init__(
        self,
        target_types: list[str],
        ids: list[str],
        caller_types: list[str],
        caller_ids: list[str],
        value_types: list[str],
        values: list[bytes | None],
    ) -> None:
        self.target_types = target_types
        self.ids = ids
        self.caller_types = caller_types
        self.caller_ids = caller_ids
        self.value_types = value_types
        self.values = values

    @classmethod
    def empty(cls) -> Events:
        """Return columns without events."""
        return cls([], [], [], [], [], [])

    @classmethod
    def of_one(
        cls, target_type: str, id: str, caller_type: str, caller_id: str, value_type: str, value: bytes | None
    ) -> Events:
        """Return the columns of a single event."""
        return cls([target_type], [id], [caller_type], [caller_id], [value_type], [value])

    def __len__(self) -> int:
        return len(self.ids)

    def append(
        self,
        target_type: str,
        id: str,
        caller_type: str,
        caller_id: str,
        value_type: str,
        value: bytes | None,
    ) -> None:
        """Add one event."""
        self.target_types.append(target_type)
        self.ids.append(id)
        self.caller_types.append(caller_type)
        self.caller_ids.append(caller_id)
        self.value_types.append(value_type)
        self.values.append(value)

    def extend(self, other: Events) -> None:
        """Add all events of ``other``."""
        self.target_types += other.target_types
        self.ids += other.ids
        self.caller_types += other.caller_types
        self.caller_ids += other.caller_ids
        self.value_types += other.value_types
        self.values += other.values

    def slice(self, start: int, end: int) -> Events:
        """Return the events from ``start`` up to and without ``end``."""
        return Events(
            self.target_types[start:end],
            self.ids[start:end],
            self.caller_types[start:end],
            self.caller_ids[start:end],
            self.value_types[start:end],
            self.values[start:end],
        )

    def rows(self) -> list[tuple[str, str, str, str, str, bytes | None]]:
        """Return the events as tuples, for tests and inspection."""
        return list(
            zip(
                self.target_types,
                self.ids,
                self.caller_types,
                self.caller_ids,
                self.value_types,
                self.values,
                strict=True,
            )
        )


class Chunk:
    """Events that occupy consecutive sequences of the log.

    Attributes:
        first_seq: sequence of the first event.
        events: the events.
        size_bytes: about what they take, as encoded.
        key_groups: the key group of each event, filled in by whoever routes them first.
    """

    __slots__ = ("events", "first_seq", "key_groups", "size_bytes")

    def __init__(self, first_seq: int, events: Events, size_bytes: int) -> None:
        self.first_seq = first_seq
        self.events = events
        self.size_bytes = size_bytes
        self.key_groups: list[int] | None = None

    @property
    def end_seq(self) -> int:
        """The sequence after the last event."""
        return self.first_seq + len(self.events.ids)

    def can_take(self, event_count: int, size_bytes: int) -> bool:
        """Return whether that much more keeps the chunk within its bounds."""
        return (
            len(self.events.ids) + event_count <= CHUNK_EVENTS_MAX
            and self.size_bytes + size_bytes <= CHUNK_BYTES_MAX
        )

    def add(self, events: Events, size_bytes: int) -> None:
        """Add the events that follow."""
        self.events.extend(events)
        self.size_bytes += size_bytes


class Record(NamedTuple):
    """One decoded record; its events stay encoded until ``decode_chunk``."""

    first_seq: int
    synced_seq: int
    event_count: int
    received_at_ms: int
    producer_id: str
    producer_sequence: int
    chunks: list[bytes]


class RecordHeader(NamedTuple):
    """What a scan learns of a record without decoding its body."""

    first_seq: int
    synced_seq: int
    event_count: int
    body_offset: int
    end_offset: int


class TornRecord(Exception):
    """The bytes end before the record does."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed  # bytes the record takes, as far as known


class BadRecord(Exception):
    """The bytes are complete, but are not an intact record."""


_ONE_EVENT: Final = b"\x97\x01"  # how a chunk of a single event begins: seven items, the first is 1

_encode = msgspec.msgpack.Encoder().encode
_decode_chunk = msgspec.msgpack.Decoder().decode
_decode_body = msgspec.msgpack.Decoder(tuple[int, str, int, list[bytes]]).decode


def _column(items: list[Any]) -> Any:
    """Return ``items``, or the one value they share: most columns repeat one typename."""
    first = items[0]
    if items[-1] == first and items.count(first) == len(items):
        return first
    return items


def encode_chunk(events: Events) -> bytes:
    """Return the bytes of one chunk; ``1 <= len(events) <= CHUNK_EVENTS_MAX``."""
    count = len(events.ids)
    if count == 1:
        return _encode(
            (
                1,
                events.target_types[0],
                events.ids[0],
                events.caller_types[0],
                events.caller_ids[0],
                events.value_types[0],
                events.values[0],
            )
        )
    return _encode(
        (
            count,
            _column(events.target_types),
            _column(events.ids),
            _column(events.caller_types),
            _column(events.caller_ids),
            _column(events.value_types),
            _column(events.values),
        )
    )


def content_digest(chunks: Sequence[bytes]) -> int:
    """Return a hash of what one request asks for: targets, types and values of its events.

    Two requests for the same events have the same digest, and so has the record of the first:
    where a request is cut into chunks depends on its events alone. Callers do not count; the reply
    address of an event is new whenever it is sent.
    """
    digest = xxhash.xxh3_64()
    for chunk in chunks:
        if chunk.startswith(_ONE_EVENT):
            target_type, id, caller_type, _, *value = _decode_chunk(chunk)[1:]
            digest.update(_encode((1, target_type, id, "", "", *value)) if caller_type else chunk)
        else:
            digest.update(chunk)
    return digest.intdigest()


def decode_chunk(data: bytes) -> Events:
    """Return the events of one chunk of an intact record."""
    columns: list[Any] = _decode_chunk(data)
    count = columns[0]
    return Events(*[column if type(column) is list else [column] * count for column in columns[1:]])


def decode_chunk_into(data: bytes, chunk: Chunk) -> bool:
    """Add the events of an encoded chunk to ``chunk``; False, and nothing added, if it is full."""
    columns: list[Any] = _decode_chunk(data)
    count = columns[0]
    if not chunk.can_take(count, len(data)):
        return False
    if count == 1:
        chunk.events.append(*columns[1:])
        chunk.size_bytes += len(data)
    else:
        events = Events(*[column if type(column) is list else [column] * count for column in columns[1:]])
        chunk.add(events, len(data))
    return True


def encode_record(
    first_seq: int,
    synced_seq: int,
    count: int,
    chunks: list[bytes],
    *,
    received_at_ms: int,
    producer_id: str = "",
    producer_sequence: int = NO_PRODUCER,
) -> bytes:
    """Return the bytes of one record.

    Args:
        first_seq: sequence of its first event.
        synced_seq: the log is durable below this sequence; at most ``first_seq``.
        count: events in all chunks together.
        chunks: from ``encode_chunk``.
        received_at_ms: when the request arrived, milliseconds since 1970.
        producer_id: empty if the producer did not name itself.
        producer_sequence: its number for this request, or ``NO_PRODUCER``.
    """
    body = _encode((received_at_ms, producer_id, producer_sequence, chunks))
    length = len(body)
    checked = _CHECKED_HEADER.pack(first_seq, synced_seq, count) + body
    checksum = xxhash.xxh32_intdigest(checked, seed=length)
    return b"".join((MAGIC, length.to_bytes(4, "little"), checksum.to_bytes(4, "little"), checked))


def check_record(buffer: bytes, offset: int) -> RecordHeader:
    """Check the record at ``offset`` without decoding its body.

    Raises:
        TornRecord: ``buffer`` ends before the record does.
        BadRecord: what is there is not an intact record.
    """
    first_seq, synced_seq, count, end = _check(buffer, offset)
    return RecordHeader(first_seq, synced_seq, count, offset + HEADER_BYTES, end)


def _check(buffer: bytes, offset: int) -> tuple[int, int, int, int]:
    if len(buffer) - offset < HEADER_BYTES:
        raise TornRecord(HEADER_BYTES)
    magic, length, checksum, first_seq, synced_seq, count = HEADER.unpack_from(buffer, offset)
    if magic != MAGIC:
        raise BadRecord(f"no record starts there (found {magic.hex()})")
    if length > BODY_BYTES_MAX:
        raise BadRecord(f"a record of {length} bytes cannot be")
    end = offset + HEADER_BYTES + length
    if end > len(buffer):
        raise TornRecord(HEADER_BYTES + length)
    found = xxhash.xxh32_intdigest(memoryview(buffer)[offset + _CHECKED_FROM : end], seed=length)
    if found != checksum:
        raise BadRecord(f"its checksum is {found:08x}, the record says {checksum:08x}")
    return first_seq, synced_seq, count, end


def read_record(buffer: bytes, offset: int) -> tuple[Record, int]:
    """Decode the record at ``offset``; return it and the offset behind it.

    Raises:
        TornRecord, BadRecord: as ``check_record``.
    """
    first_seq, synced_seq, count, end = _check(buffer, offset)
    try:
        received_at_ms, producer_id, producer_sequence, chunks = _decode_body(
            memoryview(buffer)[offset + HEADER_BYTES : end]
        )
    except msgspec.DecodeError as error:
        # The checksum matches, so this was written so: another version, or a bug of ours.
        raise BadRecord(f"its checksum is right but its body does not decode ({error})") from error
    record = Record(first_seq, synced_seq, count, received_at_ms, producer_id, producer_sequence, chunks)
    return record, end


def find_record_after(buffer: bytes, offset: int) -> RecordHeader | None:
    """Return the first intact record that starts behind ``offset``, or None.

    Used once a record did not read, to decide whether the log ends there or is damaged.
    """
    at = buffer.find(MAGIC, offset + 1)
    while at >= 0:
        try:
            return check_record(buffer, at)
        except (TornRecord, BadRecord):
            at = buffer.find(MAGIC, at + 1)
    return None
