"""Which branches of the core the simulator reaches by itself: ``python -m tests.simulation.branches``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import coverage

from tests.simulation.mutation import ROOT, SOURCES

SHARE_MIN: Final = 0.95

FILES: Final = (
    "statefun_ray/core/worker.py",
    "statefun_ray/core/cuts.py",
    "statefun_ray/core/functions.py",
    "statefun_ray/core/feeds.py",
    "statefun_ray/core/snapshots.py",
    "statefun_ray/core/coordinator.py",
    "statefun_ray/core/state.py",
    "statefun_ray/core/timers.py",
    "statefun_ray/core/addresses.py",
    "statefun_ray/core/dead_letters.py",
    "statefun_ray/core/channel.py",
    "statefun_ray/core/outbox.py",
    "statefun_ray/core/positions.py",
    "statefun_ray/core/splits.py",
    "checkpoints/statefun_checkpoints/participant.py",
    "checkpoints/statefun_checkpoints/coordinator.py",
    "checkpoints/statefun_checkpoints/commit_log.py",
    "ingress/statefun_ingress/log.py",
)
"""Held to ``SHARE_MIN`` together, and each to ``FILE_SHARE_MIN``."""

FILE_SHARE_MIN: Final = 0.9


class Reached(NamedTuple):
    """What was reached of one file."""

    file: str
    branches: int
    covered: int
    missing: str

    @property
    def share(self) -> float:
        """Of the branches, those reached."""
        return self.covered / self.branches if self.branches else 1.0


def measure(seeds: int, jobs: int) -> list[Reached]:
    """Run seeds with coverage in ``jobs`` processes; what one of them reaches is reached."""
    shares = [range(job, seeds, jobs) for job in range(jobs)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        answers = list(pool.map(_measure, shares))
    reached = []
    for file in FILES:
        branches, _ = answers[0][file]
        missing = set.intersection(*(missing for _, missing in (answer[file] for answer in answers)))
        places = ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in sorted(missing))
        reached.append(Reached(file, branches, branches - len(missing), places))
    return reached


def _measure(seeds: range) -> dict[str, tuple[int, set[tuple[int, int]]]]:
    """Return per file how many branches it has and which were not taken.

    To be called in a process that has imported nothing of ours.
    """
    sys.path[:0] = [str(root) for root in SOURCES]
    logging.disable(logging.CRITICAL)
    measured = coverage.Coverage(
        branch=True,
        config_file=str(ROOT / "pyproject.toml"),
        data_file=None,
        include=[str(ROOT / file) for file in FILES],
    )
    # The project's own choice of packages would put ours aside.
    measured.set_option("run:source_pkgs", [])
    measured.start()
    from statefun_ray.testing.simulator import Simulation

    for seed in seeds:
        problems = Simulation(seed).run()
        assert not problems, f"seed {seed}: {problems}"
    measured.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    found = {str((ROOT / name).resolve()): entry for name, entry in files.items()}
    return {
        file: (
            found[str(ROOT / file)]["summary"]["num_branches"],
            {(start, end) for start, end in found[str(ROOT / file)]["missing_branches"]},
        )
        for file in FILES
    }


def main() -> int:
    """Print what is reached per file; fail below the thresholds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rows = measure(options.seeds, options.jobs)
    for row in rows:
        print(f"{row.file:52} {row.covered:4} of {row.branches:4} {row.share:7.1%}  {row.missing}")
    share = sum(row.covered for row in rows) / sum(row.branches for row in rows)
    print(f"{'all':52} {share:20.1%}")
    return 0 if share >= SHARE_MIN and all(row.share >= FILE_SHARE_MIN for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
