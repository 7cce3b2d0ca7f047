"""Fixtures of more than one folder of tests."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster.head import START_S, Head

# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One local Ray cluster for all tests of the session, with four logical CPUs."""
    # Said explicitly, or Ray decides by what it finds in the home directory.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["STATEFUN_RAY_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ.pop("RAY_ADDRESS", None)
    # `python` and `statefun-ray` in a job's entrypoint are what the head's PATH says.
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    command = [sys.executable, "-m", "tests.cluster.head"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said, f"the Ray head ended with exit code {process.wait(START_S)}; its output is above"
            yield Head(**json.loads(said))
        finally:
            process.stdin.close()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def cluster(head: Head) -> Iterator[Head]:
    """The head, joined by this process."""
    from statefun_ray.cluster import connection

    joined = connection.connect(head.address)
    yield head
    joined.leave()
