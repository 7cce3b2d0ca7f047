"""Workers as tasks of one event loop: the spawner of the driver without processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from statefun_ray.io.worker_host import WorkerHost

logger = logging.getLogger(__name__)


class LocalSpawner(Protocol):
    """A `Spawner` whose workers can be killed one by one and asked whether they are idle."""

    on_lost: Callable[[int, int, str], None]

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """As `Spawner` says."""

    async def stop_workers(self, generation: int) -> None:
        """As `Spawner` says."""

    def kill(self, generation: int, worker: int) -> None:
        """End one worker as a crash would."""

    def kill_all(self) -> None:
        """End all workers as a crash would."""

    def are_idle(self) -> bool:
        """Whether every worker runs and has nothing to do."""


class TaskSpawner:
    """The `Spawner` of this driver: workers are tasks of one loop."""

    def __init__(
        self, make: Callable[[int, int, tuple[str, int], Callable[[str], None]], WorkerHost]
    ) -> None:
        """Args:
        make: builds a worker from ``(generation, worker, coordinator, on_lease_lost)``.
        """
        self._make = make
        self.on_lost: Callable[[int, int, str], None] = lambda _generation, _worker, _reason: None
        self.hosts: dict[int, WorkerHost] = {}
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """Start the workers of a generation as tasks."""
        loop = asyncio.get_running_loop()
        self._generation = generation
        self.hosts = {}
        for worker in range(count):

            def fenced(reason: str, worker: int = worker) -> None:
                logger.error("worker %d of generation %d is fenced: %s", worker, generation, reason)
                loop.call_soon_threadsafe(self.kill, generation, worker)

            self.hosts[worker] = self._make(generation, worker, coordinator, fenced)
            task = loop.create_task(self._watch(generation, worker, self.hosts[worker]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop_workers(self, generation: int) -> None:
        """End whatever still runs of ``generation`` and below."""
        if self._generation <= generation:
            self.kill_all()

    def kill(self, generation: int, worker: int) -> None:
        """End one worker as a crash would."""
        if generation == self._generation and worker in self.hosts:
            self.hosts.pop(worker).kill()

    def kill_all(self) -> None:
        """End all workers as a crash would."""
        for host in self.hosts.values():
            host.kill()
        self.hosts = {}

    def are_idle(self) -> bool:
        """Whether every worker runs and has nothing to do."""
        return bool(self.hosts) and all(host.is_idle() for host in self.hosts.values())

    async def _watch(self, generation: int, worker: int, host: WorkerHost) -> None:
        reason = await host.run()
        self.on_lost(generation, worker, reason or "it has ended")
