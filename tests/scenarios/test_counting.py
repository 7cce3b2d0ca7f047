"""Every accepted event is applied exactly once, whatever dies, and replies tell the truth."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from tests.scenarios.conftest import Play, Times
from tests.scenarios.drivers import Driver

pytestmark = pytest.mark.slow


def assert_exactly_once(app: Driver, ids: list[str], events: int) -> None:
    app.wait_idle()
    states = {id: app.state("story/counter", id) for id in ids}
    seen: Counter[str] = Counter()
    for state in states.values():
        seen.update(state["seen"])
    assert sorted(seen) == sorted(str(event) for event in range(events))
    assert set(seen.values()) == {1}
    assert sum(state["count"] for state in states.values()) == events
    assert app.state("story/total", "all") == {"count": events}
    app.snapshot()
    app.wait_until(lambda: len(app.egress("story/events")) >= events, what="published")
    assert sorted(row.data for row in app.egress("story/events")) == list(range(events))


def test_events_are_applied_exactly_once_without_failures(play: Play) -> None:
    app = play(workers=3)
    ids = [f"id{index}" for index in range(10)]

    for event in range(200):
        app.send("story/counter", ids[event % 10], {"event": event})

    assert_exactly_once(app, ids, 200)


def test_events_are_applied_exactly_once_while_workers_die(play: Play, times: Times) -> None:
    app = play(workers=3, snapshot_interval_s=0.1)
    ids = [f"id{index}" for index in range(10)]
    sent = threading.Event()

    def produce() -> None:
        for event in range(600):
            app.send("story/counter", ids[event % 10], {"event": event}, producer=("story", event))
        sent.set()

    producer = threading.Thread(target=produce)
    producer.start()
    for turn in range(times(6)):
        before = (app.status()["last_snapshot"] or {"id": 0})["id"]
        app.wait_until(
            lambda before=before: (app.status()["last_snapshot"] or {"id": 0})["id"] > before,  # type: ignore[misc]
            what="a snapshot later",
        )
        app.kill_worker(turn % 3)
    producer.join()

    assert sent.is_set()
    assert_exactly_once(app, ids, 600)


def test_a_power_cut_loses_nothing_that_was_accepted(play: Play) -> None:
    app = play(workers=2)
    for event in range(100):
        app.send("story/counter", f"id{event % 7}", {"event": event})

    app.crash()
    app.start()

    assert_exactly_once(app, [f"id{index}" for index in range(7)], 100)


def test_a_repeated_producer_sequence_is_applied_once(play: Play) -> None:
    app = play()

    for _ in range(3):
        app.send("story/counter", "a", {"event": 0}, producer=("me", 1))
    app.restart()
    app.send("story/counter", "a", {"event": 0}, producer=("me", 1))

    assert_exactly_once(app, ["a"], 1)


def test_released_replies_are_never_taken_back(play: Play, times: Times) -> None:
    app = play(workers=2, snapshot_interval_s=0.1)
    replies: list[Any] = []

    for turn in range(times(6)):
        replies += [app.ask("story/counter", "a", {"event": turn * 5 + event}) for event in range(5)]
        app.kill_worker(turn % 2)

    assert replies == list(range(1, 5 * times(6) + 1))
    assert_exactly_once(app, ["a"], len(replies))
