"""Records for Kafka and Kinesis egresses.

The typename of the value names the record, and its bytes are the record; both as in every
StateFun SDK, so the egress can be one of Apache's as well.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, TypeAlias

from statefun_sdk.address import check_text
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME
from statefun_sdk.messages import EgressMessage
from statefun_sdk.protocol import KafkaProducerRecord, KinesisEgressRecord
from statefun_sdk.types import Type, TypedValue, codec_of

Headers: TypeAlias = Iterable[tuple[str, bytes | str | None]]
"""Names and values, in order; a name may be there more than once, and a value may be None."""

KINESIS_RECORD = "type.googleapis.com/io.statefun.sdk.egress.KinesisEgressRecord"
"""Typename of the value of a record for Kinesis: a serialized ``KinesisEgressRecord``."""

_pack_int = struct.Struct(">i").pack
_pack_double = struct.Struct(">d").pack


def kafka_egress_message(
    typename: str,
    topic: str,
    value: Any,
    value_type: Type[Any] | None = None,
    key: str | bytes | None = None,
    headers: Headers = (),
) -> EgressMessage:
    """Build a record for a Kafka egress.

    Args:
        typename: ``namespace/name`` of the egress.
        topic: where the record goes.
        value: with ``value_type`` any value of that type; without it a str (becomes UTF-8),
            bytes, an int (4 bytes, big-endian) or a float (8 bytes, big-endian).
        value_type: how ``value`` is encoded.
        key: of the record, bytes of UTF-8 as well; None or "" for none.
        headers: pairs of a name and a value; those of a ``KafkaRecord`` as they are, a str becomes
            UTF-8. Apache's runtime leaves them out.

    Raises:
        UserValueError: typename or topic is missing, the value is None, or an int does not fit
            into 32 bits.
        UserTypeError: an argument is of the wrong Python type.
    """
    record = _kafka_record(topic, key, headers)
    if value is None:
        raise UserValueError("value is None; a record needs a value, or is a kafka_tombstone_message")
    record.value_bytes = _number(value) if _is_number(value, value_type) else _data(value, value_type)
    return EgressMessage(typename, TypedValue(PRODUCER_RECORD_TYPENAME, True, record.SerializeToString()))


def kafka_tombstone_message(
    typename: str, topic: str, key: str | bytes, headers: Headers = ()
) -> EgressMessage:
    """Build a record without a value, which deletes its key from a compacted topic.

    The official SDKs cannot say it, and Apache's runtime would write an empty value instead.

    Args:
        typename: ``namespace/name`` of the egress.
        topic: where the record goes.
        key: what is deleted.
        headers: as for ``kafka_egress_message``.

    Raises:
        UserValueError: typename, topic or key is missing.
        UserTypeError: an argument is of the wrong Python type.
    """
    if not key:
        raise UserValueError("the key is missing; a tombstone deletes a key")
    record = _kafka_record(topic, key, headers)
    record.is_tombstone = True
    return EgressMessage(typename, TypedValue(PRODUCER_RECORD_TYPENAME, True, record.SerializeToString()))


def _kafka_record(topic: str, key: str | bytes | None, headers: Headers) -> KafkaProducerRecord:
    if not topic:
        raise UserValueError("the topic is missing; name where the record goes")
    record = KafkaProducerRecord(
        topic=_text(topic, "the topic"),
        key=_text(key, "the key of a Kafka record") if key else "",
    )
    for header in headers:
        record.headers.append(_header(header))
    return record


def _header(header: object) -> KafkaProducerRecord.Header:
    if not isinstance(header, (tuple, list)) or len(header) != 2:
        raise UserTypeError(
            f"a header is a pair of a name and a value, not {header!r}; of a dict give the items()"
        )
    name, value = header
    found = KafkaProducerRecord.Header(name=_text(name, "the name of a header"))
    if isinstance(value, str):
        value = check_text(value, f"the header {name!r}").encode()
    if isinstance(value, (bytes, bytearray)):
        found.value = bytes(value)
    elif value is not None:
        raise UserTypeError(f"the header {name!r} must be bytes, a str or None, not {value!r}")
    return found


def kinesis_egress_message(
    typename: str,
    stream: str,
    value: Any,
    partition_key: str,
    value_type: Type[Any] | None = None,
    explicit_hash_key: str | None = None,
) -> EgressMessage:
    """Build a record for a Kinesis egress.

    Args:
        typename: ``namespace/name`` of the egress.
        stream: where the record goes.
        value: with ``value_type`` any value of that type; without it a str (becomes UTF-8) or
            bytes.
        partition_key: chooses the shard; may be empty, not None.
        value_type: how ``value`` is encoded.
        explicit_hash_key: chooses the shard in place of the partition key; None for none.

    Raises:
        UserValueError: typename or stream is missing, or value or partition key is None.
        UserTypeError: an argument is of the wrong Python type.
    """
    if not stream:
        raise UserValueError("the stream is missing; name where the record goes")
    if partition_key is None:
        raise UserValueError("the partition key is None; it chooses the shard of the stream")
    record = KinesisEgressRecord(
        stream=_text(stream, "the stream"),
        partition_key=_text(partition_key, "the partition key"),
        explicit_hash_key=_text(explicit_hash_key, "the explicit hash key") if explicit_hash_key else "",
        value_bytes=_data(value, value_type),
    )
    return EgressMessage(typename, TypedValue(KINESIS_RECORD, True, record.SerializeToString()))


def _is_number(value: Any, value_type: object) -> bool:
    return value_type is None and isinstance(value, (int, float))


def _number(value: int | float) -> bytes:
    if isinstance(value, float):
        return _pack_double(value)
    try:
        return _pack_int(value)
    except struct.error:
        raise UserValueError(
            f"the int {value} does not fit into 32 bits with a sign; give value_type=LongType or send text"
        ) from None


def _data(value: Any, value_type: Any) -> bytes:
    if value is None:
        raise UserValueError("value is None; a record needs a value")
    if value_type is not None:
        if not isinstance(value_type, Type):
            raise UserTypeError(f"value_type must be a statefun Type such as IntType, not {value_type!r}")
        encode, _ = codec_of(value_type)
        return encode(value)
    if isinstance(value, str):
        return check_text(value, "the value of a record").encode()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise UserTypeError(
        f"the value of a record cannot be {type(value).__name__} {value!r}; give a value_type that encodes it"
    )


def _text(value: object, what: str) -> str:
    """Return text that fits a protobuf string, which takes bytes of UTF-8 as well."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UserValueError(f"{what} is not UTF-8 ({error})") from None
    return check_text(value, what)
