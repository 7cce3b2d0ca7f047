"""Expirations of embedded functions that are declared otherwise at a restart."""

from __future__ import annotations

import pytest

from statefun_checkpoints.model import Entry, FunctionSpec, StateSpec
from statefun_ray.core.expiry import lifetimes_of
from tests.unit.statefun_ray.core.staging import NOW, TEXT, Call, Script, Stage, id_of, message


def play(call: Call) -> None:
    if call.text:
        call.write(call.text)


def script(expire_ms: int, expire: str = "after_write") -> Script:
    spec = StateSpec(type=TEXT, expire=expire, expire_ms=expire_ms)  # type: ignore[arg-type]
    return Script({"a/b": play}, states={"a/b": {"state": spec}})


def restarted(
    stage: Stage, entry: Entry, expire_ms: int, expire: str = "after_write", workers: int = 1
) -> Stage:
    return Stage(script(expire_ms, expire), workers, restored=entry, store=stage.store)


def until(stage: Stage, id: str) -> int:
    """Return how long after the beginning the value of ``id`` is there."""
    store = stage.owner(id).core._store
    for age in range(0, 4_001, 100):
        store.set_now(NOW + age)
        if stage.state("a/b", id) is None:
            return age
    raise AssertionError(f"the value of {id} does not expire")


IDS = [id_of(worker, 3) for worker in range(3)]


def remembering(expire_ms: int, expire: str = "after_write") -> Stage:
    stage = Stage(script(expire_ms, expire))
    stage.admit(*(message("a/b", id, "x") for id in IDS))
    stage.run()
    return stage


@pytest.mark.parametrize(("before", "after"), [(1_000, 3_000), (3_000, 1_000), (3_200, 1_600)])
def test_the_new_duration_counts_from_the_last_write_also_after_further_restarts(
    before: int, after: int
) -> None:
    stage = remembering(before)
    assert {until(stage, id) for id in IDS} == {before}
    entry = stage.snapshot()
    for workers in (3, 1, 2):
        stage = restarted(stage, entry, after, workers=workers)
        entry = stage.snapshot()
        assert {until(stage, id) for id in IDS} == {after}
    assert {until(restarted(stage, entry, before), id) for id in IDS} == {before}


def test_a_generation_that_ends_before_its_first_snapshot_leaves_nothing_of_the_change() -> None:
    stage = remembering(1_000)
    entry = stage.snapshot()
    for _ in range(2):
        stage = restarted(stage, entry, 3_000)
    assert {until(stage, id) for id in IDS} == {3_000}


def test_what_an_aborted_snapshot_would_have_said_of_the_change_is_in_the_next() -> None:
    stage = remembering(1_000)
    stage = restarted(stage, stage.snapshot(), 3_000)
    stage.trigger()
    stage.abort()
    assert {until(restarted(stage, stage.snapshot(), 3_000), id) for id in IDS} == {3_000}


def test_what_began_to_age_at_a_restart_does_not_begin_anew_at_the_next() -> None:
    stage = remembering(0, "none")
    stage = restarted(stage, stage.snapshot(), 1_000)
    entry = stage.snapshot()
    again = Stage(script(1_000), restored=entry, store=stage.store, now_ms=NOW + 500)
    assert {until(again, id) for id in IDS} == {1_000}


def test_what_was_to_stay_for_ever_is_there_at_every_later_restart() -> None:
    stage = remembering(1_000)
    stage = Stage(script(0, "none"), restored=stage.snapshot(), store=stage.store, now_ms=NOW + 500)
    stage = Stage(script(0, "none"), restored=stage.snapshot(), store=stage.store, now_ms=NOW + 5_000)
    assert {stage.state("a/b", id) for id in IDS} == {"x"}


def test_another_mode_counts_from_there_as_well() -> None:
    stage = remembering(1_600, "after_call")
    assert until(stage, IDS[0]) == 1_700
    assert until(restarted(stage, stage.snapshot(), 2_000), IDS[0]) == 2_000


def test_lifetimes_are_those_that_each_worker_had_stamped_with() -> None:
    hour = StateSpec(type="t", expire="after_write", expire_ms=3_600)
    called = StateSpec(type="t", expire="after_call", expire_ms=1_600)
    plain, other = StateSpec(type="t"), StateSpec(type="u", expire="after_write", expire_ms=50)
    function = FunctionSpec(
        {"a": hour, "b": hour, "c": plain},
        remote=True,
        differing={"1": {"a": called, "b": plain}, "2": {"b": other}},
    )

    assert lifetimes_of({"a/b": function}, [0, 1, 1, 2]) == {
        ("a/b.a", "t"): [3_600, 1_700, 1_700, 3_600],
        ("a/b.b", "t"): [3_600, 0, 0, 0],
        ("a/b.b", "u"): [0, 0, 0, 50],
    }
