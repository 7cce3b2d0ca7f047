"""A Kafka egress in one worker: committed rows as records, exactly once, at least once, or as it may.

Exactly once: a short transaction writes the rows and moves the *registers* of their shards (see
`registers`). Whoever publishes again reads the registers first and leaves out what is below. Transactions have nothing to do with snapshots: they last milliseconds, come
after the commit, and one whose outcome is unknown is settled by asking the registers.

A producer that had any trouble is thrown away: with librdkafka a delayed message of an aborted
transaction could otherwise end up in the next one. The new one fences what is left of the old.

A record that the broker will never take holds up no other: it is told, and the rest is written
without it. What a broker says of a whole request is first found out for each record alone.

A worker of an earlier generation that does not know yet that it was replaced is fenced before
this one publishes: its transactional ids are claimed (`open`), by exactly one worker each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer

from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress import ShardRows, SinkRefused, SinkUnavailable
from statefun_ray.io.kafka.log import client_logger
from statefun_ray.io.kafka.properties import ON_LOST_REGISTERS, make_client
from statefun_ray.io.kafka.records import read_record
from statefun_ray.io.kafka.registers import (
    BROKER_S,
    NO_HISTORY,
    REGISTER_TOPIC,
    History,
    Registers,
    group_name,
    offsets_of,
)
from statefun_ray.module.model import KafkaEgress
from statefun_sdk.protocol import KafkaProducerRecord

logger = logging.getLogger(__name__)

PARTITIONER: Final = "murmur2_random"
"""What Kafka's Java clients do, and so StateFun: a key of a topic that they wrote to has the same partition
here. librdkafka's own default is another hash. A property of this name wins."""

ABORT_S: Final = 2.0
"""For the broker to take back an unfinished transaction; it does so by itself in time."""

DELIVERY_S: Final = 30.0
"""For the records of one batch to be written; not longer than a transaction may last."""

LOOK_S: Final = 0.05
"""Between two looks at what was said of records that are being written."""

RowKey: TypeAlias = tuple[int, int]
"""Shard and sequence of a row."""

Headers: TypeAlias = list[tuple[str, bytes | str | None]]
"""As the client takes them."""

_FENCED: Final = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
)

_REFUSED: Final = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    }
)
"""What a broker says of a record that it will not take next time either."""

_REFUSED_TOGETHER: Final = frozenset({KafkaError.INVALID_RECORD, KafkaError.MSG_SIZE_TOO_LARGE})
"""... and of all records that came with it in one request, or of the request as such."""


class SinkFenced(Exception):
    """A later generation publishes to this egress: this worker must end, and try nothing again."""


