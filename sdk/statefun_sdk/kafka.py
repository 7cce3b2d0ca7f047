"""Whole records of Kafka topics, as values.

A topic of ``module.yaml`` that says ``deliver: record`` gives its functions a ``KafkaRecord`` for
each record, where StateFun gives the bytes of its value and nothing else. On the wire it is the
message of ``proto/kafka_record.proto``; it is written and read by hand here, as the built-in types
are, so a worker that reads Kafka loads no protobuf. Fields of later versions are passed over.

| field | tag | is left out if |
|---|---|---|
| topic | 0A | empty |
| partition, offset, timestamp_ms, timestamp_type | 10, 18, 20, 28 | 0 |
| key, value | 32, 3A | there is none; one of zero bytes is written |
| value_type | 42 | empty |
| headers, each a message of name (0A) and value (12) | 4A | there are none |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from statefun_sdk.address import check_text
from statefun_sdk.codecs import read_fields, varint
from statefun_sdk.errors import UndecodableValueError, UserTypeError, UserValueError
from statefun_sdk.types import Type, codec_of, simple_type

T = TypeVar("T")

RECORD_TYPENAME: Final = "statefun-ray.types/kafka-record"
"""Of a ``KafkaRecord``."""

PRODUCER_RECORD_TYPENAME: Final = "type.googleapis.com/io.statefun.sdk.egress.KafkaProducerRecord"
"""Of a record for a Kafka egress, in every StateFun SDK."""

TimestampType: TypeAlias = Literal["unknown", "create", "append"]
"""Who set the time of a record: nobody as far as is known, its producer, or the broker."""

Header: TypeAlias = tuple[str, bytes | None]
"""The name and the value, which a header need not have."""

_TIMESTAMP_TYPES: Final[tuple[TimestampType, ...]] = ("unknown", "create", "append")
_UINT64: Final = 2**64 - 1
_UINT32: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """One record of a topic, with all that Kafka knows of it.

    Attributes:
        topic: which it is from.
        partition: of the topic.
        offset: in the partition.
        timestamp_ms: since 1970, UTC; 0 if it has none.
        timestamp_type: whose time that is: ``"create"`` of its producer, ``"append"`` of the
            broker; ``"unknown"`` if there is none.
        key: as it was written. The id of the function is the same as text.
        value: None for a tombstone, which deletes the key from a compacted topic.
        value_type: typename of the value, as the topic's ``valueType`` says.
        headers: in order. A name may be there more than once, and a value may be None;
            ``dict(record.headers)`` has the last of each.
    """

    topic: str
    partition: int = 0
    offset: int = 0
    timestamp_ms: int = 0
    timestamp_type: TimestampType = "unknown"
    key: bytes | None = None
    value: bytes | None = None
    value_type: str = ""
    headers: tuple[Header, ...] = ()

    def as_type(self, tpe: Type[T]) -> T | None:
        """Decode the value; None for a tombstone. The typename is not checked."""
        if self.value is None:
            return None
        _, decode = codec_of(tpe)
        return decode(self.value)


# -- encoding ---------------------------------------------------------------------------


def encode_record(record: KafkaRecord) -> bytes:
    """Encode a record.

    Raises:
        UserTypeError: it is no ``KafkaRecord``, or a field is of the wrong Python type.
        UserValueError: a number does not fit, or a text has no UTF-8 form.
    """
    if not isinstance(record, KafkaRecord):
        raise UserTypeError(f"{RECORD_TYPENAME} needs a KafkaRecord, not {type(record).__name__} {record!r}")
    if record.timestamp_type not in _TIMESTAMP_TYPES:
        raise UserValueError(
            f"timestamp_type is {record.timestamp_type!r}, expected one of {', '.join(_TIMESTAMP_TYPES)}"
        )
    out = bytearray()
    _put(out, 0x0A, check_text(record.topic, "topic").encode() or None)
    _put_number(out, 0x10, record.partition, 32, "partition")
    _put_number(out, 0x18, record.offset, 64, "offset")
    _put_number(out, 0x20, record.timestamp_ms, 64, "timestamp_ms")
    _put_number(out, 0x28, _TIMESTAMP_TYPES.index(record.timestamp_type), 32, "timestamp_type")
    _put(out, 0x32, record.key, "key")
    _put(out, 0x3A, record.value, "value")
    _put(out, 0x42, check_text(record.value_type, "value_type").encode() or None)
    for name, value in record.headers:
        header = bytearray()
        _put(header, 0x0A, check_text(name, "the name of a header").encode() or None)
        _put(header, 0x12, value, "the value of a header")
        _put(out, 0x4A, header)
    return bytes(out)


def _put(out: bytearray, tag: int, data: bytes | bytearray | None, what: str = "") -> None:
    if data is None:
        return
    if not isinstance(data, (bytes, bytearray)):
        raise UserTypeError(f"{what} must be bytes or None, not {type(data).__name__} {data!r}")
    out.append(tag)
    out += varint(len(data))
    out += data


def _put_number(out: bytearray, tag: int, number: int, bits: int, what: str) -> None:
    if not isinstance(number, int):
        raise UserTypeError(f"{what} must be an int, not {type(number).__name__} {number!r}")
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise UserValueError(f"{what}: {number} does not fit into {bits} bits with a sign")
    if number:
        out.append(tag)
        out += varint(number & _UINT64)


# -- decoding ---------------------------------------------------------------------------


def decode_record(data: bytes) -> KafkaRecord:
    """Decode a record.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    topic = value_type = ""
    partition = offset = timestamp_ms = timestamp_type = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: list[Header] = []
    for tag, content in read_fields(RECORD_TYPENAME, data):
        match tag, content:
            case 0x0A, bytes():
                topic = _text(content, data)
            case 0x10, int():
                partition = _signed(content & _UINT32, 32)
            case 0x18, int():
                offset = _signed(content, 64)
            case 0x20, int():
                timestamp_ms = _signed(content, 64)
            case 0x28, int():
                timestamp_type = content & _UINT32
            case 0x32, bytes():
                key = content
            case 0x3A, bytes():
                value = content
            case 0x42, bytes():
                value_type = _text(content, data)
            case 0x4A, bytes():
                headers.append(_header(content))
    # Whose time it is that a later version names, we do not know.
    known = timestamp_type if timestamp_type < len(_TIMESTAMP_TYPES) else 0
    return KafkaRecord(
        topic,
        partition,
        offset,
        timestamp_ms,
        _TIMESTAMP_TYPES[known],
        key,
        value,
        value_type,
        tuple(headers),
    )


def _header(data: bytes) -> Header:
    name, value = "", None
    for tag, content in read_fields(RECORD_TYPENAME, data):
        match tag, content:
            case 0x0A, bytes():
                name = _text(content, data)
            case 0x12, bytes():
                value = content
    return name, value


def _text(data: bytes, whole: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UndecodableValueError(RECORD_TYPENAME, f"a text is not UTF-8 ({error})", whole) from None


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> bits - 1 else number


KafkaRecordType: Type[KafkaRecord] = simple_type(RECORD_TYPENAME, encode_record, decode_record)
