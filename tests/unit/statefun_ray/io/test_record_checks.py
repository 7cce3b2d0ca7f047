"""Which records an egress takes."""

from __future__ import annotations

from statefun_ingress.topics import EGRESS_RECORD
from statefun_ray.io.record_checks import record_checks
from statefun_ray.module.model import PLAYGROUND_EGRESS, FileEgress, KafkaEgress, Module, PlaygroundEgress
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME


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
    assert kafka(PRODUCER_RECORD_TYPENAME, b"") is None
    assert f"takes records of type {PRODUCER_RECORD_TYPENAME!r}, not one of type 'a/b'" in str(
        kafka("a/b", b"")
    )
    assert "not one without a value" in str(kafka(PRODUCER_RECORD_TYPENAME, None))
    assert playground is not None
    assert playground(EGRESS_RECORD, b'{"topic": "t", "payload": "x"}') is None
    assert "no topic 'u'; it has t" in str(playground(EGRESS_RECORD, b'{"topic": "u", "payload": "x"}'))
