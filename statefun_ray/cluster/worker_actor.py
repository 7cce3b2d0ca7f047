"""One worker process: a standby first, then a `WorkerHost` of one generation.

Everything that takes time is done before a generation is assigned: the process has started, and our
modules, Arrow and the application's functions are imported. A standby holds no state and no
connection, and ends itself when its coordinator has not been heard for `STANDBY_LEASE_S`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from typing import Any, Final

from ray._private.ray_constants import LOG_PREFIX_ACTOR_NAME

from statefun_checkpoints.store import open_store
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.process import bind_host, configure_logging, host_name
from statefun_ray.cluster.target import load_functions
from statefun_ray.io.heartbeat import exit_process
from statefun_ray.io.part_writer import warm_up
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig

logger = logging.getLogger(__name__)

STANDBY_LEASE_S: Final = 30.0
"""Ray ends a standby with its coordinator; should it not, the standby does after this time."""


class WorkerActor:
    """Waits until it is told its place, and is one worker of one generation then, never of another."""

    def __init__(self, deployment: Deployment, *, lease_s: float = STANDBY_LEASE_S) -> None:
        self._lease_s = lease_s
        configure_logging()
        self._deployment = deployment
        self._functions = load_functions(deployment.source)
        self._store = open_store(deployment.storage)
        warm_up()
        # What has been imported stays: no later collection need look at it.
        gc.collect()
        gc.freeze()
        self._assigned: asyncio.Future[WorkerHost] = asyncio.get_running_loop().create_future()
        self._attended_s = time.monotonic()

    async def attend(self) -> dict[str, Any]:
        """Renew the lease of a standby, and return which process this is."""
        self._attended_s = time.monotonic()
        return {"pid": os.getpid(), "node": host_name()}

    async def begin(self, generation: int, worker: int, coordinator: tuple[str, int]) -> None:
        """Become ``worker`` of ``generation``, whose coordinator listens at this address.

        Raises:
            RuntimeError: this process has had its generation.
        """
        if self._assigned.done():
            taken = self._assigned.result().config
            raise RuntimeError(f"this process is worker {taken.worker} of generation {taken.generation}")
        deployment = self._deployment
        # Ray puts this in front of every line the process prints from now on.
        for stream in (sys.stdout, sys.stderr):
            print(f"{LOG_PREFIX_ACTOR_NAME}worker-{worker}", file=stream, flush=True)
        self._assigned.set_result(
            WorkerHost(
                WorkerHostConfig(
                    app=deployment.name,
                    generation=generation,
                    worker=worker,
                    coordinator=coordinator,
                    bind_host=bind_host(deployment),
                    node=host_name(),
                    module=deployment.module,
                    sinks=dict(deployment.sinks),
                    secret=deployment.secret,
                    **deployment.tuning.worker,
                ),
                self._functions,
                self._store,
            )
        )

    async def run(self) -> str:
        """Wait for a generation, work until it ends, and return why it did."""
        while not self._assigned.done():
            left_s = self._attended_s + self._lease_s - time.monotonic()
            if left_s <= 0:
                exit_process(f"standby: nothing heard from the coordinator for {self._lease_s:g} s")
            await asyncio.wait([self._assigned], timeout=left_s)
        return await self._assigned.result().run()

    def __repr__(self) -> str:
        return "standby"  # Ray puts this in front of every line the process prints
