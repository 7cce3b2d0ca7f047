"""How many requests in flight a service makes use of, found by trying. No I/O.

Requests beyond that only wait: in the service, where messages that come meanwhile cannot join them
any more, instead of here, where they can. A service with one process is busy with a few dozen; one
that itself waits for others may do well with a thousand.

What a limit is worth is measured in messages per second, while more requests could begin than it
allows for, and compared with what another limit is worth right before and after:

=======  ==================================================================================
phase    what comes next
=======  ==================================================================================
HOLDING  the limit stays for a while, longer after each trial that changed nothing
HIGHER   twice the limit is tried in turns with it, and kept if that brings ``GAIN_MIN``
LOWER    half the limit is tried in turns with it, and kept if that loses ``LOSS_MAX`` at most
=======  ==================================================================================

What was kept is tried again in the same direction at once. A limit of which not even half is reached
is halved now and then: what is needed at most will do, until it is found wanting.
"""

from __future__ import annotations

from enum import IntEnum
from statistics import median
from typing import Final

LIMIT_MIN: Final = 64
"""Enough for one process to be busy while we do something else for a moment."""

GAIN_MIN: Final = 1.2
LOSS_MAX: Final = 0.1
"""What is between them is worth neither more requests nor fewer messages."""

CLEAR: Final = 1.5
"""A difference that fewer windows show, if those before and after agree."""

TURNS: Final = 4
"""Windows of each limit otherwise, of which the medians count: snapshots and whatever else goes on make a
single one unreliable."""

WINDOW_MS: Final = 50.0
"""How long a limit is measured at least; or until as many requests are answered as it allows for."""

WINDOW_LONG_MS: Final = 500.0
"""Windows that take so long have nothing to fear from a snapshot: one of each is enough if they differ clearly."""

HOLD_MS_MIN: Final = 500.0
HOLD_MS_MAX: Final = 20_000.0
HOLD_TRIALS: Final = 20
"""Between trials: at least this many times the windows of the last one, so little time is spent with a worse limit."""

UNUSED_MS: Final = 2_000.0
"""After which a limit is halved if half of it was always enough."""


class Phase(IntEnum):
    """What is being done; see the module's table."""

    HOLDING = 0
    HIGHER = 1
    LOWER = 2


