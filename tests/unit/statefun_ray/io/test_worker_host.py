"""The worker's shell against a coordinator played by the test; what the core does is tested elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.store import MemoryStore
from statefun_ingress import frames
from statefun_ray.core.control import (
    Ack,
    Committed,
    Heartbeat,
    Logs,
    Plan,
    Ready,
    Shutdown,
    Start,
    ToCoordinator,
    ToWorker,
    Trigger,
    WorkerFailed,
    WorkerHello,
    decode_to_coordinator,
    encode_control,
)
from statefun_ray.io.egress_file import read_egress
from statefun_ray.io.handshake import Hello, refusal_of
from statefun_ray.io.heartbeat import unpack_heartbeat
from statefun_ray.io.transport import FrameConnection, FrameServer, OnClose, OnFrame, connect
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec, egress_message_builder

M = TypeVar("M")

KEY_GROUPS = 16


class Coordinator:
    """Accepts workers of generation 7, keeps what they say, and says what the test wants."""

    def __init__(self) -> None:
        self.said: list[ToCoordinator] = []
        self.control: dict[int, FrameConnection] = {}
        self.lost: list[int] = []
        self.is_answering = True
        self.changed = asyncio.Event()
        self.server = FrameServer(admit=self._admit, on_open=self._opened)

    def _admit(self, hello: Hello) -> str:
        return refusal_of(hello, app="shop", generation=7, roles=("control", "heartbeat"), target=-1)

    def _opened(self, connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        assert connection.hello is not None
        if connection.hello.role == "heartbeat":
            return self._on_heartbeat, lambda _connection, _reason: None
        self.control[connection.hello.source] = connection
        return self._on_control, self._on_close

    def _on_heartbeat(self, connection: FrameConnection, frame: bytes) -> None:
        answer, body = unpack_heartbeat(frame)
        self._on_control(connection, body)
        if self.is_answering:
            connection.send(answer)

    def _on_control(self, connection: FrameConnection, frame: bytes) -> None:
        self.said.append(decode_to_coordinator(frame))
        self.changed.set()

    def _on_close(self, connection: FrameConnection, reason: str) -> None:
        assert connection.hello is not None
        self.lost.append(connection.hello.source)
        self.changed.set()

    def tell(self, message: ToWorker) -> None:
        for connection in self.control.values():
            connection.send(encode_control(message))

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def hear(self, kind: type[M], count: int = 1) -> list[M]:
        def heard() -> list[M]:
            return [message for message in self.said if isinstance(message, kind)]

        await self.wait(lambda: len(heard()) >= count)
        return heard()

    async def start(
        self,
        count: int,
        logs: dict[str, tuple[str, int]] | None = None,
        moved: dict[str, tuple[str, int]] | None = None,
    ) -> None:
        hellos = sorted(await self.hear(WorkerHello, count), key=lambda hello: hello.worker)
        self.tell(
            Plan(
                generation=7,
                worker_count=count,
                key_group_count=KEY_GROUPS,
                shard_count=4,
                peers=[(hello.host, hello.port) for hello in hellos],
                logs=logs or {},
                workers_since=count,
                entry=None,
            )
        )
        if moved is not None:
            self.tell(Logs(7, moved))
        await self.hear(Ready, count)
        self.tell(Start(7))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what changes has no event
            await asyncio.sleep(0.01)


functions = StatefulFunctions()


@functions.bind("t/count", specs=[ValueSpec("n", IntType)])
def count(context: Context, message: Message) -> None:
    context.storage.n = (context.storage.n or 0) + 1
    context.send_egress(egress_message_builder("t/out", context.storage.n, IntType))


@functions.bind("t/quits")
async def quits(context: Context, message: Message) -> None:
    sys.exit("a function must not end the process")


@functions.bind("t/cancels")
async def cancels(context: Context, message: Message) -> None:
    raise asyncio.CancelledError("cancelled by itself")


@functions.bind("t/hangs")
async def hangs(context: Context, message: Message) -> None:
    await asyncio.Event().wait()


class Feed:
    """An ingress log's feed that sends each worker the same events."""

    def __init__(self, target: str, ids: list[str]) -> None:
        self.frames: list[object] = []
        self._target = target
        self._ids = ids

    async def listen(self) -> tuple[str, int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = server
        host, port = server.sockets[0].getsockname()
        return host, port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = frames.FrameSplitter()
        while data := await reader.read(65_536):
            for body in splitter.receive(data):
                frame = frames.decode_worker_frame(body)
                self.frames.append(frame)
                if isinstance(frame, frames.Hello):
                    number = len(self._ids)
                    writer.write(frames.encode_frame(frames.Welcome("log", "log.1", number)))
                    writer.write(
                        frames.encode_frame(
                            frames.EventsFrame(
                                0,
                                number,
                                list(range(number)),
                                [self._target] * number,
                                self._ids,
                                [""] * number,
                                [""] * number,
                                ["a/b"] * number,
                                [b""] * number,
                            )
                        )
                    )
        writer.close()

    def close(self) -> None:
        self._server.close()


@asynccontextmanager
async def cluster(
    count: int, *, store: MemoryStore | None = None, lease_s: float = 10.0
) -> AsyncIterator[tuple[Coordinator, list[WorkerHost], list[asyncio.Task[str]], list[str]]]:
    coordinator = Coordinator()
    address = await coordinator.server.listen()
    fenced: list[str] = []
    hosts = [
        WorkerHost(
            WorkerHostConfig(
                app="shop",
                generation=7,
                worker=worker,
                coordinator=address,
                heartbeat_s=0.02,
                lease_s=lease_s,
                freeze_gc=False,
                core={"invocation_timeout_ms": 50},
            ),
            functions,
            store if store is not None else MemoryStore(),
            on_lease_lost=fenced.append,
        )
        for worker in range(count)
    ]
    tasks = [asyncio.create_task(host.run()) for host in hosts]
    try:
        yield coordinator, hosts, tasks, fenced
    finally:
        for host in hosts:
            host.kill()
        await asyncio.gather(*tasks)
        coordinator.server.close()
        await asyncio.sleep(0)


async def test_a_snapshot_of_three_workers_is_acknowledged_and_an_orderly_end_is_quiet() -> None:
    async with cluster(3) as (coordinator, _, tasks, _):
        await coordinator.start(3)

        coordinator.tell(Trigger(7, 1, "periodic", 0))
        acks = await coordinator.hear(Ack, 3)
        coordinator.tell(Committed(7, 1, {}))
        coordinator.tell(Shutdown(7))

        assert sorted(ack.worker for ack in acks) == [0, 1, 2]
        assert await asyncio.gather(*tasks) == ["", "", ""]


async def test_events_of_a_feed_are_applied_and_their_rows_published_after_the_commit() -> None:
    store, feed = MemoryStore(), Feed("t/count", ["a"] * 5)
    address = await feed.listen()
    async with cluster(1, store=store) as (coordinator, [host], _, _):
        await coordinator.start(1, {"log": address})
        await coordinator.wait(
            lambda: any(isinstance(said, Heartbeat) and said.processed == 5 for said in coordinator.said)
        )
        coordinator.tell(Trigger(7, 1, "periodic", 0))
        [ack] = await coordinator.hear(Ack)
        assert read_egress(store, "t/out", "egress") == []

        coordinator.tell(Committed(7, 1, {"log": 5}))
        coordinator.tell(Shutdown(7))
        await coordinator.wait(lambda: coordinator.lost == [0])

        assert [position.next_seq for position in ack.positions] == [5]
        assert [row.data for row in read_egress(store, "t/out", "egress")] == [1, 2, 3, 4, 5]
        assert frames.Trim(5) in feed.frames
        assert not host.is_idle()
    feed.close()


async def test_a_feed_that_moves_while_the_workers_load_is_found() -> None:
    feed = Feed("t/count", ["a"] * 5)
    address = await feed.listen()
    async with cluster(1) as (coordinator, _, _, _):
        await coordinator.start(1, logs={}, moved={"log": address})

        await coordinator.wait(
            lambda: any(isinstance(said, Heartbeat) and said.processed == 5 for said in coordinator.said)
        )
    feed.close()


class FullStore(MemoryStore):
    """Takes nothing."""

    def create(self, path: str, data: bytes) -> bool:
        raise StoreUnavailable(path, "create", "no space left")


async def test_a_sink_that_does_not_answer_is_reported_with_the_heartbeats() -> None:
    feed = Feed("t/count", ["a"])
    address = await feed.listen()
    async with cluster(1, store=FullStore()) as (coordinator, _, [task], _):
        await coordinator.start(1, {"log": address})
        await coordinator.wait(
            lambda: any(isinstance(said, Heartbeat) and said.processed == 1 for said in coordinator.said)
        )
        coordinator.tell(Trigger(7, 1, "periodic", 0))
        await coordinator.hear(Ack)
        coordinator.tell(Committed(7, 1, {}))

        await coordinator.wait(
            lambda: any(
                isinstance(said, Heartbeat) and "no space left" in said.trouble for said in coordinator.said
            )
        )
        assert not task.done()
    feed.close()


async def test_the_death_of_a_peer_ends_a_worker_with_its_name() -> None:
    async with cluster(2) as (coordinator, hosts, tasks, _):
        await coordinator.start(2)

        hosts[1].kill()

        [failed] = await coordinator.hear(WorkerFailed)
        assert failed.worker == 0
        assert "worker 1" in failed.reason
        assert not failed.is_final
        assert "worker 1" in await tasks[0]


async def test_the_loss_of_the_coordinator_ends_a_worker() -> None:
    async with cluster(1) as (coordinator, _, [task], _):
        await coordinator.start(1)

        coordinator.server.abort()

        assert "the coordinator is gone" in await task


async def test_a_worker_whose_heartbeats_are_not_answered_is_fenced_and_publishes_nothing() -> None:
    async with cluster(1, lease_s=0.2) as (coordinator, [host], _, fenced):
        await coordinator.start(1)
        assert host._may_publish()
        coordinator.is_answering = False

        await until(lambda: bool(fenced))

        assert "the lease has ended" in fenced[0]
        assert not host._may_publish()


async def test_a_worker_of_another_generation_is_turned_away() -> None:
    coordinator = Coordinator()
    address = await coordinator.server.listen()
    host = WorkerHost(
        WorkerHostConfig(app="shop", generation=6, worker=0, coordinator=address), functions, MemoryStore()
    )

    assert "this is generation 7, the caller belongs to generation 6" in await host.run()
    coordinator.server.close()


async def test_a_peer_of_another_generation_gets_no_channel() -> None:
    async with cluster(1) as (coordinator, _, _, _):
        [hello] = await coordinator.hear(WorkerHello)

        with pytest.raises(ConnectionError, match="this is generation 7"):
            await connect(
                hello.host,
                hello.port,
                Hello("shop", 6, "channel", 1, 0),
                on_frame=lambda _connection, _frame: None,
                on_close=lambda _connection, _reason: None,
            )


@pytest.mark.parametrize(
    ("target", "error"),
    [("t/quits", "SystemExit"), ("t/cancels", "CancelledError"), ("t/hangs", "invocation_timeout (50 ms)")],
)
async def test_a_function_that_ends_cancels_itself_or_hangs_fails_like_any_other(
    target: str, error: str
) -> None:
    feed = Feed(target, ["a"])
    address = await feed.listen()
    async with cluster(1) as (coordinator, [host], [task], _):
        await coordinator.start(1, {"log": address})
        await coordinator.wait(
            lambda: any(isinstance(said, Heartbeat) and said.backlog == 1 for said in coordinator.said)
        )
        coordinator.tell(Trigger(7, 1, "periodic", 0))
        await coordinator.hear(Ack)

        assert host._loop is not None
        core = host._loop.core
        assert not task.done()
        await until(lambda: any(error in address.error for address in core._addresses.busy.values()))
    feed.close()
