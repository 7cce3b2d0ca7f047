"""Which branches of the core the simulator reaches by itself: ``python -m tests.simulation.branches``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import coverage

from tests.simulation.mutation import ROOT, SOURCES

SHARE_MIN: Final = 0.95

FILES: Final = (
    "statefun_ray/core/worker.py",
    "statefun_ray/core/feeds.py",
    "statefun_ray/core/snapshots.py",
    "statefun_ray/core/coordinator.py",
    "statefun_ray/core/state.py",
    "statefun_ray/core/timers.py",
    "statefun_ray/core/addresses.py",
    "statefun_ray/core/channel.py",
    "statefun_ray/core/outbox.py",
    "statefun_ray/core/positions.py",
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


def measure(seeds: int) -> list[Reached]:
    """Run seeds with coverage; to be called before anything of ours is imported."""
    sys.path[:0] = [str(root) for root in SOURCES]
    logging.disable(logging.CRITICAL)
    measured = coverage.Coverage(
        branch=True,
        config_file=str(ROOT / "pyproject.toml"),
        data_file=None,
        include=[str(ROOT / file) for file in FILES],
    )
    measured.start()
    from statefun_ray.testing.simulator import Simulation

    for seed in range(seeds):
        problems = Simulation(seed).run()
        assert not problems, f"seed {seed}: {problems}"
    measured.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    found = {str((ROOT / name).resolve()): entry for name, entry in files.items()}
    return [_reached(file, found[str(ROOT / file)]) for file in FILES]


def _reached(file: str, entry: dict[str, dict[str, int] | list[list[int]]]) -> Reached:
    summary, missing = entry["summary"], entry["missing_branches"]
    assert isinstance(summary, dict)
    assert isinstance(missing, list)
    places = ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in missing)
    return Reached(file, summary["num_branches"], summary["covered_branches"], places)


def main() -> int:
    """Print what is reached per file; fail below the thresholds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    rows = measure(parser.parse_args().seeds)
    for row in rows:
        print(f"{row.file:52} {row.covered:4} of {row.branches:4} {row.share:7.1%}  {row.missing}")
    share = sum(row.covered for row in rows) / sum(row.branches for row in rows)
    print(f"{'all':52} {share:20.1%}")
    return 0 if share >= SHARE_MIN and all(row.share >= FILE_SHARE_MIN for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
