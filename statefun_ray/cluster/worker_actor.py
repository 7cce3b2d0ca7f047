"""One worker process: a `WorkerHost` in a Ray actor."""

from __future__ import annotations

import logging

from statefun_checkpoints.store import open_store
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.process import bind_host, configure_logging, host_name
from statefun_ray.cluster.target import load_functions
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig

logger = logging.getLogger(__name__)


class WorkerActor:
    """Runs one worker of one generation; it never comes back under the same generation."""

    def __init__(
        self, deployment: Deployment, generation: int, worker: int, coordinator: tuple[str, int]
    ) -> None:
        self._name = f"worker-{worker}"
        configure_logging()
        self._host = WorkerHost(
            WorkerHostConfig(
                app=deployment.name,
                generation=generation,
                worker=worker,
                coordinator=coordinator,
                bind_host=bind_host(deployment),
                node=host_name(),
                sinks=dict(deployment.sinks),
                secret=deployment.secret,
                **deployment.tuning.worker,
            ),
            load_functions(deployment.source),
            open_store(deployment.storage),
        )

    async def run(self) -> str:
        """Work until this generation ends; return why it did."""
        return await self._host.run()

    def __repr__(self) -> str:
        return self._name  # Ray puts this in front of every line the process prints
