"""The coordinator's shell: sockets, store calls and the clock around the `Coordinator` core.

All workers of a generation connect here twice, for control and for heartbeats. Store requests
run in threads, one thread per request under way; their answers come back in whatever order the
store gives them, which the core does not mind. What happens when a worker dies, a store fails or
a generation ends is decided in the core.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.model import FunctionSpec
from statefun_checkpoints.retention import Collector, collect
from statefun_checkpoints.store import ObjectStore, perform
from statefun_ray.core.control import (
    Shutdown,
    ToCoordinator,
    WorkerHello,
    decode_to_coordinator,
    encode_control,
)
from statefun_ray.core.coordinator import Coordinator, CoordinatorConfig
from statefun_ray.core.effects import (
    Collect,
    CoordinatorEffect,
    Report,
    SendControl,
    StartWorkers,
    Stopped,
    StopWorkers,
    StoreCall,
)
from statefun_ray.io.clock import SteadyClock
from statefun_ray.io.handshake import Hello, refusal_of
from statefun_ray.io.heartbeat import unpack_heartbeat
from statefun_ray.io.transport import FrameConnection, FrameServer, OnClose, OnFrame

logger = logging.getLogger(__name__)

TICK_S: Final = 0.01
"""How late the core may notice that something is due: bounds reply latency and timeouts."""

STORE_THREADS: Final = 4
"""The core has one commit-log request under way, registrations and a collection beside it."""

DRAIN_S: Final = 6.0
"""After the final snapshot, for workers to publish and to release replies before they are ended."""

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Spawner(Protocol):
    """Starts and ends worker processes; each worker then speaks for itself over TCP."""

    async def start_workers(self, generation: int, count: int, coordinator: tuple[str, int]) -> None:
        """Start workers ``0 … count - 1`` of ``generation``; may return before they run.

        Any exception ends the generation, with its text as the reason.
        """
        ...

    async def stop_workers(self, generation: int) -> None:
        """End all workers of ``generation`` and below, as far as that is possible."""
        ...


@dataclass(frozen=True)
class CoordinatorHostConfig:
    """What a coordinator process is told."""

    core: CoordinatorConfig
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    advertised_host: str = ""
    """What workers connect to; the bound address unless given."""
    secret: bytes | None = None
    """Shared by all processes of the application; without it peers prove nothing."""


class CoordinatorHost:
    """Runs one `Coordinator` until it has stopped."""

    def __init__(
        self,
        config: CoordinatorHostConfig,
        functions: Mapping[str, FunctionSpec],
        store: ObjectStore,
        spawner: Spawner,
        serves: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Args:
        functions: what the application binds, as a commit-log entry describes it.
        serves: whether a function of another type is run by some service.
        """
        self.config = config
        self._store = store
        self._spawner = spawner
        self._clock = SteadyClock()
        self.core = Coordinator(config.core, functions, serves)
        self._server = FrameServer(admit=self._admit, on_open=self._opened, secret=config.secret)
        self._executor = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="coordinator-store")
        self._generation = 0
        self._control: dict[int, FrameConnection] = {}
        self._hellos: dict[int, WorkerHello] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._collector = Collector()
        self._collection: asyncio.Task[None] | None = None
        self._is_draining = False
        self._all_left = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[Stopped] | None = None

    # --- life -----------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listen, start the core, and return the address for workers.

        Raises:
            OSError: the address is in use or not ours.
        """
        self._stopped = asyncio.get_running_loop().create_future()
        await self._server.listen(self.config.bind_host, self.config.bind_port)
        self.core.start(self._clock.now_ms())
        self._perform()
        self._tick()
        return self.address

    async def run(self) -> Stopped:
        """Run until the application has stopped, in order or for an error; start first if need be."""
        if self._stopped is None:
            await self.start()
        assert self._stopped is not None
        try:
            return await asyncio.shield(self._stopped)
        finally:
            await self._close()

    async def stop(self) -> Stopped:
        """Take a final snapshot, end the workers, and return how it went."""
        assert self._stopped is not None, "the coordinator has not been started"
        if not self._stopped.done():
            self.core.stop(self._clock.now_ms())
            self._perform()
        return await asyncio.shield(self._stopped)

    def kill(self) -> None:
        """End as a crash would: no goodbye to anyone, nothing written after this."""
        self._server.abort()
        self._cancel()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(Stopped("killed", {}))

    @property
    def address(self) -> tuple[str, int]:
        """Where workers connect."""
        host, port = self._server.address
        return self.config.advertised_host or host, port

    @property
    def generation(self) -> int:
        """The generation whose workers may connect now; 0 before the first."""
        return self._generation

    def status(self) -> dict[str, Any]:
        """Return what the core reports, with the processes of its workers."""
        status = self.core.status()
        status["processes"] = [
            {
                "role": "worker",
                "index": hello.worker,
                "pid": hello.pid,
                "node": hello.node,
                "state": "connected" if hello.worker in self._control else "lost",
            }
            for hello in sorted(self._hellos.values(), key=lambda hello: hello.worker)
        ]
        return status

    def logs_known(self, logs: Mapping[str, tuple[str, int]]) -> None:
        """Tell where the feed of every known ingress log listens; call again when that changes."""
        if not self._is_over():
            self.core.logs_known(dict(logs), self._clock.now_ms())
            self._perform()

    def say(self, message: ToCoordinator) -> None:
        """Pass on what a worker would say, for instance that it wants a snapshot."""
        if not self._is_over():
            self.core.worker_said(message, self._clock.now_ms())
            self._perform()

    def worker_lost(self, generation: int, worker: int, reason: str) -> None:
        """Report the death of a worker, learnt from whoever started it."""
        if not self._is_over():
            self.core.worker_lost(generation, worker, reason, self._clock.now_ms())
            self._perform()

    # --- connections ----------------------------------------------------------------------

    def _admit(self, hello: Hello) -> str:
        refusal = refusal_of(
            hello,
            app=self.config.core.name,
            generation=self._generation,
            roles=("control", "heartbeat"),
            target=-1,
        )
        if not refusal and hello.role == "control" and hello.source in self._control:
            return f"worker {hello.source} of generation {hello.generation} is connected already"
        return refusal

    def _opened(self, connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        hello = connection.hello
        assert hello is not None
        if hello.role == "heartbeat":
            return self._on_heartbeat, lambda _connection, _reason: None
        self._control[hello.source] = connection
        return self._on_control, self._on_control_closed

    def _on_heartbeat(self, connection: FrameConnection, frame: bytes) -> None:
        answer, body = unpack_heartbeat(frame)
        self._said(body)
        connection.send(answer)

    def _on_control(self, connection: FrameConnection, frame: bytes) -> None:
        self._said(frame)

    def _said(self, frame: bytes) -> None:
        message = decode_to_coordinator(frame)
        if isinstance(message, WorkerHello) and message.generation == self._generation:
            self._hellos[message.worker] = message
        self.say(message)

    def _on_control_closed(self, connection: FrameConnection, reason: str) -> None:
        hello = connection.hello
        assert hello is not None
        if self._control.get(hello.source) is connection:
            del self._control[hello.source]
            if self._is_draining:
                if not self._control:
                    self._all_left.set()
                return
            self.worker_lost(hello.generation, hello.source, reason)

    def _drop_connections(self, generation: int) -> None:
        for connection in self._server.connections:
            if connection.hello is not None and connection.hello.generation <= generation:
                connection.close()
        self._control.clear()

    # --- the core -------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._is_over():
            return
        self.core.tick(self._clock.now_ms())
        self._perform()
        self._tick_timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _perform(self) -> None:
        for effect in self.core.take_effects():
            self._perform_one(effect)

    def _perform_one(self, effect: CoordinatorEffect) -> None:
        match effect:
            case SendControl():
                if isinstance(effect.message, Shutdown):
                    self._is_draining = True
                connection = self._control.get(effect.worker)
                if connection is not None:
                    connection.send(encode_control(effect.message))
            case StoreCall():
                self._spawn(self._call_store(effect))
            case StartWorkers():
                self._generation = effect.generation
                self._hellos.clear()
                self._spawn(self._start_workers(effect))
            case StopWorkers():
                self._draining = self._spawn(self._stop_workers(effect))
            case Collect():
                if self._collection is None or self._collection.done():
                    self._collection = self._spawn(self._collect(effect))
            case Report():
                logger.log(_LEVELS[effect.level], "%s", effect.text)
            case Stopped():
                self._spawn(self._finish(effect))

    async def _call_store(self, effect: StoreCall) -> None:
        try:
            result = await asyncio.get_running_loop().run_in_executor(
                self._executor, perform, self._store, effect.request
            )
        except StoreError as error:
            if not self._is_over():
                self.core.store_failed(effect.call_id, error)
                self._perform()
            return
        if not self._is_over():
            self.core.store_done(effect.call_id, result)
            self._perform()

    async def _start_workers(self, effect: StartWorkers) -> None:
        try:
            await self._spawner.start_workers(effect.generation, effect.count, self.address)
        except Exception as error:
            logger.exception("workers could not be started generation=%d", effect.generation)
            self.worker_lost(
                effect.generation, 0, f"could not start workers: {type(error).__name__}: {error}"
            )

    async def _stop_workers(self, effect: StopWorkers) -> None:
        if self._is_draining:
            # An orderly end: each worker hands on what the final snapshot released, then leaves.
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._all_left.wait()
            except TimeoutError:
                logger.warning("workers did not leave within %g s: %s", DRAIN_S, sorted(self._control))
        self._drop_connections(effect.generation)
        try:
            await self._spawner.stop_workers(effect.generation)
        except Exception:
            # They are fenced; whatever still runs ends with its lease.
            logger.exception("workers could not be stopped generation=%d", effect.generation)

    async def _finish(self, effect: Stopped) -> None:
        if self._draining is not None:
            await asyncio.wait([self._draining])
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(effect)

    async def _collect(self, effect: Collect) -> None:
        try:
            deleted = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._collect_now, effect
            )
            if deleted:
                logger.debug("old files deleted count=%d", len(deleted))
        except StoreError as error:
            logger.warning("old files not collected, trying again after the next snapshot: %s", error)

    def _collect_now(self, effect: Collect) -> list[str]:
        return collect(
            self._store,
            effect.retained_slots,
            effect.generation,
            collector=self._collector,
            now_ms=self._clock.now_ms(),
        )

    # --- inside ---------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("the coordinator failed", exc_info=error)
            if self._stopped is not None and not self._stopped.done():
                self._stopped.set_result(
                    Stopped(f"the coordinator failed: {type(error).__name__}: {error}", {})
                )

    def _is_over(self) -> bool:
        return self._stopped is None or self._stopped.done()

    def _cancel(self) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for task in list(self._tasks):
            task.cancel()

    async def _close(self) -> None:
        # What was said last (Shutdown, above all) has been handed to the kernel by `close`.
        stopping = [task for task in self._tasks if not task.done()]
        if stopping:
            await asyncio.wait(stopping, timeout=5)
        self._cancel()
        self._server.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
