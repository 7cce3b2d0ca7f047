"""Which records an egress takes."""

from __future__ import annotations

import pytest

from statefun_ingress.topics import EGRESS_RECORD
from statefun_ray.io.record_checks import record_checks
from statefun_ray.module.model import PLAYGROUND_EGRESS, FileEgress, KafkaEgress, Module, PlaygroundEgress
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME
from statefun_sdk.protocol import KafkaProducerRecord


def test_each_kind_of_egress_takes_its_own_records() -> None:
    module = Module(
        kafka_egresses=(KafkaEgress("a/k"),),
        file_egresses=(FileEgress("a/f", "s3://b"),),
        playground_egress=PlaygroundEgress(("t",)),
    )
    checks = dict(record_checks(module, ["a/line"]))
    kafka, playground = checks.pop("a/k"), checks.pop(PLAYGROUND_EGRESS)

    assert checks == {"a/f": None, "a/line": None}
    assert kafka is not None
    assert kafka(PRODUCER_RECORD_TYPENAME, KafkaProducerRecord(topic="t").SerializeToString()) is None
    assert f"takes records of type {PRODUCER_RECORD_TYPENAME!r}, not one of type 'a/b'" in str(
        kafka("a/b", b"")
    )
    assert "not one without a value" in str(kafka(PRODUCER_RECORD_TYPENAME, None))
    assert playground is not None
    assert playground(EGRESS_RECORD, b'{"topic": "t", "payload": "x"}') is None
    assert "no topic 'u'; it has t" in str(playground(EGRESS_RECORD, b'{"topic": "u", "payload": "x"}'))


def record(topic: str, header: str = "h") -> bytes:
    record = KafkaProducerRecord(topic=topic, key="k", value_bytes=b"v")
    record.headers.add(name=header)
    return record.SerializeToString()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (record("a.b_c-d"), None),
        (record("t" * 249), None),
        (record("t") + b"\xa0\x06\x01", None),
        (b"\xff\xff\xff", "egress a/k: no Kafka record"),
        (b"", "egress a/k: a record without a topic"),
        (record(""), "without a topic"),
        (record("a b/c"), "'a b/c' can be no topic"),
        (record("t\n"), "can be no topic"),
        (record(".."), "'..' can be no topic"),
        (record("t" * 250), "...' can be no topic"),
        (record("t", "a\0b"), "a header has a NUL"),
    ],
)
def test_a_record_that_kafka_will_never_take_is_refused_where_it_is_emitted(
    value: bytes, problem: str | None
) -> None:
    check = record_checks(Module(kafka_egresses=(KafkaEgress("a/k"),)))["a/k"]
    assert check is not None
    for _ in range(2):  # the second time the topic is known
        found = check(PRODUCER_RECORD_TYPENAME, value)
        assert (found is None) if problem is None else problem in str(found)
