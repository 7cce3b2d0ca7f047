"""A topic whose partitions workers read by themselves, as a Kafka broker keeps it, and who writes to it.

A partition is a list by offset. Some offsets hold nothing, as after a compaction; the first ones
expire when no snapshot needs them any more; partitions are added while the application runs. Who
reads which partition and from where is the workers' business (``source``).

The records are events of the workload like those that come through the ingress, in some runs for up to
three functions each. Some can be no message: they become dead letters under the place they came from,
one for each function. In a strict application they end the generation, until somebody has deployed a
module that can read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from statefun_checkpoints.model import Entry
from statefun_ray.core.dead_letters import Rejected
from statefun_ray.core.message import Message
from statefun_ray.core.splits import belongs_to, split_name
from statefun_ray.testing.workload import AWAITING, COMMANDS, INLINE, NO_MESSAGE, OLD, RELAY, encode_commands

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation
    from statefun_ray.testing.worker_process import SimulatedWorker

SOURCE: Final = "simulation/records"
NAME: Final = "topic"
PARTITIONS_MAX: Final = 5

LAST_RECORDS: Final = 3
"""Written when the faults are over and the application was started once more."""

TARGETS: Final = (INLINE, AWAITING, RELAY)
"""Functions that a record may be for."""


class Record(NamedTuple):
    """A record of a partition."""

    id: str
    values: dict[str, bytes]
    """By function type that it is for. They differ, unlike those of a broker, so that each can be counted."""


class Topic:
    """The broker's side of the topic, and its producer."""

    def __init__(self, simulation: Simulation, apart: Random) -> None:
        self.simulation = simulation
        self.partitions: list[list[Record | None]] = []
        self.first: list[int] = []
        """Partition -> the lowest offset that has not expired."""
        self.unfit_share = apart.choice([0.0, 0.1, 0.4])
        """Of the records, those that can be no message."""
        self.gap_share = apart.choice([0.0, 0.3])
        """Of the offsets that are given away, those that hold nothing."""
        self.open_ms_max = apart.choice([2, 2, 200])
        """How long the broker takes to tell a worker where a partition begins."""
        self.chunk_max = apart.choice([1, 3, 8])
        """Records that a worker gets at once."""
        self.is_judged = True
        """Until the store is damaged on purpose."""
        self._unreadable: dict[tuple[int, int], int] = {}
        """Partition and offset -> how often it can be no message; -1 for always."""
        self._numbers: dict[tuple[int, str, str], int] = {}
        # Drawn apart once more: seeds with one target are what they were before there could be more.
        self.targets_max = Random(simulation.seed ^ 0x7A26E75).choice([1, 1, 2, 3])
        """Functions that a record is for, at most."""
        self._records_left = apart.randrange(4, 14)
        for _ in range(apart.choice([1, 2, 3])):
            self._add_partition()
            # From before the application; it was told to begin behind them.
            old = Record(OLD, {INLINE: encode_commands({"u": 0, "c": []})})
            self.partitions[-1] += [old] * apart.choice([0, 2])
        self.startup = [len(partition) for partition in self.partitions]
        """Where a first start begins; of partitions that are not in here it begins at the end."""

    def _add_partition(self) -> None:
        self.partitions.append([])
        self.first.append(0)

    @property
    def is_done(self) -> bool:
        """Whether everything was written."""
        return not self._records_left

    # --- life -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Write all along, as long as there are faults; add partitions and let records expire."""
        world, duration_ms = self.simulation.world, self.simulation.faults.duration_ms
        for _ in range(self._records_left):
            world.after(world.rng.random() * duration_ms, None, self._write)
        for _ in range(3):
            world.after(world.rng.random() * duration_ms, None, self._grow)
            world.after(world.rng.random() * duration_ms, None, self._expire)

    def write_last(self) -> None:
        """Write a few records more, for the application that has started again."""
        self._records_left += LAST_RECORDS
        for _ in range(LAST_RECORDS):
            self.simulation.world.after(self.simulation.rng.uniform(1, 60), None, self._write)

    def _write(self) -> None:
        simulation, rng = self.simulation, self.simulation.rng
        self._records_left -= 1
        number = rng.randrange(len(self.partitions))
        partition = self.partitions[number]
        while simulation.world.chance(self.gap_share):
            partition.append(None)
        is_unfit, is_strict = simulation.world.chance(self.unfit_share), simulation.policy.strict
        place = number, len(partition)
        if is_unfit:
            self._unreadable[place] = 1 if is_strict else -1
        count = rng.randint(1, self.targets_max) if self.targets_max > 1 else 1
        if is_unfit and not is_strict:
            where = place_name(*place)
            unfit = {kind: simulation.workload.unfit(kind, where) for kind in TARGETS[:count]}
            partition.append(Record("", {kind: encode_commands(message) for kind, message in unfit.items()}))
            return
        first, id, message = simulation.workload.event()
        messages = {first: message}
        for kind in [kind for kind in TARGETS if kind != first][: count - 1]:
            messages[kind] = simulation.workload.event_for(kind, id)
        partition.append(Record(id, dict(self._numbered(number, id, messages))))

    def _numbered(
        self, number: int, id: str, messages: dict[str, dict[str, Any]]
    ) -> Iterator[tuple[str, bytes]]:
        for kind, message in messages.items():
            place = number, kind, id
            sequence = self._numbers[place] = self._numbers.get(place, 0) + 1
            yield kind, encode_commands({**message, "s": sequence, "f": f"partition {number}"})

    def _grow(self) -> None:
        # Only the application that knows the topic can tell an added partition from one of its beginning.
        if len(self.partitions) < PARTITIONS_MAX and self._committed():
            self._add_partition()
            self.simulation.world.note(f"the topic has {len(self.partitions)} partitions")

    def _expire(self) -> None:
        """Forget what no snapshot needs, and offsets behind that which hold nothing."""
        committed = self._committed()
        for number, partition in enumerate(self.partitions):
            at = committed.get(self.split(number), 0)
            while at < len(partition) and partition[at] is None:
                at += 1
            self.first[number] = max(self.first[number], at)

    # --- reading ----------------------------------------------------------------------------------

    @staticmethod
    def split(number: int) -> str:
        """Return the name of a partition as a split."""
        return split_name(SOURCE, NAME, number)

    def end(self, number: int) -> int:
        """Return the offset behind the last record of a partition."""
        partition = self.partitions[number]
        return max((at + 1 for at, record in enumerate(partition) if record is not None), default=0)

    def read(self, number: int, start: int, end: int) -> tuple[list[Message], list[Rejected]]:
        """Return what the records of ``[start, end)`` are to a worker."""
        messages: list[Message] = []
        rejected: list[Rejected] = []
        for offset in range(start, end):
            record = self.partitions[number][offset]
            if record is None:
                continue
            id, values = record
            left = self._unreadable.get((number, offset), 0)
            if left:
                self._unreadable[number, offset] = left - 1
                place = place_name(number, offset)
                why = f"record {place} {NO_MESSAGE}"
                rejected += [(kind, place, COMMANDS.typename, value, why) for kind, value in values.items()]
            else:
                messages += [(kind, id, "", "", COMMANDS.typename, value) for kind, value in values.items()]
        return messages, rejected

    def unread(self, workers: list[SimulatedWorker]) -> list[int]:
        """Return the partitions of which these workers, all of a generation, have not taken everything."""
        positions: dict[str, int] = {}
        for worker in workers:
            if worker.core is not None:
                positions |= {at.log_id: at.next_seq for at in worker.core.splits.positions()}
        return [
            number
            for number in range(len(self.partitions))
            if positions.get(self.split(number), -1) < self.end(number)
        ]

    # --- judging ----------------------------------------------------------------------------------

    def _committed(self) -> dict[str, int]:
        entry = self.simulation.final_entry()
        return positions_of(entry) if entry is not None else {}

    def check_told(self, name: str, told: dict[str, int]) -> None:
        """A worker's source is told that these positions are committed."""
        if not self.is_judged:
            return
        committed = self._committed()
        for split, position in told.items():
            if position > committed.get(split, -1):
                self.simulation.problem(
                    f"{name} is told that {position} of {split} is committed, which is {committed.get(split)}"
                )

    def check_history(self, entries: list[Entry]) -> list[str]:
        """Return what is wrong with the positions of all snapshots, the oldest first."""
        problems: list[str] = []
        before: dict[str, int] = {}
        for entry in entries:
            positions = positions_of(entry)
            splits = [position for position in entry.positions if belongs_to(position.log_id, SOURCE)]
            if len(splits) != len(positions) or any(
                (split.first, split.end) != (0, entry.key_group_count) for split in splits
            ):
                problems.append(f"snapshot {entry.snapshot_id} reads a partition twice or in part: {splits}")
            problems += [
                f"snapshot {entry.snapshot_id} is at {positions.get(split)} of {split}, the one before was at {position}"
                for split, position in before.items()
                if positions.get(split, -1) < position
            ]
            before = positions
        problems += [
            f"the last snapshot is at {before.get(self.split(number))} of partition {number}, which ends at {self.end(number)}"
            for number in range(len(self.partitions))
            if before.get(self.split(number), -1) < self.end(number)
        ]
        return problems


def place_name(number: int, offset: int) -> str:
    """Return where a record came from, as it is the id of its letter."""
    return f"{NAME}/{number}/{offset}"


def positions_of(entry: Entry) -> dict[str, int]:
    """Return where a snapshot is in each partition."""
    return {
        position.log_id: position.next_seq
        for position in entry.positions
        if belongs_to(position.log_id, SOURCE)
    }
