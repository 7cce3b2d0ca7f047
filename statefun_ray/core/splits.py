"""Sources that workers read by themselves, split by split: partitions of topics.

Unlike an ingress log, which every worker reads for its own key groups, a split is read by one
worker for all: its records go to whoever owns their ids. Who reads a split is arithmetic on its
name, so nobody has to assign it, and a split found later has its reader already. Its position is
a row like that of a log, for the full range of key groups, and moves with its reader when the
number of workers changes.

A snapshot also says how many splits a topic had when it was first seen, in a row without key groups.
What is not open yet when a snapshot is taken has no position in it; by that number it is told, after
a restore, from a split that was added since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_64_intdigest

from statefun_checkpoints.model import Position

SPLIT_PREFIX: Final = "kafka:"
"""Begins the name of every split, where a position has the id of a log otherwise."""

TOPIC_PREFIX: Final = "kafka-topic:"
"""Begins the name of the row that says how many splits a topic had when it was first seen."""


def is_log(log_id: str) -> bool:
    """Whether a position is one in an ingress log."""
    return not log_id.startswith((SPLIT_PREFIX, TOPIC_PREFIX))


def split_name(source: str, topic: str, partition: int) -> str:
    """Return the name of a split: ``kafka:<ingress id>/<topic>/<partition>``."""
    return f"{SPLIT_PREFIX}{source}/{topic}/{partition}"


def belongs_to(split: str, source: str) -> bool:
    """Whether a split is one of a source's."""
    return split.startswith(f"{SPLIT_PREFIX}{source}/")


def reader_of(split: str, worker_count: int) -> int:
    """Return which worker reads a split: the partitions of a topic go round."""
    topic, _, partition = split.rpartition("/")
    return (xxh3_64_intdigest(topic.encode()) + int(partition)) % worker_count


class Splits:
    """The splits of one worker, and where it is in each."""

    __slots__ = (
        "_first_counts",
        "_key_group_count",
        "_known_topics",
        "_positions",
        "_worker",
        "_worker_count",
    )

    def __init__(self, *, worker: int, worker_count: int, key_group_count: int) -> None:
        self._worker = worker
        self._worker_count = worker_count
        self._key_group_count = key_group_count
        self._positions: dict[str, int] = {}
        self._known_topics: set[str] = set()
        self._first_counts: dict[str, int] = {}
        """``<ingress id>/<topic>`` -> splits that it had when it was first seen."""

    def restore(self, positions: Iterable[Position]) -> None:
        """Take the positions of a snapshot, of all workers; those of ingress logs are not ours."""
        for position in positions:
            name = position.log_id
            if name.startswith(TOPIC_PREFIX):
                # Workers may have looked at different times; what any of them saw added is read from its beginning.
                topic, count = name.removeprefix(TOPIC_PREFIX), position.next_seq
                self._first_counts[topic] = min(count, self._first_counts.get(topic, count))
            elif name.startswith(SPLIT_PREFIX):
                self._known_topics.add(_topic_of(name))
                if self.is_ours(name):
                    self._positions[name] = position.next_seq

    def found(self, source: str, topic: str, count: int) -> None:
        """A topic is there and has ``count`` splits; the first time counts, in this generation or before.

        To be called before any of them is opened.
        """
        if (name := f"{source}/{topic}") not in self._known_topics:
            self._first_counts.setdefault(name, count)

    def is_ours(self, split: str) -> bool:
        """Whether this worker reads it."""
        return reader_of(split, self._worker_count) == self._worker

    def position(self, split: str) -> int | None:
        """Return the next record to read, None for a split that is new to us."""
        return self._positions.get(split)

    def is_late(self, split: str) -> bool:
        """Whether it was added to its topic after that was first seen, as far as the restored snapshot knows.

        Then all its records came after the start, and none may be left out. What was added since
        this worker began, the source finds out by itself.
        """
        topic = _topic_of(split)
        if topic in self._first_counts:
            return int(split.rpartition("/")[2]) >= self._first_counts[topic]
        # A snapshot of a version that did not record the number: what it does not know was added, most likely.
        return topic in self._known_topics

    def open(self, split: str, position: int) -> None:
        """Begin to read a split; from now on its position is in every snapshot.

        Raises:
            ValueError: another worker reads it.
        """
        if not self.is_ours(split):
            raise ValueError(
                f"{split} is read by worker {reader_of(split, self._worker_count)}, not by {self._worker}"
            )
        self._positions.setdefault(split, position)

    def advance(self, split: str, position: int) -> None:
        """Everything below ``position`` has been taken.

        Raises:
            ValueError: the source went back, or the split was never opened.
        """
        before = self._positions.get(split)
        if before is None or position < before:
            raise ValueError(f"{split} continues at {position}, expected {before} or more")
        self._positions[split] = position

    def reset(self, split: str, position: int) -> None:
        """Go on at ``position``, which may lie before: what was to be read next does not exist.

        Raises:
            ValueError: the split was never opened.
        """
        if split not in self._positions:
            raise ValueError(f"{split} is to go on at {position} and was never opened")
        self._positions[split] = position

    def positions(self) -> list[Position]:
        """Return where each split is; those that are not read at present keep theirs."""
        return [
            Position(split, 0, self._key_group_count, position) for split, position in self._positions.items()
        ]

    def rows(self) -> list[Position]:
        """Return what a snapshot is to say: the positions, and how many splits each topic had at first."""
        return self.positions() + [
            Position(f"{TOPIC_PREFIX}{topic}", 0, 0, count) for topic, count in self._first_counts.items()
        ]


def _topic_of(split: str) -> str:
    """Return ``<ingress id>/<topic>`` of a split."""
    return split.removeprefix(SPLIT_PREFIX).rpartition("/")[0]
