"""Which records an egress takes."""

from __future__ import annotations

from statefun_ray.io.record_types import PLAYGROUND_RECORD, record_types
from statefun_ray.module.model import FileEgress, KafkaEgress, Module, PlaygroundEgress
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME


def test_each_kind_of_egress_takes_its_own_records() -> None:
    module = Module(
        kafka_egresses=(KafkaEgress("a/k"),),
        file_egresses=(FileEgress("a/f", "s3://b"),),
        playground_egress=PlaygroundEgress(("t",)),
    )
    assert record_types(module, ["a/line"]) == {
        "a/k": PRODUCER_RECORD_TYPENAME,
        "a/f": None,
        "a/line": None,
        "io.statefun.playground/egress": PLAYGROUND_RECORD,
    }
