"""A Kafka ingress against a real broker: where it starts, what becomes of records, back-pressure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import pytest

from statefun_checkpoints.model import Position
from statefun_ray.core.message import Message
from statefun_ray.core.splits import Splits, reader_of, split_name
from statefun_ray.io.kafka import source as source_module
from statefun_ray.io.kafka.source import KafkaSource
from statefun_ray.module.model import KafkaIngress, KafkaTopic, StartupPosition
from statefun_sdk.errors import UserValueError
from statefun_sdk.kafka import RECORD_TYPENAME, KafkaRecord, decode_record
from tests.kafka.broker import Broker
from tests.kafka.raw_records import produce_raw
from tests.waiting import until

_numbers = count()


def new_topic(broker: Broker, partitions: int = 1) -> str:
    topic = f"source-{next(_numbers)}"
    broker.create(topic, partitions)
    return topic


def ingress(broker: Broker, topic: str, *targets: str, **settings: object) -> KafkaIngress:
    properties = {"bootstrap.servers": broker.address, "group.id": f"group-{topic}"}
    return KafkaIngress(
        "shop/in",
        (KafkaTopic(topic, "shop/order", targets or ("shop/cart",)),),
        properties=properties,
        **settings,  # type: ignore[arg-type]
    )


class Reader:
    """A source, the splits it asks about, and what it has brought."""

    def __init__(
        self,
        config: KafkaIngress,
        positions: list[Position],
        worker: int = 0,
        workers: int = 1,
        is_strict: bool = False,
    ) -> None:
        self.splits = Splits(worker=worker, worker_count=workers, key_group_count=64)
        self.splits.restore(positions)
        self.taken: list[Message] = []
        self.rejected: list[tuple[str, ...]] = []
        self.rejected_values: list[bytes | None] = []
        self.failures: list[str] = []
        self.is_taking = True
        self.source = KafkaSource(
            config,
            self.splits,
            on_chunk=self.take,
            on_failed=self.failures.append,
            is_strict=is_strict,
        )

    def take(self) -> None:
        while self.is_taking and (chunk := self.source.take()) is not None:
            if chunk.is_reset:
                self.splits.reset(chunk.split, chunk.next_position)
                continue
            self.splits.advance(chunk.split, chunk.next_position)
            self.taken += chunk.messages
            self.rejected += [(target, letter, why) for target, letter, _, _, why in chunk.rejected]
            self.rejected_values += [value for _, _, _, value, _ in chunk.rejected]

    @property
    def messages(self) -> list[tuple[str, ...]]:
        return [(m[0], m[1], m[4], (m[5] or b"").decode()) for m in self.taken]

    @property
    def ids(self) -> list[str]:
        return [message[1] for message in self.taken]


@asynccontextmanager
async def reading(
    config: KafkaIngress,
    positions: list[Position] | None = None,
    worker: int = 0,
    workers: int = 1,
    is_strict: bool = False,
) -> AsyncIterator[Reader]:
    reader = Reader(config, positions or [], worker, workers, is_strict)
    reader.source.start()
    try:
        yield reader
        assert reader.failures == []
    finally:
        reader.source.close()
        await asyncio.to_thread(reader.source._thread.join, 10)


async def opened(reader: Reader, splits: int = 1) -> None:
    await until(lambda: len(reader.splits.positions()) == splits)


EARLIEST = StartupPosition("earliest")


async def test_every_record_goes_to_every_target_in_order(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [("a", b"1"), ("b", b"2")])
    async with reading(ingress(broker, topic, "shop/cart", "shop/user", startup=EARLIEST)) as reader:
        await until(lambda: len(reader.messages) == 4)
        assert reader.messages == [
            ("shop/cart", "a", "shop/order", "1"),
            ("shop/user", "a", "shop/order", "1"),
            ("shop/cart", "b", "shop/order", "2"),
            ("shop/user", "b", "shop/order", "2"),
        ]
        assert reader.splits.positions() == [Position(split_name("shop/in", topic, 0), 0, 64, 2)]


async def test_latest_is_where_the_topic_ended_at_the_start(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [("old", b"")])
    async with reading(ingress(broker, topic)) as reader:
        await opened(reader)
        broker.produce(topic, [("new", b"x")])
        await until(lambda: reader.ids == ["new"])


async def test_a_restored_position_wins_over_every_startup_position(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(5)])
    restored = [Position(split_name("shop/in", topic, 0), 0, 64, 3)]
    async with reading(ingress(broker, topic, startup=EARLIEST), restored) as reader:
        await until(lambda: len(reader.messages) == 2)
        assert reader.ids == ["3", "4"]


async def test_a_partition_that_came_later_is_read_from_its_beginning(broker: Broker) -> None:
    topic = new_topic(broker, partitions=2)
    broker.produce(topic, [("late", b"x")], partition=1)
    restored = [Position(split_name("shop/in", topic, 0), 0, 64, 0)]
    async with reading(ingress(broker, topic), restored) as reader:  # "latest" would leave it out
        await until(lambda: reader.ids == ["late"])


async def test_a_partition_not_open_at_the_first_snapshot_begins_where_a_first_start_does(
    broker: Broker,
) -> None:
    topic = new_topic(broker, partitions=2)
    broker.produce(topic, [("old", b"x")], partition=1)
    config = ingress(broker, topic)
    worker = reader_of(split_name("shop/in", topic, 0), 2)
    async with reading(config, worker=worker, workers=2) as reader:  # the other one has not come so far
        await opened(reader)
        snapshot = reader.splits.rows()
    async with reading(config, snapshot) as reader:
        await opened(reader, 2)
        broker.produce(topic, [("new", b"x")], partition=1)
        await until(lambda: reader.ids == ["new"])


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_partition_added_while_reading_is_read_from_its_beginning(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(source_module, "DISCOVERY_S", 0.2)
    topic = new_topic(broker)
    broker.produce(topic, [("old", b"x")])
    config = ingress(broker, topic)
    adding = reader_of(split_name("shop/in", topic, 1), workers)  # with two, it reads nothing before
    async with reading(config, worker=adding, workers=workers) as reader:
        await until(lambda: topic in reader.source._first_partitions)
        broker.add_partitions(topic, 2)
        broker.produce(topic, [("new", b"x")], partition=1)
        await until(lambda: reader.ids == ["new"])


async def test_specific_offsets_and_the_reset_position_for_others(broker: Broker) -> None:
    topic = new_topic(broker, partitions=2)
    for partition in (0, 1):
        broker.produce(topic, [(f"{partition}.{n}", b"x") for n in range(3)], partition=partition)
    startup = StartupPosition("specific-offsets", ((topic, 0, 2),))
    async with reading(ingress(broker, topic, startup=startup, reset="earliest")) as reader:
        await until(lambda: len(reader.messages) == 4)
        assert sorted(reader.ids) == ["0.2", "1.0", "1.1", "1.2"]


async def test_a_date(broker: Broker) -> None:
    topic = new_topic(broker)
    now_ms = int(time.time() * 1000)
    for ago_s in (30, 20, 10):
        broker.produce(topic, [(f"-{ago_s}", b"x")], timestamp=now_ms - ago_s * 1000)
    startup = StartupPosition("date", date_ms=now_ms - 20_000)
    async with reading(ingress(broker, topic, startup=startup)) as reader:
        await until(lambda: len(reader.messages) == 2)
        assert reader.ids == ["-20", "-10"]


@pytest.mark.parametrize(("reset", "ids"), [("earliest", ["0", "1", "2", "new"]), ("latest", ["new"])])
@pytest.mark.parametrize("is_restored", [True, False])
async def test_an_offset_that_does_not_exist_is_replaced_by_the_reset_position(
    broker: Broker, reset: str, ids: list[str], is_restored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(3)])
    split = split_name("shop/in", topic, 0)
    restored = [Position(split, 0, 64, 1_000)] if is_restored else []
    startup = StartupPosition("specific-offsets", ((topic, 0, 1_000),))
    async with reading(ingress(broker, topic, startup=startup, reset=reset), restored) as reader:
        await until(lambda: "offset 1000 of topic" in caplog.text)
        broker.produce(topic, [("new", b"x")])
        await until(lambda: reader.ids == ids)
        assert reader.splits.positions() == [Position(split, 0, 64, 4)]


async def test_a_topic_that_is_created_anew_is_read_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "RETRY_S", 0.1)
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(5)])
    async with reading(ingress(broker, topic, startup=EARLIEST, reset="earliest")) as reader:
        await until(lambda: len(reader.ids) == 5)
        broker.delete(topic)
        broker.create(topic)
        broker.produce(topic, [("again", b"x")])
        await until(lambda: reader.ids[5:] == ["again"], 20)
        assert reader.splits.positions() == [Position(split_name("shop/in", topic, 0), 0, 64, 1)]


async def test_group_offsets_are_where_a_snapshot_left_them(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(4)])
    config = ingress(broker, topic, startup=StartupPosition("group-offsets"), reset="earliest")
    split = split_name("shop/in", topic, 0)
    async with reading(config) as reader:  # nothing was committed: the reset position
        await until(lambda: len(reader.messages) == 4)
        reader.source.committed({split: 3, "kafka:other/in/t/0": 1})

        await until(lambda: broker.committed(f"group-{topic}", topic) == 3)
    async with reading(config) as reader:
        await until(lambda: reader.ids == ["3"])


async def test_a_stop_lets_the_group_show_what_was_committed_last(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(4)])
    async with reading(ingress(broker, topic, startup=EARLIEST)) as reader:
        await until(lambda: len(reader.messages) == 4)
        reader.source.committed({split_name("shop/in", topic, 0): 4})
        await asyncio.to_thread(reader.source.leave, 10)
        assert broker.committed(f"group-{topic}", topic) == 4


async def test_workers_share_the_partitions(broker: Broker) -> None:
    topic = new_topic(broker, partitions=4)
    for partition in range(4):
        broker.produce(topic, [(str(partition), b"x")], partition=partition)
    config = ingress(broker, topic, startup=EARLIEST)
    async with reading(config, worker=0, workers=2) as one, reading(config, worker=1, workers=2) as other:
        await until(lambda: len(one.messages) == len(other.messages) == 2)
        assert sorted(one.ids + other.ids) == ["0", "1", "2", "3"]


async def test_what_cannot_be_addressed_is_told_and_does_not_stop_the_rest(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(None, b"1"), (b"\xff", b"2"), ("a", None), ("b", b"4")])
    async with reading(ingress(broker, topic, startup=EARLIEST)) as reader:
        await until(lambda: reader.ids == ["b"])
        assert [letter for _, letter, _ in reader.rejected] == [f"{topic}/0/{offset}" for offset in range(3)]
        assert "no key" in reader.rejected[0][2]
        assert "not UTF-8" in reader.rejected[1][2]
        assert "tombstone" in reader.rejected[2][2]


async def test_a_strict_application_reads_keys_as_java_does(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(None, b"1"), (b"a\xffb", b"2"), (b"\xe2\x82", b"3"), ("\u20ac", b"4")])
    async with reading(ingress(broker, topic, startup=EARLIEST), is_strict=True) as reader:
        await until(lambda: reader.ids == ["a\ufffdb", "\ufffd", "\u20ac"])
        assert [letter for _, letter, _ in reader.rejected] == [f"{topic}/0/0"]


def as_record(ingress: KafkaIngress) -> KafkaIngress:
    """Return the same, with records delivered whole."""
    return replace(ingress, topics=tuple(replace(topic, deliver="record") for topic in ingress.topics))


async def test_a_whole_record_has_all_that_kafka_knows_of_it(broker: Broker) -> None:
    topic = new_topic(broker, partitions=2)
    headers: list[tuple[str, bytes | str | None]] = [("a", b"1"), ("b", None), ("a", b""), ("ü", b"\xff")]
    now_ms = int(time.time() * 1000)
    broker.produce(topic, [("k", b"x"), ("k", b"y")], partition=1, timestamp=now_ms, headers=headers)
    broker.produce(topic, [("k", None)], partition=1, timestamp=now_ms)  # a tombstone
    async with reading(as_record(ingress(broker, topic, startup=EARLIEST))) as reader:
        await until(lambda: len(reader.taken) == 3)
        assert {message[:5] for message in reader.taken} == {("shop/cart", "k", "", "", RECORD_TYPENAME)}
        first, _, tombstone = (decode_record(message[5] or b"") for message in reader.taken)
        assert first == KafkaRecord(
            topic,
            partition=1,
            offset=0,
            timestamp_ms=now_ms,
            timestamp_type="create",
            key=b"k",
            value=b"x",
            value_type="shop/order",
            headers=(("a", b"1"), ("b", None), ("a", b""), ("ü", b"\xff")),
        )
        assert (tombstone.offset, tombstone.value, tombstone.headers) == (2, None, ())
        assert reader.rejected == []


async def test_a_whole_record_that_cannot_be_addressed_is_kept_whole(broker: Broker) -> None:
    topic = new_topic(broker)
    broker.produce(topic, [(None, b"1"), (b"\xff", b"2"), ("c", b"3")], headers=[("a", b"b")])
    async with reading(as_record(ingress(broker, topic, startup=EARLIEST))) as reader:
        await until(lambda: reader.ids == ["c"])
        kept = [decode_record(value or b"") for value in reader.rejected_values]
        assert [(record.key, record.value, record.headers) for record in kept] == [
            (None, b"1", (("a", b"b"),)),
            (b"\xff", b"2", (("a", b"b"),)),
        ]


WARM = 100


async def test_a_header_whose_name_is_no_text_does_not_stop_the_rest(broker: Broker) -> None:
    topic = new_topic(broker)
    # Many good ones first: the interpreter then takes short cuts, and some of them miss the client's error.
    broker.produce(topic, [("b", b"0")] * WARM, headers=[("h", b"x")])
    produce_raw(
        broker.address, topic, [(b"a", b"1", [(b"\xff", b"x")]), (b"b", b"2", [("ü".encode(), b"y")])]
    )
    async with reading(as_record(ingress(broker, topic, startup=EARLIEST))) as reader:
        await until(lambda: reader.ids == ["b"] * (WARM + 1))
        [(_, letter, why)] = reader.rejected
        assert (letter, "header is not UTF-8" in why) == (f"{topic}/0/{WARM}", True)
        [kept] = [decode_record(value or b"") for value in reader.rejected_values]
        assert (kept.key, kept.value, kept.headers) == (b"a", b"1", ())
    async with reading(ingress(broker, topic, startup=EARLIEST)) as reader:  # nobody asks for headers
        await until(lambda: reader.ids == ["b"] * WARM + ["a", "b"])


async def test_a_loop_that_does_not_take_holds_the_source_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "CHUNKS_MAX", 2)
    monkeypatch.setattr(source_module, "CHUNK_RECORDS", 10)
    topic = new_topic(broker)
    broker.produce(topic, [(str(number), b"x") for number in range(200)])
    async with reading(ingress(broker, topic, startup=EARLIEST)) as reader:
        reader.is_taking = False
        await until(lambda: len(reader.source._chunks) == 2)
        await asyncio.sleep(0.3)  # time to do wrong
        assert len(reader.source._chunks) == 2
        reader.is_taking = True
        reader.take()
        await until(lambda: len(reader.messages) == 200)
        assert reader.ids == [str(number) for number in range(200)]


async def test_a_topic_that_is_not_there_yet_is_waited_for(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "RETRY_S", 0.1)
    topic = f"source-{next(_numbers)}"
    config = ingress(broker, topic, startup=EARLIEST)
    config.properties["allow.auto.create.topics"] = "false"  # type: ignore[index]
    async with reading(config) as reader:
        await until(lambda: topic in reader.source.trouble)
        broker.create(topic)
        broker.produce(topic, [("a", b"x")])
        await until(lambda: reader.ids == ["a"])
        await until(lambda: reader.source.trouble == "")


async def test_a_broker_that_is_not_there_is_trouble_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BROKER_S", 0.5)
    config = KafkaIngress(
        "shop/in",
        (KafkaTopic("t", "shop/order", ("shop/cart",)),),
        properties={"bootstrap.servers": "127.0.0.1:1", "group.id": "g"},
    )
    async with reading(config) as reader:
        await until(lambda: "127.0.0.1:1" in reader.source.trouble, 20)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"session.timeout.ms": "soon"}, "session.timeout.ms"),
        ({"ssl.truststore.location": "/x.jks"}, "ssl.ca.location"),
        ({"sasl.jaas.config": "org.apache.Kerberos required;"}, "sasl.jaas.config"),
    ],
)
async def test_properties_that_cannot_be_used_are_told_before_anything_starts(
    properties: dict[str, str], said: str
) -> None:
    config = KafkaIngress(
        "shop/in",
        (KafkaTopic("t", "shop/order", ("shop/cart",)),),
        properties={"bootstrap.servers": "127.0.0.1:1", "group.id": "g", **properties},
    )
    with pytest.raises(UserValueError, match=r"kafka ingress shop/in: .*") as refused:
        Reader(config, [])
    assert said in str(refused.value)


async def test_a_property_that_nobody_knows_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    config = KafkaIngress(
        "shop/in",
        (KafkaTopic("t", "shop/order", ("shop/cart",)),),
        properties={
            "bootstrap.servers": "127.0.0.1:1",
            "group.id": "g",
            "fech.max.bytes": "1",
            "my.own": "2",
        },
    )
    reader = Reader(config, [])
    reader.source._consumer.close()
    assert "the property fech.max.bytes, which its client does not know" in caplog.text
    assert "did you mean fetch.max.bytes?" in caplog.text
    assert "my.own" in caplog.text


def test_properties_of_a_jvm_are_translated_or_left_out() -> None:
    from statefun_ray.io.kafka.properties import client_properties, discovery_s

    given = {
        "key.deserializer": "org.apache…",
        "fetch.max.wait.ms": "100",
        "flink.partition-discovery.interval-millis": "5000",
        "sasl.jaas.config": 'x.PlainLoginModule required username="me" password="a\\"b";',
        "ssl.endpoint.identification.algorithm": "",
    }
    assert client_properties(given, "here") == {
        "fetch.wait.max.ms": "100",
        "sasl.username": "me",
        "sasl.password": 'a"b',
        "ssl.endpoint.identification.algorithm": "none",
    }
    assert discovery_s(given, 30.0) == 5.0
    assert discovery_s({}, 30.0) == 30.0
