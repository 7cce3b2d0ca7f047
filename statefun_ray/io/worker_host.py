"""The worker's shell: sockets, threads, files and user coroutines around the `Worker` core.

Life: hello to the coordinator -> plan -> load in a thread -> connect the mesh -> ready -> start ->
turns, until something ends it. A worker never recovers from anything but a lost feed: whatever
else goes wrong is reported, ends the process, and with it the generation.

A turn of the loop runs the core for about a millisecond and then gives way, so markers and
control frames that arrived meanwhile are handled before more messages. The side thread of
``heartbeat`` tells the coordinator that the process lives, and keeps the lease.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from statefun_checkpoints import entry_format, reader
from statefun_checkpoints.errors import CheckpointError
from statefun_checkpoints.model import Entry, PartDescriptor
from statefun_checkpoints.reader import Loaded
from statefun_checkpoints.store import ObjectStore, run_store
from statefun_ray.core.control import (
    Abort,
    Committed,
    Heartbeat,
    Logs,
    Plan,
    Ready,
    Shutdown,
    Start,
    ToCoordinator,
    WorkerFailed,
    WorkerHello,
    decode_to_worker,
    encode_control,
)
from statefun_ray.core.effects import (
    Die,
    FeedFrame,
    Invoke,
    Publish,
    SendFrame,
    Tell,
    WorkerEffect,
    WritePart,
)
from statefun_ray.core.invoker import InvocationEffects
from statefun_ray.core.key_groups import worker_ranges
from statefun_ray.core.worker import Worker, WorkerConfig, describe_error
from statefun_ray.io.clock import wall_ms
from statefun_ray.io.egress import Publisher, Sinks
from statefun_ray.io.feed_client import FeedClient
from statefun_ray.io.handshake import Hello
from statefun_ray.io.heartbeat import HEARTBEAT_S, LEASE_S, HeartbeatThread, exit_process
from statefun_ray.io.invoke_local import EmbeddedInvoker, FailureLog
from statefun_ray.io.mesh import Mesh
from statefun_ray.io.part_writer import PartWriter, warm_up
from statefun_ray.io.transport import FrameConnection, connect
from statefun_sdk import StatefulFunctions

logger = logging.getLogger(__name__)

TURN_S: Final = 0.001
"""What a turn of the loop aims at: how long a marker may wait behind messages."""

LIMIT_FIRST: Final = 64
LIMIT_MIN: Final = 1
LIMIT_MAX: Final = 16_384
"""Messages per turn, adapted to ``TURN_S``."""

TICK_S: Final = 0.1
"""How often an idle loop shows the side thread that it turns."""

LOOK_AGAIN_S: Final = 1.0
"""How late a timer may fire after the wall clock was set forward."""

IO_THREADS: Final = 4
"""For parts and egress: all of them wait for the disk or the network."""

UNSENT_BYTES_PER_MESSAGE: Final = 100
"""What a small message takes in a channel frame: turns unsent bytes into messages that wait."""

PUBLISH_LAST_S: Final = 5.0
"""For publications after the final snapshot; the coordinator waits a little longer."""

FAREWELL_S: Final = 0.2
"""For the last words to a coordinator to leave."""


@dataclass(frozen=True)
class WorkerHostConfig:
    """What a worker process is told when it is started; the rest comes with the plan."""

    app: str
    generation: int
    worker: int
    coordinator: tuple[str, int]
    bind_host: str = "127.0.0.1"
    advertised_host: str = ""
    """What peers connect to; ``bind_host`` unless given."""
    node: str = ""
    sinks: Mapping[str, str] = field(default_factory=dict)
    """Egress typename -> sink URI; any other egress goes to files in the application's storage."""
    secret: bytes | None = None
    lease_s: float = LEASE_S
    heartbeat_s: float = HEARTBEAT_S
    connect_timeout_s: float = 30.0
    """For peers to accept: they load in parallel, and listen before they load."""
    freeze_gc: bool = True
    """Keep loaded state away from the garbage collector; not where several workers share a process."""
    core: Mapping[str, Any] = field(default_factory=dict)
    """Limits of `WorkerConfig` that differ from their defaults."""


