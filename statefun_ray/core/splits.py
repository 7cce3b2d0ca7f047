"""Sources that workers read by themselves, split by split: partitions of topics.

Unlike an ingress log, which every worker reads for its own key groups, a split is read by one
worker for all: its records go to whoever owns their ids. Who reads a split is arithmetic on its
name, so nobody has to assign it, and a split found later has its reader already. Its position is
a row like that of a log, for the full range of key groups, and moves with its reader when the
number of workers changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_64_intdigest

from statefun_checkpoints.model import Position

SPLIT_PREFIX: Final = "kafka:"
"""Begins the name of every split, where a position has the id of a log otherwise."""


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

    __slots__ = ("_key_group_count", "_known_topics", "_positions", "_worker", "_worker_count")

    def __init__(self, *, worker: int, worker_count: int, key_group_count: int) -> None:
        self._worker = worker
        self._worker_count = worker_count
        self._key_group_count = key_group_count
        self._positions: dict[str, int] = {}
        self._known_topics: set[str] = set()

    def restore(self, positions: Iterable[Position]) -> None:
        """Take the positions of a snapshot, of all workers; those of ingress logs are not ours."""
        for position in positions:
            if not position.log_id.startswith(SPLIT_PREFIX):
                continue
            self._known_topics.add(position.log_id.rpartition("/")[0])
            if self.is_ours(position.log_id):
                self._positions[position.log_id] = position.next_seq

    def is_ours(self, split: str) -> bool:
        """Whether this worker reads it."""
        return reader_of(split, self._worker_count) == self._worker

    def position(self, split: str) -> int | None:
        """Return the next record to read, None for a split that is new to us."""
        return self._positions.get(split)

    def is_late(self, split: str) -> bool:
        """Whether the restored snapshot knew other splits of its topic: it was added since.

        Then all its records came after the start, and none may be left out. What was added since
        this worker began, the source finds out by itself.
        """
        return split.rpartition("/")[0] in self._known_topics

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
        """Return the rows for a snapshot; splits that are not read at present keep theirs."""
        return [
            Position(split, 0, self._key_group_count, position) for split, position in self._positions.items()
        ]
