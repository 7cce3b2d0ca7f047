from __future__ import annotations

import math

import pytest

from statefun_ray.cluster.standby_policy import REFILL_AFTER_S, RETRY_AFTER_S, standbys_to_start


def due(
    phase: str,
    *,
    workers: int = 2,
    standbys: int = 2,
    ready: int = 0,
    starting: int = 0,
    running_s: float = 60.0,
    since_failure_s: float = math.inf,
) -> int:
    return standbys_to_start(
        phase,
        workers=workers,
        standbys=standbys,
        ready=ready,
        starting=starting,
        running_s=running_s,
        since_failure_s=since_failure_s,
    )


@pytest.mark.parametrize("phase", ["claiming", "ingress", "backoff"])
def test_the_processes_of_the_next_generation_start_before_it_is_claimed(phase: str) -> None:
    assert due(phase, workers=4, standbys=0) == 4
    assert due(phase, workers=4, ready=1, starting=1) == 2
    assert due(phase, workers=2, standbys=3, ready=3) == 0


@pytest.mark.parametrize("phase", ["starting", "loading", "stopping", "stopped"])
def test_nothing_starts_beside_a_recovery_or_a_stop(phase: str) -> None:
    assert due(phase) == 0


def test_a_generation_catches_up_before_standbys_are_started_beside_it() -> None:
    assert due("running", running_s=REFILL_AFTER_S - 0.1) == 0
    assert due("running", running_s=REFILL_AFTER_S) == 1


def test_standbys_are_refilled_little_by_little() -> None:
    assert due("running") == 1
    assert due("running", starting=1) == 0
    assert due("running", ready=1) == 1
    assert due("running", ready=2) == 0
    assert due("running", workers=32, standbys=32) == 4
    assert due("running", workers=32, standbys=32, ready=30, starting=1) == 1


def test_none_are_kept_where_none_are_wanted() -> None:
    assert due("running", standbys=0) == 0


@pytest.mark.parametrize("phase", ["running", "backoff"])
def test_after_a_standby_that_failed_the_next_waits(phase: str) -> None:
    assert due(phase, since_failure_s=RETRY_AFTER_S - 0.1) == 0
    assert due(phase, since_failure_s=RETRY_AFTER_S) > 0
