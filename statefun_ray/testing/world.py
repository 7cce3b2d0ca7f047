"""The simulated world: one clock, one queue of events, one source of chance, and processes.

Everything that happens is a callback in a heap ordered by time and then by order of scheduling,
so a seed repeats exactly. A callback belongs to a process and does not run once that is dead; while
the process is frozen it waits, in order, for the thaw.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Final

EPOCH_MS: Final = 1_700_000_000_000
"""Where the simulated wall clock starts: code that confuses durations and dates shows it."""

SLOW_FACTOR: Final = 60
"""How much longer than usual a slow frame takes."""


class Process:
    """Something that can die or freeze on its own, with a wall clock that may be wrong."""

    def __init__(self, name: str, clock_skew_ms: int = 0) -> None:
        self.name = name
        self.clock_skew_ms = clock_skew_ms
        self.is_alive = True
        self.frozen_until_ms = 0.0
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        """What would have happened while it was frozen, in order."""


class SimulatedCrash(BaseException):
    """Raised inside a process to end it on the spot, past every ``except Exception``."""


class World:
    """Time, chance and the queue of what is going to happen."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.time_ms = 0.0
        self._queue: list[tuple[float, int, Process | None, Callable[[], None]]] = []
        self._order = 0
        self.steps = 0
        self.faults_until_ms = 0.0
        """When everything works again, for liveness to be judged."""
        self.history: list[str] = []

    def wall_ms(self, process: Process) -> int:
        """The wall clock as ``process`` sees it."""
        return EPOCH_MS + int(self.time_ms) + process.clock_skew_ms

    def after(self, delay_ms: float, process: Process | None, callback: Callable[[], None]) -> None:
        """Let ``callback`` happen to ``process`` (None: to the world) in ``delay_ms``."""
        self._order += 1
        heappush(self._queue, (self.time_ms + delay_ms, self._order, process, callback))

    def freeze(self, process: Process, until_ms: float) -> None:
        """Let nothing happen to ``process`` before ``until_ms``."""
        process.frozen_until_ms = max(process.frozen_until_ms, until_ms)
        self.after(until_ms - self.time_ms, None, lambda: self._thaw(process))

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on now."""
        process.frozen_until_ms = self.time_ms
        self._thaw(process)

    def _thaw(self, process: Process) -> None:
        if process.frozen_until_ms <= self.time_ms:
            waiting, process.waiting = process.waiting, []
            for order, callback in waiting:
                heappush(self._queue, (self.time_ms, order, process, callback))

    def step(self) -> bool:
        """Let the next event happen; return False when there is none."""
        if not self._queue:
            return False
        self.time_ms, order, process, callback = heappop(self._queue)
        if process is not None:
            if not process.is_alive:
                return True
            if process.frozen_until_ms > self.time_ms:
                process.waiting.append((order, callback))
                return True
        self.steps += 1
        callback()
        return True

    def run_until(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Let things happen until ``condition`` holds; return False if it does not within ``limit_ms``."""
        deadline_ms = self.time_ms + limit_ms
        while not condition():
            if self.time_ms > deadline_ms or not self.step():
                return False
        return True

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``, taking nothing from the generator for 0."""
        return probability > 0 and self.rng.random() < probability

    def note(self, text: str) -> None:
        """Remember a line of what happened, for whoever reads a failing seed."""
        self.history.append(f"{self.time_ms:9.2f} {text}")


class Link:
    """A FIFO connection to a process, with delays; what is under way dies with the receiver.

    Args:
        slow: share of the frames that take ``SLOW_FACTOR`` times longer and hold up all behind them.
    """

    def __init__(
        self, world: World, receiver: Process, deliver: Callable[[bytes], None], slow: float = 0
    ) -> None:
        self._world = world
        self._receiver = receiver
        self._deliver = deliver
        self._slow = slow
        self._last_ms = 0.0
        self.is_open = True

    def send(self, data: bytes) -> None:
        """Put ``data`` on its way behind everything sent before."""
        world = self._world
        delay_ms = 0.05 + world.rng.random()
        if self._slow and world.time_ms < world.faults_until_ms and world.rng.random() < self._slow:
            delay_ms *= SLOW_FACTOR
        at_ms = self._last_ms = max(self._last_ms, world.time_ms + delay_ms)
        world.after(at_ms - world.time_ms, self._receiver, lambda: self._arrive(data))

    def _arrive(self, data: bytes) -> None:
        if self.is_open:
            self._deliver(data)
