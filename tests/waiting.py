"""Waiting for what tells nobody when it happens: a condition and a deadline, never a sleep and hope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.005


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return when ``condition`` holds, letting the event loop go on meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        await asyncio.sleep(POLL_S)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0, what: str = "it") -> None:
    """Return when ``condition`` holds; for tests without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen in {timeout_s:g} s"
        time.sleep(POLL_S)
