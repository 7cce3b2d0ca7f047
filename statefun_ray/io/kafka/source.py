"""One Kafka ingress in one worker: a thread that reads this worker's partitions.

Nobody subscribes: who reads a partition is arithmetic (`core.splits`), where reading goes on is in
the snapshot, and Kafka's consumer group only shows people how far the application is. So no
rebalance of the broker's can take a partition from a worker or give it to two.

The thread hands chunks of records to the loop and waits while `CHUNKS_MAX` of them are not taken:
that is all the back-pressure there is, and it holds up nothing but this ingress.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from statefun_ray.core.dead_letters import Rejected
from statefun_ray.core.message import Message
from statefun_ray.core.splits import split_name
from statefun_ray.io.kafka.properties import client_properties, discovery_s, refused_by_client
from statefun_ray.module.model import KafkaIngress, KafkaTopic

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

RESET: Final = -1
"""Stands for an offset that does not exist."""


@dataclass(slots=True)
class Chunk:
    """Records of one split, in order, as messages."""

    split: str
    next_position: int
    """Behind the last record."""
    messages: list[Message]
    rejected: list[Rejected]


class SplitTable:
    """What the thread asks about splits; answered from the core at the start."""

    def __init__(
        self,
        is_ours: Callable[[str], bool],
        position: Callable[[str], int | None],
        is_late: Callable[[str], bool],
    ) -> None:
        self.is_ours, self.position, self.is_late = is_ours, position, is_late


class KafkaSource:
    """Reads one ingress. Methods are for the loop; the thread is inside."""

    def __init__(
        self,
        ingress: KafkaIngress,
        splits: SplitTable,
        *,
        on_opened: Callable[[str, int], None],
        on_chunk: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """Check the properties; nothing is connected before `start`.

        Args:
            ingress: what to read.
            splits: which of it, and from where.
            on_opened: told ``(split, first position)`` in the loop before any chunk of it.
            on_chunk: told in the loop that `take` has something.
            on_failed: told why when reading can not go on for good.

        Raises:
            UserValueError: a property that librdkafka does not take.
        """
        self._ingress = ingress
        self._splits = splits
        self._on_opened, self._on_chunk, self._on_failed = on_opened, on_chunk, on_failed
        self._loop = asyncio.get_running_loop()
        self._topics = {topic.topic: topic for topic in ingress.topics}
        self._trouble = ""
        self._consumer = open_consumer(ingress, self._note_trouble)
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
        prefix = split_name(self._ingress.id, "", 0).rpartition("/")[0].rstrip("/") + "/"
        self._to_commit = {split: at for split, at in positions.items() if split.startswith(prefix)}

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

    def _open_new_splits(self, opened: dict[tuple[str, int], str]) -> bool:
        """Assign partitions that are ours and not read yet; return whether every topic was found."""
        found_all = True
        for name in self._topics:
            try:
                metadata = self._consumer.list_topics(name, timeout=BROKER_S).topics[name]
                if metadata.error is not None:
                    raise KafkaException(metadata.error)
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
            for (topic, partition), position in positions.items():
                split = opened[topic, partition] = new[topic, partition]
                self._tell(self._on_opened, split, position)
                self._consumer.incremental_assign([TopicPartition(topic, partition, position)])
                logger.info("kafka partition is read split=%s from=%d", split, position)
        if found_all:
            self._trouble = ""
        return found_all

    def _first_positions(self, new: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], int]:
        """Return offsets that exist or will: never a name for one, which would mean another later."""
        result: dict[tuple[str, int], int] = {}
        fresh: list[TopicPartition] = []
        for (topic, partition), split in new.items():
            position = self._splits.position(split)
            if position is not None:
                result[topic, partition] = position
            elif self._splits.is_late(split):
                result[topic, partition] = self._watermark(topic, partition, "earliest")
            else:
                fresh.append(TopicPartition(topic, partition))
        for found in self._startup_offsets(fresh):
            key = found.topic, found.partition
            result[key] = found.offset if found.offset >= 0 else self._watermark(*key, self._ingress.reset)
        return result

    def _startup_offsets(self, fresh: list[TopicPartition]) -> list[TopicPartition]:
        """Return where a first start begins; a negative offset stands for the reset position."""
        startup = self._ingress.startup
        if not fresh:
            return []
        if startup.kind in ("earliest", "latest"):
            return [
                TopicPartition(
                    one.topic, one.partition, self._watermark(one.topic, one.partition, startup.kind)
                )
                for one in fresh
            ]
        if startup.kind == "group-offsets":
            return list(self._consumer.committed(fresh, timeout=BROKER_S))
        if startup.kind == "date":
            asked = [TopicPartition(one.topic, one.partition, startup.date_ms) for one in fresh]
            found = self._consumer.offsets_for_times(asked, timeout=BROKER_S)
            # Nothing is that new yet: what comes next is.
            return [
                one
                if one.offset >= 0
                else TopicPartition(
                    one.topic, one.partition, self._watermark(one.topic, one.partition, "latest")
                )
                for one in found
            ]
        offsets = {(topic, partition): offset for topic, partition, offset in startup.offsets}
        return [
            TopicPartition(one.topic, one.partition, offsets.get((one.topic, one.partition), RESET))
            for one in fresh
        ]

    def _watermark(self, topic: str, partition: int, which: str) -> int:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=BROKER_S)
        return int(low if which == "earliest" else high)

    def _chunks_of(self, records: list[Record], opened: Mapping[tuple[str, int], str]) -> list[Chunk]:
        chunks: dict[tuple[str, int], Chunk] = {}
        for record in records:
            error = record.error()
            if error is not None:
                self._note_trouble(error)
                continue
            topic, partition, offset = record.topic(), record.partition(), record.offset()
            assert topic is not None, "a record has a topic"
            assert partition is not None, "... a partition"
            assert offset is not None, "... and an offset"
            chunk = chunks.get((topic, partition))
            if chunk is None:
                chunk = chunks[topic, partition] = Chunk(opened[topic, partition], 0, [], [])
            chunk.next_position = offset + 1
            _add(chunk, self._topics[topic], record)
            self._trouble = ""
        return list(chunks.values())

    def _hand_over(self, chunk: Chunk) -> None:
        with self._has_room:
            while len(self._chunks) >= CHUNKS_MAX and not self._is_stopping:
                self._has_room.wait()
            self._chunks.append(chunk)
        self._tell(self._on_chunk)

    def _commit_offsets(self, opened: Mapping[tuple[str, int], str]) -> None:
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


def open_consumer(ingress: KafkaIngress, on_error: Callable[[KafkaError], None]) -> Consumer:
    """Return a consumer that reads nothing yet.

    Raises:
        UserValueError: a property that librdkafka does not take.
    """
    where = f"kafka ingress {ingress.id}"
    properties = client_properties(ingress.properties, where)
    # Offsets that do not exist are told apart from others by nothing; librdkafka goes on from here.
    properties["auto.offset.reset"] = ingress.reset
    properties["enable.auto.commit"] = False
    properties["enable.auto.offset.store"] = False
    # The group is not joined, so nobody waits for a poll; while we are held back there is none.
    properties["max.poll.interval.ms"] = 86_400_000
    try:
        return Consumer({**properties, "error_cb": on_error}, logger=logger)
    except KafkaException as error:
        raise refused_by_client(error, where) from error


def _add(chunk: Chunk, topic: KafkaTopic, record: Record) -> None:
    key, value = record.key(), record.value()
    try:
        id = _text(key)
    except ValueError as error:
        problem = str(error)
    else:
        if value is not None:
            for target in topic.targets:
                chunk.messages.append((target, id, "", "", topic.value_type, value))
            return
        problem = "the record has no value (it is a tombstone)"
    letter = f"{record.topic()}/{record.partition()}/{record.offset()}"
    for target in topic.targets:
        chunk.rejected.append((target, letter, topic.value_type, value, f"Kafka record {letter}: {problem}"))


def _text(key: bytes | str | None) -> str:
    if key is None:
        raise ValueError("it has no key, which would be the id")
    if isinstance(key, str):
        return key
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"its key, which would be the id, is not UTF-8: {error}") from None
