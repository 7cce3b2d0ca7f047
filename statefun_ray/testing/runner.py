"""Many seeds of the simulator, on several processes, with a report for people."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final

HISTORY_LINES: Final = 40
"""Of what happened in a failing seed, shown with it."""

FAILURES_MAX: Final = 10
"""After so many failing seeds a run ends: more would not say more."""

CHUNK_SEEDS: Final = 20
"""Seeds given to a process at once."""


@dataclass(frozen=True)
class Failure:
    """A seed that went wrong."""

    seed: int
    problems: list[str]
    history: list[str]
    """The end of what happened."""

    def lines(self) -> list[str]:
        """Return it for people, with the command that repeats it."""
        return [
            *(f"  {line}" for line in self.history),
            f"seed {self.seed}:",
            *(f"  {problem}" for problem in self.problems),
            f"again: statefun-ray simulate --start {self.seed} --seeds 1",
        ]


@dataclass
class SimulationReport:
    """What came of a number of seeds."""

    seeds: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether no seed went wrong."""
        return not self.failures

    def lines(self) -> list[str]:
        """Return the report for people."""
        rate = self.seeds / self.seconds if self.seconds else 0.0
        verdict = "nothing wrong" if self.is_clean else f"{len(self.failures)} went wrong"
        details = [line for failure in self.failures for line in failure.lines()]
        return [*details, f"{self.seeds} seeds in {self.seconds:.1f} s ({rate:.1f} a second): {verdict}"]


def simulate(seeds: int | Iterable[int], start: int = 0, processes: int | None = None) -> SimulationReport:
    """Run seeds of the simulator.

    Args:
        seeds: how many, from ``start`` on; or which.
        start: the first one.
        processes: how many at a time; as many as there are cores by default, and with 1 all of it
            happens in this process.

    Returns:
        The report; after ``FAILURES_MAX`` failing seeds it ends early.
    """
    chosen = list(range(start, start + seeds)) if isinstance(seeds, int) else list(seeds)
    report = SimulationReport()
    began_s = time.monotonic()
    for count, failures in _outcomes(chosen, processes or os.cpu_count() or 1):
        report.seeds += count
        report.failures += failures
        if len(report.failures) >= FAILURES_MAX:
            break
    report.seconds = time.monotonic() - began_s
    return report


def _outcomes(seeds: list[int], processes: int) -> Iterator[tuple[int, list[Failure]]]:
    chunks = [seeds[at : at + CHUNK_SEEDS] for at in range(0, len(seeds), CHUNK_SEEDS)]
    if processes == 1 or len(chunks) == 1:
        yield from map(run_seeds, chunks)
        return
    # Not forked: whoever calls may have threads.
    with ProcessPoolExecutor(min(processes, len(chunks)), mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(run_seeds, chunks)
        finally:
            pool.shutdown(cancel_futures=True)


def run_seeds(seeds: list[int]) -> tuple[int, list[Failure]]:
    """Run seeds one after the other; return how many, and those that went wrong."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # simulated functions fail all the time
    try:
        failures = [failure for seed in seeds if (failure := run_seed(seed)) is not None]
    finally:
        logging.disable(level)
    return len(seeds), failures


def run_seed(seed: int) -> Failure | None:
    """Run one seed; an exception anywhere in it is a failure as well."""
    from statefun_ray.testing.simulator import Simulation

    simulation = Simulation(seed)
    try:
        problems = simulation.run()
    except Exception:  # noqa: BLE001 - it becomes the report
        problems = [traceback.format_exc()]
    if not problems:
        return None
    return Failure(seed, problems, simulation.world.history[-HISTORY_LINES:])


def main(
    seeds: int, start: int = 0, jobs: int | None = None, *, write: Callable[[str], object] = sys.stdout.write
) -> int:
    """Run seeds and print the report; return the exit code. For the command line."""
    report = simulate(seeds, start, jobs)
    for line in report.lines():
        write(line + "\n")
    return 0 if report.is_clean else 1
