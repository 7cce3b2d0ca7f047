"""A whole application in one process: no Ray, the same hosts and cores, real files and sockets.

For tests of an application, for trying things out, and for machines where one process is enough.
Ingress, coordinator and workers share one event loop in a thread of its own; everything else is
as on a cluster, HTTP, TCP channels and snapshots included. What it can not show is a process that
dies or freezes, and a function that blocks holds up all workers at once.

::

    with LocalApplication(functions, storage="state", workers=2) as app:
        app.send("shop/cart", "ann", {"add": "tea"})
        assert app.ask("shop/cart", "ann", {"show": True}) == {"tea": 1}
        app.kill_worker(0)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from statefun_checkpoints.errors import CheckpointError, advised
from statefun_checkpoints.store import ObjectStore, open_store
from statefun_ingress.errors import LogLocked
from statefun_ray.core.control import SnapshotWanted
from statefun_ray.core.coordinator import CoordinatorConfig
from statefun_ray.core.effects import Stopped
from statefun_ray.core.key_groups import EGRESS_SHARDS_DEFAULT, KEY_GROUP_COUNT_DEFAULT
from statefun_ray.io.adoption import LogsMissing, adopt
from statefun_ray.io.client import HttpClient, Reply
from statefun_ray.io.coordinator_host import CoordinatorHost, CoordinatorHostConfig
from statefun_ray.io.egress import DEFAULT_SINK_PREFIX
from statefun_ray.io.egress_file import PublishedRow, read_egress
from statefun_ray.io.ingress_host import IngressHost, IngressHostConfig
from statefun_ray.io.invoke_local import describe_functions
from statefun_ray.io.ports import choose_ports
from statefun_ray.io.task_spawner import LocalSpawner, TaskSpawner
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig
from statefun_ray.module.model import NO_MODULE, Module
from statefun_sdk import StatefulFunctions, Type

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_TIMEOUT_S: Final = 60.0
"""For the final snapshot, through any recovery that is under way."""

POLL_S: Final = 0.005
"""Between two looks at something that has no callback."""


class ApplicationFailed(RuntimeError):
    """The application ended by itself; the text says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the application has stopped: {self.reason}"


