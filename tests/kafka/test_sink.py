"""A Kafka egress against a real broker: nothing lost, nothing twice, nobody from before."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from statefun_ray.core.key_groups import EGRESS_SHARDS_DEFAULT
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress import SinkRefused, SinkUnavailable
from statefun_ray.io.kafka.registers import NO_HISTORY, REGISTER_TOPIC, History, Registers, group_name
from statefun_ray.io.kafka.sink import KafkaSink, SinkFenced
from statefun_ray.module.model import KafkaEgress
from statefun_sdk.egress import kafka_egress_message, kafka_tombstone_message
from statefun_sdk.errors import UserValueError
from statefun_sdk.messages import EgressMessage
from tests.kafka.broker import Broker

EGRESS = "shop/out"
SHARDS = EGRESS_SHARDS_DEFAULT  # as whole applications have: the broker is theirs as well
_numbers = count()


def row(sequence: int, topic: str, value: str | None = None, key: str | None = None) -> EgressRow:
    message = kafka_egress_message(EGRESS, topic, value or str(sequence), key=key)
    return (sequence, EGRESS, message.value_typename(), message.raw_value())


class Egress:
    """Sinks of one egress, as the workers of one generation after the other have them."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.app = f"app-{next(_numbers)}"
        self.incarnation = "first"
        self.topic = f"sink-{self.app}"
        broker.create(self.topic)
        self.is_current = True
        self.rejected: list[tuple[int, int, str]] = []
        self.sinks: list[KafkaSink] = []
        self.noted: list[None] = []

    def sink(
        self,
        semantic: str = "exactly-once",
        *,
        worker: int = 0,
        workers: int = 1,
        slots: int = 1,
        history: History = NO_HISTORY,
        **properties: str,
    ) -> KafkaSink:
        config = KafkaEgress(
            EGRESS,
            semantic,  # type: ignore[arg-type]
            transaction_timeout_ms=30_000,
            properties={"bootstrap.servers": self.broker.address}
            | {name.replace("_", "."): value for name, value in properties.items()},
        )
        sink = KafkaSink(
            config,
            app=self.app,
            incarnation=lambda: self.incarnation,
            worker=worker,
            worker_count=workers,
            slot_count=slots,
            shard_count=SHARDS,
            is_current=lambda: self.is_current,
            on_rejected=lambda shard, row, why: self.rejected.append((shard, row[0], why)),
            history=history,
        )
        self.sinks.append(sink)
        sink.open()
        return sink

    def rows(self, *sequences: int) -> list[EgressRow]:
        return [row(sequence, self.topic) for sequence in sequences]

    def history(
        self, next_sequence: dict[int, int], unconfirmed: dict[int, int], *, had: bool = False
    ) -> History:
        return History(next_sequence, unconfirmed, lambda: had, lambda: self.noted.append(None))

    def register(self, shard: int) -> int:
        """Return a register, a negative number for none."""
        group = group_name(self.app, self.incarnation, EGRESS)
        return self.broker.committed(group, REGISTER_TOPIC, shard)

    def values(self, expected: int) -> list[str]:
        """Return all that a committed reader sees once there are as many records as expected."""
        records = self.broker.all_of(self.topic, expected)
        return [(record.value() or b"").decode() for record in records]


@pytest.fixture
def egress(broker: Broker) -> Iterator[Egress]:
    made = Egress(broker)
    yield made
    for sink in made.sinks:
        sink.close()


def test_rows_become_records_with_key_and_topic(egress: Egress) -> None:
    other = egress.topic + "-b"
    egress.broker.create(other)
    sink = egress.sink()
    sink.publish([(0, [row(0, egress.topic, "x", "k"), row(1, other, "y")])])
    [first] = egress.broker.consume(egress.topic, 1)
    [second] = egress.broker.consume(other, 1)
    assert (first.key(), first.value()) == (b"k", b"x")
    assert (second.key(), second.value()) == (None, b"y")


JAVA_HASHES = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
"""What ``Utils.murmur2`` of Kafka's Java client makes of some keys, from the tests of Kafka itself."""


