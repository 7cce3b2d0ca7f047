"""Delayed messages fire once, cancelled ones never, and expired state is gone, across downtime."""

from __future__ import annotations

import pytest

from tests.scenarios.conftest import Play
from tests.scenarios.drivers import now_s

pytestmark = pytest.mark.slow


def test_delayed_messages_fire_exactly_once_across_kills_and_restarts(play: Play) -> None:
    app = play(workers=2, snapshot_interval_s=0.1)
    ids = [f"alarm{index}" for index in range(8)]
    for delay_ms, id in enumerate(ids):
        app.send("story/alarm", id, {"set": "soon", "ms": 1 + delay_ms * 40})
        app.send("story/alarm", id, {"set": "later", "ms": 700})
    app.snapshot()

    app.kill_worker(0)
    app.restart(workers=3)
    app.crash()
    app.start()

    expected = {"rung": {"soon": 1, "later": 1}}
    app.wait_until(lambda: all(app.state("story/alarm", id) == expected for id in ids), what="rung")
    app.snapshot()
    app.restart(workers=1)
    app.wait_idle()
    assert [app.state("story/alarm", id) for id in ids] == [expected] * 8


def test_a_message_that_became_due_while_nothing_ran_fires_after_the_start(play: Play) -> None:
    app = play()
    app.send("story/alarm", "a", {"set": "x", "ms": 50})
    app.wait_idle()

    app.stop()
    due = now_s(app) + 0.1
    app.start()
    app.wait_until(lambda: now_s(app) > due, what="due")

    app.wait_until(lambda: app.state("story/alarm", "a") == {"rung": {"x": 1}}, what="rung")


@pytest.mark.needs("quick_restart")
def test_a_cancelled_message_never_fires_even_if_cancelled_after_a_restart(play: Play) -> None:
    app = play()
    app.send("story/alarm", "a", {"set": "first", "ms": 2500})
    app.send("story/alarm", "a", {"set": "second", "ms": 2500})
    app.send("story/alarm", "a", {"set": "third", "ms": 2600})
    app.send("story/alarm", "a", {"cancel": "first"})
    app.wait_idle()

    app.restart(workers=3)
    app.send("story/alarm", "a", {"cancel": "second"})

    app.wait_until(lambda: "third" in app.state("story/alarm", "a").get("rung", {}), what="rung")
    assert app.state("story/alarm", "a") == {"rung": {"third": 1}}


@pytest.mark.needs("expiry")
def test_state_that_expired_while_nothing_ran_is_gone_after_the_start(play: Play) -> None:
    app = play()
    assert app.ask("story/forgetful", "a", {"remember": 1}) == {"short": 1, "lasting": 1}
    written = now_s(app)

    app.restart(workers=1)
    app.wait_until(lambda: now_s(app) > written + 0.35, what="expired")

    assert app.ask("story/forgetful", "a", {}) == {"short": None, "lasting": 1}
    assert app.state("story/forgetful", "a") == {"lasting": 1}
