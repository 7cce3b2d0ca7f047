"""The coordinator of one application: a `CoordinatorHost` in a Ray actor.

Detached, and restarted by Ray for ever. All it is given is the deployment; generation, snapshots
and registered ingress logs are read from the store, so it comes back from a kill -9, on another
node, or on a new cluster in the same way. Its workers belong to it and die with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import Any, Final

import ray

from statefun_checkpoints.store import open_store
from statefun_ray.cluster.deployment import NAMESPACE, Deployment, coordinator_name, ingress_name
from statefun_ray.cluster.process import bind_host, configure_logging, host_name
from statefun_ray.cluster.spawner import RaySpawner
from statefun_ray.cluster.target import load_functions
from statefun_ray.core.coordinator import CoordinatorConfig
from statefun_ray.core.effects import Stopped
from statefun_ray.io.coordinator_host import CoordinatorHost, CoordinatorHostConfig
from statefun_ray.io.invoke_local import describe_functions

logger = logging.getLogger(__name__)

INGRESS_RETRY_S: Final = 0.05
"""Between two attempts to ask a restarting ingress where its feed is."""

CLAIM_LOOK_S: Final = 0.01
"""Between two looks at whether a generation has been claimed, before there is one."""

STANDBYS_LOOK_S: Final = 0.1
"""Between two looks at whether standby processes have to be started."""

INGRESS_ANSWER_S: Final = 2.0
"""An ingress that takes longer is busy or frozen; status goes without it."""

FAREWELL_S: Final = 1.0
"""After a stop, for the last answers to leave before the process ends."""


def lag_of(status: dict[str, Any], counts: dict[str, Any]) -> int:
    """Return how many accepted events are not known to be processed.

    What waits in the ingress is counted now, what waits in workers is as old as their last
    heartbeat. So nothing waiting is believed only once a committed snapshot has got past every
    accepted event; until then the lag is at least 1.

    Args:
        status: of the coordinator core.
        counts: of the ingress; empty if it did not answer.
    """
    accepted: int = counts.get("accepted", 0)
    waiting: int = min(accepted, counts.get("lag", 0) + status.get("backlog", 0))
    if waiting or not accepted:
        return waiting
    last = status.get("last_snapshot") or {}
    if last.get("positions", {}).get(counts.get("log_id"), 0) < accepted:
        return 1
    # What parked addresses hold is processed as far as it goes; it waits for a person.
    parked = sum(address["messages"] for address in status.get("parked_addresses", []))
    return 1 if last.get("in_flight", 0) > parked else 0


class CoordinatorActor:
    """What drivers talk to. Every call may be repeated; none changes anything twice."""

    def __init__(self, deployment: Deployment) -> None:
        configure_logging()
        self._deployment = deployment
        self._ingress: dict[str, Any] = {"role": "ingress", "index": 0, "state": "starting"}
        self._host: CoordinatorHost | None = None
        self._spawner = RaySpawner(deployment)
        self._is_stopping = False
        loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._tasks = [
            loop.create_task(self._run()),
            loop.create_task(self._watch_ingress()),
            loop.create_task(self._keep_standbys()),
        ]

    # --- calls of drivers -------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return everything `statefun-ray status` shows."""
        status = self._host.status() if self._host is not None else {"phase": "starting", "generation": 0}
        status.pop("workers", None)
        counts = await self._ingress_counts()
        return {
            "name": self._deployment.name,
            "url": self._deployment.url,
            "playground": self._deployment.playground,
            "storage": self._deployment.storage,
            "target": ", ".join(self._deployment.source.targets),
            **status,
            "processes": [self._own_process(), self._ingress, *self._worker_processes()],
            "standbys": self._spawner.standbys,
            "accepted": counts.get("accepted", 0),
            "lag": lag_of(status, counts),
            "ingress": counts,
        }

    async def finished(self) -> dict[str, Any]:
        """Return how the application ended, when it has: ``error`` is empty after a clean stop."""
        return await asyncio.shield(self._outcome)

    async def stop(self) -> dict[str, Any]:
        """Accept no more events, take a final snapshot, end every process, and return how it went."""
        if not self._is_stopping:
            self._is_stopping = True
            await self._tell_ingress("drain")
            host = self._host
            if host is not None and host.core.has_run:
                await host.stop()
            else:
                # It may be long before it can run (a broker is down), and there is nothing to take a snapshot of.
                self._end(Stopped("", host.status() if host is not None else {}))
                if host is not None:
                    host.kill()
        return await self.finished()

    # --- life -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        deployment = self._deployment
        try:
            functions = load_functions(deployment.source)
            store = await asyncio.to_thread(open_store, deployment.storage)
            own_host = bind_host(deployment)
            host = CoordinatorHost(
                CoordinatorHostConfig(
                    core=CoordinatorConfig(
                        name=deployment.name,
                        worker_count=deployment.workers,
                        nonce=secrets.token_hex(16),
                        snapshot_interval_ms=deployment.snapshot_interval_ms,
                        **deployment.tuning.coordinator,
                    ),
                    bind_host=own_host,
                    secret=deployment.secret,
                ),
                describe_functions(functions),
                store,
                self._spawner,
                deployment.module.serves,
            )
            self._spawner.on_lost = host.worker_lost
            await host.start()
            self._host = host
            self._tell_host_of_ingress()
            self._end(await host.run())
        except Exception as error:
            logger.exception("the coordinator of %s failed", deployment.name)
            self._end(Stopped(f"{type(error).__name__}: {error}", {}))

    def _end(self, stopped: Stopped) -> None:
        if not self._outcome.done():
            self._outcome.set_result({"error": stopped.error, **stopped.details})
            self._tasks.append(asyncio.get_running_loop().create_task(self._end_processes(stopped)))

    async def _end_processes(self, stopped: Stopped) -> None:
        self._spawner.end_standbys()
        last = stopped.details.get("last_snapshot") or {}
        await self._tell_ingress("close", last.get("positions", {}))
        await asyncio.sleep(FAREWELL_S)
        for name in (ingress_name(self._deployment.name, 0), coordinator_name(self._deployment.name)):
            try:
                ray.kill(await asyncio.to_thread(ray.get_actor, name, NAMESPACE), no_restart=True)
            except ValueError:
                logger.info("%s has ended already", name)

    # --- the ingress ------------------------------------------------------------------------------

    async def _watch_ingress(self) -> None:
        """Follow the ingress through its restarts: every one has a feed at another port."""
        name = ingress_name(self._deployment.name, 0)
        while not self._outcome.done():
            if self._host is None or not self._host.core.generation:
                # Only whoever has claimed a generation goes on for good.
                await asyncio.sleep(CLAIM_LOOK_S)
                continue
            try:
                actor: Any = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
                await actor.begin.remote()
                self._ingress = await actor.describe.remote()
                self._tell_host_of_ingress()
                await actor.hold.remote()  # ends with the process
            except (ValueError, ray.exceptions.RayError) as error:
                if self._ingress["state"] == "running" and not self._is_stopping:
                    logger.warning(
                        "the ingress is gone (%s), waiting for it to come back", type(error).__name__
                    )
                self._ingress = {**self._ingress, "state": "restarting"}
            await asyncio.sleep(INGRESS_RETRY_S)

    def _tell_host_of_ingress(self) -> None:
        logs = self._ingress.get("logs")
        if self._host is not None and logs is not None:
            self._host.logs_known({log_id: (host, port) for log_id, (host, port) in logs.items()})

    async def _tell_ingress(self, what: str, *arguments: Any) -> Any:
        """Call a method of the ingress; None when it does not answer in time."""
        name = ingress_name(self._deployment.name, 0)
        try:
            # Looking it up too: that takes a minute when Ray's head has died of the signal that we end for.
            async with asyncio.timeout(INGRESS_ANSWER_S):
                actor = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
                return await getattr(actor, what).remote(*arguments)
        except (ValueError, ray.exceptions.RayError, TimeoutError) as error:
            logger.info("the ingress did not answer to %s: %s", what, type(error).__name__)
            return None

    async def _ingress_counts(self) -> dict[str, Any]:
        if "logs" not in self._ingress or self._outcome.done():
            return {}  # it has not begun to serve, or has been closed
        counts: dict[str, Any] | None = await self._tell_ingress("counts")
        return counts or {}

    # --- processes --------------------------------------------------------------------------------

    async def _keep_standbys(self) -> None:
        while not self._outcome.done():
            # Before there is a host, the first generation is not far.
            try:
                self._spawner.keep_standbys("claiming" if self._host is None else self._host.core.phase)
            except ray.exceptions.RayError:
                logger.exception("standby processes can not be kept, trying again")
            await asyncio.sleep(STANDBYS_LOOK_S)

    def _own_process(self) -> dict[str, Any]:
        return {
            "role": "coordinator",
            "index": 0,
            "pid": os.getpid(),
            "node": host_name(),
            "state": "stopping" if self._is_stopping else "running",
        }

    def _worker_processes(self) -> list[dict[str, Any]]:
        if self._host is None:
            return []
        return [{"role": "worker", **worker} for worker in self._host.core.status()["workers"]]

    def __repr__(self) -> str:
        return "coordinator"  # Ray puts this in front of every line the process prints