@pytest.mark.parametrize("semantic", ["exactly-once", "at-least-once", "none"])
def test_a_key_has_the_partition_that_java_clients_give_it(egress: Egress, semantic: str) -> None:
    topic = f"{egress.topic}-{semantic}"
    egress.broker.create(topic, 7)
    rows = [row(sequence, topic, "x", key) for sequence, key in enumerate(JAVA_HASHES)]
    egress.sink(semantic).publish([(0, rows)])
    found = {}
    for record in egress.broker.consume(topic, len(rows)):
        key = record.key()
        assert isinstance(key, bytes)
        found[key.decode()] = record.partition()
    assert found == {key: (java & 0x7FFFFFFF) % 7 for key, java in JAVA_HASHES.items()}


def test_a_partitioner_that_is_named_is_taken(egress: Egress) -> None:
    topic = egress.topic + "-crc"
    egress.broker.create(topic, 7)
    egress.sink(partitioner="consistent").publish([(0, [row(0, topic, "x", "foobar")])])
    [record] = egress.broker.consume(topic, 1)
    assert record.partition() == zlib.crc32(b"foobar") % 7


def rows_of(*messages: EgressMessage) -> list[EgressRow]:
    return [(n, EGRESS, one.value_typename(), one.raw_value()) for n, one in enumerate(messages)]


@pytest.mark.parametrize("semantic", ["exactly-once", "at-least-once", "none"])
def test_headers_and_tombstones_are_written(egress: Egress, semantic: str) -> None:
    headers: list[tuple[str, bytes | str | None]] = [("a", "1"), ("b", None), ("a", b""), ("ü", b"\xff")]
    sink = egress.sink(semantic)
    messages = rows_of(
        kafka_egress_message(EGRESS, egress.topic, b"", key="k", headers=headers),
        kafka_tombstone_message(EGRESS, egress.topic, "k", headers=[("why", "gone")]),
        kafka_egress_message(EGRESS, egress.topic, b"plain"),
    )
    sink.publish([(0, messages)])
    found = [(one.key(), one.value(), one.headers()) for one in egress.broker.all_of(egress.topic, 3)]
    assert found == [
        (b"k", b"", [("a", b"1"), ("b", None), ("a", b""), ("ü", b"\xff")]),
        (b"k", None, [("why", b"gone")]),
        (None, b"plain", None),
    ]


def test_a_header_that_would_be_written_under_another_name_is_kept_aside(egress: Egress) -> None:
    rows = rows_of(
        kafka_egress_message(EGRESS, egress.topic, b"1", headers=[("a\0b", b"")]),
        kafka_egress_message(EGRESS, egress.topic, b"2"),
    )
    egress.sink().publish([(0, rows)])
    assert egress.values(1) == ["2"]
    [(_, sequence, why)] = egress.rejected
    assert (sequence, "a header has a NUL" in why) == (0, True)


def test_publishing_again_changes_nothing(egress: Egress) -> None:
    sink = egress.sink()
    sink.publish([(1, egress.rows(0, 1)), (2, egress.rows(0)), (1, egress.rows(2))])
    sink.publish([(1, egress.rows(0, 1))])
    sink.publish([(1, egress.rows(0, 1, 2, 5)), (2, egress.rows(0, 7))])
    assert egress.values(6) == ["0", "1", "0", "2", "5", "7"]


def test_the_next_generation_goes_on_above_the_registers(egress: Egress) -> None:
    egress.sink().publish([(1, egress.rows(0, 1))])
    # It died before it could say so; two workers share its shards now.
    again = egress.sink(worker=1, workers=2, slots=2)
    again.publish([(1, egress.rows(0, 1, 2))])
    assert egress.values(3) == ["0", "1", "2"]


def test_a_new_storage_has_new_registers_and_fences_nobody(egress: Egress) -> None:
    old = egress.sink()
    old.publish([(1, egress.rows(0, 1))])
    egress.incarnation = "second"
    egress.sink().publish([(1, egress.rows(0, 1))])
    old.publish([(1, egress.rows(2))])
    assert egress.values(5) == ["0", "1", "0", "1", "2"]


