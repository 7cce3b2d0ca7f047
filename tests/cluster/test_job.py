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
from ray.job_submission import JobSubmissionClient

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


def submit(head: Head, folder: Path, *entrypoint: str) -> str:
    """Submit what is in ``folder`` with our own code, as runtime-env.yaml does; return the job's id."""
    ours = yaml.safe_load((ROOT / "runtime-env.yaml").read_text())
    env = {"working_dir": str(folder), "py_modules": [str(ROOT / module) for module in ours["py_modules"]]}
    command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", head.dashboard]
    done = subprocess.run(
        [*command, "--no-wait", "--runtime-env-json", json.dumps(env), "--", *entrypoint],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"Job '(\S+)' submitted", done.stdout + done.stderr)
    assert match is not None, done.stdout + done.stderr
    return match[1]


def wait_ready(jobs: JobSubmissionClient, job: str) -> str:
    """Return the URL that the job says it listens at."""
    deadline = time.monotonic() + 90
    while (match := re.search(r"is ready: (http://\S+)", said := jobs.get_job_logs(job))) is None:
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
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
    jobs = JobSubmissionClient(head.dashboard)  # what ``ray job logs`` and ``ray job stop`` are made of
    url = wait_ready(jobs, job)
    assert ask(url, "example/greeter", "ada", "hi") == "visit 1"
    assert "job-app.coordinator" in leftovers()

    assert jobs.stop_job(job)
    deadline = time.monotonic() + 30
    while leftovers():
        assert time.monotonic() < deadline, leftovers()
        time.sleep(0.1)
    checkpoint = open_checkpoint(storage)
    assert checkpoint.entry.rhythm == "final"
    assert checkpoint.table("example/greeter").to_pylist() == [{"id": "ada", "visits": 1}]
