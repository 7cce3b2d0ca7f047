from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from statefun_ray.io.handshake import Hello, refusal_of
from statefun_ray.io.heartbeat import HeartbeatThread, unpack_heartbeat
from statefun_ray.io.transport import FrameConnection, FrameServer, OnClose, OnFrame

HELLO = Hello(app="shop", generation=7, role="heartbeat", source=3, target=-1)


class Coordinator:
    """Answers heartbeats while it is told to."""

    def __init__(self) -> None:
        self.is_answering = True
        self.generation = 7
        self.bodies: list[bytes] = []
        self.kept: list[tuple[FrameConnection, bytes]] = []
        self.changed = asyncio.Event()
        self.server = FrameServer(admit=self.admit, on_open=self.on_open)

    def admit(self, hello: Hello) -> str:
        return refusal_of(hello, app="shop", generation=self.generation, roles=("heartbeat",), target=-1)

    def on_open(self, connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        return self.on_frame, lambda _connection, _reason: None

    def on_frame(self, connection: FrameConnection, frame: bytes) -> None:
        answer, body = unpack_heartbeat(frame)
        self.bodies.append(body)
        if self.is_answering:
            connection.send(answer)
        else:
            self.kept.append((connection, answer))
        self.changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def beating(
    *, lease_s: float = 5.0
) -> AsyncIterator[tuple[Coordinator, HeartbeatThread, asyncio.Future[str]]]:
    loop = asyncio.get_running_loop()
    coordinator = Coordinator()
    await coordinator.server.listen()
    lost: asyncio.Future[str] = loop.create_future()

    def on_lease_lost(reason: str) -> None:
        loop.call_soon_threadsafe(lost.set_result, reason)

    thread = HeartbeatThread(
        coordinator.server.address,
        HELLO,
        beat=lambda: b"body",
        on_lease_lost=on_lease_lost,
        heartbeat_s=0.01,
        lease_s=lease_s,
    )
    thread.start()
    try:
        yield coordinator, thread, lost
    finally:
        thread.stop()
        await asyncio.to_thread(thread.join, 5)
        coordinator.server.close()


async def test_heartbeats_are_sent_and_their_answers_renew_the_lease() -> None:
    async with beating(lease_s=0.3) as (coordinator, thread, lost):
        await coordinator.wait(lambda: len(coordinator.bodies) >= 40)

        assert thread.is_leased
        assert not lost.done()
        assert set(coordinator.bodies) == {b"body"}


async def test_silence_of_the_coordinator_ends_the_lease() -> None:
    async with beating(lease_s=0.05) as (coordinator, thread, lost):
        coordinator.is_answering = False

        reason = await asyncio.wait_for(lost, 5)

        assert "nothing heard from the coordinator" in reason
        assert not thread.is_leased


async def test_a_late_answer_does_not_bring_the_lease_back() -> None:
    async with beating(lease_s=0.05) as (coordinator, thread, lost):
        coordinator.is_answering = False
        await asyncio.wait_for(lost, 5)

        for connection, answer in coordinator.kept:
            connection.send(answer)

        assert not thread.is_leased


async def test_a_newer_generation_fences_at_once() -> None:
    async with beating(lease_s=60) as (coordinator, thread, lost):
        await coordinator.wait(lambda: len(coordinator.bodies) >= 1)
        coordinator.generation = 8
        for connection in coordinator.server.connections:
            connection.abort()

        reason = await asyncio.wait_for(lost, 5)

        assert "this is generation 8, the caller belongs to generation 7" in reason
        assert not thread.is_leased


async def test_a_broken_connection_is_opened_again() -> None:
    async with beating(lease_s=60) as (coordinator, thread, lost):
        await coordinator.wait(lambda: len(coordinator.bodies) >= 1)
        for connection in coordinator.server.connections:
            connection.abort()
        seen = len(coordinator.bodies)

        await coordinator.wait(lambda: len(coordinator.bodies) >= seen + 3)

        assert thread.is_leased
        assert not lost.done()
