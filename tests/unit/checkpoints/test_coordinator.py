"""Which parts an entry names: chains of a base and deltas per worker, and what the chain forgets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from statefun_checkpoints.coordinator import SnapshotCoordinator, WorkerPart, lasting, lasting_parts
from statefun_checkpoints.model import Entry, KeyGroups, Level, PartDescriptor, PartKind, Position, Rhythm

HALVES: list[KeyGroups] = [(0, 8), (8, 16)]
WHOLE: list[KeyGroups] = [(0, 16)]
QUARTERS: list[KeyGroups] = [(0, 4), (4, 8), (8, 12), (12, 16)]


def part(
    kind: PartKind,
    worker: int,
    snapshot: int,
    key_groups: KeyGroups,
    *,
    level: Level | None = None,
    is_inline: bool = False,
) -> PartDescriptor:
    return PartDescriptor(
        kind=kind,
        worker=worker,
        snapshot=snapshot,
        level=level,
        key_groups=key_groups,
        rows=1,
        bytes=1,
        xxh3_128="0" * 32,
        path=None if is_inline else f"data/{kind}/{worker}/{snapshot}",
        inline="AA==" if is_inline else None,
    )


class Application:
    """Commits snapshots of one generation; each worker writes what it is told to."""

    def __init__(self, ranges: list[KeyGroups], restored: Entry | None = None) -> None:
        self.ranges = ranges
        self.slot = restored.slot + 1 if restored is not None else 0
        self.snapshots = SnapshotCoordinator(key_groups=ranges, functions={}, restored=restored)

    def acknowledge(
        self,
        worker: int,
        *,
        base: int = 0,
        base_is_empty: bool = False,
        has_delta: bool = True,
        is_inline: bool = False,
        counters: dict[str, int] | None = None,
        timer_next: int = 0,
    ) -> bool:
        opened = self.snapshots.open
        assert opened is not None
        parts = []
        if has_delta:
            level: Level = "small" if opened.rhythm == "reply" else "periodic"
            parts.append(
                part(
                    "delta", worker, opened.snapshot_id, self.ranges[worker], level=level, is_inline=is_inline
                )
            )
        parts.append(part("transient", worker, opened.snapshot_id, self.ranges[worker]))
        if base and not base_is_empty:
            parts.append(part("base", worker, base, self.ranges[worker]))
        ack = WorkerPart(
            parts=parts,
            based_on=base,
            positions=[Position("log", *self.ranges[worker], opened.snapshot_id)],
            out_seq={worker: opened.snapshot_id},
            counters=counters or {"applied": 1},
            in_flight=2,
            timer_next=timer_next,
            cut_ms=0,
        )
        return self.snapshots.acknowledge(worker, opened.snapshot_id, ack)

    def commit(
        self,
        rhythm: Rhythm = "periodic",
        *,
        bases: Sequence[int] = (),
        base: int = 0,
        is_inline: bool = False,
    ) -> Entry:
        """Commit a snapshot; workers in ``bases`` attach a base labelled ``base``."""
        self.snapshots.begin(rhythm, 0)
        for worker in range(len(self.ranges)):
            self.acknowledge(worker, base=base if worker in bases else 0, is_inline=is_inline)
        return self.write()

    def write(self) -> Entry:
        self.slot += 1
        entry = msgspec.structs.replace(
            self.snapshots.entry(now_ms=0), slot=self.slot, nonce="n", generation=1
        )
        self.snapshots.committed(entry)
        return entry


def names(entry: Entry, worker: int | None = None) -> list[str]:
    """Return the lasting parts of an entry as "<kind> <worker>@<snapshot>"."""
    return [
        f"{'small' if part.level == 'small' else part.kind} {part.worker}@{part.snapshot}"
        for part in entry.parts
        if part.kind != "transient" and worker in (None, part.worker)
    ]


# --- within one generation -----------------------------------------------------------------------


def test_deltas_line_up_behind_each_other() -> None:
    app = Application(WHOLE)

    app.commit()
    entry = app.commit()

    assert names(entry) == ["delta 0@1", "delta 0@2"]
    assert [part.snapshot for part in entry.parts if part.kind == "transient"] == [2], "only the newest"


def test_a_periodic_delta_replaces_the_small_ones_before_it() -> None:
    app = Application(WHOLE)

    app.commit()
    app.commit("reply")
    assert names(app.commit("reply")) == ["delta 0@1", "small 0@2", "small 0@3"]
    assert app.snapshots.small_deltas() == 2

    assert names(app.commit("periodic")) == ["delta 0@1", "delta 0@4"]
    assert app.snapshots.small_deltas() == 0


def test_a_final_snapshot_is_periodic_and_says_stop() -> None:
    app = Application(WHOLE)
    app.commit("reply")

    entry = app.commit("final")

    assert entry.kind == "stop"
    assert names(entry) == ["delta 0@2"]


def test_a_base_replaces_everything_up_to_its_label_and_nothing_after() -> None:
    app = Application(HALVES)
    for _ in range(3):
        app.commit()

    entry = app.commit(bases=[0], base=2)

    assert names(entry, 0) == ["delta 0@3", "delta 0@4", "base 0@2"]
    assert names(entry, 1) == ["delta 1@1", "delta 1@2", "delta 1@3", "delta 1@4"]


def test_an_aborted_snapshot_leaves_no_trace() -> None:
    app = Application(WHOLE)
    app.commit()
    app.snapshots.begin("periodic", 0)
    app.acknowledge(0, base=1)

    assert app.snapshots.abort() == 2
    assert app.snapshots.abort() is None
    entry = app.commit()

    assert entry.snapshot_id == 3, "its id is not used again"
    assert names(entry) == ["delta 0@1", "delta 0@3"]


def test_late_acknowledgements_complete_nothing() -> None:
    app = Application(WHOLE)
    app.snapshots.begin("periodic", 0)
    ack = WorkerPart(
        parts=[], based_on=0, positions=[], out_seq={}, counters={}, in_flight=0, timer_next=0, cut_ms=0
    )
    app.snapshots.abort()

    assert not app.snapshots.acknowledge(0, 1, ack), "nothing is open"
    app.snapshots.begin("periodic", 0)
    assert not app.snapshots.acknowledge(0, 1, ack), "another one is open"
    assert app.snapshots.acknowledge(0, 2, ack)


def test_only_one_snapshot_is_open() -> None:
    app = Application(WHOLE)
    app.snapshots.begin("periodic", 0)

    with pytest.raises(AssertionError, match="one at a time"):
        app.snapshots.begin("reply", 0)


def test_an_entry_needs_every_worker() -> None:
    app = Application(HALVES)
    app.snapshots.begin("periodic", 0)
    app.acknowledge(1)

    with pytest.raises(AssertionError, match="not every worker"):
        app.snapshots.entry(now_ms=0)


def test_an_inline_part_is_referred_to_by_slot_and_index_from_then_on() -> None:
    app = Application(HALVES)

    first = app.commit(is_inline=True)
    second = app.commit(is_inline=True)

    inherited = [part for part in second.parts if part.kind == "delta" and part.snapshot == 1]
    assert [(part.slot, part.index, part.inline) for part in inherited] == [
        (first.slot, index, None) for index, part in enumerate(first.parts) if part.kind == "delta"
    ]
    third = app.commit()
    kept = [part for part in third.parts if part.kind == "delta" and part.snapshot == 1]
    assert kept == inherited, "the bytes stand once, in the entry that wrote them"


def test_lasting_names_the_place_of_every_part() -> None:
    entry = Application(WHOLE).commit(is_inline=True)

    assert [None if part is None else part.kind for part in lasting(entry)] == ["delta", None]
    assert [part.slot for part in lasting_parts(entry)] == [entry.slot]


def test_the_entry_adds_up_what_the_workers_say() -> None:
    app = Application(HALVES)
    app.snapshots.begin("periodic", 0)
    app.acknowledge(1, counters={"applied": 5, "emitted": 1}, timer_next=9)
    app.acknowledge(0, counters={"applied": 2}, timer_next=30)
    first = app.write()

    assert first.counters == {"applied": 7, "emitted": 1}
    assert first.in_flight == 4
    assert first.timer_next == 30
    assert first.out_seq == {"0": 1, "1": 1}
    assert first.positions == (Position("log", 0, 8, 1), Position("log", 8, 16, 1))
    assert first.parent is None

    second = app.commit()
    assert second.parent == first.slot
    assert second.counters["applied"] == 2, "workers count from the start of their generation"


# --- after a restore -----------------------------------------------------------------------------


def test_counters_and_ordinals_go_on_after_a_restore() -> None:
    app = Application(HALVES)
    app.snapshots.begin("periodic", 0)
    app.acknowledge(0, counters={"applied": 2}, timer_next=30)
    app.acknowledge(1, counters={"applied": 5}, timer_next=9)

    entry = Application(HALVES, app.write()).commit()

    assert entry.snapshot_id == 2
    assert entry.counters == {"applied": 9}
    assert entry.timer_next == 30


def test_small_deltas_from_before_the_restore_stay_until_a_base() -> None:
    before = Application(WHOLE)
    before.commit()
    restored = before.commit("reply")

    after = Application(WHOLE, restored)
    assert after.snapshots.small_deltas() == 0
    after.commit("reply")
    entry = after.commit("periodic")
    assert names(entry) == ["delta 0@1", "small 0@2", "delta 0@4"], "nobody wrote the keys of 2 again"

    assert names(after.commit(bases=[0], base=4)) == ["delta 0@5", "base 0@4"]


@pytest.mark.parametrize("ranges", [WHOLE, QUARTERS])
def test_inherited_parts_stay_until_every_worker_has_a_base(ranges: list[KeyGroups]) -> None:
    before = Application(HALVES)
    restored = before.commit()
    after = Application(ranges, restored)
    last = len(ranges) - 1

    entry = after.commit(bases=range(last), base=1)
    assert names(entry)[:2] == ["delta 0@1", "delta 1@1"]

    entry = after.commit(bases=[last], base=2)
    assert not {"delta 0@1", "delta 1@1"} & set(names(entry))


@pytest.mark.parametrize("ranges", [WHOLE, QUARTERS])
def test_a_restart_amid_a_rescale_still_knows_which_parts_are_inherited(ranges: list[KeyGroups]) -> None:
    before = Application(HALVES)
    restored = before.commit()
    amid = Application(ranges, restored).commit()

    after = Application(ranges, amid)
    entry = after.commit(bases=[0] if ranges is QUARTERS else [], base=2)

    # Worker 0 of four has a base of key groups 0 to 4. The part of worker 0 of two holds 4 to 8 as well.
    assert names(entry)[:2] == ["delta 0@1", "delta 1@1"]


def test_a_base_from_before_a_restart_amid_a_rescale_still_counts() -> None:
    restored = Application(HALVES).commit()
    amid = Application(QUARTERS, restored).commit(bases=[0, 1, 2], base=1)

    after = Application(QUARTERS, amid)

    assert "delta 1@1" in names(after.commit())
    assert "delta 1@1" not in names(after.commit(bases=[3], base=2))


def test_parts_of_an_earlier_rescale_are_not_taken_for_own_ones() -> None:
    """2 workers, then 4, then 2 again: the parts of the first two stand for the same key groups."""
    first = Application(HALVES).commit()
    second = Application(QUARTERS, first).commit(bases=[0, 1], base=1)

    third = Application(HALVES, second)
    entry = third.commit(bases=[0], base=2)
    assert names(entry, 3) == ["delta 3@2"]
    assert "delta 1@1" in names(entry)

    entry = third.commit(bases=[1], base=2)
    assert {part.key_groups for part in entry.parts} == set(HALVES)


def test_tombstones_stay_when_an_empty_base_leaves_nothing_to_hide_inherited_rows() -> None:
    restored = Application(HALVES).commit()
    app = Application(QUARTERS, restored)
    app.commit()  # deletes, among others, the last key of worker 0

    app.snapshots.begin("periodic", 0)
    app.acknowledge(0, base=2, base_is_empty=True, has_delta=False)
    for worker in (1, 2, 3):
        app.acknowledge(worker)
    entry = app.write()
    assert "delta 0@1" in names(entry)
    assert "delta 0@2" in names(entry), "without the tombstone the deleted key would be back"

    entry = app.commit(bases=[1, 2, 3], base=3)
    assert names(entry)[:2] == ["delta 0@2", "delta 0@4"]


def test_an_empty_base_ends_a_chain_that_inherits_nothing() -> None:
    app = Application(WHOLE)
    app.commit()
    app.snapshots.begin("periodic", 0)
    app.acknowledge(0, base=1, base_is_empty=True, has_delta=False)

    assert names(app.write()) == []
