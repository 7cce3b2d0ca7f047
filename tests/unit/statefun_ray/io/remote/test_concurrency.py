"""The limit that a service makes use of: found with services whose behaviour is known."""

from __future__ import annotations

import random
from heapq import heappop, heappush, heapreplace

import pytest

from statefun_ray.io.remote.concurrency import HOLD_MS_MAX, LIMIT_MIN, UNUSED_MS, Concurrency

MAX = 1_024


class Bench:
    """A service with ``processes``, each busy for ``work_ms`` per request, which then waits ``wait_ms`` for others.

    Whoever asks has always more to ask, unless it is told otherwise; every ``pause_ms`` nobody does
    anything for a tenth of that.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        work_ms: float = 0.0,
        wait_ms: float = 0.0,
        noise: float = 0.0,
        pause_ms: float = 1_000.0,
        limit_max: int = MAX,
        seed: int = 1,
    ) -> None:
        self.concurrency = Concurrency(limit_max)
        self.processes, self.work_ms, self.wait_ms = processes, work_ms, wait_ms
        self.now_ms = 0.0
        self.answers = 0
        self._noise, self._pause_ms = noise, pause_ms
        self._free = [0.0] * processes
        self._ends: list[float] = []
        self._random = random.Random(seed)
        self.limits: list[tuple[float, int]] = []
        """When the limit changed, and to what."""

    def run(self, ms: float, *, demand: int = MAX * 2) -> None:
        """Go on for so long, with up to ``demand`` requests in flight if the limit allows for it."""
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms:
            limit = self.concurrency.limit
            while len(self._ends) < min(limit, demand):
                self._begin()
            in_flight = len(self._ends)
            is_used = in_flight >= limit and demand > limit
            self.now_ms = heappop(self._ends)
            count = 1
            while self._ends and self._ends[0] <= self.now_ms + 0.5:  # what comes within a turn
                heappop(self._ends)
                count += 1
            for _ in range(count):
                self.concurrency.answered(1)
            self.answers += count
            self.concurrency.look(self.now_ms, in_flight, is_used=is_used)
            if not self.limits or self.limits[-1][1] != self.concurrency.limit:
                self.limits.append((self.now_ms, self.concurrency.limit))

    def idle(self, ms: float) -> None:
        """Let what is in flight end, and time pass."""
        self.concurrency.look(max(self._ends), len(self._ends), is_used=False)
        self._ends.clear()
        self.now_ms += ms
        self._free = [self.now_ms] * self.processes

    def _begin(self) -> None:
        start_ms = self.now_ms
        if self._pause_ms and start_ms % self._pause_ms < self._pause_ms / 10:
            start_ms += self._pause_ms / 10 - start_ms % self._pause_ms
        factor = 1 + self._noise * (2 * self._random.random() - 1)
        if self.work_ms:
            start_ms = max(start_ms, self._free[0]) + self.work_ms * factor
            heapreplace(self._free, start_ms)
        heappush(self._ends, start_ms + self.wait_ms * factor)

    def mean_limit(self, since_ms: float) -> float:
        """Return the limit since then, as an average over time."""
        total = last_ms = 0.0
        last = 0
        for at_ms, limit in [*self.limits, (self.now_ms, 0)]:
            if at_ms > since_ms:
                total += last * (at_ms - max(since_ms, last_ms))
            last_ms, last = at_ms, limit
        return total / (self.now_ms - since_ms)


@pytest.mark.parametrize("seed", range(3))
def test_a_service_with_one_process_is_not_given_more_than_keeps_it_busy(seed: int) -> None:
    bench = Bench(work_ms=0.1, noise=0.5, seed=seed)
    bench.run(30_000)
    assert bench.mean_limit(10_000) < 1.2 * LIMIT_MIN
    assert max(limit for _, limit in bench.limits) <= 4 * LIMIT_MIN


@pytest.mark.parametrize(("wait_ms", "within_ms"), [(20, 1_500), (100, 4_000), (2_000, 40_000)])
def test_a_service_that_waits_for_others_is_soon_given_all(wait_ms: float, within_ms: float) -> None:
    bench = Bench(wait_ms=wait_ms, noise=0.2)
    bench.run(within_ms)
    assert bench.concurrency.limit >= MAX / 2
    bench.run(10_000 + 20 * wait_ms)
    assert bench.mean_limit(within_ms) > 0.9 * MAX


@pytest.mark.parametrize("seed", range(3))
def test_a_service_with_many_processes_is_given_as_much_as_they_take(seed: int) -> None:
    bench = Bench(processes=300, work_ms=50, noise=0.3, seed=seed)
    bench.run(10_000)
    before = bench.answers
    bench.run(20_000)
    assert (bench.answers - before) / 20_000 > 0.75 * 300 / 50 * 0.9  # of the time, a tenth are pauses
    assert bench.mean_limit(10_000) < MAX


def test_the_limit_follows_a_service_that_changes() -> None:
    bench = Bench(wait_ms=50)
    bench.run(10_000)
    assert bench.concurrency.limit == MAX
    bench.work_ms, bench.wait_ms = 0.2, 0
    bench.run(4 * HOLD_MS_MAX)
    assert bench.concurrency.limit <= 2 * LIMIT_MIN
    bench.work_ms, bench.wait_ms = 0, 50
    bench.run(2 * HOLD_MS_MAX)
    assert bench.concurrency.limit >= MAX / 2


def test_a_limit_of_which_half_is_enough_falls_slowly_and_not_below_the_least() -> None:
    bench = Bench(wait_ms=50)
    bench.run(10_000)
    bench.run(UNUSED_MS, demand=10)
    assert bench.concurrency.limit >= MAX / 2
    bench.run(20 * UNUSED_MS, demand=10)
    assert bench.concurrency.limit == LIMIT_MIN


def test_a_limit_of_which_more_than_half_is_needed_stays() -> None:
    bench = Bench(wait_ms=50)
    bench.run(10_000)
    bench.run(30_000, demand=500)
    assert [limit for at_ms, limit in bench.limits if at_ms > 11_000] == [512]


def test_an_hour_in_which_nothing_happens_delays_nothing_after_it() -> None:
    bench = Bench(work_ms=0.1)
    bench.run(300)  # a trial is under way
    bench.idle(3_600_000)
    bench.work_ms, bench.wait_ms = 0, 50
    bench.run(10_000)
    assert bench.concurrency.limit >= MAX / 2


def test_trials_take_little_of_the_time() -> None:
    bench = Bench(wait_ms=50)
    bench.run(10_000)
    before = bench.answers
    bench.run(30_000)
    assert (bench.answers - before) / 30_000 > 0.95 * MAX / 50 * 0.9


@pytest.mark.parametrize("limit_max", [1, 7, 64, 100])
def test_a_small_pool_is_the_most_there_is(limit_max: int) -> None:
    bench = Bench(wait_ms=20, limit_max=limit_max)
    bench.run(20_000)
    assert {limit for _, limit in bench.limits} <= {min(LIMIT_MIN, limit_max), limit_max}
    assert bench.concurrency.limit == limit_max


def test_what_began_under_another_limit_is_not_counted_for_this_one() -> None:
    """As soon as the limit has doubled, twice as many are in flight, but those that come first are the old ones."""
    concurrency = Concurrency(MAX)
    concurrency.look(0, 0, is_used=True)
    for _ in range(LIMIT_MIN):
        concurrency.answered(1)
    concurrency.look(1_000, 0, is_used=True)
    assert concurrency.limit == 2 * LIMIT_MIN
    for _ in range(2 * LIMIT_MIN - 1):
        concurrency.answered(1)
        concurrency.look(1_001, 0, is_used=True)
    concurrency.answered(1)
    # From here on it is measured: twice as much as before, within a second.
    concurrency.look(1_002, 0, is_used=True)
    for _ in range(2 * LIMIT_MIN):
        assert concurrency.limit == 2 * LIMIT_MIN
        concurrency.answered(1)
        concurrency.look(2_002, 0, is_used=True)
    assert concurrency.limit == 2 * LIMIT_MIN, "kept"
    for _ in range(2 * LIMIT_MIN):
        concurrency.answered(1)
        concurrency.look(3_002, 0, is_used=True)
    assert concurrency.limit == 4 * LIMIT_MIN, "as it was clear, more is tried at once"
