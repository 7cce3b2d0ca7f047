"""States declared while running: registered, remembered, kept, and never overwritten with another type."""

from __future__ import annotations

import pytest

from statefun_checkpoints.model import FunctionSpec, StateSpec
from statefun_ray.core.errors import StateTypeChanged, TooManyStates
from statefun_ray.core.invoker import LaneSpec
from statefun_ray.core.remote_states import STATES_MAX
from tests.unit.statefun_ray.core.staging import TEXT, Actor, Script, Stage, id_of, message

INT = "io.statefun.types/int"
COUNT = StateSpec(type=INT)


def script() -> Script:
    return Script(remote={"one/": LaneSpec("one", 10)})


def invoked(stage: Stage, id: str = "1") -> Actor:
    """Let a message for ``one/f`` be in flight."""
    stage.admit(message("one/f", id, "x"))
    stage.run()
    return stage.owner(id)


def written(value: bytes = b"7", id: str = "1", **spec: object) -> Stage:
    stage = Stage(script())
    actor = invoked(stage, id)
    actor.core.register_states("one/f", id, {"count": StateSpec(type=INT, **spec)})  # type: ignore[arg-type]
    actor.finish(({0: value}, [], [], []))
    stage.run()
    return stage


def rows_of(stage: Stage, name: str = "one/f.count") -> dict[str, bytes | None]:
    return {
        id: table.get(id)
        for actor in stage.actors
        for table in actor.core._store.tables_named(name)
        for id in table.live
    }


def test_a_function_has_no_states_until_it_declares_them() -> None:
    stage = Stage(script())
    actor = invoked(stage)
    assert list(actor.script.tables["one/f"]) == []

    assert actor.core.register_states("one/f", "1", {"count": COUNT})
    assert [table.name for table in actor.script.tables["one/f"]] == ["one/f.count"]
    assert not actor.core.register_states("one/f", "1", {"count": COUNT}), "nothing new"


def test_values_come_back_before_anybody_declares_them() -> None:
    stage = written()
    entry = stage.snapshot()
    assert entry.functions == {"one/f": FunctionSpec({"count": COUNT}, remote=True)}

    again = stage.restarted(entry=entry)
    assert rows_of(again) == {"1": b"7"}
    actor = invoked(again)
    assert list(actor.script.tables["one/f"]) == []
    actor.core.register_states("one/f", "1", {"count": COUNT})
    assert actor.script.tables["one/f"][0].get("1") == b"7"


def test_values_that_nobody_asks_for_stay_in_further_snapshots() -> None:
    stage = written()
    for _ in range(2):
        entry = stage.snapshot()
        assert entry.functions["one/f"].states == {"count": COUNT}
        stage = stage.restarted(entry=entry, worker_count=2)
    assert rows_of(stage) == {"1": b"7"}


def test_a_state_without_values_is_not_recorded_and_may_change_its_type() -> None:
    stage = Stage(script())
    actor = invoked(stage)
    actor.core.register_states("one/f", "1", {"count": COUNT})
    actor.finish()
    entry = stage.snapshot()
    assert entry.functions == {"one/f": FunctionSpec({}, remote=True)}

    again = stage.restarted(entry=entry)
    actor = invoked(again)
    assert actor.core.register_states("one/f", "1", {"count": StateSpec(type=TEXT)})


def test_values_of_another_type_are_not_touched() -> None:
    entry = (stage := written()).snapshot()
    again = stage.restarted(entry=entry)
    actor = invoked(again)

    with pytest.raises(
        StateTypeChanged, match=r"'count' of one/f has values of type io\.statefun\.types/int"
    ):
        actor.core.register_states("one/f", "1", {"other": COUNT, "count": StateSpec(type=TEXT)})
    assert list(actor.script.tables["one/f"]) == [], "all or none"

    actor.finish(error="refused")
    assert rows_of(again) == {"1": b"7"}
    assert again.snapshot().functions["one/f"].states == {"count": COUNT}


def test_also_a_worker_without_values_knows_the_type_that_others_have_stored() -> None:
    mine, other = id_of(0, 2), id_of(1, 2)
    entry = (stage := written(id=mine)).snapshot()
    again = stage.restarted(entry=entry, worker_count=2)
    actor = invoked(again, other)

    with pytest.raises(StateTypeChanged):
        actor.core.register_states("one/f", "1", {"count": StateSpec(type=TEXT)})