def test_a_storage_from_before_there_were_incarnations_keeps_its_registers(egress: Egress) -> None:
    egress.incarnation = ""
    egress.sink().publish([(1, egress.rows(0))])
    assert egress.broker.committed(f"statefun-ray.{egress.app}.shop.out", REGISTER_TOPIC, 1) == 1


def test_registers_exist_before_anything_is_emitted_and_the_last_worker_says_so(egress: Egress) -> None:
    half = SHARDS // 2
    egress.sink(worker=0, workers=2, slots=2, history=egress.history({n: n for n in range(half)}, {}))
    assert [egress.register(shard) for shard in (0, half - 1, half)] == [0, half - 1, -1001]
    assert egress.noted == []
    egress.sink(worker=1, workers=2, slots=2, history=egress.history({n: n for n in range(half, SHARDS)}, {}))
    assert egress.register(half) == half
    assert egress.noted == [None]


def test_a_register_that_is_there_is_not_touched_by_a_start(egress: Egress) -> None:
    egress.sink().publish([(1, egress.rows(0, 1))])
    again = egress.sink(history=egress.history({1: 3}, {1: 0}))
    assert egress.register(1) == 2
    again.publish([(1, egress.rows(0, 1, 2))])
    assert egress.values(3) == ["0", "1", "2"]


@pytest.mark.parametrize(("told", "written"), [("", None), ("publish", ["3", "4", "5"]), ("skip", ["5"])])
def test_a_register_that_was_lost_needs_a_decision(
    egress: Egress, told: str, written: list[str] | None
) -> None:
    history = egress.history({1: 5, 2: 7}, {1: 3}, had=True)
    properties: dict[str, Any] = {"statefun-ray_on-lost-registers": told} if told else {}
    if written is None:
        with pytest.raises(SinkRefused, match=r"no offsets in .* for shards \[1\].*on-lost-registers"):
            egress.sink(history=history)
        assert egress.register(1) < 0, "the next start has to find it missing as well"
        return
    egress.sink(history=history, **properties).publish([(1, egress.rows(3, 4)), (1, egress.rows(5))])
    assert egress.values(len(written)) == written
    assert egress.register(2) == 7


def test_a_register_that_never_was_is_not_lost(egress: Egress) -> None:
    egress.sink(history=egress.history({1: 5}, {1: 3})).publish([(1, egress.rows(3, 4))])
    assert egress.values(2) == ["3", "4"]


