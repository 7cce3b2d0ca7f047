"""The simulator finds nothing wrong: on seeds that once did, on many others, and twice the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from statefun_ray.testing import simulate
from statefun_ray.testing.runner import main, run_seed
from statefun_ray.testing.simulator import Simulation

pytestmark = [pytest.mark.simulation, pytest.mark.slow]

SEEDS = 2_000
PROCESSES = 2
REPEATED = (1, 6, 11)


def remembered_seeds() -> list[int]:
    """The seeds of ``seeds.txt``, with comments left out."""
    lines = Path(__file__).with_name("seeds.txt").read_text(encoding="utf-8").splitlines()
    return [int(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


@pytest.mark.timeout(60)
def test_seeds_that_found_bugs_pass() -> None:
    report = simulate(remembered_seeds(), processes=1)
    assert report.is_clean, "\n".join(report.lines())


@pytest.mark.timeout(900)
def test_two_thousand_seeds_pass() -> None:
    report = simulate(SEEDS, processes=PROCESSES)
    assert report.seeds == SEEDS
    assert report.is_clean, "\n".join(report.lines())


def history(seed: int) -> str:
    """A hash of everything that happened."""
    simulation = Simulation(seed)
    problems = simulation.run()
    return hashlib.sha256("\n".join([*simulation.world.history, *problems]).encode()).hexdigest()


@pytest.mark.timeout(60)
def test_a_seed_repeats_exactly_whatever_the_hash_seed() -> None:
    root = Path(__file__).parents[2]
    code = f"""
import logging, sys
logging.disable(logging.CRITICAL)
from tests.simulation.test_seeds import history
print(*[history(seed) for seed in {REPEATED}])
"""
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=root,
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join(
                    map(str, (root, root / "sdk", root / "ingress", root / "checkpoints"))
                ),
            },
        ).stdout.split()
        for hash_seed in ("0", "1")
    ]
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == len(REPEATED), "different seeds do different things"


def test_a_failing_seed_is_reported_with_its_story_and_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Simulation, "run", lambda self: self.world.note("what happened") or ["it is wrong"])
    lines: list[str] = []

    assert main(1, start=7, jobs=1, write=lines.append) == 1

    text = "".join(lines)
    assert "what happened" in text
    assert "it is wrong" in text
    assert "statefun-ray simulate --start 7 --seeds 1" in text


def test_an_exception_in_a_seed_is_a_failure_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Simulation) -> list[str]:
        raise AssertionError("two snapshots are open")

    monkeypatch.setattr(Simulation, "run", run)
    failure = run_seed(3)
    assert failure is not None
    assert "two snapshots are open" in failure.problems[0]


def test_a_run_of_too_many_failures_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulation, "run", lambda self: ["it is wrong"])
    report = simulate(1_000, processes=1)
    assert 0 < report.seeds < 1_000
    assert not report.is_clean