class KafkaSink:
    """Publishes the rows of one egress. Blocking; used by one thread at a time."""

    joins_shards = True

    def __init__(
        self,
        egress: KafkaEgress,
        *,
        app: str,
        incarnation: Callable[[], str],
        worker: int,
        worker_count: int,
        slot_count: int,
        shard_count: int,
        is_current: Callable[[], bool],
        on_rejected: Callable[[int, EgressRow, str], None],
        history: History = NO_HISTORY,
    ) -> None:
        """Check the properties; nothing is connected before `open`.

        Args:
            egress: where to.
            app: names transactional ids and registers, together with
            incarnation: which application of that name it is, from its storage; may block. Empty
                for a storage that knows none: then the name is all there is.
            worker, worker_count: which worker of how many.
            slot_count: the largest number of workers that may still be publishing somewhere.
            shard_count: of the application.
            is_current: reads from the commit log whether no later generation was begun; may block.
            on_rejected: told ``(shard, row, why)``, in the publishing thread, of a record that the
                broker will never take. What it raises ends the publication.
            history: of the egress in the shards of this worker.

        Raises:
            UserValueError: a property that librdkafka does not take.
        """
        self._egress = egress
        self._where = f"kafka egress {egress.id}"
        self._app, self._incarnation = app, incarnation
        self._worker, self._worker_count = worker, worker_count
        self._slot_count = max(slot_count, worker_count)
        self._shard_count = shard_count
        self._is_current = is_current
        self._on_rejected = on_rejected
        self._history = history
        self._on_lost = egress.properties.get(ON_LOST_REGISTERS, "")
        self._is_exact = egress.semantic == "exactly-once"
        self._group = ""
        """Names registers and transactional ids; known once this is open."""
        self._registers: dict[int, int] = {}
        """Shard -> sequence of its next row, as far as read since the producer was made."""
        self._confirmed: dict[int, int] = {}
        """The same, as far as ever read or moved: less than that it cannot be."""
        self._delivered: set[RowKey] = set()
        """Of the batch that is being published: written, where nothing but memory says so."""
        self._rejected: set[RowKey] = set()
        """... told to be refused for good"""
        self._alone: set[RowKey] = set()
        """... to be sent in requests of their own."""
        self._producer: Producer | None = None
        self._in_use = threading.Lock()
        self._is_closed = False
        # Finds wrong properties before anything starts.
        _, self._properties = make_client(make_producer, egress.properties, self._where)
        self._register_store = Registers("", self._properties, shard_count)

    def open(self) -> None:
        """Fence earlier generations, so that none publishes what this one will.

        Raises:
            SinkUnavailable: the broker does not answer; nothing may be published yet.
            SinkRefused: registers are lost, and what to do about it is not said.
        """
        if not self._is_exact:
            return
        self._group = group_name(self._app, self._incarnation(), self._egress.id)
        self._register_store = Registers(self._group, self._properties, self._shard_count)
        try:
            self._register_store.create_topic()
            for slot in range(self._worker, self._slot_count, self._worker_count):
                producer = self._transactional(slot)
                if slot == self._worker:
                    self._producer = producer
                    self._begin_registers(producer)
        except KafkaException as error:
            raise self._trouble(error) from error

    def publish(self, batch: Sequence[ShardRows]) -> None:
        """Write rows as records, in order per shard.

        Raises:
            SinkUnavailable: no answer, or not all of it; publishing again is safe.
            SinkFenced: a later generation publishes now.
            SinkRefused: see ``on_rejected``.
        """
        try:
            with self._in_use:
                self._publish(batch)
        finally:
            if self._is_closed:
                self.close()

    def _publish(self, batch: Sequence[ShardRows]) -> None:
        try:
            self._check_open()
            if self._is_exact:
                self._publish_exactly_once(batch)
            else:
                self._publish_plainly(batch)
            for rows in (self._delivered, self._rejected, self._alone):
                rows.clear()
        except KafkaException as error:
            # Whatever it was: this producer may hold something that would reach the next batch.
            self._drop_producer()
            raise self._trouble(error) from error
        except (SinkUnavailable, SinkFenced, SinkRefused):
            self._drop_producer()
            raise

    def flush(self, timeout_s: float) -> None:
        """Wait for what ``none`` has not waited for; the others have nothing left here."""
        if self._egress.semantic != "none" or not self._in_use.acquire(timeout=timeout_s):
            return  # a batch that is being published is in the last snapshot
        try:
            left = self._producer.flush(timeout_s) if self._producer is not None else 0
        finally:
            self._in_use.release()
        if left:
            logger.warning("%s: %d records were not written within %g s", self._where, left, timeout_s)

    def close(self) -> None:
        """Let go of the connections, after the batch that is being published if there is one."""
        self._is_closed = True
        if not self._in_use.acquire(blocking=False):
            return  # `publish` sees it
        try:
            self._drop_producer()
            self._register_store.close()
        finally:
            self._in_use.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise SinkUnavailable(f"{self._where}: it was closed")

    # --- at least once, and less ----------------------------------------------------------

    def _publish_plainly(self, batch: Sequence[ShardRows]) -> None:
        if self._producer is None:
            is_sure = self._egress.semantic == "at-least-once"
            ours = {"enable.idempotence": True, "acks": "all"} if is_sure else {}
            self._producer = make_producer({**ours, **self._properties})
        if self._egress.semantic == "none":
            self._produce(self._producer, batch, _Deliveries())
            self._producer.poll(0)
            return
        while True:
            deliveries = _Deliveries(self._delivered)
            self._produce(self._producer, batch, deliveries)
            deliveries.wait(self._producer)
            self._sort_out(deliveries)
            deliveries.check()
            if not deliveries.refused:
                return

    # --- exactly once ---------------------------------------------------------------------

    def _publish_exactly_once(self, batch: Sequence[ShardRows]) -> None:
        while True:
            if self._producer is None:
                self._check_current()  # before: or a worker that was replaced would fence its successor
                self._producer = self._transactional(self._worker)
                self._check_current()  # and after: a generation that is begun later claims our id after us
            refusing = self._transact(self._producer, batch)
            if refusing is None:
                return
            self._sort_out(refusing)
            self._drop_producer()

    def _transact(self, producer: Producer, batch: Sequence[ShardRows]) -> _Deliveries | None:
        """Write in one transaction what is above the registers, and move them.

        Returns:
            None when it is done; else what the broker said of records that it refuses, and the
            transaction is still open.
        """
        self._read_registers({shard for shard, _ in batch})
        wanted = [(shard, [row for row in rows if row[0] >= self._registers[shard]]) for shard, rows in batch]
        wanted = [(shard, rows) for shard, rows in wanted if rows]
        if not wanted:
            return None
        self._check_open()
        producer.begin_transaction()
        deliveries = _Deliveries(stops_at_refused=True)
        self._produce(producer, wanted, deliveries)
        moved: dict[int, int] = {}
        for shard, rows in wanted:
            moved[shard] = max(moved.get(shard, 0), rows[-1][0] + 1)
        if not deliveries.refused:
            try:
                producer.send_offsets_to_transaction(
                    offsets_of(moved), self._register_store.metadata(), BROKER_S
                )
            except KafkaException:
                # A record that is refused breaks its transaction, perhaps while this was asked.
                producer.poll(LOOK_S)
                if not deliveries.refused:
                    raise
        deliveries.wait(producer)
        if deliveries.refused:
            return deliveries
        deliveries.check()
        self._check_open()
        producer.commit_transaction(DELIVERY_S)
        self._registers.update(moved)
        self._confirmed.update(moved)
        return None

    def _sort_out(self, deliveries: _Deliveries) -> None:
        """See that records which were refused are not sent again as they were."""
        for shard, row, error in deliveries.refused:
            key = shard, row[0]
            if error.code() in _REFUSED_TOGETHER and key not in self._alone:
                self._alone.add(key)  # it, or something that went with it
            else:
                self._reject(shard, row, error.str())

    def _reject(self, shard: int, row: EgressRow, why: str) -> None:
        self._on_rejected(shard, row, f"{self._where}: {why}")
        self._rejected.add((shard, row[0]))

    def _check_current(self) -> None:
        if not self._is_current():
            raise SinkFenced(f"{self._where}: a later generation was begun")

    def _transactional(self, slot: int) -> Producer:
        timeout_ms = self._egress.transaction_timeout_ms
        ours = {
            "transactional.id": f"{self._group}.{slot}",
            "transaction.timeout.ms": timeout_ms,
            "enable.idempotence": True,
            "acks": "all",
        }
        delivery_ms = min(timeout_ms, int(DELIVERY_S * 1000))
        producer = make_producer({"delivery.timeout.ms": delivery_ms, **self._properties, **ours})
        # Ends whatever this slot left open, and stops whoever still thinks it is this slot.
        producer.init_transactions(BROKER_S)
        self._registers.clear()
        return producer

    def _read_registers(self, shards: set[int]) -> None:
        unknown = sorted(shards - self._registers.keys())
        for shard, sequence in self._register_store.read(unknown).items():
            # What was confirmed once is written, whatever the broker has forgotten since.
            self._registers[shard] = max(sequence or 0, self._confirmed.get(shard, 0))

    def _begin_registers(self, producer: Producer) -> None:
        """See that every shard of this worker has a register, before anything is emitted.

        Raises:
            SinkRefused: one is lost, and what to do about it is not said.
        """
        history = self._history
        found = self._register_store.read(range(self._shard_count) if history.next_sequence else ())
        missing = {shard for shard in history.next_sequence if found[shard] is None}
        lost = sorted(missing & history.unconfirmed.keys())
        had_registers = bool(found) and history.had_registers()
        does_publish = self._on_lost == "publish"
        if not had_registers:
            does_publish = True  # they are new: nothing was written exactly once before
        elif lost:
            self._say_lost(lost)
        begun = {
            shard: history.unconfirmed.get(shard, sequence) if does_publish else sequence
            for shard, sequence in history.next_sequence.items()
            if shard in missing
        }
        if begun:
            producer.begin_transaction()
            producer.send_offsets_to_transaction(offsets_of(begun), self._register_store.metadata(), BROKER_S)
            producer.commit_transaction(DELIVERY_S)
            if not had_registers:
                # Others begin theirs at the same time: of all, the last one to be done finds all.
                found = self._register_store.read(range(self._shard_count))
        known = {shard: sequence for shard, sequence in found.items() if sequence is not None} | begun
        self._confirmed.update(known)
        if not had_registers and len(known) == len(found) > 0:
            history.note_registers()

    def _say_lost(self, shards: list[int]) -> None:
        text = (
            f"{self._where}: group {self._group} has no offsets in {REGISTER_TOPIC} for shards {shards}, where it had "
            f"some (a broker forgets them after offsets.retention.minutes), so whether the last records of these shards "
            "are written is not known"
        )
        if not self._on_lost:
            raise SinkRefused(
                f"{text}; look at the topics, then start with the property {ON_LOST_REGISTERS} of this egress: 'publish' "
                "writes them, perhaps again, and 'skip' leaves them out"
            )
        logger.warning("%s; %s: %s", text, ON_LOST_REGISTERS, self._on_lost)

    # --- inside ---------------------------------------------------------------------------

    def _produce(self, producer: Producer, batch: Sequence[ShardRows], deliveries: _Deliveries) -> None:
        """Hand rows over to the client that are neither written nor refused."""
        for shard, rows in batch:
            for row in rows:
                key = shard, row[0]
                if key in self._rejected or key in self._delivered:
                    continue
                is_alone = key in self._alone
                if is_alone:
                    deliveries.wait(producer)
                self._produce_one(producer, shard, row, deliveries)
                if is_alone:
                    deliveries.wait(producer)
                if deliveries.is_stopped:
                    return

    def _produce_one(self, producer: Producer, shard: int, row: EgressRow, deliveries: _Deliveries) -> None:
        record = read_record(row[3] or b"")
        if isinstance(record, str):
            # It was emitted by an earlier version, or for an egress that was of another kind then.
            self._reject(shard, row, record)
            return
        try:
            _put(producer, record, partial(deliveries.done, shard, row))
        except KafkaException as error:
            if error.args[0].code() not in _REFUSED:
                raise
            self._reject(shard, row, error.args[0].str())
        else:
            deliveries.left += 1

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        self._registers.clear()
        if producer is not None:
            try:
                producer.purge(in_queue=True, in_flight=True, blocking=False)
                producer.poll(0)
                if self._is_exact:
                    # Or consumers wait for its time-out. Without a transaction it says so below.
                    producer.abort_transaction(ABORT_S)
            except KafkaException as error:
                # It is being thrown away because of what it says here again.
                logger.debug("producer dropped egress=%s: %s", self._egress.id, error.args[0].str())

    def _trouble(self, error: KafkaException) -> SinkUnavailable | SinkFenced:
        cause = error.args[0]
        if cause.code() in _FENCED:
            return SinkFenced(f"{self._where}: another producer is {self._group}.{self._worker} now")
        return SinkUnavailable(f"{self._where}: {cause.str()}")


