"""An application whose workers are processes: they die by SIGKILL and freeze by SIGSTOP."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from statefun_ray.io.task_spawner import LocalSpawner
from statefun_ray.local import LocalApplication
from tests.scenarios.stories import functions

ROOT = Path(__file__).resolve().parents[2]


class ProcessSpawner:
    """Starts workers with ``python -m tests.scenarios.process_worker``."""

    def __init__(self, host_settings: Mapping[str, Any], storage: str, log_file: Path) -> None:
        self.on_lost: Callable[[int, int, str], None] = lambda _generation, _worker, _reason: None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._host_settings = host_settings
        self._storage = storage
        self._log_file = log_file
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """Start one process per worker."""
        self._generation = generation
        for worker in range(count):
            told = {
                "host": {
                    "app": "local",
                    "generation": generation,
                    "worker": worker,
                    "coordinator": coordinator,
                    **self._host_settings,
                },
                "storage": self._storage,
            }
            with self._log_file.open("ab") as log:
                process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                    [sys.executable, "-m", "tests.scenarios.process_worker", json.dumps(told)],
                    cwd=ROOT,
                    env={"PYTHONPATH": ".:sdk:ingress:checkpoints"},
                    stdout=log,
                    stderr=log,
                )
            self.processes[worker] = process
            task = asyncio.get_running_loop().create_task(self._watch(generation, worker, process))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop_workers(self, generation: int) -> None:
        """Kill whatever still runs; frozen ones are left, to show that they do no harm."""
        if self._generation <= generation:
            for worker in list(self.processes):
                if not self.is_frozen(worker):
                    self.processes.pop(worker).kill()

    def kill(self, generation: int, worker: int) -> None:
        """SIGKILL."""
        if worker in self.processes:
            self.processes.pop(worker).kill()

    def kill_all(self) -> None:
        """SIGKILL to all."""
        for process in self.processes.values():
            process.kill()
        self.processes.clear()

    def are_idle(self) -> bool:
        """Not known here: the status tells."""
        return True

    def is_frozen(self, worker: int) -> bool:
        """Whether the process has been stopped by a signal."""
        process = self.processes[worker]
        if process.poll() is not None:
            return False
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    async def _watch(self, generation: int, worker: int, process: subprocess.Popen[bytes]) -> None:
        code = await asyncio.to_thread(process.wait)
        self.on_lost(generation, worker, f"its process ended with {code}")


class ProcessApplication(LocalApplication):
    """Coordinator and ingress in this process, every worker in its own."""

    def __init__(self, directory: Path, *, lease_s: float = 3.0, **settings: Any) -> None:
        super().__init__(functions, storage=directory / "storage", log_dir=directory / "log", **settings)
        self._directory = directory
        self._lease_s = lease_s
        self._quiet: tuple[Any, ...] = ()

    @property
    def worker_log(self) -> str:
        """What the workers have logged."""
        return (self._directory / "workers.log").read_text()

    def freeze_worker(self, worker: int) -> subprocess.Popen[bytes]:
        """SIGSTOP; return the process, to be thawed with SIGCONT."""
        assert isinstance(self._spawner, ProcessSpawner)
        process = self._spawner.processes[worker]
        process.send_signal(signal.SIGSTOP)
        return process

    def _is_idle(self) -> bool:
        # From heartbeats, ten a second: the same empty picture in several of them.
        status = self.status()
        quiet = (status["phase"], status["backlog"], status["lag"], status["processed"], status["generation"])
        if quiet != self._quiet[:-1]:
            self._quiet = (*quiet, self._time())
        return quiet[:3] == ("running", 0, 0) and self._time() - self._quiet[-1] > 0.6

    def _time(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _new_spawner(self) -> LocalSpawner:
        return ProcessSpawner(
            {"lease_s": self._lease_s, "heartbeat_s": 0.1, "core": self._worker_settings},
            self.store.uri,
            self._directory / "workers.log",
        )
