"""Recovery from standby processes, and that no process is left where it should not be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import ray

from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.planning import plan_deployment
from statefun_ray.cluster.worker_actor import WorkerActor
from tests.cluster.application import ClusterApplication, is_alive, leftovers

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

TARGET = "tests.cluster.story:functions"


def ready_standbys(app: ClusterApplication) -> set[int]:
    """Wait until the application has all its standbys; return their pids."""
    found: set[int] = set()

    def are_ready() -> bool:
        found.clear()
        found.update(standby["pid"] for standby in app.status()["standbys"] if standby["state"] == "ready")
        return len(found) == app.workers

    app.wait_until(are_ready, what="all standbys are ready")
    return found


def workers_of(app: ClusterApplication) -> set[int]:
    return {app.pid("worker", index) for index in range(app.workers)}


def wait_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, f"of the processes {pids} some live"
        time.sleep(0.05)


def test_a_killed_worker_is_answered_by_standbys_and_none_outlives_the_application(tmp_path: Path) -> None:
    with ClusterApplication(TARGET, tmp_path) as app:
        app.send("story/source", "a", 1)
        app.wait_idle()
        standbys, first = ready_standbys(app), workers_of(app)

        app.kill("worker", 1)
        app.wait_running(2)
        assert workers_of(app) == standbys
        assert app.state("story/source", "a") == {"count": 1}
        wait_gone(first)

        standbys = ready_standbys(app)
        assert standbys.isdisjoint(workers_of(app))
        roles = [process["role"] for process in app.status()["processes"]]
        assert roles == ["coordinator", "ingress", "worker", "worker"]

        of_the_killed = standbys | workers_of(app)
        app.kill("coordinator")
        app.wait_running(3)
        wait_gone(of_the_killed)

        pids = ready_standbys(app) | workers_of(app)
        app.stop()
        wait_gone(pids)
        assert leftovers() == []

        app.start()
        pids = ready_standbys(app) | workers_of(app)
        app.running.stop(now=True)
        wait_gone(pids)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return plan_deployment(TARGET, storage=str(tmp_path / "storage"), log_dir=str(tmp_path / "log"))


def test_a_process_serves_one_generation_only(deployment: Deployment) -> None:
    actor: Any = ray.remote(WorkerActor).options(num_cpus=0.1).remote(deployment)
    ray.get(actor.begin.remote(1, 0, ("127.0.0.1", 1)))
    with pytest.raises(RuntimeError, match="worker 0 of generation 1"):
        ray.get(actor.begin.remote(2, 0, ("127.0.0.1", 1)))
    ray.kill(actor)


def test_a_standby_that_nobody_attends_to_ends_itself(deployment: Deployment) -> None:
    actor: Any = ray.remote(WorkerActor).options(num_cpus=0.1).remote(deployment, lease_s=0.5)
    pid = ray.get(actor.attend.remote())["pid"]
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.run.remote(), timeout=20)
    wait_gone({pid})
