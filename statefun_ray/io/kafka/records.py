"""What a record must be to be written to Kafka, as far as that can be told without a broker."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from statefun_sdk.protocol import KafkaProducerRecord

TOPIC_CHARS_MAX: Final = 249
_TOPIC: Final = re.compile(rf"[a-zA-Z0-9._-]{{1,{TOPIC_CHARS_MAX}}}")
"""Kafka's own rule."""

TOPICS_REMEMBERED: Final = 10_000
"""Topics whose names were looked at before: most records are for one of them."""


def read_record(value: bytes) -> KafkaProducerRecord | str:
    """Return a record that a broker may take, or why none ever will."""
    try:
        record = KafkaProducerRecord.FromString(value)
    except DecodeError as error:
        return f"no Kafka record: {error}"
    problem = _topic_problem(record.topic)
    if not problem and record.headers and any("\0" in header.name for header in record.headers):
        # librdkafka's names end there, and what is written would have another one.
        problem = "the name of a header has a NUL in it"
    return problem or record


@lru_cache(TOPICS_REMEMBERED)
def _topic_problem(topic: str) -> str:
    """Return why a topic cannot be, empty when it can."""
    if not topic:
        return "a record without a topic"
    if _TOPIC.fullmatch(topic) and topic not in (".", ".."):
        return ""
    # A broker says so as well, but librdkafka then takes the topic for one that is still to come.
    name = repr(topic if len(topic) <= TOPIC_CHARS_MAX else topic[:TOPIC_CHARS_MAX] + "...")
    return f"{name} can be no topic: 1 to {TOPIC_CHARS_MAX} letters, digits, dots, underscores and hyphens"
