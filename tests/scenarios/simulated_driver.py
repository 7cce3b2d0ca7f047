"""The stories in simulated time: the simulator's processes, without its faults.

Every story is played. Time passes only while somebody waits, a second of it in a few milliseconds,
and a story does the same on every run unless it has threads of its own, which take turns. What a
story does itself, it does at one instant: kill, power cut, stop and start.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.store import ObjectStore, perform
from statefun_checkpoints.store_requests import StoreRequest
from statefun_ingress.frames import State
from statefun_ingress.pending import ReplyValue
from statefun_ingress.record import Events
from statefun_ingress.registry import Registry
from statefun_ingress.values import BUILT_INS, decode_built_in
from statefun_ray.core import effects as do
from statefun_ray.core.control import Plan, SnapshotWanted
from statefun_ray.core.coordinator import Coordinator, CoordinatorConfig
from statefun_ray.core.lanes import AWAITING
from statefun_ray.core.worker import Worker, describe_error
from statefun_ray.io.client import encode_value
from statefun_ray.io.ingress_host import function_infos
from statefun_ray.io.invoke_local import describe_functions
from statefun_ray.testing.coordinator_process import SimulatedCoordinator
from statefun_ray.testing.faults import Faults
from statefun_ray.testing.ingress_process import SimulatedIngress
from statefun_ray.testing.simulator import QUIET_MS, Simulation
from statefun_ray.testing.storage import SimulatedStore
from statefun_ray.testing.worker_process import SimulatedWorker
from statefun_ray.testing.world import Process, World
from statefun_sdk import StatefulFunctions, json_typenames
from statefun_sdk.types import JSON_TYPENAME
from tests.scenarios.simulated_loop import SimulatedLoop, simulated_sleep

POLL_MS: Final = 5.0
"""Simulated time between two looks at a condition."""

WAIT_S: Final = 30.0


class SimulatedRow(NamedTuple):
    """One published egress row."""

    shard: int
    seq: int
    typename: str
    data: Any


class _Store(SimulatedStore):
    """Any object store, asked in simulated time."""

    def __init__(self, world: World, objects: ObjectStore) -> None:
        super().__init__(world, Faults(duration_ms=0))
        self.objects = objects  # type: ignore[assignment]

    def request(
        self,
        process: Process,
        request: StoreRequest,
        done: Callable[[Any], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        world = self._world
        before_ms, after_ms = 0.1 + world.rng.random() * 2, 0.1 + world.rng.random() * 2

        def happen() -> None:
            try:
                result = perform(self.objects, request)
            except StoreError as raised:
                error = raised
                world.after(after_ms, process, lambda: failed(error))
            else:
                world.after(after_ms, process, lambda: done(result))

        world.after(before_ms, None, happen)


class _Worker(SimulatedWorker):
    """A worker whose functions may wait and block."""

    simulation: _Stage

    def __init__(self, simulation: _Stage, owner: SimulatedCoordinator, generation: int, index: int) -> None:
        super().__init__(simulation, owner, generation, index)
        self.loop = SimulatedLoop(self.world, self)

    def die(self, reason: str, *, detect: bool = True) -> None:
        was_alive = self.is_alive
        super().die(reason, detect=detect)
        if was_alive:
            self.loop.abandon()

    def _load(self, plan: Plan) -> None:
        super()._load(plan)
        if self.core is not None:
            # The simulator chooses narrow limits; a story has its own or the usual ones.
            settings = self.simulation.worker_settings
            self.core.config = replace(self.core.config, **settings)
            self.core.move_lane(AWAITING, settings["invocations_max"])

    def _invoke(self, core: Worker, effect: do.Invoke) -> None:
        world = self.world

        def done(result: Any, error: BaseException | None) -> None:
            failure = describe_error(error) if error is not None else None
            core.invocation_done(effect.invocation_id, result, failure, world.wall_ms(self))
            self.perform()

        world.after(world.rng.random(), self, lambda: self.loop.invoke(self._invoker, effect, done))


class _Coordinator(SimulatedCoordinator):
    """A coordinator with the settings of the story."""

    simulation: _Stage

    def __init__(self, simulation: _Stage, number: int, worker_count: int) -> None:
        super().__init__(simulation, number, worker_count)
        settings = {
            "name": simulation.app,
            "worker_count": worker_count,
            "nonce": f"c{number}",
            "key_group_count": simulation.key_group_count,
            "shard_count": simulation.shard_count,
            **simulation.coordinator_settings,
        }
        self.functions = simulation.functions
        self.core = Coordinator(CoordinatorConfig(**settings), describe_functions(self.functions))

    def _start_workers(self, generation: int, count: int) -> None:
        for index in range(count):
            worker = _Worker(self.simulation, self, generation, index)
            self.workers.append(worker)
            self.world.after(self.world.rng.uniform(1, 25), worker, worker.boot)


class _Stage(Simulation):
    """The world of one story: processes and their surroundings, and nothing that happens by chance."""

    def __init__(
        self,
        seed: int,
        functions: StatefulFunctions,
        store: ObjectStore,
        worker: Mapping[str, Any],
        coordinator: Mapping[str, Any],
    ) -> None:
        super().__init__(seed, faults=Faults(duration_ms=0), requests=1)
        self.functions = functions
        self.store = _Store(self.world, store)
        self.worker_settings = {
            "backlog_max": 50_000,
            "invocations_max": 1_024,
            "retry_deadline_ms": 3_600_000,
            "on_failure": "dead-letter",
            **worker,
        }
        self.coordinator_settings = dict(coordinator)
        self.lease_ms = 1_000_000
        self.turn_ms = 0.8
        self.turn_limits = (64,)

    def begin(self, workers: int) -> SimulatedCoordinator:
        """Start an ingress on the disk there is, and a coordinator."""
        self.worker_count = workers
        self.ingress.boot()
        coordinator = _Coordinator(self, len(self.coordinators) + 1, workers)
        self.coordinators.append(coordinator)
        coordinator.boot()
        return coordinator

    def end_ingress(self) -> None:
        """The ingress process ends; its disk stays."""
        old = self.ingress
        old.is_alive = False
        for worker in list(old.connections):
            old.disconnect(worker)
        self.ingress = SimulatedIngress(self, old.number + 1)

    def cut_power(self) -> None:
        """Every process ends at this instant, and the disk keeps what was synced."""
        self.end_ingress()
        for coordinator in self.coordinators:
            coordinator.is_alive = False
        for worker in self.workers():
            worker.die("the power is cut", detect=False)
        self.files.lose_power()


class SimulatedApplication:
    """A `Driver` in simulated time; its methods may be called from several threads."""

    def __init__(
        self,
        functions: StatefulFunctions,
        *,
        store: ObjectStore,
        workers: int = 2,
        snapshot_interval_s: float = 1.0,
        worker: Mapping[str, Any] | None = None,
        coordinator: Mapping[str, Any] | None = None,
        seed: int = 1,
    ) -> None:
        self.workers = workers
        self.store = store
        self._functions = functions
        self._registry = Registry(function_infos(functions), json_typenames())
        self._stage = _Stage(
            seed,
            functions,
            store,
            worker or {},
            {"snapshot_interval_ms": int(snapshot_interval_s * 1000), **(coordinator or {})},
        )
        self._world = self._stage.world
        self._running: SimulatedCoordinator | None = None
        self._turns = _Turns()
        self._sleep = simulated_sleep()
        self._sleep.__enter__()

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> SimulatedApplication:
        with self._turns:
            self._running = self._stage.begin(self.workers)
        self.wait_until(lambda: self.status()["phase"] == "running", what="running")
        return self

    def stop(self) -> None:
        with self._turns:
            coordinator, self._running = self._coordinator, None
            coordinator.stop()
        self._pass_until(lambda: coordinator.stopped is not None, WAIT_S, "stopped")
        with self._turns:
            self._stage.end_ingress()
        assert coordinator.stopped == "", coordinator.stopped

    def crash(self) -> None:
        with self._turns:
            self._running = None
            self._stage.cut_power()

    def restart(self, workers: int | None = None) -> None:
        self.stop()
        self.workers = workers if workers is not None else self.workers
        self.start()

    def close(self) -> None:
        """End everything; only the store is left."""
        self.crash()
        self._sleep.__exit__(None, None, None)

    def kill_worker(self, worker: int) -> None:
        with self._turns:
            for process in self._current_workers():
                if process.index == worker:
                    process.die("killed")

    # --- in and out -------------------------------------------------------------------------------

    def send(self, target: str, id: str, value: Any, *, producer: tuple[str, int] | None = None) -> None:
        self._accept(target, id, value, producer, None)

    def ask(self, target: str, id: str, value: Any, *, wait_s: float = WAIT_S) -> Any:
        replies: list[ReplyValue] = []
        self._accept(target, id, value, None, replies.append)
        self._pass_until(lambda: bool(replies), wait_s, f"{target}/{id} has replied")
        typename, data = replies[0]
        return self._decode(typename, data, is_json=self._registry.is_json_type(typename))

    def state(self, target: str, id: str) -> dict[str, Any]:
        declared = self._registry.target(target).info.states
        found: list[State | None] = [None]
        is_asked = False

        def answered(state: State | None) -> None:
            nonlocal is_asked
            is_asked = False
            found[0] = state

        def is_there() -> bool:
            # Asked again while the worker recovers, as a client would after a 503.
            nonlocal is_asked
            if found[0] is None and not is_asked:
                ingress = self._stage.ingress
                assert ingress.core is not None, "the application has not been started"
                is_asked = ingress.core.query(target, id, wait_commit=False, waiter=answered) is not None
                ingress._pump_all()
            return found[0] is not None

        self._pass_until(is_there, WAIT_S, f"the state of {target}/{id} is known")
        assert found[0] is not None
        return {
            name: self._decode(typename, value, is_json=declared.get(name, (typename, False))[1])
            for name, typename, value in found[0].states
            if value is not None
        }

    def egress(self, egress: str) -> list[SimulatedRow]:
        with self._turns:
            sink = self._stage.sink
            assert sink.conflicts == []
            return [
                SimulatedRow(
                    shard,
                    seq,
                    typename,
                    self._decode(typename, value, is_json=self._registry.is_json_type(typename)),
                )
                for (shard, _, _), rows in sorted(sink.files.items())
                for seq, name, typename, value in rows
                if name == egress
            ]

    # --- what it says -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        with self._turns:
            coordinator, ingress = self._coordinator, self._stage.ingress
            if coordinator.stopped is not None:
                raise AssertionError(f"the application has stopped: {coordinator.stopped}")
            status = coordinator.core.status()
            if ingress.core is not None:
                log = ingress.core.log
                status |= {
                    "log_id": log.log_id,
                    "accepted": log.durable_seq,
                    "lag": ingress.core.lag,
                    "pending_replies": len(ingress.core.pending),
                }
            return status

    def snapshot(self) -> int:
        status = self.status()
        begun = max(status["snapshot_open"] or 0, (status["last_snapshot"] or {"id": 0})["id"])

        def is_committed() -> bool:
            last = self.status()["last_snapshot"]
            if last is not None and last["id"] > begun:
                return True
            with self._turns:
                coordinator = self._coordinator
                wanted = SnapshotWanted(coordinator.core.generation, 0, begun)
                coordinator.core.worker_said(wanted, self._world.wall_ms(coordinator))
                coordinator.perform()
            return False

        self.wait_until(is_committed, what=f"a snapshot after {begun}")
        return int(self.status()["last_snapshot"]["id"])

    def now_s(self) -> float:
        """Return the simulated time."""
        return self._world.time_ms / 1000

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S, what: str = "") -> None:
        deadline_s = self.now_s() + timeout_s
        while not condition():
            if self.now_s() > deadline_s:
                raise self._late(timeout_s, what)
            at_ms = self._world.time_ms + POLL_MS
            self._pass_until(lambda at_ms=at_ms: self._world.time_ms >= at_ms, WAIT_S, "later")  # type: ignore[misc]

    def wait_idle(self) -> None:
        busy_ms = self._world.time_ms

        def is_idle() -> bool:
            nonlocal busy_ms
            if not self._is_quiet():
                busy_ms = self._world.time_ms
            return self._world.time_ms - busy_ms > QUIET_MS

        self._pass_until(is_idle, WAIT_S, "idle")

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _coordinator(self) -> SimulatedCoordinator:
        assert self._running is not None, "the application has not been started"
        return self._running

    def _current_workers(self) -> list[SimulatedWorker]:
        coordinator = self._coordinator
        workers = coordinator.workers_of(coordinator.core.generation)
        return [worker for worker in workers if worker.is_alive]

    def _is_quiet(self) -> bool:
        coordinator, ingress = self._coordinator.core, self._stage.ingress.core
        if ingress is None or coordinator.phase != "running" or ingress.lag:
            return False
        workers = self._current_workers()
        return (
            len(workers) == len(ingress.feeds.serving) == self.workers
            and ingress.feeds.generation == coordinator.generation
            and all(worker.core is not None and not worker.core.backlog for worker in workers)
        )

    def _accept(
        self,
        target: str,
        id: str,
        value: Any,
        producer: tuple[str, int] | None,
        replied: Callable[[ReplyValue], None] | None,
    ) -> None:
        function = self._registry.target(target)
        typename, data = encode_value(value, None)
        if typename == JSON_TYPENAME:
            typename, convert = function.from_json(None)
            data = convert(data)
        else:
            function.check_accepts(typename)
        name, sequence = producer if producer is not None else ("", None)
        events = Events([function.typename], [id], [""], [""], [typename], [data])
        answers: list[bool] = []

        def deliver() -> None:
            ingress.accept(
                events,
                name,
                sequence,
                lambda: answers.append(True),
                None if replied is None else lambda _incarnation, _request, reply: replied(reply),
            )

        with self._turns:
            ingress = self._stage.ingress
            self._world.after(0.1 + self._world.rng.random(), ingress, deliver)
        self._pass_until(lambda: bool(answers), WAIT_S, f"the event of {target}/{id} is durable")

    @staticmethod
    def _decode(typename: str, value: bytes | None, *, is_json: bool) -> Any:
        if value is None:
            return None
        if is_json:
            return json.loads(value)
        return decode_built_in(typename, value) if typename in BUILT_INS else value

    def _pass_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Let things happen until ``condition``, which must not wait itself, holds."""
        deadline_ms = self._world.time_ms + timeout_s * 1000
        while True:
            with self._turns:
                if condition():
                    return
                if self._world.time_ms > deadline_ms or not self._world.step():
                    raise self._late(timeout_s, what)
                assert self._stage.problems == [], self._stage.problems

    def _late(self, timeout_s: float, what: str) -> TimeoutError:
        history = "\n".join(self._world.history[-30:])
        return TimeoutError(f"not within {timeout_s:g} simulated seconds: {what}\n{history}")


class _Turns:
    """A lock that threads get in the order in which they ask, so that a waiting one starves none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_taken = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False
