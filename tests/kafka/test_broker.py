"""What the other tests see of a broker is what is there."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Producer

from tests.kafka.broker import Broker


def test_what_is_written_while_it_is_read_is_found_after_an_aborted_transaction(broker: Broker) -> None:
    broker.create("aborted")
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": "aborted", "acks": "all"})
    producer.init_transactions(10)

    def write(value: bytes, *, is_good: bool) -> None:
        producer.begin_transaction()
        producer.produce("aborted", value)
        producer.flush(10)
        if is_good:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)

    write(b"bad", is_good=False)
    write(b"1", is_good=True)
    found: list[bytes | None] = []
    reader = threading.Thread(
        target=lambda: found.extend(record.value() for record in broker.consume("aborted", 2, 5.0))
    )
    reader.start()
    time.sleep(1.0)  # to be past the first
    write(b"2", is_good=True)
    reader.join()
    assert found == [b"1", b"2"]