def test_a_registered_state_keeps_its_type_for_the_generation() -> None:
    stage = Stage(script())
    actor = invoked(stage)
    actor.core.register_states("one/f", "1", {"count": COUNT})

    with pytest.raises(StateTypeChanged):
        actor.core.register_states("one/f", "1", {"count": StateSpec(type=TEXT)})


def test_workers_that_learned_two_types_keep_every_row_with_its_own() -> None:
    mine, other = id_of(0, 2), id_of(1, 2)
    stage = Stage(script(), 2)
    for id, spec in ((mine, COUNT), (other, StateSpec(type=TEXT))):
        actor = invoked(stage, id)
        # The stage has one script for all workers, so the tables are those bound last.
        actor.core.register_states("one/f", "1", {"count": spec})
        actor.finish(({0: id.encode()}, [], [], []))
    entry = stage.snapshot()

    again = stage.restarted(entry=entry, worker_count=1)
    found = {
        table.typename: dict.fromkeys(table.live)
        for table in again.actors[0].core._store.tables_named("one/f.count")
    }
    assert found == {INT: {mine: None}, TEXT: {other: None}}
    actor = invoked(again, mine)
    for typename in (INT, TEXT):
        with pytest.raises(StateTypeChanged):
            actor.core.register_states("one/f", "1", {"count": StateSpec(type=typename)})


def test_a_deleted_value_of_the_old_type_does_not_hide_the_new_one() -> None:
    entry = (stage := written()).snapshot()
    again = stage.restarted(entry=entry)
    actor = invoked(again)
    actor.core.register_states("one/f", "1", {"count": COUNT})
    actor.finish(({0: None}, [], [], []))
    again.run()
    entry = again.snapshot()
    assert entry.functions["one/f"].states == {}

    third = again.restarted(entry=entry)
    actor = invoked(third)
    actor.core.register_states("one/f", "1", {"count": StateSpec(type=TEXT)})
    actor.finish(({0: b"new"}, [], [], []))
    third.run()
    fourth = third.restarted(entry=third.snapshot())
    assert rows_of(fourth) == {"1": b"new"}


def test_there_is_a_largest_number_of_states() -> None:
    stage = Stage(script())
    actor = invoked(stage)

    with pytest.raises(
        TooManyStates, match=f"declares {STATES_MAX + 1} states.*keep what varies within a value"
    ):
        actor.core.register_states("one/f", "1", {f"s{number}": COUNT for number in range(STATES_MAX + 1)})


# --- expiration ----------------------------------------------------------------------------------


def expiring(stage: Stage, id: str = "1") -> bytes | None:
    actor = stage.owner(id)
    actor.core._store.set_now(actor.now_ms)
    [table] = actor.core._store.tables_named("one/f.count")
    return table.get(id)


def test_expiration_goes_on_over_a_restart_before_anybody_declares_it() -> None:
    stage = written(expire="after_write", expire_ms=100)
    entry = stage.snapshot()
    again = stage.restarted(entry=entry)
    assert expiring(again) == b"7"

    again.owner("1").later(100)
    assert expiring(again) is None


def test_an_invocation_refreshes_what_expires_after_the_last_call() -> None:
    stage = written(expire="after_call", expire_ms=100)
    actor = stage.owner("1")
    actor.later(90)
    actor.admit(message("one/f", "1", "x"))
    actor.run()
    actor.later(50)

    assert expiring(stage) == b"7"
    actor.later(60)
    assert expiring(stage) is None


def test_the_first_invocation_after_a_restart_refreshes_too_although_states_come_after_it() -> None:
    spec = StateSpec(type=INT, expire="after_call", expire_ms=100)
    stage = written(expire="after_call", expire_ms=100)
    again = stage.restarted(entry=stage.snapshot())
    actor = again.owner("1")
    actor.later(90)
    actor.admit(message("one/f", "1", "x"))
    actor.run()
    actor.core.register_states("one/f", "1", {"count": spec})
    actor.finish()
    actor.later(50)

    assert expiring(again) == b"7"
    actor.later(60)
    assert expiring(again) is None


