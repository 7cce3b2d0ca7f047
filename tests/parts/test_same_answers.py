"""Our handler answers what the official Python SDKs answer, to the same requests in one process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.parts.environments import APACHE, FORK, python_with

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("packages", [APACHE, FORK], ids=["apache", "fork"])
def test_random_requests_have_the_same_answers(packages: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(python_with(*packages)), str(Path(__file__).parent / "services" / "compare.py"), "1", "3000"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "sdk")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    same, incomplete, failures = map(int, done.stdout.split())
    assert same > 2_000
    assert incomplete > 200
    assert failures > 100


def test_the_official_sdk_is_called_as_it_was_seen() -> None:
    done = subprocess.run(
        [str(python_with(*APACHE)), str(Path(__file__).parent / "services" / "surface.py"), "statefun"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = (ROOT / "tests/architecture/official_surface.txt").read_text(encoding="utf-8").splitlines()
    assert done.stdout.splitlines() == [line for line in seen if not line.startswith("#")]
