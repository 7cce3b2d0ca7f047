"""The clocks that shells hand to the core as ``now_ms``."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Return wall-clock milliseconds: what timers and expiry mean, across restarts and machines."""
    return time.time_ns() // 1_000_000


class SteadyClock:
    """Wall-clock milliseconds as of its creation, counted on by the monotonic clock.

    For timeouts: a clock set forward must not look like a silent worker. Suspended or stopped
    processes do not stop it.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        """Return the time; never less than before."""
        return (self._offset_ns + time.monotonic_ns()) // 1_000_000
