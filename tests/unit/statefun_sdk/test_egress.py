"""Records for Kafka and Kinesis, as the official SDK builds them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from statefun_sdk import (
    IntType,
    kafka_egress_message,
    kafka_tombstone_message,
    kinesis_egress_message,
    simple_type,
)
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.protocol import KafkaProducerRecord, KinesisEgressRecord

KAFKA = "type.googleapis.com/io.statefun.sdk.egress.KafkaProducerRecord"
KINESIS = "type.googleapis.com/io.statefun.sdk.egress.KinesisEgressRecord"
BROKEN = simple_type("a/broken", lambda value: "text", bytes.decode)  # type: ignore[arg-type, return-value]


def kafka(*arguments: Any, **named: Any) -> KafkaProducerRecord:
    message = kafka_egress_message("shop/out", *arguments, **named)
    assert message.value_typename() == KAFKA
    return KafkaProducerRecord.FromString(message.raw_value() or b"")


def kinesis(*arguments: Any, **named: Any) -> KinesisEgressRecord:
    message = kinesis_egress_message("shop/out", *arguments, **named)
    assert message.value_typename() == KINESIS
    return KinesisEgressRecord.FromString(message.raw_value() or b"")


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("hé", "hé".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (1, b"\x00\x00\x00\x01"),
        (-2, b"\xff\xff\xff\xfe"),
        (True, b"\x00\x00\x00\x01"),
        (1.5, struct.pack(">d", 1.5)),
        ("", b""),
    ],
)
def test_a_kafka_record_holds_plain_values_as_documented(value: object, data: bytes) -> None:
    record = kafka("topic", value, key="k")
    assert (record.topic, record.key, record.value_bytes) == ("topic", "k", data)


def test_a_value_type_encodes_and_a_key_may_be_left_out() -> None:
    assert kafka("t", 5, value_type=IntType).value_bytes == b"\x0d\x05\0\0\0"
    assert kafka("t", "x").key == ""
    assert kafka("t", "x", key=b"k").key == "k"
    assert kinesis("s", 5, "p", value_type=IntType).value_bytes == b"\x0d\x05\0\0\0"


def test_headers_keep_their_order_repeats_and_missing_values() -> None:
    headers = [("trace", b"\xff"), ("note", "hé"), ("note", None), ("", b"")]
    found = kafka("t", "x", headers=headers).headers
    assert [(header.name, header.HasField("value"), header.value) for header in found] == [
        ("trace", True, b"\xff"),
        ("note", True, "hé".encode()),
        ("note", False, b""),
        ("", True, b""),
    ]


def test_a_record_without_headers_is_what_the_official_sdk_writes() -> None:
    message = kafka_egress_message("shop/out", "t", b"v", key="k")
    assert message.raw_value() == bytes.fromhex("0a016b 120176 1a0174")


def test_a_tombstone_has_a_key_and_no_value() -> None:
    message = kafka_tombstone_message("shop/out", "t", b"k", headers={"why": "gone"}.items())
    assert message.value_typename() == KAFKA
    record = KafkaProducerRecord.FromString(message.raw_value() or b"")
    assert (record.topic, record.key, record.is_tombstone) == ("t", "k", True)
    assert [(header.name, header.value) for header in record.headers] == [("why", b"gone")]
    with pytest.raises(UserValueError, match="key is missing"):
        kafka_tombstone_message("shop/out", "t", "")
    with pytest.raises(UserValueError, match="topic is missing"):
        kafka_tombstone_message("shop/out", "", "k")


@pytest.mark.parametrize(
    ("arguments", "named", "error", "said"),
    [
        (("", "x"), {}, UserValueError, "topic"),
        (("t", None), {}, UserValueError, "None; .*kafka_tombstone_message"),
        (("t", "x"), {"headers": {"ab": "c"}}, UserTypeError, "give the items"),
        (("t", "x"), {"headers": [("a", "b", "c")]}, UserTypeError, "pair of a name and a value"),
        (("t", "x"), {"headers": [("a", 5)]}, UserTypeError, "header 'a' must be bytes"),
        (("t", "x"), {"headers": [(5, b"")]}, UserTypeError, "name of a header"),
        (("t", 1 << 40), {}, UserValueError, "32 bits"),
        (("t", object()), {}, UserTypeError, "value_type"),
        ((5, "x"), {}, UserTypeError, "topic"),
        (("t", "x"), {"key": b"\xff"}, UserValueError, "key of a Kafka record is not UTF-8"),
        (("t", "x"), {"value_type": int}, UserTypeError, "statefun Type"),
    ],
)
def test_a_kafka_record_that_cannot_be_is_told(
    arguments: tuple[Any, ...], named: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        kafka_egress_message("shop/out", *arguments, **named)


def test_a_kinesis_record() -> None:
    record = kinesis("stream", "hi", "part", explicit_hash_key="7")
    assert (record.stream, record.partition_key) == ("stream", "part")
    assert (record.value_bytes, record.explicit_hash_key) == (b"hi", "7")
    assert kinesis("stream", b"x", "").partition_key == ""


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("", "x", "p"), UserValueError, "stream"),
        (("s", None, "p"), UserValueError, "None"),
        (("s", "x", None), UserValueError, "partition key"),
        (("s", 5, "p"), UserTypeError, "value_type"),
    ],
)
def test_a_kinesis_record_that_cannot_be_is_told(
    arguments: tuple[Any, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        kinesis_egress_message("shop/out", *arguments)


def test_a_serializer_must_return_bytes() -> None:
    with pytest.raises(UserTypeError):
        kafka_egress_message("shop/out", "t", "x", BROKEN)
