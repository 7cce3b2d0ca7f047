"""Messages from one address to another arrive in the order sent, through failures and rescaling."""

from __future__ import annotations

import pytest

from tests.scenarios.conftest import Play, Times

pytestmark = pytest.mark.slow

SENDERS = [f"sender{index}" for index in range(6)]
RECORDERS = [f"recorder{index}" for index in range(4)]


@pytest.mark.parametrize("trouble", ["none", "kill", "restart"])
def test_messages_of_one_sender_arrive_in_order_and_once(play: Play, times: Times, trouble: str) -> None:
    app = play(workers=3, snapshot_interval_s=0.05)
    rounds, each = times(8), 25

    for turn in range(rounds):
        for sender in SENDERS:
            app.send("story/sender", sender, {"send": each, "to": RECORDERS})
        if trouble == "kill" and turn % 2:
            app.kill_worker(turn % 3)
        if trouble == "restart" and turn % 3 == 2:
            app.restart(workers=1 + turn % 4)
    app.wait_idle()

    for recorder in RECORDERS:
        assert app.state("story/recorder", recorder) == {"last": dict.fromkeys(SENDERS, rounds * each - 1)}
