"""The worker's shell: sockets, threads, files and user coroutines around the `Worker` core.

Life: hello to the coordinator -> plan -> load in a thread -> connect the mesh -> ready -> start ->
turns, until something ends it. A worker never recovers from anything but a lost feed: whatever
else goes wrong is reported, ends the process, and with it the generation.

The turns are in ``worker_loop``. The side thread of ``heartbeat`` tells the coordinator that the
process lives, and keeps the lease.
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
from statefun_checkpoints.errors import CheckpointError, advised
from statefun_checkpoints.model import Entry
from statefun_checkpoints.reader import Loaded
from statefun_checkpoints.store import ObjectStore, run_store
from statefun_ray.core.control import (
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
from statefun_ray.core.key_groups import shard_bounds, worker_ranges
from statefun_ray.core.outbox import first_rows
from statefun_ray.core.worker import Worker, describe_error
from statefun_ray.core.worker_config import WorkerConfig
from statefun_ray.io.clock import wall_ms
from statefun_ray.io.egress import RestoredShards, SinkRefused, SinkUnavailable
from statefun_ray.io.handshake import Hello
from statefun_ray.io.heartbeat import HEARTBEAT_S, LEASE_S, HeartbeatThread, exit_process
from statefun_ray.io.invoke_local import EmbeddedInvoker
from statefun_ray.io.invokers import Invokers
from statefun_ray.io.mesh import Mesh
from statefun_ray.io.part_writer import warm_up
from statefun_ray.io.record_checks import record_checks
from statefun_ray.io.remote.invoker import RemoteInvoker
from statefun_ray.io.transport import FrameConnection, connect
from statefun_ray.io.worker_loop import WorkerLoop
from statefun_ray.module.model import NO_MODULE, Module
from statefun_sdk import StatefulFunctions

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
"""How often an idle loop shows the side thread that it turns."""

IO_THREADS: Final = 4
"""For parts and egress: all of them wait for the disk or the network."""

UNSENT_BYTES_PER_MESSAGE: Final = 100
"""What a small message takes in a channel frame: turns unsent bytes into messages that wait."""

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
    module: Module = NO_MODULE
    """What the application has beyond embedded functions."""
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


def module_settings(module: Module) -> dict[str, Any]:
    """Return what a module says of the limits and policies of the worker core."""
    policy = module.failure_policy
    return {
        "eager_egresses": module.eager_egresses,
        "retry_deadline_ms": policy.retry_ms,
        "on_failure": policy.then,
        "strict": policy.strict,
    }


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
        self._loop: WorkerLoop | None = None
        """Set once everything is loaded and connected."""
        self._restored = RestoredShards({}, {})
        self._unsent_messages = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticked_at = time.monotonic()
        self._ended: asyncio.Future[WorkerFailure | None] | None = None
        self._is_killed = False
        self._is_running = False
        self._is_started = False
        self._logs: dict[str, tuple[str, int]] = {}

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> str:
        """Work until the generation ends; return why it did, empty after an orderly shutdown."""
        if self._is_killed:
            return "killed"
        self._ended = asyncio.get_running_loop().create_future()
        self._is_running = True
        # As a task of its own: a kill must not wait for a coordinator that does not answer.
        self._spawn(self._begin())
        try:
            failure = await self._ended
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
        self._is_killed = True
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
        return self._is_running and self._is_started and self._loop is not None and self._loop.is_idle

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
        checks = record_checks(config.module, config.sinks)
        invoker = Invokers(
            EmbeddedInvoker(self._functions, record_checks=checks),
            RemoteInvoker(config.module, checks),
        )
        core = Worker(
            WorkerConfig(
                app=config.app,
                generation=config.generation,
                worker=config.worker,
                worker_count=plan.worker_count,
                key_group_count=plan.key_group_count,
                shard_count=plan.shard_count,
                **{**module_settings(config.module), **config.core},
            ),
            invoker,
        )
        warming = asyncio.get_running_loop().run_in_executor(self._executor, warm_up)
        shards = _shards_of(plan, key_groups)
        self._restored = RestoredShards(dict.fromkeys(shards, 0), {})
        keys = await self._load(core, plan, key_groups)
        await self._mesh.connect(plan.peers, config.connect_timeout_s)
        await warming
        self._loop = WorkerLoop(
            core,
            invoker,
            mesh=self._mesh,
            store=self._store,
            executor=self._executor,
            key_groups=key_groups,
            module=config.module,
            sinks=config.sinks,
            workers_since=plan.workers_since,
            restored=self._restored,
            may_publish=self._may_publish,
            tell=self._tell,
            fail=self._fail,
        )
        await self._loop.fence()
        self._tell(Ready(config.generation, config.worker, keys))

    async def _load(self, core: Worker, plan: Plan, key_groups: tuple[int, int]) -> int:
        started_s = time.monotonic()
        if plan.entry is None:
            return 0
        # Loading makes millions of objects and no garbage: every look at them would be in vain.
        collects = self.config.freeze_gc and gc.isenabled()
        if collects:
            gc.disable()
        try:
            return await self._load_entry(core, plan.entry, key_groups, started_s)
        finally:
            if collects:
                gc.freeze()
                gc.enable()

    async def _load_entry(
        self, core: Worker, entry_bytes: bytes, key_groups: tuple[int, int], started_s: float
    ) -> int:
        try:
            entry: Entry = entry_format.decode_entry(entry_bytes, "the entry to restore")
            loaded: Loaded = await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: run_store(self._store, reader.load(entry, key_groups))
            )
        except CheckpointError as error:
            # The next generation would read the same objects.
            raise WorkerFailure(f"the snapshot can not be restored: {advised(error)}", True) from error
        self._restored = RestoredShards(
            {shard: entry.out_seq.get(str(shard), 0) for shard in self._restored.next_sequence},
            first_rows(loaded.transient),
        )
        keys = core.load(loaded.state, loaded.transient, entry, wall_ms())
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
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._loop is not None:
            self._loop.close()

    def _fail(self, reason: str, *, is_final: bool = False) -> None:
        """End this worker, and with it the generation. The first reason counts."""
        if self._is_running and self._ended is not None and not self._ended.done():
            self._ended.set_result(WorkerFailure(reason, is_final))
            self._is_running = False
            if self._loop is not None:
                self._loop.halt()

    # --- lease and heartbeat: called in the side thread -----------------------------------

    def _beat(self) -> bytes:
        loop = self._loop
        turned_at = self._ticked_at if loop is None else max(self._ticked_at, loop.turned_at)
        tick_age_ms = int((time.monotonic() - turned_at) * 1000)
        if loop is None:
            heartbeat = Heartbeat(self.config.generation, self.config.worker, tick_age_ms, "", 0, 0, [], 0)
        else:
            heartbeat = msgspec.structs.replace(loop.core.heartbeat(tick_age_ms), trouble=loop.trouble)
        backlog = heartbeat.backlog + self._unsent_messages
        return encode_control(msgspec.structs.replace(heartbeat, backlog=backlog))

    def _lease_lost(self, reason: str) -> None:
        self._is_running = False
        self._on_lease_lost(reason)

    def _may_publish(self) -> bool:
        return self._is_running and self._heartbeat is not None and self._heartbeat.is_leased

    # --- connections ----------------------------------------------------------------------

    def _hello(self, role: str, *, target: int) -> Hello:
        return Hello(self.config.app, self.config.generation, role, self.config.worker, target)

    def _on_channel_frame(self, peer: int, frame: bytes) -> None:
        if self._loop is None:
            self._fail(f"worker {peer} sent data before the start")
        else:
            self._loop.channel_frame(peer, frame)

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
                # Now, not when loading is done: feeds that move meanwhile are told in between.
                self._logs = dict(message.logs)
                self._spawn(self._prepare(message))
            case Start():
                assert self._loop is not None, "the coordinator starts those who are ready"
                self._is_started = True
                self._loop.start(self._logs)
            case Logs():
                self._logs = dict(message.logs)
                if self._is_started and self._loop is not None:
                    self._loop.connect_feeds(self._logs)
            case Shutdown():
                self._spawn(self._shut_down())
            case _:
                if self._loop is not None:
                    self._loop.control(message)

    async def _shut_down(self) -> None:
        self._mesh.expect_leaving()
        if self._loop is not None:
            await self._loop.leave()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._is_running = False

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
        elif isinstance(error, SinkRefused):
            self._fail(str(error), is_final=True)
        elif isinstance(error, OSError | SinkUnavailable):
            self._fail(describe_error(error))  # a peer, the coordinator or a sink is not there, or refuses us
        elif error is not None:
            logger.error("worker %d failed", self.config.worker, exc_info=error)
            self._fail(describe_error(error))


def _shards_of(plan: Plan, key_groups: tuple[int, int]) -> list[int]:
    low, high = key_groups
    bounds = shard_bounds(key_group_count=plan.key_group_count, shard_count=plan.shard_count)
    return [shard for shard in range(plan.shard_count) if low <= bounds[shard] < high]
