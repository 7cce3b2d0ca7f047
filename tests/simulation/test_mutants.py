"""Every mutant can be planted, and the simulator finds every one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, module_name, mutated_source

ROOT = Path(__file__).parents[2]


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_line_of_production_code(mutant: Mutant) -> None:
    before, after = mutant.line.split("\n"), mutant.changed.split("\n")
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    compile(mutated_source(mutant), mutant.file, "exec")
    assert not module_name(mutant.file).startswith("statefun_ray.testing")


@pytest.mark.mutants
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_mutant_is_found() -> None:
    # In a process of its own: a mutant is planted while the product is imported.
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutants", "--jobs", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "SURVIVES" not in outcome.stdout
