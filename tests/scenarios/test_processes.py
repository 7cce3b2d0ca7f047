"""What only processes can do: die by kill -9, freeze beyond their lease and come back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.drivers import assert_verified
from tests.scenarios.process_driver import ProcessApplication
from tests.scenarios.test_counting import assert_exactly_once

pytestmark = pytest.mark.slow


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ProcessApplication]:
    running = ProcessApplication(
        tmp_path,
        workers=2,
        snapshot_interval_s=0.1,
        coordinator={"heartbeat_timeout_ms": 1000, "stuck_ms": 500, "call_timeout_ms": 60_000},
    )
    try:
        yield running.start()
    finally:
        running.close()
    assert_verified(running.store)


def test_kill_9_of_workers_under_load_loses_and_repeats_nothing(app: ProcessApplication) -> None:
    ids = [f"id{index}" for index in range(10)]
    for event in range(300):
        app.send("story/counter", ids[event % 10], {"event": event}, producer=("me", event))
        if event % 100 == 50:
            app.kill_worker(event // 100 % 2)
        if event % 100 == 99:  # the next one is killed at its work, and not while it starts

            def is_back(kills: int = event // 100 + 1) -> bool:
                status = app.status()
                return bool(status["generation"] > kills and status["phase"] == "running")

            app.wait_until(is_back, what="a later generation")

    assert_exactly_once(app, ids, 300)
    assert app.status()["generation"] >= 4


def test_a_worker_frozen_beyond_its_lease_does_no_harm_when_it_comes_back(app: ProcessApplication) -> None:
    for event in range(50):
        app.send("story/counter", f"id{event % 10}", {"event": event})
    zombie = app.freeze_worker(0)
    for event in range(50, 100):
        app.send("story/counter", f"id{event % 10}", {"event": event})

    app.wait_until(lambda: app.status()["generation"] == 2, what="replaced")
    assert zombie.poll() is None
    app.wait_until(lambda: app.status()["phase"] == "running", what="running")
    zombie.send_signal(signal.SIGCONT)

    app.wait_until(lambda: zombie.poll() is not None, what="the zombie ends itself")
    assert zombie.returncode != 0
    assert_exactly_once(app, [f"id{index}" for index in range(10)], 100)
    assert app.status()["generation"] == 2


def test_an_orderly_stop_ends_every_process_and_the_next_start_goes_on(app: ProcessApplication) -> None:
    assert app.ask("story/counter", "a", {"event": 0}) == 1

    app.restart(workers=3)

    assert app.ask("story/counter", "a", {"event": 1}) == 2
    assert_exactly_once(app, ["a"], 2)


def test_a_function_that_holds_the_loop_is_named_and_tolerated(
    app: ProcessApplication, caplog: pytest.LogCaptureFixture
) -> None:
    app.send("story/hog", "slow", {"ms": 2500})
    app.wait_until(
        lambda: any(worker["busy_with"] == "story/hog/slow" for worker in app.status()["workers"]),
        what="busy",
    )

    app.wait_until(lambda: "story/hog/slow has held the loop" in caplog.text, what="snapshot aborted")
    app.wait_until(lambda: app.state("story/hog", "slow") == {"count": 1}, what="through")

    app.snapshot()
    assert app.status()["generation"] == 1
