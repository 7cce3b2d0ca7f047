"""Workers as Ray actors: started, watched and ended for the coordinator.

Processes are started ahead as standbys and become workers when a generation takes them; a process
never serves a second generation. Ray says within milliseconds when a worker's process has died,
because its one long call fails. That a worker hangs is seen by heartbeats, not here. `ray.kill` is a
courtesy: what really stops an old worker is that it is fenced.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

import ray

from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.standby_policy import standbys_to_start
from statefun_ray.cluster.worker_actor import STANDBY_LEASE_S, WorkerActor

logger = logging.getLogger(__name__)

ATTEND_S: Final = STANDBY_LEASE_S / 6
"""Between two renewals of the standbys' leases."""

OnLost = Callable[[int, int, str], None]
"""``(generation, worker, reason)``."""


class _Process:
    """One worker process, from its start as a standby."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.generation = 0
        """That took it; 0 for a standby."""
        self.worker = -1
        self.facts: dict[str, Any] | None = None
        """Pid and node, once it has started."""
        self.watch: asyncio.Task[None] | None = None


class RaySpawner:
    """The `Spawner` of the Ray driver. Lives in the coordinator, so the workers die with it."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.on_lost: OnLost | None = None
        """Told about every worker that ends without having been asked to."""
        self._standbys: list[_Process] = []
        self._workers: list[_Process] = []
        self._running_since_s: float | None = None
        self._failed_s = -math.inf
        self._attended_s = -math.inf

    # --- workers ----------------------------------------------------------------------------------

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """Make ``count`` processes the workers of ``generation``; returns before they run.

        Standbys are taken first, those that are ready before those that are still starting.
        """
        self._standbys.sort(key=lambda process: process.facts is None)
        while len(self._standbys) < count:
            self._start_process()
        taken, self._standbys = self._standbys[:count], self._standbys[count:]
        logger.info(
            "generation %d takes %d ready standbys, waits for %d processes",
            generation,
            sum(process.facts is not None for process in taken),
            sum(process.facts is None for process in taken),
        )
        for worker, process in enumerate(taken):
            process.generation, process.worker = generation, worker
            # Should this call fail, the process has ended: `_watch` knows.
            process.actor.begin.remote(generation, worker, coordinator)
        self._workers += taken

    async def stop_workers(self, generation: int) -> None:
        """End the workers of ``generation`` and before; returns before they are dead."""
        ending = [process for process in self._workers if process.generation <= generation]
        self._workers = [process for process in self._workers if process.generation > generation]
        self._kill(ending)

    # --- standbys ---------------------------------------------------------------------------------

    def keep_standbys(self, phase: str) -> None:
        """Start the standbys that are due in this phase of the coordinator, and renew all leases.

        To be called a few times a second.
        """
        now_s = time.monotonic()
        if phase != "running":
            self._running_since_s = None
        elif self._running_since_s is None:
            self._running_since_s = now_s
        ready = sum(process.facts is not None for process in self._standbys)
        due = standbys_to_start(
            phase,
            workers=self._deployment.workers,
            standbys=self._deployment.standbys,
            ready=ready,
            starting=len(self._standbys) - ready,
            running_s=now_s - (self._running_since_s or now_s),
            since_failure_s=now_s - self._failed_s,
        )
        for _ in range(due):
            self._start_process()
        if now_s - self._attended_s >= ATTEND_S:
            self._attended_s = now_s
            for process in self._standbys:
                process.actor.attend.remote()

    def end_standbys(self) -> None:
        """End all standbys; returns before they are dead."""
        ending, self._standbys = self._standbys, []
        self._kill(ending)

    @property
    def standbys(self) -> list[dict[str, Any]]:
        """Pid, node and state, ``ready`` or ``starting``, of every standby."""
        return [
            {"pid": None, "node": None, "state": "starting"}
            if process.facts is None
            else {**process.facts, "state": "ready"}
            for process in self._standbys
        ]

    # --- processes --------------------------------------------------------------------------------

    def _start_process(self) -> None:
        create = ray.remote(WorkerActor).options(
            num_cpus=self._deployment.worker_cpus,
            # A worker that Ray restarted would come back empty and join the mesh.
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        process = _Process(create.remote(self._deployment))
        process.watch = asyncio.get_running_loop().create_task(self._watch(process))
        self._standbys.append(process)

    def _kill(self, processes: list[_Process]) -> None:
        for process in processes:
            if process.watch is not None:
                process.watch.cancel()
            ray.kill(process.actor, no_restart=True)

    async def _watch(self, process: _Process) -> None:
        try:
            process.facts = await process.actor.attend.remote()
            reason = await process.actor.run.remote()
        except ray.exceptions.RayError as error:
            reason = _reason_of(error)
        if process.generation:
            if self.on_lost is not None:
                self.on_lost(process.generation, process.worker, reason)
        else:
            logger.warning("a standby worker process is gone: %s", reason)
            self._failed_s = time.monotonic()
            self._standbys.remove(process)


def _reason_of(error: ray.exceptions.RayError) -> str:
    """Return what Ray says in one line; its own texts run over a screen."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else ""
    )
    return f"its process ended ({type(error).__name__}: {told.split(' Worker exit detail:')[0]})"