@pytest.mark.parametrize(
    ("before", "after", "at_150", "at_250"),
    [
        (StateSpec(type=INT), StateSpec(type=INT, expire="after_write", expire_ms=200), b"7", None),
        (StateSpec(type=INT, expire="after_write", expire_ms=100), StateSpec(type=INT), b"7", b"7"),
        (
            StateSpec(type=INT, expire="after_write", expire_ms=200),
            StateSpec(type=INT, expire="after_write", expire_ms=9_000),
            b"7",
            b"7",
        ),
        (
            StateSpec(type=INT, expire="after_write", expire_ms=9_000),
            StateSpec(type=INT, expire="after_write", expire_ms=200),
            b"7",
            None,
        ),
        (
            StateSpec(type=INT, expire="after_write", expire_ms=9_000),
            StateSpec(type=INT, expire="after_write", expire_ms=100),
            None,
            None,
        ),
    ],
)
def test_a_changed_expiration_is_taken_over(
    before: StateSpec, after: StateSpec, at_150: bytes | None, at_250: bytes | None
) -> None:
    stage = Stage(script())
    actor = invoked(stage)
    actor.core.register_states("one/f", "1", {"count": before})
    actor.finish(({0: b"7"}, [], [], []))
    stage.run()
    again = stage.restarted(entry=stage.snapshot())
    actor = invoked(again)
    # A layer of before is still to be written when the change comes.
    again.trigger()
    actor.core.register_states("one/f", "1", {"count": after})
    actor.finish()
    again.run()
    again.commit()
    again.snapshot()

    actor.later(150)
    assert expiring(again) == at_150
    actor.later(100)
    assert expiring(again) == at_250


def declared(actor: Actor, id: str, expire_ms: int) -> None:
    """Let a call of ``id`` be answered with how long its state lives."""
    actor.admit(message("one/f", id, "x"))
    actor.run()
    spec = StateSpec(type=INT, expire="after_write", expire_ms=expire_ms)
    actor.core.register_states("one/f", id, {"count": spec})
    actor.finish()
    actor.run()


def found(stage: Stage, *ids: str) -> list[bytes | None]:
    return [expiring(stage, id) for id in ids]


def test_workers_that_learned_two_durations_keep_every_value_for_its_own_and_then_for_the_new_one() -> None:
    ids = [id_of(worker, 4) for worker in range(4)]
    stage = Stage(script(), 2)
    for id in ids:
        actor = stage.owner(id)
        declared(actor, id, 100)
        actor.admit(message("one/f", id, "x"))
        actor.run()
        actor.finish(({0: b"7"}, [], [], []))
    stage.run()
    # Of two workers, one calls the service that was changed; nobody calls it in the generation after that.
    stage = stage.restarted(2, entry=stage.snapshot())
    declared(stage.owner(ids[0]), ids[0], 1_000)
    entry = stage.snapshot()
    assert entry.functions["one/f"].states["count"].expire_ms == 1_000
    assert entry.functions["one/f"].differing["1"]["count"].expire_ms == 100
    for worker_count in (1, 4):
        stage = stage.restarted(worker_count, entry=entry)
        entry = stage.snapshot()
        assert entry.functions["one/f"].differing == {}, "what was stamped for less was moved"

    for actor in stage.actors:
        actor.later(999)
    assert found(stage, *ids) == [b"7"] * 4
    for id in ids:
        declared(stage.owner(id), id, 1_500)
    for actor in stage.actors:
        actor.later(500)
    assert found(stage, *ids) == [b"7"] * 4
    for actor in stage.actors:
        actor.later(1)
    assert found(stage, *ids) == [None] * 4


def test_a_type_all_of_whose_values_have_expired_is_forgotten_with_the_next_snapshot() -> None:
    stage = written(expire="after_write", expire_ms=100)
    stage.owner("1").now_ms += 100
    entry = stage.snapshot()
    assert entry.functions["one/f"].states == {}

    again = stage.restarted(entry=entry, now_ms=stage.now_ms)
    actor = invoked(again)
    assert actor.core.register_states("one/f", "1", {"count": StateSpec(type=TEXT)})
    actor.finish(({0: b"new"}, [], [], []))
    again.run()
    assert rows_of(again) == {"1": b"new"}
    entry = again.snapshot()
    assert rows_of(again.restarted(entry=entry, now_ms=again.now_ms)) == {"1": b"new"}


def test_a_type_of_which_one_value_has_not_expired_is_kept() -> None:
    stage = written(expire="after_write", expire_ms=100)
    stage.owner("1").now_ms += 99

    assert stage.snapshot().functions["one/f"].states["count"].type == INT


def test_states_that_are_not_declared_any_more_can_be_read() -> None:
    entry = (stage := written()).snapshot()
    again = stage.restarted(entry=entry)

    assert again.actors[0].core._functions._remote.knows("one/f")
    assert [table.get("1") for table in again.actors[0].core._functions._remote.tables("one/f")] == [b"7"]
