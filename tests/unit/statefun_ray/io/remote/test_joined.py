"""Requests that travel as one: how long they are waited for. What follows from it is in ``tests/remote``."""

from __future__ import annotations

import pytest

from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.joined import JOINED_FACTOR, JOINED_S_MIN, Joiner
from statefun_ray.module.model import AsyncTransport


def test_many_requests_in_one_are_waited_for_as_long_as_such_usually_take_ten_times_over() -> None:
    joiner = Joiner(HttpClient(AsyncTransport()), call_s=30)
    assert joiner.wait_s("url", 100) == JOINED_S_MIN, "nothing is known"
    for _ in range(20):
        joiner.took("url", 0.01)
    assert joiner.wait_s("url", 1) == JOINED_S_MIN
    assert joiner.wait_s("url", 100) == pytest.approx(JOINED_FACTOR * 100 * 0.01)
    assert joiner.wait_s("url", 1_000) == 30, "never longer than a request may take"
