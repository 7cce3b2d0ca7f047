"""One Kafka ingress in one worker: a thread that reads this worker's partitions.

Nobody subscribes: who reads a partition is arithmetic (`core.splits`), where reading goes on is in
the snapshot, and Kafka's consumer group only shows people how far the application is. So no
rebalance of the broker's can take a partition from a worker or give it to two.

The thread hands chunks of records to the loop and waits while `CHUNKS_MAX` of them are not taken:
that is all the back-pressure there is, and it holds up nothing but this ingress.

An offset that the broker does not have (any more) is never read from: the split goes on at the
reset position, says so, and its position in the snapshot follows behind the chunks before.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Final, TypeAlias, cast

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Message as Record

from statefun_ray.core.dead_letters import Rejected
from statefun_ray.core.message import Message
from statefun_ray.core.splits import Splits, belongs_to, split_name
from statefun_ray.io.kafka.log import client_logger
from statefun_ray.io.kafka.properties import Finding, discovery_s, make_client
from statefun_ray.module.model import KafkaIngress, KafkaTopic
from statefun_sdk.kafka import RECORD_TYPENAME, Header, KafkaRecord, TimestampType, encode_record

logger = logging.getLogger(__name__)

CHUNK_RECORDS: Final = 1_000
CHUNKS_MAX: Final = 8
"""Read and not taken by the loop yet: about 1 MB of small records."""

POLL_S: Final = 0.1
"""How long the thread waits for records before it looks at what else there is to do."""

BROKER_S: Final = 10.0
"""For one answer about metadata or offsets."""

DISCOVERY_S: Final = 30.0
"""Between two looks for new partitions."""

RETRY_S: Final = 1.0

TIMESTAMP_TYPES: Final[Mapping[int, TimestampType]] = {
    TIMESTAMP_CREATE_TIME: "create",
    TIMESTAMP_LOG_APPEND_TIME: "append",
}

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset."""

RESET: Final = -1
"""Stands for an offset that does not exist."""


@dataclass(slots=True)
class Chunk:
    """Records of one split, in order, as messages; or where it goes on after a reset."""

    split: str
    next_position: int
    """Behind the last record."""
    messages: list[Message]
    rejected: list[Rejected]
    is_reset: bool = False
    """Whether the position is not where the chunk before ended: what was there does not exist."""