class LocalApplication:
    """Runs an application in this process; all methods may be called from any one thread."""

    def __init__(
        self,
        functions: StatefulFunctions | None = None,
        *,
        module: Module = NO_MODULE,
        storage: str | Path | ObjectStore | None = None,
        log_dir: str | Path | None = None,
        workers: int = 2,
        name: str = "local",
        http_host: str = "127.0.0.1",
        http_port: int = 0,
        snapshot_interval_s: float = 1.0,
        sinks: Mapping[str, str] | None = None,
        key_group_count: int = KEY_GROUP_COUNT_DEFAULT,
        shard_count: int = EGRESS_SHARDS_DEFAULT,
        start_timeout_s: float = 30.0,
        coordinator: Mapping[str, Any] | None = None,
        worker: Mapping[str, Any] | None = None,
        ingress: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the application; ``start`` or a ``with`` block runs it.

        Args:
            functions: those that run in this process.
            module: what it has beyond them, see `statefun_ray.module`; its own Python functions are
                not imported here.
            storage: directory or URI of its snapshots, or an open store; a temporary directory
                unless given, which goes with the application.
            log_dir: directory of accepted events; temporary likewise.
            workers: how many, 1 to ``shard_count``.
            name: of the application, written into its storage.
            http_host, http_port: where HTTP listens; port 0 takes a free one at every start.
            snapshot_interval_s: between periodic snapshots.
            sinks: egress typename -> sink URI; any other egress goes to the storage, see `egress`.
            key_group_count, shard_count: fixed for the life of the storage.
            start_timeout_s: for `start` to reach the point where events are processed.
            coordinator, worker, ingress: settings of `CoordinatorConfig`, `WorkerConfig` and `IngressConfig` by
                name.
        """
        self.functions = functions if functions is not None else StatefulFunctions()
        self.module = module
        self.name = name
        self.workers = workers
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if storage is None or log_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="statefun-ray-")
        place = Path(self._temporary.name) if self._temporary is not None else Path()
        chosen = storage if storage is not None else place / "storage"
        self.store = open_store(str(chosen)) if isinstance(chosen, str | Path) else chosen
        self._log_dir = str(log_dir if log_dir is not None else place / "log")
        self._http_host, self._http_port = http_host, http_port
        self._http_port_now, self._module_now = http_port, module
        self._sinks = dict(sinks or {})
        self._key_group_count = key_group_count
        self._shard_count = shard_count
        self._start_timeout_s = start_timeout_s
        self._coordinator_settings = {
            "snapshot_interval_ms": int(snapshot_interval_s * 1000),
            **(coordinator or {}),
        }
        self._worker_settings = dict(worker or {})
        self._ingress_settings = dict(ingress or {})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ingress: IngressHost | None = None
        self._coordinator: CoordinatorHost | None = None
        self._spawner: LocalSpawner | None = None
        self._running: concurrent.futures.Future[Stopped] | None = None
        self._client: HttpClient | None = None

    # --- life -----------------------------------------------------------------------------

    def start(self) -> Self:
        """Start, and return when events are processed.

        Raises:
            ApplicationFailed: it ended instead, for instance because the storage does not fit.
            TimeoutError: it did not start within ``start_timeout_s``; the text says where it is.
        """
        if self._loop is None:
            self._loop = new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name=f"{self.name}-loop", daemon=True
            )
            self._thread.start()
        try:
            adopt(self.store, self._log_dir, self.name)
        except (LogsMissing, CheckpointError, LogLocked) as error:
            raise ApplicationFailed(
                advised(error) if isinstance(error, CheckpointError) else str(error)
            ) from None
        self._http_port_now, self._module_now = choose_ports(self._http_host, self._http_port, self.module)
        # Only an application that has claimed a generation goes on for good, and may register a log.
        self._start_coordinator()
        self._wait(lambda: self.status()["generation"] > 0, self._start_timeout_s, "claimed")
        try:
            self._start_ingress()
        except BaseException:
            self.crash()
            raise
        self._tell_logs()
        self._wait(lambda: self.status()["phase"] == "running", self._start_timeout_s, "running")
        return self

    def stop(self) -> None:
        """Take a final snapshot and end; ``start`` goes on from it.

        Raises:
            ApplicationFailed: no final snapshot was taken.
        """
        if self._coordinator is not None:
            if self._ingress is not None:
                self._invoke(self._ingress.drain)
            try:
                stopped = self._call(self._coordinator.stop(), STOP_TIMEOUT_S)
            except TimeoutError:
                last_error = self.status()["last_error"] or "none"
                self.crash()
                raise ApplicationFailed(
                    f"no final snapshot within {STOP_TIMEOUT_S:g} s, so it was ended without; last error: {last_error}"
                ) from None
            self._end_coordinator()
            self._end_ingress((stopped.details.get("last_snapshot") or {}).get("positions"))
            if stopped.error:
                raise ApplicationFailed(stopped.error)

    def crash(self) -> None:
        """End everything at once, as if the machine had lost power; ``start`` recovers."""
        if self._coordinator is not None:
            self._invoke(self._coordinator.kill)
            if self._spawner is not None:
                self._invoke(self._spawner.kill_all)
            self._end_coordinator()
        self._end_ingress()

    def restart(self, workers: int | None = None) -> None:
        """Stop with a final snapshot and start again, with another number of workers if given."""
        self.stop()
        self.workers = workers if workers is not None else self.workers
        self.start()

    def close(self) -> None:
        """End without a final snapshot if it still runs, and remove what was temporary."""
        self.crash()
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            self._loop = self._thread = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.close()

    # --- what goes in and comes out -------------------------------------------------------

    @property
    def url(self) -> str:
        """Of the HTTP ingress, without a slash at the end."""
        assert self._ingress is not None, "the application has not been started"
        return self._ingress.url

    @property
    def playground_url(self) -> str:
        """Of the playground's ingress; empty where the module has none."""
        assert self._ingress is not None, "the application has not been started"
        return self._ingress.playground_url

    @property
    def playground_egress_url(self) -> str:
        """Of the playground's egress; empty where the module has none."""
        assert self._ingress is not None, "the application has not been started"
        return self._ingress.playground_egress_url

    @property
    def client(self) -> HttpClient:
        """Sends events over HTTP, as any client would."""
        url = self.url
        client = self._client
        if client is None or client.url != url:
            if client is not None:
                client.close()
            client = self._client = HttpClient(url)
        return client

    def send(
        self,
        target: str,
        id: str,
        value: Any,
        *,
        type: Type[Any] | None = None,
        producer: tuple[str, int] | None = None,
    ) -> None:
        """Send one event and return when it is durable; see `HttpClient.send`."""
        self.client.send(target, id, value, type=type, producer=producer)

    def ask(
        self, target: str, id: str, value: Any, *, type: Type[Any] | None = None, wait_s: float = 30.0
    ) -> Any:
        """Send one event and return the value of the committed reply; see `HttpClient.ask`."""
        return self.client.ask(target, id, value, type=type, wait_s=wait_s).data

    def ask_raw(
        self, target: str, id: str, value: Any, *, type: Type[Any] | None = None, wait_s: float = 30.0
    ) -> Reply:
        """As `ask`, with everything the response says."""
        return self.client.ask(target, id, value, type=type, wait_s=wait_s)

    def state(self, target: str, id: str) -> dict[str, Any]:
        """Return the live state of an address by name of the state; empty if it has none."""
        return self.client.state(target, id)

    def egress(self, egress: str) -> list[PublishedRow]:
        """Return what has been published to an egress so far, by shard and in order within each."""
        if egress in self._sinks:
            return read_egress(self._sinks[egress], egress)
        return read_egress(self.store, egress, DEFAULT_SINK_PREFIX)

    # --- what one can do to it ------------------------------------------------------------

    def snapshot(self, timeout_s: float = 30.0) -> int:
        """Make everything applied so far durable; return the id of a snapshot that holds it."""
        coordinator = self._coordinator
        assert coordinator is not None, "the application has not been started"
        status = self.status()
        begun = max(status["snapshot_open"] or 0, (status["last_snapshot"] or {"id": 0})["id"])

        def committed() -> bool:
            last = self.status()["last_snapshot"]
            if last is not None and last["id"] > begun:
                return True
            wanted = SnapshotWanted(coordinator.generation, 0, begun)
            self._invoke(lambda: coordinator.say(wanted))
            return False

        self._wait(committed, timeout_s, f"a snapshot after {begun}")
        return int(self.status()["last_snapshot"]["id"])

    def kill_worker(self, worker: int) -> None:
        """End one worker as a crash would; the application recovers by itself."""
        spawner, coordinator = self._spawner, self._coordinator
        assert spawner is not None, "the application has not been started"
        assert coordinator is not None
        self._invoke(lambda: spawner.kill(coordinator.generation, worker))

    def kill_ingress(self) -> None:
        """End the ingress as a crash would, and open it again on its log, where clients know it."""
        self._end_ingress()
        self._start_ingress()
        self._tell_logs()

    def status(self) -> dict[str, Any]:
        """Return what the coordinator reports, with the ingress's counts.

        Raises:
            ApplicationFailed: the application has ended by itself.
        """
        if self._running is not None and self._running.done():
            raise ApplicationFailed(self._running.result().error or "it was stopped")
        assert self._coordinator is not None, "the application has not been started"
        status = self._invoke(self._coordinator.status)
        if self._ingress is not None:
            status.update(self._invoke(self._ingress.counts))
        return status

    def wait_until(
        self, condition: Callable[[], bool], timeout_s: float = 30.0, what: str = "the condition"
    ) -> None:
        """Poll until ``condition`` is true.

        Raises:
            TimeoutError: it was not within ``timeout_s``; the text holds ``what`` and the status.
            ApplicationFailed: the application ended meanwhile.
        """
        self._wait(condition, timeout_s, what)

    def wait_idle(self, timeout_s: float = 30.0) -> None:
        """Wait until every accepted event and all that followed from it has been processed.

        Delayed messages that are not due and parked addresses do not count.
        """
        self._wait(self._is_idle, timeout_s, "idle")

    # --- inside ---------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        status, spawner = self.status(), self._spawner
        return (
            status["phase"] == "running"
            and status["lag"] == 0
            and spawner is not None
            and self._invoke(spawner.are_idle)
        )

    def _start_ingress(self) -> None:
        ingress = IngressHost(
            IngressHostConfig(
                app=self.name,
                log_dir=self._log_dir,
                http_host=self._http_host,
                http_port=self._http_port_now,
                key_group_count=self._key_group_count,
                module=self._module_now,
                settings=self._ingress_settings,
            ),
            self.functions,
            self.store,
        )
        self._call(ingress.start(), self._start_timeout_s)
        self._ingress = ingress

    def _start_coordinator(self) -> None:
        spawner = self._new_spawner()
        settings = {
            "name": self.name,
            "worker_count": self.workers,
            "nonce": secrets.token_hex(8),
            "key_group_count": self._key_group_count,
            "shard_count": self._shard_count,
            **self._coordinator_settings,
        }
        config = CoordinatorHostConfig(CoordinatorConfig(**settings))
        coordinator = self._invoke(
            lambda: CoordinatorHost(
                config, describe_functions(self.functions), self.store, spawner, self.module.serves
            )
        )
        spawner.on_lost = coordinator.worker_lost
        self._spawner, self._coordinator = spawner, coordinator
        self._call(coordinator.start(), self._start_timeout_s)
        assert self._loop is not None
        self._running = asyncio.run_coroutine_threadsafe(coordinator.run(), self._loop)

    def _new_spawner(self) -> LocalSpawner:
        def make(
            generation: int, worker: int, address: tuple[str, int], on_lease_lost: Callable[[str], None]
        ) -> WorkerHost:
            config = WorkerHostConfig(
                app=self.name,
                generation=generation,
                worker=worker,
                coordinator=address,
                node="local",
                module=self.module,
                sinks=self._sinks,
                freeze_gc=False,
                core=self._worker_settings,
            )
            return WorkerHost(config, self.functions, self.store, on_lease_lost=on_lease_lost)

        return TaskSpawner(make)

    def _tell_logs(self) -> None:
        coordinator, ingress = self._coordinator, self._ingress
        if coordinator is not None and ingress is not None:
            self._invoke(lambda: coordinator.logs_known({ingress.log_id: ingress.feed_address}))

    def _end_coordinator(self) -> None:
        if self._running is not None:
            self._running.result(30)
        self._coordinator = self._spawner = self._running = None

    def _end_ingress(self, read_to: Mapping[str, int] | None = None) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._ingress is not None:
            self._call(self._ingress.close(read_to), 30)
            self._ingress = None

    def _call(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        assert self._loop is not None, "the application has not been started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def _invoke(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._call(call(), 30)

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not {what} after {timeout_s:g} s; status: {self.status()}")
            time.sleep(POLL_S)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop, of uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
