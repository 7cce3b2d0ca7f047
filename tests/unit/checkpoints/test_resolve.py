"""Which snapshot, and for which functions."""

from __future__ import annotations

import pytest

from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.errors import FunctionsChanged, NoSnapshot
from statefun_checkpoints.model import FunctionSpec, StateSpec
from statefun_checkpoints.resolve import (
    check_functions,
    compare_functions,
    find_snapshot,
    newest_snapshots,
    vanished_functions,
)
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import run_store
from tests.unit.checkpoints.building import INT, App, snapshot

STRING = "io.statefun.types/string"


def reader(store: MemoryStore) -> LogReader:
    log = LogReader()
    run_store(store, log.open())
    return log


def log_with_claims_and_gaps_in_ids() -> MemoryStore:
    store = MemoryStore()
    app = App(store)
    for number in (3, 4, 8):
        app.snapshot(number)
    App(store)
    app = App(store)
    app.last = None
    app.snapshot(9, parent=3)
    app.snapshot(12, rhythm="reply")
    App(store)
    return store


def test_the_newest_is_the_default() -> None:
    store = log_with_claims_and_gaps_in_ids()
    assert run_store(store, find_snapshot(reader(store))).snapshot_id == 12


@pytest.mark.parametrize("wanted", [3, 4, 8, 9, 12])
def test_each_snapshot_is_found_by_id(wanted: int) -> None:
    store = log_with_claims_and_gaps_in_ids()
    assert run_store(store, find_snapshot(reader(store), wanted)).snapshot_id == wanted


@pytest.mark.parametrize(("wanted", "near"), [(1, "12"), (5, "12, 4"), (10, "12, 9"), (99, "12")])
def test_an_id_that_never_was_is_refused(wanted: int, near: str) -> None:
    store = log_with_claims_and_gaps_in_ids()
    with pytest.raises(NoSnapshot, match=f"no snapshot {wanted}; the nearest: {near}$"):
        run_store(store, find_snapshot(reader(store), wanted))


def test_without_any_snapshot_there_is_nothing_to_find() -> None:
    store = MemoryStore()
    App(store)
    with pytest.raises(NoSnapshot, match="no snapshot has been committed yet"):
        run_store(store, find_snapshot(reader(store)))


def test_newest_snapshots_skip_superseded_ones() -> None:
    store = MemoryStore()
    app = App(store)
    for number, rhythm in enumerate(["periodic", "reply", "final", "reply", "periodic", "reply", "reply"], 1):
        app.snapshot(number, rhythm=rhythm)
    assert [e.snapshot_id for e in run_store(store, newest_snapshots(reader(store), 2))] == [7, 5, 3]
    assert [e.snapshot_id for e in run_store(store, newest_snapshots(reader(store), 9))] == [7, 5, 3, 1]


# --- functions ---------------------------------------------------------------------------

SAVED = {
    "shop/cart": FunctionSpec({"total": StateSpec(type=INT), "items": StateSpec(type=STRING)}),
    "shop/user": FunctionSpec({}),
}


def test_the_same_functions_are_fine() -> None:
    check_functions(snapshot(1, functions=SAVED), dict(SAVED))


def test_added_functions_and_states_and_changed_expiry_are_fine() -> None:
    starting = {
        **SAVED,
        "shop/new": FunctionSpec({"x": StateSpec(type=INT)}),
        "shop/cart": FunctionSpec(
            {
                **SAVED["shop/cart"].states,
                "total": StateSpec(type=INT, expire="after_write", expire_ms=5, json=True),
                "more": StateSpec(type=INT),
            }
        ),
    }
    assert compare_functions(SAVED, starting) == ()


def test_every_loss_of_state_is_in_the_diff() -> None:
    starting = {"shop/cart": FunctionSpec({"items": StateSpec(type=INT)})}
    with pytest.raises(FunctionsChanged) as caught:
        check_functions(snapshot(6, functions=SAVED), starting)
    assert caught.value.differences == (
        f"state 'items' of shop/cart was {STRING} and is now {INT}",
        f"state 'total' of shop/cart is gone (it was {INT})",
        "function shop/user is gone (its states: none)",
    )
    assert "snapshot 6" in str(caught.value)


def test_a_function_that_is_gone_is_shown_with_its_states() -> None:
    assert compare_functions(SAVED, {"shop/user": FunctionSpec({})}) == (
        f"function shop/cart is gone (its states: items: {STRING}, total: {INT})",
    )


REMOTE = {"ns/f": FunctionSpec({"n": StateSpec(type="io.statefun.types/int")}, remote=True)}


def test_functions_that_live_elsewhere_may_go_and_change() -> None:
    assert compare_functions(REMOTE, {}) == ()
    assert vanished_functions(REMOTE, {}, lambda _: False) == ["ns/f"]
    assert vanished_functions(REMOTE, {}, lambda function_type: function_type == "ns/f") == []


def test_an_embedded_function_may_move_to_a_service() -> None:
    saved = {"ns/f": FunctionSpec(REMOTE["ns/f"].states)}
    assert compare_functions(saved, {}, lambda function_type: function_type == "ns/f") == ()
    assert compare_functions(saved, {}) != ()


def test_a_function_that_comes_home_may_drop_states_but_not_retype_them() -> None:
    assert compare_functions(REMOTE, {"ns/f": FunctionSpec({})}) == ()
    retyped = {"ns/f": FunctionSpec({"n": StateSpec(type="io.statefun.types/string")})}
    assert compare_functions(REMOTE, retyped) == (
        "state 'n' of ns/f was io.statefun.types/int and is now io.statefun.types/string",
    )
