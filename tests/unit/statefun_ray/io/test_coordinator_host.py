"""The coordinator's shell: who may connect, what a spawner's failure means, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.store import MemoryStore
from statefun_ray.core.control import Heartbeat, Plan, WorkerHello, decode_to_worker, encode_control
from statefun_ray.core.coordinator import CoordinatorConfig
from statefun_ray.io.coordinator_host import CoordinatorHost, CoordinatorHostConfig
from statefun_ray.io.handshake import HandshakeRefused, Hello
from statefun_ray.io.heartbeat import pack_heartbeat
from statefun_ray.io.transport import FrameConnection, connect


class Spawner:
    """Notes what it is asked for; fails while told to."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.stopped: list[int] = []
        self.failures = 0

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        self.started.append((generation, count))
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no more workers in stock")

    async def stop_workers(self, generation: int) -> None:
        self.stopped.append(generation)


class Line:
    """A connection to the coordinator, with what came over it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.reasons: list[str] = []
        self.connection: FrameConnection | None = None

    async def open(self, host: CoordinatorHost, hello: Hello) -> FrameConnection:
        self.connection = await connect(
            *host.address,
            hello,
            on_frame=lambda _connection, frame: self.frames.append(frame),
            on_close=lambda _connection, reason: self.reasons.append(reason),
        )
        return self.connection


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what changes has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    *, store: MemoryStore | None = None, spawner: Spawner | None = None
) -> AsyncIterator[tuple[CoordinatorHost, Spawner]]:
    spawner = spawner if spawner is not None else Spawner()
    host = CoordinatorHost(
        CoordinatorHostConfig(
            CoordinatorConfig(name="shop", worker_count=1, nonce="n", shard_count=4, backoff_ms_min=10)
        ),
        {},
        store if store is not None else MemoryStore(),
        spawner,
    )
    await host.start()
    task = asyncio.create_task(host.run())
    try:
        yield host, spawner
    finally:
        host.kill()
        await task
        await asyncio.sleep(0)


def hello(role: str, generation: int = 1, worker: int = 0) -> Hello:
    return Hello("shop", generation, role, worker, -1)


async def test_only_workers_of_the_running_generation_may_connect() -> None:
    async with running() as (host, spawner):
        await until(lambda: spawner.started == [(1, 1)])

        with pytest.raises(
            HandshakeRefused, match="this is generation 1, the caller belongs to generation 2"
        ):
            await Line().open(host, hello("control", generation=2))
        with pytest.raises(HandshakeRefused, match="no 'channel' connections here"):
            await Line().open(host, hello("channel"))

        control = await Line().open(host, hello("control"))
        with pytest.raises(HandshakeRefused, match="worker 0 of generation 1 is connected already"):
            await Line().open(host, hello("control"))
        control.close()


async def test_a_hello_is_answered_with_the_plan_and_shown_in_the_status() -> None:
    async with running() as (host, spawner):
        await until(lambda: bool(spawner.started))
        line = Line()
        control = await line.open(host, hello("control"))

        control.send(encode_control(WorkerHello(1, 0, "10.0.0.1", 4321, 99, "node-a")))
        await until(lambda: bool(line.frames))

        plan = decode_to_worker(line.frames[0])
        assert isinstance(plan, Plan)
        assert plan.peers == [("10.0.0.1", 4321)]
        assert host.status()["processes"] == [
            {"role": "worker", "index": 0, "pid": 99, "node": "node-a", "state": "connected"}
        ]
        control.close()


async def test_heartbeats_are_answered_by_number_even_without_a_control_connection() -> None:
    async with running() as (host, spawner):
        await until(lambda: bool(spawner.started))
        line = Line()
        connection = await line.open(host, hello("heartbeat"))

        connection.send(pack_heartbeat(42, encode_control(Heartbeat(1, 0, 5, "", 0, 0, [], 0))))
        await until(lambda: bool(line.frames))

        assert line.frames == [(42).to_bytes(8, "big")]
        connection.close()


async def test_a_lost_control_connection_ends_the_generation_and_its_connections() -> None:
    async with running() as (host, spawner):
        await until(lambda: bool(spawner.started))
        heartbeat = Line()
        await heartbeat.open(host, hello("heartbeat"))
        control = await Line().open(host, hello("control"))

        control.abort()
        await until(lambda: len(spawner.started) == 2)

        assert spawner.stopped == [1]
        assert spawner.started[1] == (2, 1)
        assert heartbeat.reasons == ["the peer closed the connection"]
        assert "worker 0 is gone" in host.status()["last_error"]


async def test_workers_that_can_not_be_started_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    spawner = Spawner()
    spawner.failures = 2
    async with running(spawner=spawner) as (host, _):
        await until(lambda: len(spawner.started) == 3)

        assert "no more workers in stock" in host.status()["last_error"]
    assert "workers could not be started" in caplog.text


async def test_a_death_reported_by_the_spawner_ends_the_generation() -> None:
    async with running() as (host, spawner):
        await until(lambda: bool(spawner.started))

        host.worker_lost(1, 0, "kill -9")
        host.worker_lost(0, 0, "an older generation, which changes nothing")

        await until(lambda: len(spawner.started) == 2)
        assert "kill -9" in host.status()["last_error"]


class SilentStore(MemoryStore):
    """Answers nothing while told so."""

    is_silent = True

    def create(self, path: str, data: bytes) -> bool:
        if self.is_silent:
            raise StoreUnavailable(path, "create", "no route")
        return super().create(path, data)


async def test_a_silent_store_delays_the_start_and_is_named() -> None:
    store = SilentStore()
    async with running(store=store) as (host, spawner):
        await until(
            lambda: "no route" in host.status()["last_error"] or "job.json" in host.status()["last_error"]
        )
        assert spawner.started == []
        store.is_silent = False

        await until(lambda: bool(spawner.started))


async def test_an_error_that_ends_the_application_is_its_result() -> None:
    store = MemoryStore()
    store.put("job.json", b"{}")
    host = CoordinatorHost(
        CoordinatorHostConfig(CoordinatorConfig(name="shop", worker_count=1, nonce="n", shard_count=4)),
        {},
        store,
        Spawner(),
    )

    stopped = await asyncio.wait_for(host.run(), 5)

    assert "job.json" in stopped.error
    assert (await host.stop()).error == stopped.error