class WorkerFailure(Exception):
    """Why a worker ended; ``is_final`` if the next generation would end in the same way."""

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason, is_final)
        self.reason, self.is_final = reason, is_final

    def __str__(self) -> str:
        return self.reason


class WorkerHost:
    """Runs one worker of one generation, once."""

    def __init__(
        self,
        config: WorkerHostConfig,
        functions: StatefulFunctions,
        store: ObjectStore,
        *,
        on_lease_lost: Callable[[str], None] = exit_process,
    ) -> None:
        """Args:
        on_lease_lost: called in the side thread when the worker is fenced; ends the process.
        """
        self.config = config
        self._functions = functions
        self._store = store
        self._on_lease_lost = on_lease_lost
        self._executor = ThreadPoolExecutor(IO_THREADS, thread_name_prefix=f"worker-{config.worker}-io")
        self._mesh = Mesh(
            app=config.app,
            generation=config.generation,
            worker=config.worker,
            secret=config.secret,
            on_frame=self._on_channel_frame,
            on_broken=self._fail,
        )
        self._control: FrameConnection | None = None
        self._heartbeat: HeartbeatThread | None = None
        self._core: Worker | None = None
        self._invoker: EmbeddedInvoker | None = None
        self._failures = FailureLog()
        self._is_performing = False
        self._deferred: list[Callable[[Worker], None]] = []
        """Calls of the core that came up while its effects were being performed."""
        self._unsent_messages = 0
        self._parts: PartWriter | None = None
        self._publisher: Publisher | None = None
        self._feeds: dict[str, FeedClient] = {}
        self._logs: dict[str, tuple[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limit = LIMIT_FIRST
        self._turn_handle: asyncio.Handle | None = None
        self._due_handle: asyncio.TimerHandle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticked_at = time.monotonic()
        self._ended: asyncio.Future[WorkerFailure | None] | None = None
        self._is_running = False
        self._is_started = False

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> str:
        """Work until the generation ends; return why it did, empty after an orderly shutdown."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._is_running = True
        try:
            await self._begin()
            failure = await self._ended
        except (OSError, WorkerFailure) as error:
            failure = error if isinstance(error, WorkerFailure) else WorkerFailure(describe_error(error))
        finally:
            self._is_running = False
        if failure is not None:
            logger.error(
                "worker %d of generation %d ends: %s", self.config.worker, self.config.generation, failure
            )
            self._tell(
                WorkerFailed(self.config.generation, self.config.worker, failure.reason, failure.is_final)
            )
        await self._close()
        return failure.reason if failure is not None else ""

    def kill(self) -> None:
        """End as a crash would: connections are cut, nothing more is written or said."""
        self._is_running = False
        self._cancel()
        self._mesh.abort()
        if self._control is not None:
            self._control.abort()
            self._control = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(WorkerFailure("killed"))

    def is_idle(self) -> bool:
        """Whether nothing waits here: no message, invocation, unsent frame or unpublished row."""
        core = self._core
        return (
            core is not None
            and self._is_started
            and self._is_running
            and core.backlog == 0
            and self._turn_handle is None
            and not self._mesh.unsent_bytes
            and (self._publisher is None or self._publisher.backlog == 0)
        )

    async def _begin(self) -> None:
        config = self.config
        host, port = await self._mesh.listen(config.bind_host)
        self._control = await connect(
            *config.coordinator,
            self._hello("control", target=-1),
            on_frame=self._on_control,
            on_close=lambda _connection, reason: self._fail(f"the coordinator is gone: {reason}"),
            secret=config.secret,
        )
        self._heartbeat = HeartbeatThread(
            config.coordinator,
            self._hello("heartbeat", target=-1),
            beat=self._beat,
            on_lease_lost=self._lease_lost,
            secret=config.secret,
            heartbeat_s=config.heartbeat_s,
            lease_s=config.lease_s,
        )
        self._heartbeat.start()
        self._tick()
        self._tell(
            WorkerHello(
                generation=config.generation,
                worker=config.worker,
                host=config.advertised_host or host,
                port=port,
                pid=os.getpid(),
                node=config.node,
            )
        )

    async def _prepare(self, plan: Plan) -> None:
        """Load and connect: everything between the plan and ready."""
        config = self.config
        key_groups = worker_ranges(
            worker_count=plan.worker_count, key_group_count=plan.key_group_count, shard_count=plan.shard_count
        )[config.worker]
        self._invoker = EmbeddedInvoker(self._functions)
        core = Worker(
            WorkerConfig(
                app=config.app,
                generation=config.generation,
                worker=config.worker,
                worker_count=plan.worker_count,
                key_group_count=plan.key_group_count,
                shard_count=plan.shard_count,
                **config.core,
            ),
            self._invoker,
        )
        self._parts = PartWriter(
            self._store,
            self._executor,
            generation=config.generation,
            worker=config.worker,
            key_groups=key_groups,
            on_written=self._part_written,
            on_failed=self._fail,
        )
        self._publisher = Publisher(
            Sinks(self._store, config.sinks),
            executor=self._executor,
            may_publish=self._may_publish,
            on_published=self._published,
            on_failed=self._fail,
        )
        warming = asyncio.get_running_loop().run_in_executor(self._executor, warm_up)
        keys = await self._load(core, plan, key_groups)
        await self._mesh.connect(plan.peers, config.connect_timeout_s)
        await warming
        self._core = core
        self._logs = dict(plan.logs)
        self._tell(Ready(config.generation, config.worker, keys))

    async def _load(self, core: Worker, plan: Plan, key_groups: tuple[int, int]) -> int:
        started_s = time.monotonic()
        if plan.entry is None:
            return 0
        try:
            entry: Entry = entry_format.decode_entry(plan.entry, "the entry to restore")
            loaded: Loaded = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: run_store(self._store, reader.load(entry, key_groups))
            )
        except CheckpointError as error:
            # The next generation would read the same objects.
            raise WorkerFailure(f"the snapshot can not be restored: {error}", True) from error
        keys = core.load(loaded.state, loaded.transient, entry, wall_ms())
        del loaded
        if self.config.freeze_gc:
            gc.collect()
            gc.freeze()
        logger.info(
            "worker %d of generation %d loaded snapshot=%d rows=%d seconds=%.2f",
            self.config.worker,
            self.config.generation,
            entry.snapshot_id,
            keys,
            time.monotonic() - started_s,
        )
        return keys

    async def _close(self) -> None:
        self._cancel()
        self._mesh.close()
        if self._control is not None:
            self._control.close()
            await asyncio.sleep(0 if self._control.unsent_bytes == 0 else FAREWELL_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _cancel(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        for handle in (self._turn_handle, self._due_handle, self._tick_handle):
            if handle is not None:
                handle.cancel()
        for feed in self._feeds.values():
            feed.close()
        for part in (self._parts, self._publisher):
            if part is not None:
                part.close()
        for task in list(self._tasks):
            task.cancel()
        if self._invoker is not None:
            self._invoker.close()

    def _fail(self, reason: str, *, is_final: bool = False) -> None:
        """End this worker, and with it the generation. The first reason counts."""
        if self._is_running and self._ended is not None and not self._ended.done():
            self._ended.set_result(WorkerFailure(reason, is_final))
            self._is_running = False

    # --- lease and heartbeat: called in the side thread -----------------------------------

    def _beat(self) -> bytes:
        tick_age_ms = int((time.monotonic() - self._ticked_at) * 1000)
        core = self._core
        if core is None:
            heartbeat = Heartbeat(self.config.generation, self.config.worker, tick_age_ms, "", 0, 0, [], 0)
        else:
            heartbeat = core.heartbeat(tick_age_ms)
        backlog = heartbeat.backlog + self._unsent_messages
        return encode_control(msgspec.structs.replace(heartbeat, backlog=backlog, trouble=self._trouble()))

    def _trouble(self) -> str:
        troubles = [part.last_error for part in (self._publisher, self._parts) if part is not None]
        return "; ".join(filter(None, troubles))

    def _lease_lost(self, reason: str) -> None:
        self._is_running = False
        self._on_lease_lost(reason)

    def _may_publish(self) -> bool:
        return self._is_running and self._heartbeat is not None and self._heartbeat.is_leased

    # --- connections ----------------------------------------------------------------------

    def _hello(self, role: str, *, target: int) -> Hello:
        return Hello(self.config.app, self.config.generation, role, self.config.worker, target)

    def _on_channel_frame(self, peer: int, frame: bytes) -> None:
        if self._core is None:
            self._fail(f"worker {peer} sent data before the start")
        self._guarded(lambda core: core.channel_frame(peer, frame))

    def _tell(self, message: ToCoordinator) -> None:
        if self._control is not None:
            self._control.send(encode_control(message))

    def _on_control(self, _connection: FrameConnection, frame: bytes) -> None:
        if not self._is_running:
            return
        message = decode_to_worker(frame)
        if message.generation != self.config.generation:
            return
        match message:
            case Plan():
                self._spawn(self._prepare(message))
            case Start():
                self._guarded(lambda core: core.start(wall_ms()))
                self._is_started = True
                self._connect_feeds()
            case Logs():
                self._logs = dict(message.logs)
                if self._is_started:
                    self._connect_feeds()
            case Shutdown():
                self._spawn(self._shut_down())
            case _:
                if isinstance(message, Committed | Abort) and self._parts is not None:
                    self._parts.drop(message.snapshot_id)
                if self._core is not None:
                    self._guarded(lambda core: core.control(message, wall_ms()))

    async def _shut_down(self) -> None:
        self._mesh.expect_leaving()
        # Replies have been handed to the feeds; rows may still be on their way to their sinks. Those
        # that do not make it stand in the final snapshot and are published after the next start.
        deadline = asyncio.get_running_loop().time() + PUBLISH_LAST_S
        while self._publisher is not None and self._publisher.backlog:
            if asyncio.get_running_loop().time() > deadline:
                logger.warning(
                    "worker %d leaves %d publications to the next start",
                    self.config.worker,
                    self._publisher.backlog,
                )
                break
            await asyncio.sleep(0.005)
        for feed in self._feeds.values():
            feed.leave()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._is_running = False

    def _connect_feeds(self) -> None:
        for log_id, address in self._logs.items():
            feed = self._feeds.get(log_id)
            if feed is None:
                self._feeds[log_id] = FeedClient(
                    log_id,
                    address,
                    on_open=lambda log_id: self._guarded(lambda core: core.feed_opened(log_id)),
                    on_frame=lambda log_id, frame: self._guarded(
                        lambda core: core.feed_frame(log_id, frame, wall_ms())
                    ),
                    on_close=lambda log_id: self._guarded(lambda core: core.feed_closed(log_id)),
                )
            else:
                feed.move(address)

    # --- the core -------------------------------------------------------------------------

    def _guarded(self, call: Callable[[Worker], None]) -> None:
        """Call the core, perform what it asks for, and see that a turn follows."""
        core = self._core
        if core is None or not self._is_running:
            return
        if self._is_performing:
            self._deferred.append(call)
            return
        try:
            call(core)
            self._perform(core)
        except Exception as error:
            logger.exception("worker %d failed", self.config.worker)
            self._fail(describe_error(error))
            return
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if self._turn_handle is None and self._is_running:
            self._turn_handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_handle = None
        core, parts = self._core, self._parts
        if core is None or parts is None or not self._is_running:
            return
        limit = self._limit
        began_s = time.perf_counter()
        try:
            has_more = core.turn(wall_ms(), limit)
            self._perform(core)
            took_s = time.perf_counter() - began_s
            parts_due_s = parts.step(is_busy=has_more)
            self._perform(core)
        except Exception as error:
            logger.exception("worker %d failed", self.config.worker)
            self._fail(describe_error(error))
            return
        self._ticked_at = time.monotonic()
        if took_s > TURN_S:
            self._limit = max(LIMIT_MIN, int(limit * max(0.25, TURN_S / took_s)))
        elif has_more and took_s < 0.8 * TURN_S:
            self._limit = min(LIMIT_MAX, limit + limit // 4 + 1)
        if has_more or parts_due_s == 0.0:
            self._schedule_turn()
        else:
            self._wake_when_due(core, parts_due_s)

    def _wake_when_due(self, core: Worker, parts_due_s: float | None) -> None:
        if self._due_handle is not None:
            self._due_handle.cancel()
            self._due_handle = None
        delays_s = [delay_s for delay_s in [parts_due_s] if delay_s is not None]
        if core.next_due_ms is not None:
            # A late timer is allowed, an early one is not: round up. The wall clock may be set
            # meanwhile, so it is looked at again soon.
            delays_s.append(min(LOOK_AGAIN_S, max(0.001, (core.next_due_ms - wall_ms() + 1) / 1000)))
        if delays_s:
            self._due_handle = asyncio.get_running_loop().call_later(min(delays_s), self._schedule_turn)

    def _perform(self, core: Worker) -> None:
        # What performing an effect leads to waits for the effects before it: order is kept.
        self._is_performing = True
        try:
            while True:
                for effect in core.take_effects():
                    self._perform_one(effect)
                self._mesh.flush()
                if not self._deferred:
                    return
                deferred, self._deferred = self._deferred, []
                for call in deferred:
                    call(core)
        finally:
            self._is_performing = False

    def _perform_one(self, effect: WorkerEffect) -> None:
        match effect:
            case SendFrame():
                self._mesh.send(effect.peer, effect.frame)
            case FeedFrame():
                feed = self._feeds.get(effect.log_id)
                if feed is not None:
                    feed.send(effect.frame)
            case Tell():
                self._tell(effect.message)
            case Invoke():
                assert self._invoker is not None
                self._spawn(self._invoke(self._invoker, effect))
            case WritePart():
                assert self._parts is not None
                self._parts.add(effect)
            case Publish():
                assert self._publisher is not None
                self._publisher.add(effect)
            case Die():
                self._fail(effect.reason)

    async def _invoke(self, invoker: EmbeddedInvoker, effect: Invoke) -> None:
        effects: InvocationEffects | None = None
        error: str | None = None
        try:
            effects = await invoker.run(effect)
        except asyncio.CancelledError as cancelled:
            if not self._is_running:
                raise
            # The function cancelled itself, or let a cancelled task of its own show.
            error = describe_error(cancelled)
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - reported below
            # User code may raise anything; the address carries it and tries again.
            self._failures.report(effect.function_type, effect.id, raised)
            error = describe_error(raised)
        self._guarded(lambda core: core.invocation_done(effect.invocation_id, effects, error, wall_ms()))

    def _part_written(self, snapshot_id: int, kind: str, descriptor: PartDescriptor | None) -> None:
        self._guarded(lambda core: core.part_written(snapshot_id, kind, descriptor))

    def _published(self, shard: int, epoch: int) -> None:
        self._guarded(lambda core: core.published(shard, epoch))

    # --- inside ---------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticked_at = time.monotonic()
        # A peer that does not keep up holds back the sources like a full mailbox of our own.
        self._unsent_messages = self._mesh.unsent_bytes // UNSENT_BYTES_PER_MESSAGE
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, WorkerFailure):
            self._fail(error.reason, is_final=error.is_final)
        elif error is not None:
            logger.error("worker %d failed", self.config.worker, exc_info=error)
            self._fail(describe_error(error))
