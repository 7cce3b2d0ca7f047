"""The same snapshot gives the same application at any number of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.conftest import Play

pytestmark = pytest.mark.slow


@pytest.mark.needs("files")
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_state_timers_and_messages_in_flight_survive_a_change_of_workers(
    play: Play, tmp_path: Path, workers: int
) -> None:
    app = play(workers=2)
    door = tmp_path / "door"
    ids = [f"id{index}" for index in range(20)]
    for event, id in enumerate(ids):
        app.send("story/counter", id, {"event": event})
        app.send("story/alarm", id, {"set": "x", "ms": 500})
    app.wait_idle()
    for id in ids:
        # Three messages each: one in flight, two in the queue behind it.
        for _ in range(3):
            app.send("story/patient", id, {"until": str(door)})
    app.wait_until(lambda: app.status()["backlog"] >= 60, what="in flight")

    app.restart(workers=workers)
    assert app.state("story/total", "patient") == {}
    door.touch()

    app.wait_until(lambda: app.state("story/total", "patient") == {"count": 60}, what="60 applied")
    assert [app.state("story/patient", id) for id in ids] == [{"count": 3}] * 20
    app.wait_until(
        lambda: all(app.state("story/alarm", id) == {"rung": {"x": 1}} for id in ids), what="20 alarms"
    )
    assert [app.state("story/counter", id) for id in ids] == [
        {"count": 1, "seen": {str(event): 1}} for event in range(20)
    ]
    assert app.state("story/total", "all") == {"count": 20}


@pytest.mark.parametrize("numbers", [[1, 3, 2, 5, 1, 4], [5, 1]], ids=["often", "more and fewer"])
def test_a_restart_between_events_changes_nothing_at_any_number_of_workers(
    play: Play, numbers: list[int]
) -> None:
    app = play(workers=2)

    for event, workers in enumerate(numbers):
        assert app.ask("story/counter", "a", {"event": event}) == event + 1
        app.restart(workers=workers)

    app.wait_idle()
    assert app.state("story/counter", "a")["count"] == len(numbers)
    assert app.state("story/total", "all") == {"count": len(numbers)}
