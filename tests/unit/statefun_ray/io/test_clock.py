from __future__ import annotations

import time

import pytest

from statefun_ray.io.clock import SteadyClock, wall_ms


def test_both_clocks_show_the_time_of_day_in_milliseconds() -> None:
    clock = SteadyClock()

    assert abs(clock.now_ms() - wall_ms()) < 5_000
    assert abs(wall_ms() / 1000 - time.time()) < 5


def test_the_steady_clock_does_not_follow_a_wall_clock_set_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    before = clock.now_ms()

    monkeypatch.setattr(time, "time_ns", lambda: time.monotonic_ns() + 10**18)

    assert before <= clock.now_ms() < before + 60_000
