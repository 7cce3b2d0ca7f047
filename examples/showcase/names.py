"""What is around the showcase: names for its Kafka topic, and the greetings that come back.

    python -m examples.showcase.names 127.0.0.1:9092

A name a second, and on the next line what the functions made of it.
"""

import itertools
import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

NAMES = ("Bob", "Joe")


def send_and_listen(address: str, count: int | None = None, pause_s: float = 1.0) -> None:
    """Send a name, print the greeting, and so on.

    Args:
        address: of the Kafka brokers.
        count: how many names, without end if None.
        pause_s: after each.
    """
    create_topics(address)
    producer = Producer({"bootstrap.servers": address})
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "showcase-listener",
            "isolation.level": "read_committed",  # a record exists when its transaction is committed
            "enable.auto.commit": False,
        }
    )
    _, end = consumer.get_watermark_offsets(TopicPartition("greetings", 0))
    consumer.assign([TopicPartition("greetings", 0, end)])
    try:
        for name in itertools.islice(itertools.cycle(NAMES), count):
            producer.produce("names", json.dumps({"name": name}), key=name)
            producer.flush()
            print(next_text(consumer), flush=True)
            time.sleep(pause_s)
    finally:
        consumer.close()


def create_topics(address: str) -> None:
    """Create the topics that are not there yet."""
    admin = AdminClient({"bootstrap.servers": address})
    missing = {"names", "greetings"} - set(admin.list_topics(timeout=10).topics)
    if missing:
        for created in admin.create_topics([NewTopic(topic, 1) for topic in missing]).values():
            created.result()


def next_text(consumer: Consumer) -> str:
    """Wait for the next record."""
    while True:
        record = consumer.poll(1.0)
        if record is not None and record.error() is None:
            return (record.value() or b"").decode()


if __name__ == "__main__":
    send_and_listen(sys.argv[1])