class Concurrency:
    """Finds the limit for one service. Times are milliseconds of any clock that only goes forward."""

    __slots__ = (
        "_answers",
        "_direction",
        "_hold_ms",
        "_hold_until_ms",
        "_kept",
        "_kept_worth",
        "_limit_max",
        "_limit_min",
        "_messages",
        "_most",
        "_phase",
        "_settle",
        "_since_ms",
        "_trial_ms",
        "_tried_worth",
        "_unused_since_ms",
        "limit",
    )

    def __init__(self, limit_max: int) -> None:
        """``limit_max`` is what the limit never exceeds."""
        self._limit_max = limit_max
        self._limit_min = min(LIMIT_MIN, limit_max)
        self.limit = self._limit_min
        self._kept = self.limit
        """The limit that another one is compared with."""
        self._kept_worth: list[float] = []
        self._tried_worth: list[float] = []
        """In messages per millisecond, of each window of a trial."""
        self._phase = Phase.HOLDING
        self._direction = Phase.HIGHER
        """What is tried next."""
        self._trial_ms = 0.0
        """Sum of the windows of a trial."""
        self._hold_ms = HOLD_MS_MIN
        self._hold_until_ms = 0.0
        self._answers = self._messages = 0
        self._settle = 0
        """Answers to come before the window begins: of requests that began under another limit."""
        self._since_ms = -1.0
        """When the window began; negative if it has not."""
        self._unused_since_ms = -1.0
        self._most = 0
        """Requests in flight at most since then."""

    def answered(self, messages: int) -> None:
        """A request has its result, for so many messages."""
        self._answers += 1
        self._messages += messages

    def look(self, now_ms: float, in_flight: int, *, is_used: bool) -> None:
        """Learn from the answers since the last time, and perhaps change the limit.

        Args:
            now_ms: now.
            in_flight: requests that were in flight at most since the last time.
            is_used: whether more requests would have begun, all the time since the last call, if only
                the limit had allowed for it.
        """
        if not is_used:
            self._since_ms = -1.0
            self._unused(now_ms, in_flight)
        elif self._settle:
            if self._answers >= self._settle:
                self._settle = 0
                self._measure(now_ms)
        elif self._since_ms < 0:
            self._measure(now_ms)
        elif self._answers >= self.limit and now_ms - self._since_ms >= WINDOW_MS:
            self._decide(self._messages / (now_ms - self._since_ms), now_ms)
            self._measure(now_ms)

    def _measure(self, now_ms: float) -> None:
        self._since_ms, self._unused_since_ms = now_ms, -1.0
        self._answers = self._messages = 0

    def _unused(self, now_ms: float, in_flight: int) -> None:
        self._most = max(self._most, in_flight)
        if self._unused_since_ms < 0:
            self._unused_since_ms, self._most = now_ms, in_flight
        elif now_ms - self._unused_since_ms >= UNUSED_MS:
            half = max(self._limit_min, self.limit // 2)
            if self._most <= half < self.limit:
                self._trial_ms = 0.0
                self._hold(half, now_ms)
            self._unused_since_ms, self._most = now_ms, in_flight

    def _decide(self, worth: float, now_ms: float) -> None:
        if self._phase is Phase.HOLDING:
            if now_ms >= self._hold_until_ms:
                self._try(worth, now_ms)
            return
        self._trial_ms += now_ms - self._since_ms
        is_tried = self.limit != self._kept
        (self._tried_worth if is_tried else self._kept_worth).append(worth)
        gain = self._gain(now_ms - self._since_ms)
        if gain is None:
            self._move(self._kept if is_tried else self._tried)
        elif gain >= (GAIN_MIN if self._phase is Phase.HIGHER else 1 - LOSS_MAX):
            self._hold_ms = 0.0
            self._hold(self._tried, now_ms)
        else:
            self._reject(now_ms)

    def _gain(self, window_ms: float) -> float | None:
        """Return what the limit that is being tried is worth of the one before; None if that is not clear."""
        kept, tried = self._kept_worth, self._tried_worth
        gain = median(tried) / median(kept)
        if len(tried) == TURNS:
            return gain
        if len(tried) == 1:
            gains = [tried[0] / worth for worth in kept]
            is_clear = min(gains) >= CLEAR or max(gains) <= 1 / CLEAR
            return gain if is_clear and (len(kept) == 2 or window_ms >= WINDOW_LONG_MS) else None
        return gain if len(kept) > 2 and not 1 / CLEAR < gain < CLEAR else None

    def _try(self, worth: float, now_ms: float) -> None:
        self._trial_ms = now_ms - self._since_ms
        self._kept_worth, self._tried_worth = [worth], []
        self._phase = self._direction
        if self._tried == self._kept:
            self._reject(now_ms)  # there is no other in that direction
        else:
            self._move(self._tried)

    @property
    def _tried(self) -> int:
        if self._phase is Phase.HIGHER:
            return min(self._limit_max, self._kept * 2)
        return max(self._limit_min, self._kept // 2)

    def _reject(self, now_ms: float) -> None:
        self._direction = Phase.LOWER if self._phase is Phase.HIGHER else Phase.HIGHER
        self._hold(self._kept, now_ms)

    def _hold(self, limit: int, now_ms: float) -> None:
        self._phase, self._kept = Phase.HOLDING, limit
        self._hold_until_ms = now_ms
        if self._hold_ms:
            self._hold_until_ms += max(self._hold_ms, HOLD_TRIALS * self._trial_ms)
        self._hold_ms = min(HOLD_MS_MAX, max(HOLD_MS_MIN, self._hold_ms * 2))
        self._move(limit)

    def _move(self, limit: int) -> None:
        self._settle = max(limit, self.limit) if limit != self.limit else 0
        self.limit = limit
