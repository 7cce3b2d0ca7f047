"""A bad message stops its own address only, and failed commits release nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.layout import LOG_PREFIX
from statefun_checkpoints.store import LocalStore
from tests.scenarios.conftest import Play

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["error", "exit", "cancel"])
def test_a_poison_message_parks_its_address_and_nobody_else(play: Play, kind: str) -> None:
    app = play(workers=2, worker={"retry_deadline_ms": 200, "on_failure": "park"})
    app.send("story/fragile", "bad", {})
    app.send("story/fragile", "bad", {"poison": kind})
    app.send("story/fragile", "bad", {})

    assert [app.ask("story/fragile", f"good{index}", {}) for index in range(5)] == [1] * 5
    app.wait_until(lambda: app.status()["parked"] == 1, what="parked")

    # What the failing invocation wrote and sent is void; what waits behind it is kept.
    assert app.state("story/fragile", "bad") == {"count": 1}
    assert app.state("story/total", "poison") == {}
    [parked] = app.status()["parked_addresses"]
    assert (parked["function"], parked["id"], parked["messages"]) == ("story/fragile", "bad", 2)
    assert {"error": "ValueError: poison", "exit": "SystemExit", "cancel": "CancelledError"}[kind] in parked[
        "error"
    ]
    assert app.status()["generation"] == 1


def test_a_poison_message_becomes_a_dead_letter_and_its_address_goes_on(play: Play) -> None:
    app = play(workers=2, worker={"retry_deadline_ms": 200}, snapshot_interval_s=0.1)
    for body in ({}, {"poison": True}, {}):
        app.send("story/fragile", "bad", body)
    app.wait_until(lambda: app.status()["dead_letters"] == 1, what="a letter")
    app.wait_until(lambda: app.state("story/fragile", "bad") == {"count": 2}, what="the rest")
    app.snapshot()

    app.kill_worker(0)
    app.kill_worker(1)
    app.wait_until(
        lambda: app.status()["generation"] >= 2 and app.status()["dead_letters"] == 1, what="a letter still"
    )
    app.restart(workers=1)
    app.wait_until(lambda: app.status()["dead_letters"] == 1, what="a letter after a restart")
    assert app.ask("story/fragile", "bad", {}) == 3


def test_a_parked_address_stays_parked_through_a_kill_and_is_tried_again_after_a_stop(play: Play) -> None:
    app = play(workers=2, worker={"retry_deadline_ms": 100, "on_failure": "park"}, snapshot_interval_s=0.1)
    app.send("story/fragile", "bad", {"poison": True})
    app.wait_until(lambda: app.status()["parked"] == 1, what="parked")
    app.snapshot()

    app.kill_worker(0)
    app.kill_worker(1)
    app.wait_until(
        lambda: app.status()["generation"] >= 2 and app.status()["parked"] == 1, what="parked still"
    )
    app.restart(workers=1)

    app.wait_until(lambda: app.status()["parked"] == 1, what="tried and parked again")
    assert app.state("story/fragile", "bad") == {}
    assert app.ask("story/fragile", "good", {}) == 1


class GatedStore(LocalStore):
    """A store in which commits of snapshots can be made to fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refuses_commits = threading.Event()
        self.refused = 0

    def create(self, path: str, data: bytes) -> bool:
        if path.startswith(LOG_PREFIX) and b'"kind":"claim"' not in data and self.refuses_commits.is_set():
            self.refused += 1
            raise StoreUnavailable(path, "create", "the gate is closed")
        return super().create(path, data)


@pytest.mark.needs("own_store")
def test_a_reply_is_released_by_the_commit_that_contains_it_and_by_nothing_else(
    play: Play, tmp_path: Path
) -> None:
    store = GatedStore(tmp_path / "gated")
    app = play(workers=2, store=store)
    assert app.ask("story/counter", "a", {"event": 0}) == 1
    app.wait_until(lambda: len(app.egress("story/events")) == 1, what="published")
    store.refuses_commits.set()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(app.ask("story/counter", "a", {"event": 1})))
    asking.start()

    # The function has run and its snapshot is complete, but its entry can not be written.
    app.wait_until(lambda: store.refused > 0, what="refused")
    app.wait_until(lambda: app.status()["generation"] > 1, what="a generation later")
    assert answers == []
    assert len(app.egress("story/events")) == 1
    store.refuses_commits.clear()

    asking.join(30)
    assert answers == [2]
    app.wait_idle()
    app.snapshot()
    app.wait_until(lambda: len(app.egress("story/events")) == 2, what="published")
    assert app.state("story/total", "all") == {"count": 2}
