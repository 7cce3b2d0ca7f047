"""A worker's side of the simulated topic: what ``io.sources`` and ``io.kafka.source`` are with a broker.

Records are fetched ahead, a few chunks at most, and handed to the core one chunk a turn, as long as it
takes input. Where reading begins is decided as for Kafka: at the position of the core; at the
beginning, for a partition that was added since the first start; else where a first start is told to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from statefun_ray.core.worker import Worker
from statefun_ray.testing.topic import NAME, SOURCE, Topic

if TYPE_CHECKING:
    from statefun_ray.testing.worker_process import SimulatedWorker

CHUNKS_MAX: Final = 3
"""Fetched and not taken yet."""

DISCOVERY_MS: Final = 40
"""Between two looks for new partitions."""

FETCH_MS_MAX: Final = 12

MISTAKES: Final = 0.03
"""Share of the reads before which the source does something that has to be refused."""

NO_PARTITION: Final = 1_000
"""There is none of this number."""


class Chunk(NamedTuple):
    """Offsets ``[start, end)`` of a partition; nothing but its new position if the start does not exist any more."""

    partition: int
    start: int
    end: int
    is_reset: bool


class SimulatedSource:
    """Reads the partitions of one worker."""

    def __init__(self, worker: SimulatedWorker, core: Worker, topic: Topic) -> None:
        self._worker = worker
        self._world = worker.world
        self._core = core
        self._topic = topic
        self._first_count = 0
        """Partitions that the topic had when it was first seen; the others were added since."""
        self._known: set[int] = set()
        """Partitions of ours that are open, or soon will be."""
        self._fetched: dict[int, int] = {}
        """Partition -> behind what was fetched; the core may be at an earlier chunk."""
        self._chunks: deque[Chunk] = deque()

    def start(self) -> None:
        """Begin to read."""
        self._look()
        self._fetch()

    def _look(self) -> None:
        world, topic = self._world, self._topic
        if not self._first_count:
            self._first_count = len(topic.partitions)
            self._core.splits.found(SOURCE, NAME, self._first_count)
        for number in range(len(topic.partitions)):
            if number not in self._known and self._core.splits.is_ours(topic.split(number)):
                self._known.add(number)
                world.after(world.rng.uniform(0, topic.open_ms_max), self._worker, self._opener(number))
        world.after(DISCOVERY_MS, self._worker, self._look)

    def _opener(self, number: int) -> Callable[[], None]:
        return lambda: self._open(number)

    def _open(self, number: int) -> None:
        position = self._first_position(number)
        self._core.splits.open(self._topic.split(number), position)
        self._fetched[number] = position

    def _first_position(self, number: int) -> int:
        topic, splits = self._topic, self._core.splits
        split = topic.split(number)
        position = splits.position(split)
        if position is not None:
            return position
        if splits.is_late(split) or number >= self._first_count:
            return topic.first[number]
        return topic.startup[number] if number < len(topic.startup) else len(topic.partitions[number])

    def _fetch(self) -> None:
        world, topic = self._world, self._topic
        ready = [number for number, at in self._fetched.items() if at < topic.end(number)]
        if ready and len(self._chunks) < CHUNKS_MAX:
            number = world.rng.choice(ready)
            at, first = self._fetched[number], topic.first[number]
            is_reset = at < first
            end = first if is_reset else min(topic.end(number), at + world.rng.randint(1, topic.chunk_max))
            self._chunks.append(Chunk(number, at, end, is_reset))
            self._fetched[number] = end
            self._worker.perform()
        world.after(world.rng.uniform(0.5, FETCH_MS_MAX), self._worker, self._fetch)

    def read(self) -> bool:
        """Give the core a chunk if it takes any; return whether it got one."""
        core, topic, simulation = self._core, self._topic, self._worker.simulation
        if not self._chunks or not core.takes_input:
            return False
        if self._world.chance(MISTAKES):
            self._err()
        number, start, end, is_reset = self._chunks.popleft()
        split = topic.split(number)
        if is_reset:
            core.splits.reset(split, end)
            return True
        messages, rejected = topic.read(number, start, end)
        simulation.workload.failed += len(rejected) if simulation.policy.strict else 0
        core.split_records(split, end, messages, rejected)
        return True

    def committed(self, positions: dict[str, int]) -> None:
        """A snapshot with these positions exists."""
        self._topic.check_told(self._worker.name, positions)

    def _err(self) -> None:
        """Do what a source must not do: it is refused, and changes nothing."""
        core, topic = self._core, self._topic
        splits = core.splits
        split, nowhere = topic.split(self._world.rng.choice(list(self._fetched))), topic.split(NO_PARTITION)
        position = splits.position(split) or 0
        mistakes: list[Callable[[], None]] = [
            lambda: core.split_records(split, position - 1, [], []),
            lambda: core.split_records(nowhere, 0, [], []),
            lambda: splits.reset(nowhere, 0),
        ]
        if not splits.is_ours(nowhere):
            mistakes.append(lambda: splits.open(nowhere, 0))
        before = splits.positions()
        try:
            self._world.rng.choice(mistakes)()
        except ValueError:
            if splits.positions() == before:
                return
        self._worker.simulation.problem(f"{self._worker.name} lets its source err")
