"""``make demo`` keeps its promises: real Ray, all flights, two kills, every row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_kills_two_processes_and_every_row_is_right(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "examples.flights.demo", "--folder", str(tmp_path / "demo")],
        cwd=ROOT,
        env=os.environ | {"STATEFUN_RAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    interrupted = re.findall(
        r"([\d,]+) accepted events unprocessed, snapshot (\d+) of generation \d+ open", demo.stdout
    )
    assert len(interrupted) == 2
    assert all(int(lag.replace(",", "")) >= 1_000 and int(snapshot) > 0 for lag, snapshot in interrupted)
    assert "Lost: 0. Doubled: 0." in demo.stdout
    assert "sound" in demo.stdout