class KafkaSource:
    """Reads one ingress. Methods are for the loop; the thread is inside."""

    def __init__(
        self,
        ingress: KafkaIngress,
        splits: Splits,
        *,
        on_chunk: Callable[[], None],
        on_failed: Callable[[str], None],
        is_strict: bool = False,
    ) -> None:
        """Check the properties; nothing is connected before `start`.

        Args:
            ingress: what to read.
            splits: which of it, and from where. The thread only asks; a split is opened in the loop,
                before any chunk of it.
            on_chunk: told in the loop that `take` has something.
            on_failed: told why when reading can not go on for good.
            is_strict: take a key that is not UTF-8 as StateFun does, with a character instead of what
                cannot be read; two such keys may be one id.

        Raises:
            UserValueError: a property that librdkafka does not take.
        """
        self._ingress = ingress
        self._key_errors = "replace" if is_strict else "strict"
        self._splits = splits
        self._on_chunk, self._on_failed = on_chunk, on_failed
        self._loop = asyncio.get_running_loop()
        self._topics = {topic.topic: topic for topic in ingress.topics}
        self._first_partitions: dict[str, frozenset[int]] = {}
        """Topic -> what it had when it was first seen; others were added since. The thread's own."""
        self._read_until: dict[tuple[str, int], int] = {}
        """Topic and partition -> behind what was handed over; the loop may be at an earlier chunk."""
        self._lost: set[tuple[str, int]] = set()
        """Partitions that cannot be read where they were to be."""
        self._trouble = ""
        consumer = open_consumer(ingress, self._note_trouble)
        assert consumer is not None, "nobody else was told what is wrong with it"
        self._consumer = consumer
        self._chunks: deque[Chunk] = deque()
        self._has_room = threading.Condition()
        self._is_stopping = False
        self._to_commit: dict[str, int] | None = None
        self._thread = threading.Thread(target=self._run, name=f"kafka-{ingress.id}", daemon=True)

    @property
    def trouble(self) -> str:
        """Why nothing can be read right now; empty when all is well."""
        return self._trouble

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self) -> Chunk | None:
        """Return the next records, None when there are none yet."""
        with self._has_room:
            chunk = self._chunks.popleft() if self._chunks else None
            self._has_room.notify()
        return chunk

    def committed(self, positions: Mapping[str, int]) -> None:
        """A snapshot with these positions exists: let the consumer group show them, soon."""
        source = self._ingress.id
        to_commit = {split: at for split, at in positions.items() if belongs_to(split, source)}
        with self._has_room:
            self._to_commit = to_commit

    def leave(self, timeout_s: float) -> None:
        """Stop reading, and return when the consumer group shows what was committed last. Blocks."""
        self.close()
        self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop reading; returns before the thread has ended."""
        with self._has_room:
            self._is_stopping = True
            self._has_room.notify()

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:
            logger.exception("kafka ingress failed ingress=%s", self._ingress.id)
            self._tell(self._on_failed, f"kafka ingress {self._ingress.id}: {type(error).__name__}: {error}")
        finally:
            self._consumer.close()

    def _read(self) -> None:
        opened: dict[tuple[str, int], str] = {}
        look_again_s = 0.0
        interval_s = discovery_s(self._ingress.properties, DISCOVERY_S)
        while not self._is_stopping:
            if time.monotonic() >= look_again_s:
                is_done = self._open_new_splits(opened)
                pause_s = (interval_s or float("inf")) if is_done else RETRY_S
                look_again_s = time.monotonic() + pause_s
            self._commit_offsets(opened)
            records = self._consumer.consume(CHUNK_RECORDS, POLL_S)
            for chunk in self._chunks_of(records, opened):
                self._hand_over(chunk)
            if self._lost:
                self._close_lost_splits(opened)
                look_again_s = min(look_again_s, time.monotonic() + RETRY_S)
        # The positions of the final snapshot are told right before the end, and the next start is to be found there.
        self._commit_offsets(opened, is_last=True)

    def _open_new_splits(self, opened: dict[tuple[str, int], str]) -> bool:
        """Assign partitions that are ours and not read yet; return whether every topic was found."""
        found_all = True
        for name in self._topics:
            try:
                metadata = self._consumer.list_topics(name, timeout=BROKER_S).topics[name]
                if metadata.error is not None:
                    raise KafkaException(metadata.error)
                if name not in self._first_partitions:
                    # All of them, whoever reads them: a worker that has none may be given the next one.
                    self._first_partitions[name] = frozenset(metadata.partitions)
                    self._tell(self._splits.found, self._ingress.id, name, len(metadata.partitions))
                new = {
                    (name, partition): split
                    for partition in sorted(metadata.partitions)
                    if (name, partition) not in opened
                    and self._splits.is_ours(split := split_name(self._ingress.id, name, partition))
                }
                positions = self._first_positions(new)
            except KafkaException as error:
                self._note_trouble(error.args[0], f"topic {name}")
                found_all = False
                continue
            for key, position in positions.items():
                before = self._position(key, new[key])
                split = opened[key] = new[key]
                self._tell(self._splits.open, split, position)
                if before is not None and before != position:
                    self._hand_over(Chunk(split, position, [], [], is_reset=True))
                self._read_until[key] = position
                self._consumer.incremental_assign([TopicPartition(*key, position)])
                logger.info("kafka partition is read split=%s from=%d", split, position)
        if found_all:
            self._trouble = ""
        return found_all

    def _close_lost_splits(self, opened: dict[tuple[str, int], str]) -> None:
        """Let go of partitions that cannot go on, to be opened again where they can."""
        for key in self._lost & opened.keys():
            self._consumer.incremental_unassign([TopicPartition(*key)])
            del opened[key]
        self._lost.clear()

    def _position(self, key: tuple[str, int], split: str) -> int | None:
        """Return what is to be read next of a split, None for one that is new to us."""
        handed_over = self._read_until.get(key)
        return self._splits.position(split) if handed_over is None else handed_over

    def _existing(self, key: tuple[str, int], offset: int) -> int:
        """Return ``offset``, or the reset position if the broker has no such offset."""
        low, high = self._watermarks(*key)
        if low <= offset <= high:
            return offset
        instead = low if self._ingress.reset == "earliest" else high
        logger.warning(
            "kafka ingress %s: offset %d of topic %s, partition %d does not exist, the broker has %d to %d (records "
            "have expired, or the topic was created anew); reading goes on at %d, which is autoOffsetResetPosition "
            "(%s), and what lies between is left out or repeated",
            self._ingress.id,
            offset,
            *key,
            low,
            high,
            instead,
            self._ingress.reset,
        )
        return instead

    def _first_positions(self, new: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], int]:
        """Return offsets that exist or will: never a name for one, which would mean another later."""
        result: dict[tuple[str, int], int] = {}
        fresh: list[TopicPartition] = []
        for (topic, partition), split in new.items():
            position = self._position((topic, partition), split)
            if position is not None:
                result[topic, partition] = self._existing((topic, partition), position)
            elif self._splits.is_late(split) or partition not in self._first_partitions[topic]:
                result[topic, partition] = self._watermark(topic, partition, "earliest")
            else:
                fresh.append(TopicPartition(topic, partition))
        for topic, partition, offset in self._startup_offsets(fresh):
            key = topic, partition
            if offset < 0:
                result[key] = self._watermark(*key, self._ingress.reset)
            else:
                result[key] = self._existing(key, offset)
        return result

    def _startup_offsets(self, fresh: list[TopicPartition]) -> list[Place]:
        """Return where a first start begins; a negative offset stands for the reset position."""
        startup = self._ingress.startup
        if not fresh:
            return []
        match startup.kind:
            case "earliest" | "latest":
                found = [self._at_watermark(one, startup.kind) for one in fresh]
            case "group-offsets":
                found = self._consumer.committed(fresh, timeout=BROKER_S)
            case "date":
                asked = [TopicPartition(one.topic, one.partition, startup.date_ms) for one in fresh]
                found = [
                    # Nothing is that new yet: what comes next is.
                    one if one.offset >= 0 else self._at_watermark(one, "latest")
                    for one in self._consumer.offsets_for_times(asked, timeout=BROKER_S)
                ]
            case "specific-offsets":
                offsets = {(topic, partition): offset for topic, partition, offset in startup.offsets}
                return [
                    (one.topic, one.partition, offsets.get((one.topic, one.partition), RESET))
                    for one in fresh
                ]
        return [(one.topic, one.partition, one.offset) for one in found]

    def _at_watermark(self, one: TopicPartition, which: str) -> TopicPartition:
        return TopicPartition(one.topic, one.partition, self._watermark(one.topic, one.partition, which))

    def _watermark(self, topic: str, partition: int, which: str) -> int:
        low, high = self._watermarks(topic, partition)
        return low if which == "earliest" else high

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset there is, and that of the record to come."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=BROKER_S)
        return int(low), int(high)

    def _chunks_of(self, records: list[Record], opened: Mapping[tuple[str, int], str]) -> list[Chunk]:
        chunks: dict[tuple[str, int], Chunk] = {}
        for record in records:
            error = record.error()
            if error is not None:
                self._note_trouble(error)
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self._lost.add(_partition_of(record))
                continue
            topic, partition, offset = place = _place_of(record)
            chunk = chunks.get((topic, partition))
            if chunk is None:
                chunk = chunks[topic, partition] = Chunk(opened[topic, partition], 0, [], [])
            chunk.next_position = self._read_until[topic, partition] = offset + 1
            _add(chunk, self._topics[topic], record, place, self._key_errors)
            self._trouble = ""
        return list(chunks.values())

    def _hand_over(self, chunk: Chunk) -> None:
        with self._has_room:
            while len(self._chunks) >= CHUNKS_MAX and not self._is_stopping:
                self._has_room.wait()
            self._chunks.append(chunk)
        self._tell(self._on_chunk)

    def _commit_offsets(self, opened: Mapping[tuple[str, int], str], *, is_last: bool = False) -> None:
        with self._has_room:
            positions, self._to_commit = self._to_commit, None
        if not positions:
            return
        offsets = [
            TopicPartition(topic, partition, positions[split])
            for (topic, partition), split in opened.items()
            if split in positions
        ]
        if offsets:
            try:
                if is_last:
                    self._consumer.commit(offsets=offsets, asynchronous=False)  # nobody polls for the answer
                else:
                    self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                # For people only: nothing is ever restored from it.
                logger.info("offsets not shown ingress=%s: %s", self._ingress.id, error.args[0].str())

    def _note_trouble(self, error: KafkaError, what: str = "") -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            return
        text = f"kafka ingress {self._ingress.id}: {what + ': ' if what else ''}{error.str()}"
        if text != self._trouble:
            logger.warning("%s", text)
        self._trouble = text

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: the worker has ended, and this thread is about to.
            self._is_stopping = True


def open_consumer(
    ingress: KafkaIngress,
    on_error: Callable[[KafkaError], None],
    found: Callable[[Finding], None] | None = None,
) -> Consumer | None:
    """Return a consumer that reads nothing yet; None if there can be none and ``found`` was told why.

    Raises:
        UserValueError: a property that librdkafka does not take, and ``found`` is not given.
    """
    ours = {
        # Where to go on then is decided by us: the snapshot has to know of it.
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # The group is not joined, so nobody waits for a poll; while we are held back there is none.
        "max.poll.interval.ms": 86_400_000,
        "error_cb": on_error,
    }
    return make_client(
        lambda properties: Consumer(properties, logger=client_logger),
        ingress.properties,
        f"kafka ingress {ingress.id}",
        ours,
        found,
    )[0]


def _place_of(record: Record) -> Place:
    """Return the place of a record that is no error, which always has one."""
    offset = record.offset()
    assert offset is not None, "a record has an offset"
    return *_partition_of(record), offset


def _partition_of(record: Record) -> tuple[str, int]:
    topic, partition = record.topic(), record.partition()
    assert topic is not None, "a record, or an error about one, has a topic"
    assert partition is not None, "... and a partition"
    return topic, partition


def _add(chunk: Chunk, topic: KafkaTopic, record: Record, place: Place, key_errors: str) -> None:
    value_type, value, problem = topic.value_type, record.value(), ""
    if topic.deliver == "record":
        whole, problem = _whole(record, place, value_type)
        value_type, value = RECORD_TYPENAME, encode_record(whole)
    elif value is None:
        problem = "the record has no value (it is a tombstone)"
    id, key_problem = _id(record.key(), key_errors)
    problem = key_problem or problem
    if not problem:
        chunk.messages += [(target, id, "", "", value_type, value) for target in topic.targets]
        return
    letter = "/".join(map(str, place))
    why = f"Kafka record {letter}: {problem}"
    chunk.rejected += [(target, letter, value_type, value, why) for target in topic.targets]


_headers_of = methodcaller("headers")
"""Not called directly: the client answers *and* sets an error for a name that is no text, and once the call is
hot the interpreter does not look for that, so it would come up in whatever is called next."""


def _whole(record: Record, place: Place, value_type: str) -> tuple[KafkaRecord, str]:
    """Return all there is of a record, and what could not be read of it."""
    problem = ""
    try:
        headers = tuple(cast(Iterable[Header], _headers_of(record) or ()))
    except (SystemError, UnicodeDecodeError):
        # The client promises text, and has no better word for a name that is none.
        headers, problem = (), "the name of a header is not UTF-8"
    kind, at_ms = record.timestamp()
    whole = KafkaRecord(
        *place,
        timestamp_ms=at_ms if kind in TIMESTAMP_TYPES else 0,
        timestamp_type=TIMESTAMP_TYPES.get(kind, "unknown"),
        key=record.key(),
        value=record.value(),
        value_type=value_type,
        headers=headers,
    )
    return whole, problem


def _id(key: bytes | None, errors: str) -> tuple[str, str]:
    """Return the key as the id it is, or why it is none."""
    if key is None:
        return "", "it has no key, which would be the id"
    try:
        return key.decode(errors=errors), ""
    except UnicodeDecodeError as error:
        return "", f"its key, which would be the id, is not UTF-8: {error}"