def test_what_was_confirmed_is_not_written_again_when_the_broker_forgets(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = egress.sink()
    sink.publish([(1, egress.rows(0, 1))])
    sink._drop_producer()
    monkeypatch.setattr(Registers, "read", lambda _self, shards: dict.fromkeys(shards))
    sink.publish([(1, egress.rows(0, 1, 2))])
    assert egress.values(3) == ["0", "1", "2"]


def test_names_of_registers_are_different_for_different_egresses() -> None:
    assert group_name("app", "i", "a.b/c") != group_name("app", "i", "a/b.c")


def test_a_worker_of_an_earlier_generation_is_fenced(egress: Egress) -> None:
    zombies = [egress.sink(worker=worker, workers=3, slots=3) for worker in range(3)]
    zombies[2].publish([(5, egress.rows(0))])
    for worker in range(2):
        egress.sink(worker=worker, workers=2, slots=3)
    for zombie in zombies:
        with pytest.raises(SinkFenced):
            zombie.publish([(5, egress.rows(0, 1))])
    egress.is_current = False  # as the zombies find out when they try once more
    for zombie in zombies:
        with pytest.raises(SinkFenced, match="later generation"):
            zombie.publish([(5, egress.rows(0, 1))])
    assert egress.values(1) == ["0"]


def test_an_open_transaction_of_an_earlier_generation_is_never_seen(egress: Egress) -> None:
    zombie = egress.sink()
    assert zombie._producer is not None
    zombie._producer.begin_transaction()
    zombie._producer.produce(egress.topic, b"half")
    zombie._producer.flush(5)
    egress.sink().publish([(0, egress.rows(0))])
    assert egress.values(1) == ["0"]


@pytest.mark.parametrize("outcome", ["committed", "not committed"])
def test_a_commit_without_an_answer_is_settled_by_the_register(
    egress: Egress, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = egress.sink()
    producer = sink._producer

    class Lossy:
        """The producer, whose one answer to a commit gets lost."""

        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

        def commit_transaction(self, timeout: float) -> None:
            if outcome == "committed":
                producer.commit_transaction(timeout)  # type: ignore[union-attr]
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(sink, "_producer", Lossy())
    with pytest.raises(SinkUnavailable):
        sink.publish([(0, egress.rows(0, 1))])
    sink.publish([(0, egress.rows(0, 1))])
    sink.publish([(0, egress.rows(2))])
    assert egress.values(3) == ["0", "1", "2"]


def test_a_record_that_is_too_large_is_told_and_the_rest_goes_on(egress: Egress) -> None:
    sink = egress.sink(max_request_size="10000")
    sink.publish(
        [(0, [row(0, egress.topic, "a"), row(1, egress.topic, "x" * 20_000), row(2, egress.topic, "b")])]
    )
    assert egress.values(2) == ["a", "b"]
    [(shard, sequence, why)] = egress.rejected
    assert (shard, sequence) == (0, 1)
    assert "too large" in why


SURE = ["exactly-once", "at-least-once"]


@pytest.mark.parametrize("semantic", SURE)
def test_a_record_for_a_topic_that_cannot_be_is_told_and_the_rest_goes_on(
    egress: Egress, semantic: str
) -> None:
    sink = egress.sink(semantic)
    names = ["no topic/has this name", "a\0b", "..", "x" * 250]
    rows = [row(sequence, name) for sequence, name in enumerate([egress.topic, *names, egress.topic])]
    sink.publish([(0, rows)])
    sink.publish([(0, [row(6, egress.topic)])])
    assert egress.values(3) == ["0", "5", "6"]
    assert [sequence for _, sequence, _ in egress.rejected] == [1, 2, 3, 4]
    assert "can be no topic" in egress.rejected[0][2]


class Request:
    """A producer of one request at a time, for a broker that refuses a request for one record in it."""

    refusal = KafkaError.MSG_SIZE_TOO_LARGE

    def __init__(self, properties: dict[str, Any], **options: Any) -> None:
        self._producer = Producer(properties, **options)
        self._waiting: list[tuple[tuple[Any, ...], Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def produce(self, topic: str, value: bytes, key: Any, *, on_delivery: Any, headers: Any) -> None:
        self._waiting.append(((topic, value, key), on_delivery, {"headers": headers}))

    def purge(self, **which: bool) -> None:
        self._waiting.clear()
        self._producer.purge(**which)

    def flush(self, timeout: float) -> int:
        waiting, self._waiting = self._waiting, []
        is_refused = any(value.startswith(b"bad") for (_, value, _), _, _ in waiting)
        for (topic, value, key), on_delivery, more in waiting:
            if is_refused:
                on_delivery(KafkaError(self.refusal), None)
            else:
                self._producer.produce(topic, value, key, on_delivery=on_delivery, **more)
        return self._producer.flush(timeout)


@pytest.mark.parametrize("semantic", SURE)
def test_what_a_request_is_refused_for_is_found_and_the_rest_goes_on(
    egress: Egress, semantic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statefun_ray.io.kafka.sink.Producer", Request)
    sink = egress.sink(semantic)
    values = ["a", "bad 1", "b", "bad 2", "c"]
    sink.publish([(0, [row(sequence, egress.topic, value) for sequence, value in enumerate(values)])])
    assert egress.values(3) == ["a", "b", "c"]
    assert [sequence for _, sequence, _ in egress.rejected] == [1, 3]


def test_at_least_once_does_not_write_again_what_was_delivered(
    egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shaky(Request):
        refusal = KafkaError._TIMED_OUT

    monkeypatch.setattr("statefun_ray.io.kafka.sink.Producer", Shaky)
    sink = egress.sink("at-least-once")
    sink._alone = {(0, 1)}  # a request of its own, so that it fails by itself
    rows = [row(0, egress.topic, "a"), row(1, egress.topic, "bad"), row(2, egress.topic, "b")]
    for _ in range(3):
        with pytest.raises(SinkUnavailable):
            sink.publish([(0, rows)])
    assert egress.values(2) == ["a", "b"]
    assert egress.rejected == []
    rows[1] = row(1, egress.topic, "c")
    sink.publish([(0, [*rows, row(3, egress.topic, "d")])])
    assert egress.values(4) == ["a", "b", "c", "d"]


def test_nothing_is_left_behind_by_an_orderly_end(egress: Egress) -> None:
    sink = egress.sink("none", linger_ms="60000")  # the client would wait for more
    sink.publish([(0, egress.rows(*range(100)))])
    sink.flush(10)
    sink.close()
    assert len(egress.values(100)) == 100


@pytest.mark.parametrize("semantic", ["at-least-once", "none"])
def test_without_exactly_once_there_is_no_register(egress: Egress, semantic: str) -> None:
    sink = egress.sink(semantic)
    sink.publish([(0, egress.rows(0, 1))])
    sink.publish([(0, egress.rows(1, 2))])
    assert egress.values(4) == ["0", "1", "1", "2"]


def test_a_broker_that_is_not_there_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statefun_ray.io.kafka.registers.BROKER_S", 0.5)
    monkeypatch.setattr("statefun_ray.io.kafka.sink.DELIVERY_S", 0.5)
    gone = Egress.__new__(Egress)
    gone.broker, gone.app, gone.topic, gone.sinks, gone.rejected = Broker("127.0.0.1:1"), "a", "t", [], []
    gone.incarnation = ""
    with pytest.raises(SinkUnavailable, match="kafka egress shop/out"):
        gone.sink()
    with pytest.raises(SinkUnavailable, match="not written"):
        gone.sink("at-least-once").publish([(0, gone.rows(0))])
    for sink in gone.sinks:
        sink.close()


def test_a_register_topic_with_too_few_partitions_is_refused(egress: Egress) -> None:
    egress.sink()
    config = KafkaEgress(EGRESS, "exactly-once", 30_000, {"bootstrap.servers": egress.broker.address})
    larger = KafkaSink(
        config,
        app=egress.app,
        incarnation=str,
        worker=0,
        worker_count=1,
        slot_count=1,
        shard_count=1_000,
        is_current=lambda: True,
        on_rejected=lambda *_: None,
    )
    with pytest.raises(SinkUnavailable, match=rf"{REGISTER_TOPIC} has \d+ partitions"):
        larger.open()


def test_wrong_properties_are_told_before_anything_starts(egress: Egress) -> None:
    with pytest.raises(UserValueError, match=r"kafka egress shop/out.*linger.ms"):
        egress.sink(linger_ms="soon")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"lingerr_ms": "5"}, "did you mean linger.ms?"),
        ({"partitioner_class": "org.acme.Mine"}, "Java's default"),
    ],
)
def test_a_property_that_is_left_out_is_told(
    egress: Egress, properties: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    egress.sink(**properties).publish([(0, egress.rows(0))])
    assert egress.values(1) == ["0"]
    assert said in caplog.text


def test_what_is_no_record_is_kept_aside_and_the_rest_goes_on(egress: Egress) -> None:
    no_record: EgressRow = (1, EGRESS, "a/b", b"\xff\xff")
    no_topic: EgressRow = (2, EGRESS, "a/b", b"")
    egress.sink().publish([(0, [row(0, egress.topic), no_record, no_topic, row(3, egress.topic)])])
    assert egress.values(2) == ["0", "3"]
    assert [sequence for _, sequence, _ in egress.rejected] == [1, 2]
