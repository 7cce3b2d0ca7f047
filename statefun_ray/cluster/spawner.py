"""Workers as Ray actors: started, watched and ended for the coordinator.

Ray says within milliseconds when a worker's process has died, because its one long call fails.
That a worker hangs is seen by heartbeats, not here. `ray.kill` is a courtesy: what really stops
an old worker is that it is fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import ray

from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.worker_actor import WorkerActor

logger = logging.getLogger(__name__)

OnLost = Callable[[int, int, str], None]
"""``(generation, worker, reason)``."""


class RaySpawner:
    """The `Spawner` of the Ray driver. Lives in the coordinator, so the workers die with it."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.on_lost: OnLost | None = None
        """Told about every worker that ends without having been asked to."""
        self._actors: dict[int, list[Any]] = {}
        self._watches: dict[int, list[asyncio.Task[None]]] = {}

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """Create ``count`` worker actors, spread over the nodes; returns before they run."""
        create = ray.remote(WorkerActor).options(
            num_cpus=self._deployment.worker_cpus,
            # A worker that Ray restarted would come back empty and join the mesh.
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        actors = [create.remote(self._deployment, generation, worker, coordinator) for worker in range(count)]
        self._actors[generation] = actors
        self._watches[generation] = [
            asyncio.get_running_loop().create_task(self._watch(generation, worker, actor))
            for worker, actor in enumerate(actors)
        ]

    async def stop_workers(self, generation: int) -> None:
        """End the workers of ``generation`` and before; returns before they are dead."""
        for older in [number for number in self._actors if number <= generation]:
            for watch in self._watches.pop(older):
                watch.cancel()
            for actor in self._actors.pop(older):
                ray.kill(actor, no_restart=True)

    async def _watch(self, generation: int, worker: int, actor: Any) -> None:
        try:
            reason = await actor.run.remote()
        except ray.exceptions.RayError as error:
            reason = _reason_of(error)
        if self.on_lost is not None:
            self.on_lost(generation, worker, reason)


def _reason_of(error: ray.exceptions.RayError) -> str:
    """Return what Ray says in one line; its own texts run over a screen."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else ""
    )
    return f"its process ended ({type(error).__name__}: {told.split(' Worker exit detail:')[0]})"
