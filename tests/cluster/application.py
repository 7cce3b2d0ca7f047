"""An application on the session's Ray cluster, with everything a test does to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import ray

from statefun_ray.api import open_checkpoint
from statefun_ray.cluster import launch, operate
from statefun_ray.cluster.deployment import Tuning
from statefun_ray.cluster.planning import plan_deployment
from statefun_ray.io.client import HttpClient, RequestFailed
from statefun_ray.io.egress_file import PublishedRow, read_egress

WAIT_S = 30.0


class ClusterApplication:
    """Runs a module's functions on the Ray cluster this process has joined."""

    def __init__(
        self,
        target: str | None,
        folder: Path,
        *,
        probe: str = "story/source",
        workers: int = 2,
        tuning: Tuning | None = None,
        **options: Any,
    ) -> None:
        """Args:
        probe: a function of the application, to ask for states of.
        options: as `plan_deployment` takes them.
        """
        self.target = target
        self.probe = probe
        self.folder = folder
        self.workers = workers
        self.tuning = tuning
        self.options = options
        self.lines: list[str] = []
        self._running: launch.Application | None = None
        self._client: HttpClient | None = None

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        deployment = plan_deployment(
            self.target,
            workers=self.workers,
            worker_cpus=0.25,
            http="127.0.0.1:0",
            storage=str(self.folder / "storage"),
            log_dir=str(self.folder / "log"),
            tuning=self.tuning,
            **{"name": "story", "snapshot_interval": "200ms", **self.options},
        )
        self._running = launch.start(deployment, say=self.lines.append)
        self._client = HttpClient(self._running.url, timeout_s=WAIT_S)
        return self

    def stop(self) -> None:
        self.running.stop()
        self._ended()

    def crash(self) -> None:
        """SIGKILL every process, and let none come back."""
        pids = [process["pid"] for process in self.status()["processes"]]
        self.running.stop(now=True)
        for pid in pids:
            _kill(pid, signal.SIGKILL)
        self._ended()

    def restart(self, workers: int | None = None) -> None:
        self.stop()
        self.workers = workers if workers is not None else self.workers
        self.start()

    def _ended(self) -> None:
        self.client.close()
        self._running = self._client = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self.running.stop(now=True)
            self._ended()

    @property
    def running(self) -> launch.Application:
        assert self._running is not None, "the application has not been started"
        return self._running

    @property
    def client(self) -> HttpClient:
        assert self._client is not None, "the application has not been started"
        return self._client

    # --- in and out ---------------------------------------------------------------------------

    def send(self, target: str, id: str, value: Any, *, producer: tuple[str, int] | None = None) -> None:
        self.client.send(target, id, value, producer=producer)

    def ask(self, target: str, id: str, value: Any, *, wait_s: float = 30.0) -> Any:
        return self.client.ask(target, id, value, wait_s=wait_s).data

    def state(self, target: str, id: str, *, committed: bool = False) -> dict[str, Any]:
        """Return the live state, while its worker recovers as soon as it is back."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self.client.state(target, id, committed=committed)
            except (OSError, RequestFailed) as error:
                if time.monotonic() > deadline or (isinstance(error, RequestFailed) and error.status != 503):
                    raise
            time.sleep(0.1)

    def egress(self, egress: str) -> list[PublishedRow]:
        return read_egress((self.folder / "storage").as_uri(), egress, "egress")

    def table(self, name: str) -> dict[str, dict[str, Any]]:
        """Return a function type of the newest snapshot, by id."""
        rows = open_checkpoint(str(self.folder / "storage")).table(name).to_pylist()
        return {row.pop("id"): row for row in rows}

    # --- what it says -------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return self.running.status()

    def pid(self, role: str, index: int = 0) -> int:
        """Return the pid of a running process."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [
                process["pid"]
                for process in self.status()["processes"]
                if (process["role"], process["index"], process["state"]) == (role, index, "running")
            ]
            return bool(found)

        self.wait_until(is_there, what=f"{role} {index} runs")
        return found[0]

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S, what: str = "") -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s:g} s: {what}; status {self.status()}")
            time.sleep(0.05)

    def wait_running(self, generation: int = 0, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait until a generation of at least this number runs."""
        status: dict[str, Any] = {}

        def runs() -> bool:
            status.update(self.status())
            return bool(status["phase"] == "running" and status["generation"] >= generation)

        self.wait_until(runs, timeout_s, f"generation {generation} or later runs")
        return status

    def wait_idle(self, timeout_s: float = WAIT_S) -> None:
        def is_idle() -> bool:
            status = self.status()
            return bool(status["phase"] == "running" and status["lag"] == 0 and status["backlog"] == 0)

        self.wait_until(is_idle, timeout_s, "idle")

    def snapshot(self) -> int:
        """Make everything applied so far durable; return the id of a snapshot that holds it."""
        status = self.status()
        begun = max(status["snapshot_open"] or 0, (status["last_snapshot"] or {"id": 0})["id"])
        while (last := self.status()["last_snapshot"] or {"id": 0})["id"] <= begun:
            self.state(self.probe, "probe", committed=True)  # asks for a snapshot, and waits for it
        return int(last["id"])

    # --- what is done to it -------------------------------------------------------------------

    def kill(self, role: str, index: int = 0) -> int:
        """SIGKILL a process and return the pid it had."""
        pid = self.pid(role, index)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_worker(self, worker: int) -> None:
        self.kill("worker", worker)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def leftovers() -> list[str]:
    """Return the names of actors in the cluster."""
    return [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]


def _kill(pid: int | None, number: int) -> None:
    if pid is not None and is_alive(pid):
        os.kill(pid, number)


__all__ = ["ClusterApplication", "is_alive", "leftovers", "operate"]
