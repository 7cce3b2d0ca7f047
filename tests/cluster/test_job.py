"""The same application as the entrypoint of a Ray job, its code sent by runtime-env.yaml."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from statefun_ray.api import open_checkpoint
from tests.cluster.application import leftovers
from tests.cluster.head import Head
from tests.cluster.test_command_line import APP, ask

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("cluster"),
]

ROOT = Path(__file__).resolve().parents[2]

IN_ONE_FILE = (
    APP
    + """
if __name__ == "__main__":
    import sys

    import statefun_ray

    statefun_ray.run(functions, name="job-app", http="127.0.0.1:0", storage=sys.argv[1], log_dir=sys.argv[2])
"""
)


def ray(head: Head, *words: str) -> str:
    """Run a command of ``ray job`` and return what it printed."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ray")),
            "job",
            *words[:1],
            "--address",
            head.dashboard,
            *words[1:],
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def submit(head: Head, folder: Path, *entrypoint: str) -> str:
    """Submit what is in ``folder`` with our own code, as runtime-env.yaml does; return the job's id."""
    ours = yaml.safe_load((ROOT / "runtime-env.yaml").read_text())
    env = {"working_dir": str(folder), "py_modules": [str(ROOT / module) for module in ours["py_modules"]]}
    said = ray(head, "submit", "--no-wait", "--runtime-env-json", json.dumps(env), "--", *entrypoint)
    match = re.search(r"Job '(\S+)' submitted", said)
    assert match is not None, said
    return match[1]


def wait_ready(head: Head, job: str) -> str:
    """Return the URL that the job says it listens at."""
    deadline = time.monotonic() + 90
    while (match := re.search(r"is ready: (http://\S+)", said := ray(head, "logs", job))) is None:
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
    return match[1]


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        ({"apps/shop/start.py": IN_ONE_FILE}, "python apps/shop/start.py"),
        (
            {"my_app.py": APP},
            "statefun-ray run my_app:functions --name job-app --http 127.0.0.1:0 --storage {0} --log-dir {1}",
        ),
    ],
    ids=["one file", "command"],
)
def test_a_job_runs_until_it_is_stopped_with_a_final_snapshot(
    head: Head, tmp_path: Path, files: dict[str, str], entrypoint: str
) -> None:
    folder = tmp_path / "app"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    storage, log = str(tmp_path / "storage"), str(tmp_path / "log")
    words = entrypoint.format(storage, log).split()
    if words[0] == "python":
        words += [storage, log]

    job = submit(head, folder, *words)
    url = wait_ready(head, job)
    assert ask(url, "example/greeter", "ada", "hi") == "visit 1"
    assert "job-app.coordinator" in leftovers()

    ray(head, "stop", job)
    deadline = time.monotonic() + 30
    while leftovers():
        assert time.monotonic() < deadline, leftovers()
        time.sleep(0.1)
    checkpoint = open_checkpoint(storage)
    assert checkpoint.entry.rhythm == "final"
    assert checkpoint.table("example/greeter").to_pylist() == [{"id": "ada", "visits": 1}]
