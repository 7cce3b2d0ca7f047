"""What may be deleted, and above all what may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints import layout
from statefun_checkpoints.errors import StoreRefused, StoreUnavailable
from statefun_checkpoints.model import Entry, PartDescriptor, PartKind, Position
from statefun_checkpoints.retention import (
    Collector,
    collect,
    referenced_paths,
    retained,
    trim_positions,
    unreferenced,
)
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import ObjectStore, run_store
from tests.unit.checkpoints.building import LOST, App, carts, run_with_faults, snapshot


def file(generation: int, snapshot_id: int, worker: int = 0, kind: PartKind = "delta") -> PartDescriptor:
    return PartDescriptor(
        kind=kind,
        level="periodic" if kind == "delta" else None,
        worker=worker,
        snapshot=snapshot_id,
        key_groups=(0, 16),
        rows=1,
        bytes=1,
        xxh3_128="",
        path=layout.part_path(generation, snapshot_id, worker, kind),
    )


def path(generation: int, snapshot_id: int, worker: int, kind: PartKind = "delta") -> str:
    return layout.part_path(generation, snapshot_id, worker, kind)


def entry(snapshot_id: int, *parts: PartDescriptor, rhythm: str = "periodic") -> Entry:
    return snapshot(snapshot_id, parts, slot=snapshot_id, rhythm=rhythm)


# --- which entries -----------------------------------------------------------------------


def test_the_newest_periodic_ones_and_the_newest_are_retained() -> None:
    rhythms = ["periodic", "periodic", "reply", "periodic", "final", "reply", "reply"]
    log = [entry(number, rhythm=rhythm) for number, rhythm in enumerate(rhythms, start=1)][::-1]
    claim = Entry(kind="claim", slot=9, generation=2, nonce="", created_at_ms=0)
    assert [e.snapshot_id for e in retained([claim, *log], 3)] == [7, 5, 4, 2]
    assert [e.snapshot_id for e in retained(log, 1)] == [7, 5]
    assert retained([claim]) == []


# --- which objects -----------------------------------------------------------------------


def test_superseded_files_go_and_referenced_ones_stay() -> None:
    entries = [entry(9, file(1, 5), file(1, 9)), entry(8, file(1, 5), file(1, 8))]
    names = [path(1, n, 0) for n in (3, 5, 8, 9)]
    assert unreferenced(entries=entries, names=names, generation=1) == [path(1, 3, 0)]


def test_files_of_an_open_snapshot_stay() -> None:
    assert unreferenced(entries=[entry(9, file(1, 9))], names=[path(1, 10, 0)], generation=1) == []


def test_files_between_retained_snapshots_stay_until_the_older_one_goes() -> None:
    entries = [entry(9, file(1, 9)), entry(5, file(1, 5))]
    assert unreferenced(entries=entries, names=[path(1, 7, 0)], generation=1) == []
    assert unreferenced(entries=entries[:1], names=[path(1, 7, 0)], generation=1) == [path(1, 7, 0)]


def test_a_base_being_written_stays_however_old_its_cut() -> None:
    base = path(1, 2, 0, kind="base")
    without = [entry(50, file(1, 50)), entry(49, file(1, 49))]
    assert unreferenced(entries=without, names=[base], generation=1) == []
    half = [entry(50, file(1, 30, kind="base")), entry(49, file(1, 49))]
    assert unreferenced(entries=half, names=[base], generation=1) == []


def test_a_base_goes_when_every_retained_entry_has_a_newer_one_of_its_worker() -> None:
    base = path(1, 2, 0, kind="base")
    entries = [entry(50, file(1, 30, kind="base")), entry(49, file(1, 20, kind="base"))]
    other = path(1, 25, 0, kind="base")  # newer than the one of entry 49: may be the next to attach
    assert unreferenced(entries=entries, names=[base, other], generation=1) == [base]
    other_worker = [entry(50, file(1, 30, 1, kind="base"))]
    assert unreferenced(entries=other_worker, names=[base], generation=1) == []


def test_files_of_fenced_generations_go_at_once_and_of_newer_ones_never() -> None:
    entries = [entry(9, file(2, 9), file(1, 4, kind="base"))]
    names = [path(1, 4, 0, kind="base"), path(1, 12, 0), path(1, 3, 0, kind="base"), path(3, 1, 0)]
    assert unreferenced(entries=entries, names=names, generation=2) == [
        path(1, 3, 0, kind="base"),
        path(1, 12, 0),
    ]


def test_strangers_stay_and_so_does_everything_without_entries() -> None:
    assert unreferenced(entries=[entry(9)], names=["data/notes.txt", "data/g1/x"], generation=5) == []
    assert unreferenced(entries=[], names=[path(1, 1, 0)], generation=5) == []


files = st.builds(
    file,
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(0, 2),
    st.sampled_from(["delta", "base", "transient"]),
)


@given(
    st.lists(st.lists(files, max_size=4), min_size=1, max_size=4),
    st.lists(files, max_size=20),
    st.integers(1, 4),
)
def test_nothing_referenced_is_ever_deleted(
    referenced: list[list[PartDescriptor]], others: list[PartDescriptor], generation: int
) -> None:
    entries = [entry(20 + n, *parts) for n, parts in enumerate(referenced)][::-1]
    names = {part.path for parts in [*referenced, others] for part in parts if part.path}
    garbage = set(unreferenced(entries=entries, names=names, generation=generation))
    assert garbage <= names - referenced_paths(entries)
    assert all(int(name[6:13]) <= generation for name in garbage)


# --- grace and execution -----------------------------------------------------------------


def test_garbage_goes_after_its_grace() -> None:
    collector = Collector(grace_ms=100)
    entries = [entry(9, file(1, 9))]
    plans = [
        collector.plan(entries=entries, names=names, generation=1, now_ms=now_ms)
        for now_ms, names in [
            (0, [path(1, 1, 0)]),
            (60, [path(1, 1, 0), path(1, 2, 0)]),
            (99, [path(1, 1, 0), path(1, 2, 0)]),
            (100, [path(1, 1, 0), path(1, 2, 0)]),
            (160, [path(1, 2, 0)]),
        ]
    ]
    assert plans == [[], [], [], [path(1, 1, 0)], [path(1, 2, 0)]]


def test_a_collection_deletes_exactly_the_garbage(store: ObjectStore) -> None:
    app = App(store)
    slots = []
    for number in range(1, 7):
        parts = [app.part(carts(3), number), app.part(carts(1), number, "transient")]
        slots.append(app.snapshot(number, parts).slot)
    deleted = collect(store, slots[-3:], app.log.generation)
    assert deleted == sorted(path(1, n, 0, kind=kind) for n in (1, 2, 3) for kind in ("delta", "transient"))
    assert store.list("data/") == sorted(
        path(1, n, 0, kind=kind) for n in (4, 5, 6) for kind in ("delta", "transient")
    )
    assert len(store.list("log/")) == 7
    assert collect(store, slots[-3:], app.log.generation) == []


def test_a_collector_kept_between_calls_grants_its_grace() -> None:
    app = App(MemoryStore())
    app.part(carts(3), 1)
    slot = app.snapshot(2).slot
    collector = Collector(grace_ms=10)
    assert collect(app.store, [slot], 1, collector=collector, now_ms=5) == []
    assert collect(app.store, [slot], 1, collector=collector, now_ms=15) == [path(1, 1, 0)]


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_nothing_goes_while_a_retained_entry_cannot_be_read(damage: str) -> None:
    app = App(MemoryStore())
    app.part(carts(3), 1)
    slot = app.snapshot(2).slot
    app.store.delete(layout.slot_path(slot))
    if damage == "corrupt":
        app.store.put(layout.slot_path(slot), b"{}")
    with pytest.raises(StoreRefused, match="cannot collect"):
        collect(app.store, [slot], 1)
    assert app.store.list("data/") == [path(1, 1, 0)]


def test_an_interrupted_collection_goes_on_next_time() -> None:
    app = App(MemoryStore())
    for number in (1, 2, 3):
        app.part(carts(3), number)
    slot = app.snapshot(4).slot
    collector = Collector(grace_ms=0)
    with pytest.raises(StoreUnavailable):
        run_with_faults(app.store, collector.run(retained_slots=[slot], generation=1, now_ms=1), {3: LOST})
    assert len(app.store.list("data/")) == 2
    run_store(app.store, collector.run(retained_slots=[slot], generation=1, now_ms=2))
    assert app.store.list("data/") == []


# --- trimming ----------------------------------------------------------------------------


def test_logs_are_trimmed_to_what_the_oldest_reader_needs() -> None:
    entries = [
        snapshot(3, positions=(Position("a", 0, 8, 90), Position("a", 8, 16, 80), Position("b", 0, 16, 5))),
        snapshot(2, positions=(Position("a", 0, 16, 85),)),
    ]
    assert trim_positions(entries) == {"a": 80}
    assert trim_positions(entries[:1]) == {"a": 80, "b": 5}
    assert trim_positions([]) == {}


def test_a_log_is_not_trimmed_while_a_worker_has_not_reached_it() -> None:
    entries = [snapshot(number, positions=(Position("a", 0, 8, 90),)) for number in (3, 2, 1)]
    assert trim_positions(entries) == {}, "key groups 8 to 16 are still to be read from the start"
