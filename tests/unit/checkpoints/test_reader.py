"""Layers in order, any range of key groups, and damage named."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints import layout, writer
from statefun_checkpoints.coordinator import lasting_parts
from statefun_checkpoints.errors import CorruptEntry, CorruptPart, MissingPart, StoreUnavailable
from statefun_checkpoints.model import Entry, PartDescriptor, Rows
from statefun_checkpoints.reader import load
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import ObjectStore, run_store
from tests.unit.checkpoints.building import (
    GROUPS,
    LOST,
    UNANSWERED,
    App,
    carts,
    int_value,
    row,
    run_with_faults,
)


def values(rows: Rows) -> dict[str, bytes | None]:
    assert len(set(rows.id)) == len(rows), "a key came twice"
    return dict(zip(rows.id, rows.value, strict=True))


def one(id: str, number: int | None) -> Rows:
    return Rows.of([row(id, None if number is None else int_value(number))])


def test_later_snapshots_win(store: ObjectStore) -> None:
    app = App(store)
    base = app.part(carts(100), 1, "base")
    changed = app.part(one("cart-7", 70), 2, inline_bytes_max=65_536)
    again = app.part(one("cart-7", 71), 3, level="small")
    entry = app.snapshot(3, [again, base, changed])  # their order in the entry does not matter
    state = values(run_store(store, load(entry)).state)
    assert len(state) == 100
    assert state["cart-7"] == int_value(71)


def test_tombstones_remove_and_do_not_show() -> None:
    app = App(MemoryStore())
    entry = app.snapshot(
        3,
        [
            app.part(carts(3), 1, "base"),
            app.part(one("cart-1", None), 2),
            app.part(one("cart-9", None), 3, level="small"),
        ],
    )
    assert set(values(run_store(app.store, load(entry)).state)) == {"cart-0", "cart-2"}


def test_a_key_may_come_back_after_its_tombstone() -> None:
    app = App(MemoryStore())
    entry = app.snapshot(3, [app.part(one("a", None), 2), app.part(one("a", 3), 3, level="small")])
    assert values(run_store(app.store, load(entry)).state) == {"a": int_value(3)}


def test_nothing_older_than_a_base_counts() -> None:
    app = App(MemoryStore())
    older = app.part(Rows.of([*one("gone", 1), *one("kept", 1)]), 1)
    base = app.part(one("kept", 2), 1, "base")  # as of the same cut, in which "gone" was deleted
    entry = app.snapshot(2, [older, base])
    assert values(run_store(app.store, load(entry)).state) == {"kept": int_value(2)}


def test_a_base_closes_only_its_own_key_groups() -> None:
    app = App(MemoryStore())
    everything = carts(60)
    low = everything.select((0, 8))
    older = app.part(everything, 1, "base", worker=0)
    newer = app.part(low.slice(0, 1), 2, "base", worker=1, key_groups=(0, 8))
    entry = app.snapshot(3, [older, newer])
    state = values(run_store(app.store, load(entry)).state)
    assert set(state) == {low.id[0], *everything.select((8, 16)).id}


def test_of_two_rows_for_a_key_in_one_delta_the_later_wins() -> None:
    app = App(MemoryStore())
    entry = app.snapshot(1, [app.part(Rows.of([*one("a", 1), *one("b", 5), *one("a", 2)]), 1)])
    assert values(run_store(app.store, load(entry)).state) == {"a": int_value(2), "b": int_value(5)}


def test_states_and_subs_of_one_id_are_different_keys() -> None:
    app = App(MemoryStore())
    group = row("a", None)[0]
    base = Rows.of(
        [
            row("a", b"1", table="shop/cart.total"),
            row("a", b"2", table="shop/cart.items"),
            (group, "~timers", "a", "t1", "x", b"3", 5),
            (group, "~timers", "a", "t2", "x", b"4", 6),
        ]
    )
    delta = Rows.of([(group, "~timers", "a", "t1", "x", None, None), row("a", b"9", table="shop/cart.items")])
    entry = app.snapshot(2, [app.part(base, 1, "base"), app.part(delta, 2)])
    found = sorted(run_store(app.store, load(entry)).state, key=repr)
    assert [(table, sub, value) for _, table, _, sub, _, value, _ in found] == [
        ("shop/cart.items", "", b"9"),
        ("shop/cart.total", "", b"1"),
        ("~timers", "t2", b"4"),
    ]


def test_transient_rows_keep_their_order_and_their_repeats() -> None:
    app = App(MemoryStore())
    one_worker = Rows.of(
        [(3, "~inflight", "a", "1", "t", b"x", None), (2, "~outbox", "b", "", "t", b"y", None)]
    )
    other = Rows.of([(9, "~inflight", "a", "1", "t", b"x", None)])
    entry = app.snapshot(
        1,
        [
            app.part(one_worker, 1, "transient", key_groups=(0, 8)),
            app.part(other, 1, "transient", worker=1, key_groups=(8, 16), inline_bytes_max=65_536),
        ],
    )
    assert list(run_store(app.store, load(entry)).transient) == [*one_worker, *other]
    assert list(run_store(app.store, load(entry, (8, 16))).transient) == list(other)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_any_number_of_workers_reads_the_same(store: ObjectStore, workers: int) -> None:
    app = App(store)
    everything = carts(300)
    entry = app.snapshot(
        2,
        [
            app.part(everything.select((0, 8)), 1, "base", worker=0, key_groups=(0, 8)),
            app.part(everything.select((8, 16)), 1, "base", worker=1, key_groups=(8, 16)),
            app.part(one("cart-3", 33), 2),
        ],
    )
    bounds = [GROUPS * i // workers for i in range(workers + 1)]
    state: dict[str, bytes | None] = {}
    for first, end in itertools.pairwise(bounds):
        share = run_store(store, load(entry, (first, end))).state
        assert all(first <= group < end for group in share.key_group)
        state |= values(share)
    assert state == {**values(everything), "cart-3": int_value(33)}


def test_inline_parts_of_older_entries_are_found() -> None:
    app = App(MemoryStore())
    first = app.snapshot(1, [app.part(carts(5), 1, inline_bytes_max=65_536)])
    second = app.snapshot(2, [*lasting_parts(first), app.part(one("cart-0", 9), 2, level="small")])
    assert second.parts[0].slot == first.slot
    assert values(run_store(app.store, load(second)).state) == {**values(carts(5)), "cart-0": int_value(9)}


operations = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(1, 99)), min_size=1, max_size=6
)


@given(
    st.lists(st.tuples(operations, st.sampled_from(["small", "periodic", "base"])), min_size=1, max_size=8)
)
def test_layers_agree_with_a_dictionary(cuts: list[tuple[list[tuple[str, int | None]], str]]) -> None:
    """Play cuts the way the coordinator composes them, and compare with applying the writes."""
    app = App(MemoryStore())
    model: dict[str, int] = {}
    since_periodic: dict[str, int | None] = {}
    chain: list[PartDescriptor] = []
    for number, (writes, rhythm) in enumerate(cuts, start=1):
        dirty: dict[str, int | None] = {}
        for id, value in writes:
            dirty[id] = since_periodic[id] = value
            if value is None:
                model.pop(id, None)
            else:
                model[id] = value
        if rhythm == "small":
            rows = [r for id, value in dirty.items() for r in one(id, value)]
            chain.append(app.part(Rows.of(rows), number, level="small"))
        else:
            chain = [part for part in chain if part.level != "small"]
            rows = [r for id, value in since_periodic.items() for r in one(id, value)]
            chain.append(app.part(Rows.of(rows), number))
            since_periodic = {}
        if rhythm == "base" and model:
            rows = [r for id, value in model.items() for r in one(id, value)]
            chain.append(app.part(Rows.of(rows), number, "base"))
    random.Random(1).shuffle(chain)
    entry = app.snapshot(len(cuts), chain)
    state = values(run_store(app.store, load(entry)).state)
    assert state == {id: int_value(value) for id, value in model.items()}


# --- damage ------------------------------------------------------------------------------


def stored_part(app: App) -> tuple[Entry, str]:
    part = app.part(carts(50), 1)
    assert part.path is not None
    return app.snapshot(1, [part]), part.path


def test_a_missing_part_is_named() -> None:
    app = App(MemoryStore())
    entry, path = stored_part(app)
    app.store.delete(path)
    with pytest.raises(MissingPart, match=rf"{path} is missing; snapshot 1 \(log slot 1\) refers to it"):
        run_store(app.store, load(entry))


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b""])
def test_a_part_of_another_length_is_named(damage: Callable[[bytes], bytes]) -> None:
    store = MemoryStore()
    app = App(store)
    entry, path = stored_part(app)
    store.objects[path] = damage(store.objects[path])
    with pytest.raises(CorruptPart, match=rf"{path} is corrupt: \d+ bytes long, snapshot 1"):
        run_store(store, load(entry))


def test_a_flipped_bit_anywhere_in_a_part_is_named() -> None:
    store = MemoryStore()
    app = App(store)
    entry, path = stored_part(app)
    whole = store.objects[path]
    for offset in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        store.objects[path] = bytes(damaged)
        with pytest.raises(CorruptPart, match=f"{path} is corrupt: its xxh3_128"):
            run_store(store, load(entry))


def test_a_truncation_at_any_length_is_named() -> None:
    store = MemoryStore()
    app = App(store)
    entry, path = stored_part(app)
    whole = store.objects[path]
    for length in range(0, len(whole), 11):
        store.objects[path] = whole[:length]
        with pytest.raises(CorruptPart, match=path):
            run_store(store, load(entry))


def inline_in_older_entry(app: App) -> Entry:
    first = app.snapshot(1, [app.part(carts(5), 1, inline_bytes_max=65_536)])
    return app.snapshot(2, lasting_parts(first))


def test_a_missing_older_entry_is_named() -> None:
    app = App(MemoryStore())
    entry = inline_in_older_entry(app)
    app.store.delete(layout.slot_path(1))
    with pytest.raises(MissingPart, match=r"0000000000000000001\.json is missing; snapshot 2"):
        run_store(app.store, load(entry))


def test_a_corrupt_older_entry_is_named() -> None:
    store = MemoryStore()
    entry = inline_in_older_entry(App(store))
    store.objects[layout.slot_path(1)] = b"{}"
    with pytest.raises(CorruptEntry, match=r"0000000000000000001\.json"):
        run_store(store, load(entry))


@pytest.mark.parametrize("index", [1, 9, -1])
def test_a_reference_to_no_inline_part_is_named(index: int) -> None:
    app = App(MemoryStore())
    first = app.snapshot(1, [app.part(carts(5), 1, inline_bytes_max=65_536), app.part(carts(5), 1)])
    part = msgspec.structs.replace(lasting_parts(first)[0], index=index)
    with pytest.raises(MissingPart, match="inline in log slot 1"):
        run_store(app.store, load(app.snapshot(2, [part])))


def test_inline_text_that_is_no_base64_is_named() -> None:
    app = App(MemoryStore())
    part = msgspec.structs.replace(app.part(carts(1), 1, inline_bytes_max=65_536), inline="?")
    with pytest.raises(CorruptPart, match="not base64"):
        run_store(app.store, load(app.snapshot(1, [part])))


@pytest.mark.parametrize("fault", [LOST, UNANSWERED])
def test_reading_is_repeated_when_there_is_no_answer(fault: str) -> None:
    app = App(MemoryStore())
    entry, _ = stored_part(app)
    loaded = run_with_faults(app.store, load(entry), dict.fromkeys(range(4), fault))
    assert len(loaded.state) == 50
    with pytest.raises(StoreUnavailable):
        run_with_faults(app.store, load(entry), dict.fromkeys(range(5), fault))


def test_an_entry_that_is_not_committed_yet_can_be_read() -> None:
    encoded = writer.encode(carts(3), kind="base", generation=1, snapshot=1, worker=0, key_groups=(0, GROUPS))
    assert encoded is not None
    app = App(MemoryStore())
    entry = app.snapshot(1, [encoded.descriptor])
    assert len(run_store(MemoryStore(), load(entry)).state) == 3
