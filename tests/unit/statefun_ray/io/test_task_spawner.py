from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

from statefun_checkpoints.store import MemoryStore
from statefun_ray.io.task_spawner import TaskSpawner
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig
from statefun_sdk import StatefulFunctions

NOWHERE = ("127.0.0.1", 1)
"""Nobody listens there, so a worker ends as soon as it has begun."""


class Desk:
    """A spawner with what it made and reported."""

    def __init__(self) -> None:
        self.fence: dict[int, Callable[[str], None]] = {}
        self.lost: list[tuple[int, int, str]] = []
        self.changed = asyncio.Event()
        self.spawner = TaskSpawner(self._make)
        self.spawner.on_lost = self._on_lost

    def _make(
        self, generation: int, worker: int, coordinator: tuple[str, int], on_lease_lost: Callable[[str], None]
    ) -> WorkerHost:
        self.fence[worker] = on_lease_lost
        config = WorkerHostConfig(app="shop", generation=generation, worker=worker, coordinator=coordinator)
        return WorkerHost(config, StatefulFunctions(), MemoryStore(), on_lease_lost=on_lease_lost)

    def _on_lost(self, generation: int, worker: int, reason: str) -> None:
        self.lost.append((generation, worker, reason))
        self.changed.set()

    async def wait_lost(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.lost) < count:
                self.changed.clear()
                await self.changed.wait()


class Silence(asyncio.Protocol):
    """One accepted connection, on which nothing is said."""

    transports: ClassVar[list[asyncio.BaseTransport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.append(transport)


@asynccontextmanager
async def silent_coordinator() -> AsyncIterator[tuple[str, int]]:
    """Accept connections, and say nothing."""
    server = await asyncio.get_running_loop().create_server(Silence, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield host, port
    finally:
        await asyncio.sleep(0.01)  # what has been accepted becomes a transport
        server.close()
        for transport in Silence.transports:
            transport.close()
        Silence.transports.clear()
        await asyncio.sleep(0.01)


async def test_workers_that_end_are_reported_with_their_reason() -> None:
    desk = Desk()

    await desk.spawner.start_workers(3, 2, NOWHERE)
    await desk.wait_lost(2)

    assert {(generation, worker) for generation, worker, _ in desk.lost} == {(3, 0), (3, 1)}
    assert "Connect call failed" in desk.lost[0][2]
    assert not desk.spawner.are_idle()


async def test_a_worker_can_be_killed_alone_and_a_fenced_one_ends() -> None:
    desk = Desk()
    async with silent_coordinator() as address:
        await desk.spawner.start_workers(3, 3, address)
        await asyncio.sleep(0)

        desk.spawner.kill(2, 0)  # another generation's
        desk.spawner.kill(3, 1)
        await desk.wait_lost(1)
        assert desk.lost == [(3, 1, "killed")]

        desk.fence[2]("its lease has ended")
        await desk.wait_lost(2)
        assert desk.lost[1] == (3, 2, "killed")

        await desk.spawner.stop_workers(2)
        assert list(desk.spawner.hosts) == [0]
        await desk.spawner.stop_workers(3)
        await desk.wait_lost(3)


async def test_a_worker_killed_before_its_first_step_never_begins() -> None:
    desk = Desk()
    async with silent_coordinator() as address:
        await desk.spawner.start_workers(3, 1, address)
        desk.spawner.kill(3, 0)

        await desk.wait_lost(1)

        assert desk.lost == [(3, 0, "killed")]
        assert Silence.transports == []
