"""Functions that wait or block hold up nobody else, and no snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.store import open_store, run_store
from tests.scenarios.conftest import Play

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("function", ["patient", "blocking"])
def test_waiting_functions_are_applied_once_each_and_in_order(play: Play, function: str) -> None:
    app = play(workers=2, snapshot_interval_s=0.05)

    replies = [app.ask(f"story/{function}", "a", {}) for _ in range(5)]
    for index in range(100):
        app.send(f"story/{function}", f"id{index % 10}", {})
    app.kill_worker(0)
    app.wait_idle()

    assert replies == [1, 2, 3, 4, 5]
    assert [app.state(f"story/{function}", f"id{index}") for index in range(10)] == [{"count": 10}] * 10
    assert app.state("story/total", function) == {"count": 105}


@pytest.mark.needs("files")
@pytest.mark.parametrize("function", ["patient", "blocking"])
def test_one_waiting_address_does_not_hold_up_others(play: Play, tmp_path: Path, function: str) -> None:
    app = play(workers=1)
    door = tmp_path / "door"
    app.send(f"story/{function}", "stuck", {"until": str(door)})

    assert [app.ask(f"story/{function}", "free", {}) for _ in range(3)] == [1, 2, 3]
    assert app.ask("story/counter", "stuck", {"event": 1}) == 1
    assert app.state(f"story/{function}", "stuck") == {}

    door.touch()
    app.wait_until(lambda: app.state(f"story/{function}", "stuck") == {"count": 1}, what="through")


@pytest.mark.needs("files")
def test_twenty_snapshots_commit_around_a_token_and_a_long_invocation(play: Play, tmp_path: Path) -> None:
    app = play(workers=3, snapshot_interval_s=30.0)
    door = tmp_path / "door"
    app.send("story/patient", "slow", {"until": str(door)})
    app.send("story/token", "a", {"ring": [f"{letter}" for letter in "abcdefgh"]})
    app.wait_until(lambda: "hops" in app.state("story/token", "a"), what="circulating")

    snapshots = [app.snapshot() for _ in range(20)]
    hops = app.state("story/token", "a")["hops"]
    app.wait_until(lambda: app.state("story/token", "a")["hops"] > hops, what="still circulating")

    assert len(set(snapshots)) == 20
    log = LogReader()
    store = open_store(str(tmp_path / "storage"))
    run_store(store, log.open())
    entries = [run_store(store, log.read(slot)) for slot in range(log.newest_slot + 1)]
    in_flight = {entry.snapshot_id: entry.in_flight for entry in entries if entry.is_snapshot}
    # The token is in flight in every cut, and so is the message of the long invocation.
    assert [in_flight[snapshot] for snapshot in snapshots] == [2] * 20
    assert {entry.generation for entry in entries} == {1}

    app.crash()
    app.start()
    app.wait_until(lambda: app.state("story/token", "a").get("hops", 0) > 0, what="circulating again")
    door.touch()
    app.wait_until(lambda: app.state("story/patient", "slow") == {"count": 1}, what="through")
