"""Records of Kafka as values: the hand-written encoding is protobuf's, in both directions."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import assume, example, given
from hypothesis import strategies as st

from statefun_sdk import (
    IntType,
    KafkaRecord,
    KafkaRecordType,
    UndecodableValueError,
    UserTypeError,
    UserValueError,
    codecs,
    protocol,
)
from statefun_sdk.kafka import RECORD_TYPENAME, decode_record, encode_record

# A busy machine must not fail a test that only compares.

_pool = descriptor_pool.DescriptorPool()
_compiled = Path(protocol.__file__).parent / "proto" / "descriptors.binpb"
for _file in descriptor_pb2.FileDescriptorSet.FromString(_compiled.read_bytes()).file:
    _pool.Add(_file)
Protobuf: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("statefun_ray.types.KafkaRecord"))

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
OPTIONAL = st.none() | st.binary(max_size=200)
RECORDS = st.builds(
    KafkaRecord,
    topic=st.text(),
    partition=INT32,
    offset=INT64,
    timestamp_ms=INT64,
    timestamp_type=st.sampled_from(["unknown", "create", "append"]),
    key=OPTIONAL,
    value=OPTIONAL,
    value_type=st.text(),
    headers=st.lists(st.tuples(st.text(), OPTIONAL), max_size=4).map(tuple),
)
FULL = KafkaRecord(
    "orders", 3, 1 << 40, 1_700_000_000_000, "append", b"k", b"", "shop/Order", (("a", b"1"), ("a", None))
)


def of_protobuf(theirs: Any) -> KafkaRecord:
    """Return what protobuf read, as ours."""
    kinds: tuple[Any, ...] = ("unknown", "create", "append")
    return KafkaRecord(
        theirs.topic,
        theirs.partition,
        theirs.offset,
        theirs.timestamp_ms,
        kinds[theirs.timestamp_type] if 0 <= theirs.timestamp_type < 3 else "unknown",
        theirs.key if theirs.HasField("key") else None,
        theirs.value if theirs.HasField("value") else None,
        theirs.value_type,
        tuple((header.name, header.value if header.HasField("value") else None) for header in theirs.headers),
    )


@given(RECORDS)
def test_what_we_write_protobuf_reads_and_writes_the_same(record: KafkaRecord) -> None:
    data = encode_record(record)
    theirs = Protobuf.FromString(data)
    assert of_protobuf(theirs) == record
    assert theirs.SerializeToString() == data
    assert decode_record(data) == record


def field(number: int, kind: int, content: bytes) -> bytes:
    """A field as it is on the wire."""
    size = codecs.varint(len(content)) if kind == 2 else b""
    return codecs.varint(number << 3 | kind) + size + content


FIELDS = st.lists(
    st.builds(
        field, st.integers(1, 12) | st.just(1000), st.just(0), st.integers(0, 2**64 - 1).map(codecs.varint)
    )
    | st.builds(field, st.integers(1, 12), st.just(1), st.binary(min_size=8, max_size=8))
    | st.builds(field, st.integers(1, 12), st.just(5), st.binary(min_size=4, max_size=4))
    | st.builds(field, st.integers(1, 12), st.just(2), st.binary(max_size=9) | st.text().map(str.encode))
    | st.binary(max_size=2),
    max_size=8,
).map(b"".join)


@example(field(9, 2, field(3, 0, b"\x01")))
@given(FIELDS)
def test_we_read_and_refuse_what_protobuf_reads_and_refuses(data: bytes) -> None:
    ours = theirs = None
    try:
        ours = decode_record(data)
    except UndecodableValueError as error:
        # Groups are the one thing that we do not pass over: proto3 has none.
        assume("wire type 3" not in str(error))
    with suppress(DecodeError):
        theirs = of_protobuf(Protobuf.FromString(data))
    assert ours == theirs


def test_the_bytes_are_these() -> None:
    assert encode_record(FULL).hex(" ") == (
        "0a 06 6f 72 64 65 72 73 10 03 18 80 80 80 80 80 20 20 80 d0 95 ff bc 31 28 02 32 01 6b 3a 00"
        " 42 0a 73 68 6f 70 2f 4f 72 64 65 72 4a 06 0a 01 61 12 01 31 4a 03 0a 01 61"
    )
    assert encode_record(KafkaRecord("")) == b""


def test_a_tombstone_can_be_told_from_an_empty_value() -> None:
    tombstone, empty = KafkaRecord("t", key=b"k"), KafkaRecord("t", key=b"k", value=b"")
    assert decode_record(encode_record(tombstone)).value is None
    assert decode_record(encode_record(empty)).value == b""


def test_the_value_is_decoded_on_demand() -> None:
    assert KafkaRecord("t", value=b"\x0d\x05\0\0\0").as_type(IntType) == 5
    assert KafkaRecord("t", value=b"").as_type(IntType) == 0
    assert KafkaRecord("t").as_type(IntType) is None


def test_the_type_has_a_name_of_ours_and_its_values_travel() -> None:
    assert KafkaRecordType.typename == RECORD_TYPENAME == "statefun-ray.types/kafka-record"
    serializer = KafkaRecordType.serializer()
    assert serializer.deserialize(serializer.serialize(FULL)) == FULL
    assert pickle.loads(pickle.dumps(FULL)) == FULL  # noqa: S301 - our own bytes
    assert dict(FULL.headers) == {"a": None}


@pytest.mark.parametrize(
    ("record", "error", "said"),
    [
        ({"topic": "t"}, UserTypeError, "needs a KafkaRecord, not dict"),
        (KafkaRecord(b"t"), UserTypeError, "topic"),  # type: ignore[arg-type]
        (KafkaRecord("t", partition=1 << 31), UserValueError, "partition: 2147483648 does not fit"),
        (KafkaRecord("t", offset="0"), UserTypeError, "offset must be an int"),  # type: ignore[arg-type]
        (KafkaRecord("t", value="x"), UserTypeError, "value must be bytes"),  # type: ignore[arg-type]
        (KafkaRecord("t", key="x"), UserTypeError, "key must be bytes"),  # type: ignore[arg-type]
        (KafkaRecord("t", timestamp_type="now"), UserValueError, "one of unknown"),  # type: ignore[arg-type]
        (KafkaRecord("t", headers=(("\ud800", b""),)), UserValueError, "name of a header"),
        (KafkaRecord("t", headers=(("a", "b"),)), UserTypeError, "value of a header"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_record_is_told(record: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        encode_record(record)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("0a056f", "field 1 needs 5 bytes, 1 are left"),
        ("0a01ff", "not UTF-8"),
        ("4a030a01ff", "not UTF-8"),
        ("00", "there is no field 0"),
        ("0b", "wire type 3"),
        ("18", "in the middle of a number"),
    ],
)
def test_other_bytes_are_told(data: str, said: str) -> None:
    with pytest.raises(UndecodableValueError, match=said):
        decode_record(bytes.fromhex(data))
