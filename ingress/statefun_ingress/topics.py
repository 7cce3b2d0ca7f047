"""The records of the playground's egress that nobody has read yet. Pure.

They live in the ingress process's memory, as in the original. Workers publish to them after a
commit and repeat until they are acknowledged, so rows are known by shard and sequence.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

logger = logging.getLogger(__name__)

EGRESS_RECORD: Final = "io.statefun.playground/EgressRecord"
"""Type of the records that the playground's egress takes."""

RECORD_BYTES_MAX: Final = 48 << 20
"""Of one record: a frame to the ingress holds 64 MB."""

TOPIC_RECORDS_MAX: Final = 1_048_576
"""Of one topic; when it is full new records are dropped, as in the original."""

PublishedRow = tuple[int, str, bytes | None]
"""``(sequence in its shard, typename, value)``."""


class EgressRecord(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of one record."""

    topic: str
    payload: str


_record_decoder = msgspec.json.Decoder(EgressRecord)


def egress_problem(topics: Collection[str], typename: str, value: bytes | None) -> str | None:
    """Return why a record cannot go to the playground's egress, or None if it can."""
    if typename != EGRESS_RECORD:
        return f"the playground egress takes records of type {EGRESS_RECORD}, not {typename!r}"
    if value is not None and len(value) > RECORD_BYTES_MAX:
        return f"the playground egress takes records of at most {RECORD_BYTES_MAX} bytes, not {len(value)}"
    try:
        record = _record_decoder.decode(value or b"")
    except msgspec.DecodeError as error:
        return f'the playground egress takes {{"topic": "…", "payload": "…"}} as JSON: {error}'
    if record.topic not in topics:
        return f"the playground egress has no topic {record.topic!r}; it has {', '.join(sorted(topics))}"
    return None


class PlaygroundTopics:
    """The records that nobody has read yet, one queue per topic. Pure."""

    def __init__(self, topics: Iterable[str], records_max: int = TOPIC_RECORDS_MAX) -> None:
        self._queues: dict[str, deque[str]] = {topic: deque() for topic in topics}
        self._records_max = records_max
        self._next: dict[int, int] = {}
        """Shard -> sequence of the first row that has not been published."""
        self.dropped = 0

    @property
    def topics(self) -> list[str]:
        """Their names."""
        return sorted(self._queues)

    def publish(self, shard: int, rows: Iterable[PublishedRow]) -> None:
        """Take the rows of one shard, in order; those taken before are known by their sequence.

        Rows were checked with `egress_problem` when they were emitted. One that does not fit any
        more, because the module has changed since, is dropped with a line in the log.
        """
        for sequence, typename, value in rows:
            if sequence < self._next.get(shard, 0):
                continue
            self._next[shard] = sequence + 1
            problem = egress_problem(self._queues, typename, value)
            if problem is not None:
                self._drop(problem)
                continue
            record = _record_decoder.decode(value or b"")
            queue = self._queues[record.topic]
            if len(queue) >= self._records_max:
                self._drop(f"topic {record.topic} holds {self._records_max} unread records")
                continue
            queue.append(record.payload)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if (
            self.dropped & (self.dropped - 1) == 0
        ):  # the 1st, 2nd, 4th, ...: a full topic must not fill the log
            logger.warning("playground record dropped, %d so far: %s", self.dropped, why)

    def peek(self, topic: str) -> str | None:
        """Return the oldest record of a topic and leave it there; as `take`."""
        queue = self._queues[topic]
        return queue[0] if queue else None

    def take(self, topic: str) -> str | None:
        """Remove and return the oldest record of a topic, None when it is empty.

        Raises:
            KeyError: there is no such topic.
        """
        queue = self._queues[topic]
        return queue.popleft() if queue else None
