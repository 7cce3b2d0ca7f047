"""What a worker says of itself to Prometheus."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_ray.core import metrics
from statefun_ray.core.invoker import LaneSpec
from statefun_ray.core.lanes import Lane
from tests.unit.statefun_ray.core.staging import Actor, Call, Script, message


def fail(call: Call) -> None:
    raise ValueError("as told")


def actor(**config: Any) -> Actor:
    remote = {"far/": LaneSpec("far/*", 2, 3)}
    return Actor(Script({"a/poor": fail}, awaiting=["a/slow"], remote=remote), **config).start()


def of(worker: Actor, name: str) -> dict[str, float]:
    """Return one figure of each function that is not 0."""
    return {
        labels.removeprefix('function="').removesuffix('"'): value
        for figure, labels, value in worker.core.figures()
        if figure == f"statefun_function_{name}" and value
    }


def test_what_waits_and_what_is_run_is_known_for_each_function() -> None:
    worker = actor()
    worker.admit(*(message("far/one", "1", str(number)) for number in range(5)))
    worker.admit(*(message("far/two", id, "x") for id in ("1", "2")), message("a/slow", "1", "x"))
    worker.turn()
    worker.turn()

    # The service of far/* takes two invocations: all five messages of far/one/1, and far/two/1.
    assert of(worker, "inflight_async_ops") == {"far/one": 1, "far/two": 1, "a/slow": 1}
    assert of(worker, "num_backlog") == {"far/two": 1}
    assert of(worker, "num_blocked_address") == {}

    worker.admit(*(message("far/one", "1", str(number)) for number in range(3)))
    worker.turn()
    assert of(worker, "num_backlog") == {"far/one": 3, "far/two": 1}
    assert of(worker, "num_blocked_address") == {"far/one": 1}

    while worker.invokes:
        worker.finish()
        worker.turn()
    assert of(worker, "inflight_async_ops") == {}
    assert of(worker, "num_backlog") == {}
    assert of(worker, "num_blocked_address") == {}


def test_parked_messages_wait_for_a_person_and_are_no_backlog() -> None:
    worker = actor(retry_deadline_ms=0)
    worker.admit(message("a/poor", "1", "x"))
    worker.run()

    assert of(worker, "num_backlog") == {}
    assert of(worker, "failures_total") == {"a/poor": 1}


def test_no_more_addresses_are_looked_at_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "ADDRESSES_LOOKED_AT_MAX", 10)
    worker = actor()
    worker.admit(*(message("far/one", f"id{number}", "x") for number in range(50)))
    worker.run()

    assert of(worker, "num_backlog") == {"far/one": 8}  # two of the ten are in flight
    assert worker.core.backlog == 50


def test_functions_beyond_that_have_figures_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # The names behind far/* come from outside, and nobody knows how many they are.
    monkeypatch.setattr(metrics, "FUNCTIONS_APART_MAX", 4)
    worker = actor()
    worker.admit(*(message(f"far/{name}", "1", "x") for name in range(6) for _ in range(3)))
    worker.turn()
    own = {"far/0": 3, "far/1": 3}
    assert of(worker, "num_backlog") == {"others": 12}  # the lane takes two
    assert of(worker, "inflight_async_ops") == {"far/0": 1, "far/1": 1}
    while worker.invokes:
        worker.finish()
        worker.turn()
    assert of(worker, "in_total") == {**own, "others": 12}


def test_lanes_beyond_that_have_figures_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FUNCTIONS_APART_MAX", 1)
    lanes = [Lane(name, limit, batch_max=1) for name, limit in (("a", 2), ("b", 3), ("c", 4))]
    lanes[1].in_flight = lanes[2].in_flight = 2
    lanes[2].is_down = True
    found = {(name, labels): value for name, labels, value in metrics.lane_figures(lanes)}
    assert found["statefun_lane_limit", 'lane="a"'] == 2
    assert found["statefun_lane_limit", 'lane="others"'] == 7
    assert found["statefun_lane_inflight_async_ops", 'lane="others"'] == 4
    assert found["statefun_lane_is_down", 'lane="others"'] == 1
    assert len(found) == 8


def test_dead_letters_are_counted_also_when_they_are_gone_again() -> None:
    worker = actor(on_failure="dead-letter", retry_deadline_ms=0)
    worker.admit(message("a/poor", "1", "x"), message("a/poor", "2", "x"))
    worker.run()

    assert ("statefun_worker_dead_letters", "", 2) in worker.core.figures()
    assert ("statefun_worker_dead_letters_total", "", 2) in worker.core.figures()
