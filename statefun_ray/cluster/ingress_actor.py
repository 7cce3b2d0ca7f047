"""One ingress: an `IngressHost` in a Ray actor, pinned to the node that has its log.

Detached, and restarted by Ray for ever: after a kill -9 it opens the same log and listens on the
same HTTP port. Its feed has another port then, which the coordinator learns because the one call
it holds here fails, and passes on to the workers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import warnings
from typing import Any

import ray

from statefun_checkpoints.store import open_store
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.process import bind_host, configure_logging, host_name
from statefun_ray.cluster.target import load_functions
from statefun_ray.io.ingress_host import IngressHost, IngressHostConfig

logger = logging.getLogger(__name__)


class IngressActor:
    """What the coordinator and drivers ask of an ingress."""

    def __init__(self, deployment: Deployment, index: int) -> None:
        configure_logging()
        self._deployment = deployment
        self._index = index
        self._host: IngressHost | None = None
        self._begun = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
        self._forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started = asyncio.get_running_loop().create_task(self._start())

    async def describe(self) -> dict[str, Any]:
        """Return this process and the addresses of its feeds, as soon as it serves.

        Raises:
            Exception: what kept it from starting, on every call.
        """
        await asyncio.shield(self._started)
        assert self._host is not None
        return {
            "role": "ingress",
            "index": self._index,
            "pid": os.getpid(),
            "node": host_name(),
            "state": "running",
            "logs": {self._host.log_id: self._host.feed_address},
        }

    async def counts(self) -> dict[str, Any]:
        """Return what the ingress counts: accepted events, lag, waiting requests."""
        await asyncio.shield(self._started)
        assert self._host is not None
        return self._host.counts()

    async def hold(self) -> None:
        """Return never: the call fails when this process ends, and that is its use."""
        await asyncio.shield(self._forever)

    async def begin(self) -> None:
        """Register the log if it is new, and accept: the application has this storage to itself."""
        self._begun.set()

    async def drain(self) -> None:
        """Accept no more events, and go on feeding and answering."""
        await asyncio.shield(self._started)
        assert self._host is not None
        self._host.drain()

    async def close(self, read_to: dict[str, int]) -> None:
        """Close the log and stop listening.

        Args:
            read_to: by log, the sequence below which everything is in a committed snapshot.
        """
        # Once, whoever asks: its coordinator, and the program that is about to take the cluster down.
        self._closed = self._closed or asyncio.get_running_loop().create_task(self._close(read_to))
        await asyncio.shield(self._closed)

    async def _close(self, read_to: dict[str, int]) -> None:
        if not self._begun.is_set() and self._started.cancel():
            # It waits to be told, and nobody will tell it any more.
            await asyncio.wait([self._started])
            return
        await asyncio.shield(self._started)
        assert self._host is not None
        await self._host.close(read_to)

    async def _start(self) -> None:
        deployment = self._deployment
        own_host = bind_host(deployment)
        self._host = IngressHost(
            IngressHostConfig(
                app=deployment.name,
                log_dir=deployment.log_dir,
                http_host=deployment.http_host,
                http_port=deployment.http_port,
                feed_host=own_host,
                node=host_name(),
                secret=deployment.secret,
                module=deployment.module,
                settings=dict(deployment.tuning.ingress),
                # Whoever starts an application is told; after a kill -9 there is nobody to be told.
                waits_to_listen=_was_restarted(),
            ),
            load_functions(deployment.source),
            await asyncio.to_thread(open_store, deployment.storage),
            may_begin=self._begun.wait,
        )
        await self._host.start()
        # A full pass over what ray and fastapi have left behind holds the loop up for 0.1 s.
        gc.collect()
        gc.freeze()

    def __repr__(self) -> str:
        return f"ingress-{self._index}"  # Ray puts this in front of every line the process prints


def _was_restarted() -> bool:
    """Return whether Ray has restarted this actor."""
    with warnings.catch_warnings():
        # Ray asks itself in a way that it warns of, at every start; nobody here can act on it.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)