class _Deliveries:
    """What became of the records of one attempt."""

    def __init__(self, delivered: set[RowKey] | None = None, *, stops_at_refused: bool = False) -> None:
        """Args:
        delivered: told the rows that are written.
        stops_at_refused: one record that is refused makes the others void.
        """
        self.left = 0
        self.refused: list[tuple[int, EgressRow, KafkaError]] = []
        """Shard and row of records that the broker will not take, and what it says."""
        self._delivered: set[RowKey] = set() if delivered is None else delivered
        self._stops_at_refused = stops_at_refused
        self._error: KafkaError | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether nothing further is worth sending."""
        return self._stops_at_refused and bool(self.refused)

    def done(self, shard: int, row: EgressRow, error: KafkaError | None, _record: object) -> None:
        """The client's report of one record."""
        self.left -= 1
        if error is None:
            self._delivered.add((shard, row[0]))
        elif error.code() in _REFUSED:
            self.refused.append((shard, row, error))
        else:
            self._error = self._error or error

    def wait(self, producer: Producer) -> None:
        """Return when all is reported, or nothing more is worth waiting for; `check` tells which."""
        deadline_s = time.monotonic() + DELIVERY_S
        while self.left and not self.is_stopped and time.monotonic() < deadline_s:
            # What a transaction has left when one of its records is refused is never reported.
            producer.flush(LOOK_S if self._stops_at_refused else DELIVERY_S)

    def check(self) -> None:
        """Return if all that was not refused is written.

        Raises:
            KafkaException, SinkUnavailable: it is not.
        """
        if self._error is not None:
            raise KafkaException(self._error)
        if self.left:
            raise SinkUnavailable(f"{self.left} records were not written within {DELIVERY_S:g} s")


def make_producer(properties: Mapping[str, Any]) -> Producer:
    """Return a producer with these properties of librdkafka.

    Raises:
        KafkaException: librdkafka does not take them.
    """
    return Producer({"partitioner": PARTITIONER, **properties}, logger=client_logger)


def _put(
    producer: Producer, record: KafkaProducerRecord, on_delivery: Callable[[KafkaError | None, object], None]
) -> None:
    value = None if record.is_tombstone else record.value_bytes
    headers: Headers = [
        (header.name, header.value if header.HasField("value") else None) for header in record.headers
    ]
    while True:
        try:
            producer.produce(
                record.topic, value, record.key or None, on_delivery=on_delivery, headers=headers
            )
        except BufferError:
            producer.poll(0.1)  # librdkafka's own queue is full: let some of it leave
            continue
        return
