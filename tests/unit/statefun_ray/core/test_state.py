"""Layers of the keyed store: what a cut writes, whatever became of the cuts before it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statefun_checkpoints.model import FunctionSpec, Rows, StateSpec
from statefun_ray.core.expiry import REFRESH_FRACTION
from statefun_ray.core.message import Message, ordinal_sub, pack_message
from statefun_ray.core.state import SLICE_ROWS, KeyedStore, Table, tables_of
from tests.unit.statefun_ray.core.staging import message

GROUPS = 16


def store_with(expire_ms: int = 0, *, on_call: bool = False, now_ms: int = 0) -> tuple[KeyedStore, Table]:
    store = KeyedStore(GROUPS)
    table = store.add(Table("a/b.state", "t", expire_ms=expire_ms, on_call=on_call))
    store.set_now(now_ms)
    return store, table


def joined(slices: Iterable[Rows]) -> Rows:
    rows = Rows()
    for portion in slices:
        rows.extend(portion)
    return rows


def delta(store: KeyedStore, *, periodic: bool = True) -> dict[str, bytes | None]:
    rows = joined(store.delta_slices(periodic=periodic))
    assert len(set(rows.id)) == len(rows), "a key stands once in a part"
    return dict(zip(rows.id, rows.value, strict=True))


def cut(store: KeyedStore, *, periodic: bool = True) -> dict[str, bytes | None]:
    store.freeze()
    return delta(store, periodic=periodic)


# --- deltas --------------------------------------------------------------------------------------


def test_a_cut_writes_what_changed_since_the_last_one() -> None:
    store, table = store_with()
    table.put("1", b"a")
    table.put("2", b"a")
    assert cut(store) == {"1": b"a", "2": b"a"}
    store.committed(periodic=True)
    table.put("1", b"b")
    table.delete("2")

    assert cut(store) == {"1": b"b", "2": None}


def test_deleting_what_is_not_there_writes_nothing() -> None:
    store, table = store_with()
    table.delete("1")

    assert cut(store) == {}
    assert store.dirty_rows(periodic=True) == 0


def test_what_an_aborted_cut_would_have_written_is_in_the_next() -> None:
    store, table = store_with()
    table.put("1", b"a")
    table.put("2", b"a")
    cut(store)  # aborted: nobody says committed
    table.put("2", b"b")

    assert cut(store) == {"1": b"a", "2": b"b"}


def test_a_periodic_cut_holds_the_small_ones_since_the_last_periodic() -> None:
    store, table = store_with()
    for text in (b"a", b"b", b"c"):
        table.put(text.decode(), text)
        assert cut(store, periodic=False) == {text.decode(): text}
        store.committed(periodic=False)
    table.put("d", b"d")

    assert cut(store, periodic=True) == {"a": b"a", "b": b"b", "c": b"c", "d": b"d"}
    store.committed(periodic=True)
    table.put("e", b"e")
    assert cut(store, periodic=True) == {"e": b"e"}


def test_writing_goes_on_while_a_cut_is_written() -> None:
    store, table = store_with()
    for number in range(SLICE_ROWS + 1):
        table.put(str(number), b"a")
    store.freeze()
    slices = store.delta_slices(periodic=True)
    first = next(slices)
    for number in range(SLICE_ROWS + 1):
        table.put(str(number), b"b")
    store.freeze()

    rest = joined(slices)
    assert (len(first), len(rest)) == (SLICE_ROWS, 1)
    assert set(first.value + rest.value) == {b"a"}


STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 5), st.none() | st.binary(max_size=2)), max_size=6),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(STEPS)
def test_committed_deltas_always_add_up_to_the_live_state(
    steps: list[tuple[list[tuple[int, bytes | None]], bool, bool]],
) -> None:
    """I11, with periodic deltas that replace the small ones before them."""
    store, table = store_with()
    periodic_parts: list[dict[str, bytes | None]] = []
    small_parts: list[dict[str, bytes | None]] = []
    for changes, periodic, is_committed in steps:
        for key, value in changes:
            table.delete(str(key)) if value is None else table.put(str(key), value)
        part = cut(store, periodic=periodic)
        if not is_committed:
            continue
        store.committed(periodic=periodic)
        if periodic:
            periodic_parts.append(part)
            small_parts = []
        else:
            small_parts.append(part)
        merged: dict[str, bytes | None] = {}
        for layer in periodic_parts + small_parts:
            merged.update(layer)
        assert {key: value for key, value in merged.items() if value is not None} == table.live


# --- bases ---------------------------------------------------------------------------------------


def test_a_base_holds_all_keys_of_all_tables_in_slices() -> None:
    store, table = store_with()
    for number in range(SLICE_ROWS + 1):
        table.put(str(number), b"a")
    Queue(store).enqueue(0)

    slices = list(store.base_slices())

    assert max(len(rows) for rows in slices) == SLICE_ROWS
    rows = joined(slices)
    assert len(rows) == store.key_count() == SLICE_ROWS + 2
    assert [row[1:4] for row in rows if row[1] == "~queue"] == [("~queue", "1", ordinal_sub(0))]


def test_a_base_may_be_newer_than_its_label_but_skips_what_is_gone() -> None:
    store, table = store_with()
    for number in range(SLICE_ROWS + 2):
        table.put(str(number), b"a")
    slices = store.base_slices()
    next(rows for rows in slices if len(rows))
    table.delete(str(SLICE_ROWS))
    table.put(str(SLICE_ROWS + 1), b"b")

    rows = joined(slices)

    assert list(zip(rows.id, rows.value, strict=True)) == [(str(SLICE_ROWS + 1), b"b")]


def test_a_base_scan_removes_what_has_expired() -> None:
    store, table = store_with(100)
    table.put("old", b"a")
    store.set_now(60)
    table.put("young", b"a")
    cut(store)
    store.committed(periodic=True)
    store.set_now(100)

    assert joined(store.base_slices()).id == ["young"]
    assert cut(store) == {"old": None}, "and no older delta brings it back"


# --- expiry --------------------------------------------------------------------------------------


def test_a_value_lives_for_its_time_from_the_write() -> None:
    store, table = store_with(100)
    table.put("1", b"a")
    store.set_now(99)
    assert table.get("1") == b"a"
    store.set_now(100)
    assert table.get("1") is None
    table.delete("1")
    assert cut(store) == {"1": None}


@pytest.mark.parametrize("called_ms", [1, 99, 100, 101, 170, 1_599])
@pytest.mark.parametrize("expire_ms", [1, 15, 16, 1_600])
def test_a_call_keeps_a_value_for_its_time_and_at_most_a_sixteenth_more(
    expire_ms: int, called_ms: int
) -> None:
    store, table = store_with(expire_ms, on_call=True)
    table.put("1", b"a")
    called_ms = min(called_ms, expire_ms - 1)
    store.set_now(called_ms)
    table.refresh("1")

    store.set_now(called_ms + expire_ms - 1)
    assert table.get("1") == b"a"
    store.set_now(called_ms + expire_ms + expire_ms // REFRESH_FRACTION)
    assert table.get("1") is None
    table.refresh("1")
    assert table.get("1") is None


def test_reads_refresh_when_a_sixteenth_has_passed_and_not_before() -> None:
    store, table = store_with(1_600, on_call=True)
    table.put("1", b"a")
    cut(store)
    store.committed(periodic=True)

    store.set_now(1_600 // REFRESH_FRACTION)
    table.refresh("1")
    table.refresh("absent")
    assert cut(store) == {}, "or every read would be a write"

    store.set_now(1_600 // REFRESH_FRACTION + 1)
    table.refresh("1")
    assert cut(store) == {"1": b"a"}


def test_expiry_is_a_column_of_its_own_in_a_part() -> None:
    store, table = store_with(100, now_ms=7)
    table.put("1", b"a")
    table.put("2", b"b")
    table.delete("2")
    store.freeze()

    rows = joined(store.delta_slices(periodic=True))

    assert list(zip(rows.id, rows.value, rows.expires_at_ms, strict=True)) == [
        ("1", b"a", 107),
        ("2", None, None),
    ]
    restored, found = store_with(100)
    restored.load(rows.slice(0, 1), 106)
    assert found.get("1") == b"a"
    restored.set_now(107)
    assert found.get("1") is None


@pytest.mark.parametrize(
    ("expire_ms", "stored_expiry", "at_load", "found_until"),
    [
        (50, None, 1_000, 1_050),  # gained: begins to age at the load
        (50, 1_500, 1_000, 1_500),  # of a snapshot that does not say for how long it was stamped
        (0, 1_500, 1_000, None),  # lost, not expired: stays
        (0, 1_000, 1_000, 0),  # lost, but expired: does not come back
    ],
)
def test_a_changed_expiration(
    expire_ms: int, stored_expiry: int | None, at_load: int, found_until: int | None
) -> None:
    store, table = store_with(expire_ms)
    store.load(Rows.of([(0, "a/b.state", "1", "", "t", b"a", stored_expiry)]), at_load)

    if found_until != 0:
        store.set_now(10**12 if found_until is None else found_until - 1)
        assert table.get("1") == b"a"
    if found_until is not None:
        store.set_now(found_until or at_load)
        assert table.get("1") is None


@pytest.mark.parametrize(
    ("stamped_ms", "expire_ms", "stored_expiry", "found_until"),
    [
        (1_000, 2_000, 1_500, 2_500),  # longer
        (1_000, 700, 1_500, 1_200),  # shorter
        (1_000, 50, 1_500, 0),  # so much shorter that it is gone
        (1_000, 50, 900, 0),  # to before the beginning of time
        (400, 1_000, 900, 1_500),  # had expired, but would not have with the new one
        (400, 400, 1_100, 1_100),  # the same
        (400, 0, 1_100, None),  # lost
        (0, 400, 1_100, 1_100),  # of another type, or another owner, then
    ],
)
def test_another_duration_counts_from_the_last_stamp(
    stamped_ms: int, expire_ms: int, stored_expiry: int, found_until: int | None
) -> None:
    store, table = store_with(expire_ms)
    lifetimes = {("a/b.state", "t"): [9_999, stamped_ms]}
    store.load(Rows.of([(1, "a/b.state", "1", "", "t", b"a", stored_expiry)]), 1_000, lifetimes)

    if found_until != 0:
        store.set_now(10**12 if found_until is None else found_until - 1)
        assert table.get("1") == b"a"
    if found_until is not None:
        store.set_now(found_until or 1_000)
        assert table.get("1") is None
    was_moved = found_until != stored_expiry
    assert list(cut(store)) == (["1"] if was_moved else []), "what was moved is stored as that"


def test_what_expired_before_its_state_lost_the_expiration_is_gone_for_good() -> None:
    store, table = store_with()
    store.load(Rows.of([(0, "a/b.state", "1", "", "t", b"a", 1_000)]), 1_000)

    assert table.get("1") is None
    assert cut(store) == {"1": None}


# --- messages that wait --------------------------------------------------------------------------


class Queue:
    """An address with waiting messages, whose texts are their ordinals."""

    id = "1"

    def __init__(self, store: KeyedStore) -> None:
        self.waiting: list[Message] = []
        self.ordinals: list[int] = []
        self._queue = store.queue
        self._queue.addresses = {("a/b", self.id): self}

    def enqueue(self, *ordinals: int) -> None:
        for ordinal in ordinals:
            self.waiting.append(message("a/b", self.id, str(ordinal)))
            self.ordinals.append(ordinal)
            self._queue.add(ordinal, self.waiting[-1])

    def remove(self, ordinal: int) -> None:
        at = self.ordinals.index(ordinal)
        del self.waiting[at], self.ordinals[at]
        self._queue.remove(self.id, [ordinal])


def subs(slices: Iterable[Rows]) -> dict[str, bool]:
    """Return which rows of the queue are there, and whether they are more than a tombstone."""
    rows = joined(slices)
    return {
        sub: value is not None
        for table, sub, value in zip(rows.table, rows.sub, rows.value, strict=True)
        if table == "~queue"
    }


def test_a_message_that_came_and_went_between_two_cuts_leaves_no_row() -> None:
    store, _ = store_with()
    queue = Queue(store)
    queue.enqueue(1, 2)
    queue.remove(1)
    store.freeze()

    assert subs(store.delta_slices(periodic=True)) == {ordinal_sub(2): True}


def test_a_message_that_a_cut_has_seen_leaves_a_tombstone() -> None:
    store, _ = store_with()
    queue = Queue(store)
    queue.enqueue(1)
    store.freeze()
    queue.remove(1)
    store.freeze()

    assert subs(store.delta_slices(periodic=True)) == {ordinal_sub(1): False}


def test_a_message_of_an_aborted_cut_that_is_gone_leaves_nothing_but_a_tombstone() -> None:
    store, _ = store_with()
    queue = Queue(store)
    queue.enqueue(1, 2)
    store.freeze()
    queue.remove(1)
    store.freeze()

    slices = list(store.delta_slices(periodic=True))
    assert subs(slices) == {ordinal_sub(1): False, ordinal_sub(2): True}
    assert len(joined(slices)) == 2


def test_a_message_that_a_base_has_seen_leaves_a_tombstone() -> None:
    store, _ = store_with()
    queue = Queue(store)
    queue.enqueue(1)
    base = subs(store.base_slices())
    queue.remove(1)
    store.freeze()

    assert base == {ordinal_sub(1): True}
    assert subs(store.delta_slices(periodic=True)) == {ordinal_sub(1): False}


def test_a_message_that_came_after_a_base_was_begun_is_not_in_it() -> None:
    store, _ = store_with()
    queue = Queue(store)
    queue.enqueue(*range(SLICE_ROWS + 1))
    base = store.base_slices()
    seen = [next(base)]
    store.freeze()
    queue.enqueue(SLICE_ROWS + 1)
    seen.extend(base)
    queue.remove(SLICE_ROWS + 1)
    store.freeze()

    gone = ordinal_sub(SLICE_ROWS + 1)
    assert gone not in subs(seen)
    assert gone not in subs(store.delta_slices(periodic=True))


# --- rows ----------------------------------------------------------------------------------------


def test_rows_of_all_kinds_are_loaded_in_any_order() -> None:
    store, plain = store_with(now_ms=100)
    waiting: Message = message("a/b", "1", "hello")
    expiring = store.add(Table("a/b.short", "t", expire_ms=50))
    rows = [
        (0, "a/b.state", "1", "", "t", b"a", None),
        (0, "a/b.state", "2", "", "t", b"b", None),
        (0, "~queue", "1", ordinal_sub(26), "t", pack_message(waiting), None),
        (0, "a/b.short", "1", "", "t", b"x", None),
        (0, "a/b.state", "3", "", "t", b"c", 101),
        (0, "a/b.state", "4", "", "t", b"late", 99),
        (0, "a/b.state", "5", "", "t", b"d", None),
        (0, "a/b.short", "2", "", "t", b"y", 120),
    ]
    assert store.load(Rows.of(rows), 100) == len(rows)
    assert plain.live == {"1": b"a", "2": b"b", "3": b"c", "5": b"d"}
    assert store.queue.take_restored() == [(26, waiting)]
    assert (expiring.get("1"), expiring.get("2")) == (b"x", b"y")


@pytest.mark.parametrize("id", ["x", "xy", "xyz"])
def test_a_state_whose_namespace_begins_like_a_reserved_table_is_an_ordinary_one(id: str) -> None:
    store = KeyedStore(GROUPS)
    table = store.add(Table("~timers/f.state", "t"))
    table.put(id, b"a")
    store.freeze()
    rows = joined(store.delta_slices(periodic=True))
    assert [row[1:4] for row in rows] == [("~timers/f.state", id, "")]

    restored = KeyedStore(GROUPS)
    found = restored.add(Table("~timers/f.state", "t"))
    restored.load(rows, 0)
    assert found.get(id) == b"a"


@pytest.mark.parametrize("expires_at_ms", [None, 200])
def test_a_tombstone_is_no_restored_row(expires_at_ms: int | None) -> None:
    store, _ = store_with()
    with pytest.raises(AssertionError, match=r"a restored row of a/b.state is a tombstone"):
        store.load(Rows.of([(0, "a/b.state", "1", "", "t", None, expires_at_ms)]), 0)


def test_rows_nobody_declares_any_more_are_kept_and_written_again() -> None:
    store, _ = store_with()
    store.load(Rows.of([(0, "a/gone.state", "1", "", "t", b"a", None)]), 0)

    assert [row[1:] for row in joined(store.base_slices())] == [("a/gone.state", "1", "", "t", b"a", None)]
    assert cut(store) == {}, "what was loaded is clean"


def test_tables_follow_the_declaration() -> None:
    spec = FunctionSpec(
        {
            "plain": StateSpec(type="t"),
            "written": StateSpec(type="t", expire="after_write", expire_ms=5),
            "called": StateSpec(type="t", expire="after_call", expire_ms=6),
        }
    )

    assert [(table.name, table.expire_ms, table.on_call) for table in tables_of("a/b", spec)] == [
        ("a/b.plain", 0, False),
        ("a/b.written", 5, False),
        ("a/b.called", 6, True),
    ]
