"""Real processes, killed, frozen and blocked under load: each accepted event is applied once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from statefun_ray.cluster.deployment import Tuning
from tests.cluster.application import ClusterApplication, is_alive
from tests.cluster.producers import Producers, mistakes
from tests.cluster.story import SINKS

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

TARGET = "tests.cluster.story:functions"

ALERT = Tuning(
    coordinator={"heartbeat_timeout_ms": 1_500, "stuck_ms": 1_000, "backoff_ms_min": 20},
    worker={"heartbeat_s": 0.3, "lease_s": 2.5},
)
"""Faster than the defaults, so that a test need not wait as long as an operator would."""


@pytest.fixture
def app(tmp_path: Path) -> ClusterApplication:
    return ClusterApplication(TARGET, tmp_path, tuning=ALERT)


def assert_exactly_once(app: ClusterApplication, sent: dict[str, int]) -> None:
    """Compare what was accepted with live state, and after a stop with the final snapshot."""
    app.wait_idle()
    sources = {key: app.state("story/source", key) for key in sent}
    sinks = {f"sink-{index}": app.state("story/sink", f"sink-{index}") for index in range(SINKS)}
    assert mistakes(sent, sources, sinks) == []
    app.stop()
    assert mistakes(sent, app.table("story/source"), app.table("story/sink")) == []


def run_until(producers: Producers, more_events: int) -> None:
    """Wait until so many more events are accepted."""
    goal, deadline = producers.events + more_events, time.monotonic() + 60
    while producers.events < goal:
        assert time.monotonic() < deadline, f"{producers.events} of {goal} events were accepted in a minute"
        time.sleep(0.02)


@pytest.mark.parametrize("role", ["worker", "ingress", "coordinator"])
def test_a_killed_process_costs_nothing_that_was_accepted(app: ClusterApplication, role: str) -> None:
    with app, Producers(app.running.url) as producers:
        run_until(producers, 1_000)
        for _ in range(2):
            generation = app.status()["generation"]
            pid = app.kill(role)
            run_until(producers, 1_000)
            assert app.pid(role) != pid
            app.wait_running(generation if role == "ingress" else generation + 1)
        assert_exactly_once(app, producers.finish())
        assert producers.replies > 0


def test_a_frozen_worker_that_comes_back_changes_nothing(app: ClusterApplication) -> None:
    with app, Producers(app.running.url) as producers:
        run_until(producers, 1_000)
        generation = app.status()["generation"]
        pid = app.pid("worker", 1)
        os.kill(pid, signal.SIGSTOP)
        frozen_at = time.monotonic()
        app.wait_running(generation + 1)
        time.sleep(max(0.0, frozen_at + 3.0 - time.monotonic()))  # beyond its lease
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)
        run_until(producers, 1_000)
        app.wait_until(lambda: not is_alive(pid), what="the fenced worker has ended itself")
        assert_exactly_once(app, producers.finish())


def test_a_function_that_blocks_for_longer_than_leases_last_is_named_and_survived(
    app: ClusterApplication,
) -> None:
    with app, Producers(app.running.url, pause_s=0.02) as producers:
        run_until(producers, 300)
        generation = app.status()["generation"]
        app.send("story/blocker", "slow", 8)  # more than twice what a silent worker is given
        app.wait_until(
            lambda: "story/blocker/slow" in str(app.status()["processes"]),
            what="the blocking function is named",
        )
        for number in range(1, 31):
            app.send("story/source", "meanwhile", number)
        assert "story/blocker/slow" in str(app.status()["processes"]), (
            "the ingress was to accept during the call"
        )
        app.wait_until(
            lambda: app.state("story/blocker", "slow") == {"count": 1}, 60, "the blocking call is over"
        )
        assert app.status()["generation"] == generation
        assert_exactly_once(app, {**producers.finish(), "meanwhile": 30})
        assert app.table("story/blocker") == {"slow": {"count": 1}}


def test_a_function_that_always_raises_is_parked_and_delays_nobody(tmp_path: Path) -> None:
    tuning = Tuning(
        coordinator=ALERT.coordinator,
        worker={**ALERT.worker, "core": {"retry_deadline_ms": 500, "on_failure": "park"}},
    )
    with ClusterApplication(TARGET, tmp_path, tuning=tuning) as app, Producers(app.running.url) as producers:
        for number in range(3):
            app.send("story/thorn", "rose", number)
        run_until(producers, 1_000)
        app.wait_until(lambda: app.status()["parked"] == 1, what="the address is parked")
        parked = app.status()["parked_addresses"][0]
        assert (parked["function"], parked["id"]) == ("story/thorn", "rose")
        assert "thorn 0" in parked["error"]
        generation = app.status()["generation"]
        app.kill("worker", 0)
        app.wait_running(generation + 1)
        run_until(producers, 500)
        app.wait_until(lambda: app.status()["parked"] == 1, what="the address is still parked after recovery")
        sent = producers.finish()
        app.wait_until(
            lambda: app.state("story/source", "key-0-0").get("count") == sent["key-0-0"],
            what="the others go on",
        )
        assert app.state("story/thorn", "rose") == {}
        app.stop()
        assert mistakes(sent, app.table("story/source"), app.table("story/sink")) == []
