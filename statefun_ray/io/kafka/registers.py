"""Registers of a Kafka egress: for each shard, the sequence of the first row that is not written yet.

They are offsets of a consumer group in a topic that holds nothing else, one partition per shard,
and move in the transactions that write the rows. A broker forgets offsets that nobody touches
(after seven days, by default), so a register that is missing may be new or lost. The two are told
apart: registers of all shards are begun before anything can be emitted, and once all of them exist
the storage says so. A lost one matters for rows that the restored snapshot holds, which may be
written or not; rows below have been confirmed, and rows above are new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from statefun_ray.io.egress import SinkUnavailable
from statefun_ray.io.kafka.log import client_logger

REGISTER_TOPIC: Final = "statefun-ray.registers"
"""Its partitions are numbered like egress shards; nothing is ever written to it but offsets."""

BROKER_S: Final = 10.0
"""For one answer of the broker."""

_CONNECTION: Final = ("bootstrap.", "security.", "sasl.", "ssl.", "socket.", "client.", "broker.")
"""What properties begin with that say how to reach a broker."""


@dataclass(frozen=True)
class History:
    """What the storage knows of an egress in the shards of one worker."""

    next_sequence: Mapping[int, int]
    """Shard -> of its next row, for every shard of the worker."""
    unconfirmed: Mapping[int, int]
    """Shard -> the first row that the restored snapshot holds: below it, all are written."""
    had_registers: Callable[[], bool]
    """Whether all registers of the egress have existed; may block."""
    note_registers: Callable[[], None]
    """Told that they exist; may block."""


NO_HISTORY: Final = History({}, {}, lambda: False, lambda: None)


class Registers:
    """The registers of one egress. Blocking; used by one thread at a time."""

    def __init__(self, group: str, properties: Mapping[str, Any], shard_count: int) -> None:
        """Args:
        group: names them; see `group_name`.
        properties: of the egress's producer, for librdkafka.
        shard_count: of the application.
        """
        self._group = group
        self._connection = {name: value for name, value in properties.items() if name.startswith(_CONNECTION)}
        self._shard_count = shard_count
        self._reader: Consumer | None = None

    def create_topic(self) -> None:
        """See that the topic exists that the registers are offsets of.

        Raises:
            SinkUnavailable: it does not, or is too small.
            KafkaException: the broker does not answer.
        """
        admin = AdminClient(self._connection, logger=client_logger)
        existing = admin.list_topics(timeout=BROKER_S).topics.get(REGISTER_TOPIC)
        if existing is not None:
            if len(existing.partitions) < self._shard_count:
                raise SinkUnavailable(
                    f"topic {REGISTER_TOPIC} has {len(existing.partitions)} partitions, and this application has "
                    f"{self._shard_count} egress shards; add partitions"
                )
            return
        topic = NewTopic(REGISTER_TOPIC, num_partitions=self._shard_count)
        try:
            admin.create_topics([topic], operation_timeout=BROKER_S)[REGISTER_TOPIC].result(BROKER_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return  # another worker was faster
            raise SinkUnavailable(
                f"topic {REGISTER_TOPIC} cannot be created: {error.args[0].str()}; create it with "
                f"{self._shard_count} partitions, exactly-once needs it"
            ) from error

    def read(self, shards: Iterable[int]) -> dict[int, int | None]:
        """Return the registers of shards, None where there is none.

        Raises:
            KafkaException: the broker does not answer.
        """
        found: dict[int, int | None] = {}
        asked = [TopicPartition(REGISTER_TOPIC, shard) for shard in shards]
        for one in self._consumer().committed(asked, timeout=BROKER_S) if asked else ():
            if one.error is not None:
                raise KafkaException(one.error)
            found[one.partition] = one.offset if one.offset >= 0 else None
        return found

    def metadata(self) -> Any:
        """Return what a transaction that moves registers has to name."""
        return self._consumer().consumer_group_metadata()

    def close(self) -> None:
        """Let go of the connection."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _consumer(self) -> Consumer:
        if self._reader is None:
            self._reader = Consumer(
                {
                    **self._connection,
                    "group.id": self._group,
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                },
                logger=client_logger,
            )
        return self._reader


def group_name(app: str, incarnation: str, egress: str) -> str:
    """Return what the registers of an egress, and its transactional ids, are called.

    A storage that is new has registers that are new: with those of the storage before, whose rows
    had the same numbers, the first records would be taken for written.
    """
    if not incarnation:
        # As they were called before there were incarnations: other names would write records again.
        return f"statefun-ray.{app}.{egress.replace('/', '.')}"
    return f"statefun-ray.{app}.{incarnation}.{egress}"


def offsets_of(registers: Mapping[int, int]) -> list[TopicPartition]:
    """Return registers as the client takes them."""
    return [TopicPartition(REGISTER_TOPIC, shard, sequence) for shard, sequence in registers.items()]
