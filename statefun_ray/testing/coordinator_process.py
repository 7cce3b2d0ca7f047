"""A simulated coordinator process: what ``io.coordinator_host`` is on sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statefun_checkpoints import retention
from statefun_checkpoints.errors import StoreError
from statefun_checkpoints.store_requests import StoreRequest
from statefun_ray.core import effects as do
from statefun_ray.core.control import ToWorker, decode_to_coordinator, encode_control
from statefun_ray.core.coordinator import Coordinator, CoordinatorConfig
from statefun_ray.io.invoke_local import describe_functions
from statefun_ray.testing.service import embedded_of
from statefun_ray.testing.worker_process import SimulatedWorker
from statefun_ray.testing.world import Process

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

TICK_MS = 10


class SimulatedCoordinator(Process):
    """A coordinator process and the workers it owns."""

    def __init__(self, simulation: Simulation, number: int, worker_count: int, *, mistake: str = "") -> None:
        super().__init__(f"coordinator {number}", simulation.clock_skew_ms())
        self.simulation = simulation
        self.world = simulation.world
        self.workers: list[SimulatedWorker] = []
        self.stopped: str | None = None
        """Why it has stopped, empty for an orderly end; None while it has not."""
        self.mistake = mistake
        rng = self.world.rng
        self.functions = simulation.workload.functions(simulation.version, mistaken=mistake == "functions")
        self.core = Coordinator(
            CoordinatorConfig(
                name=simulation.app,
                worker_count=worker_count,
                nonce=f"c{number}",
                key_group_count=simulation.key_group_count,
                shard_count=simulation.shard_count // 2 if mistake == "shards" else simulation.shard_count,
                snapshot_interval_ms=simulation.interval_ms,
                snapshot_timeout_ms=rng.choice([30, 80, 300]),
                snapshot_failures_max=rng.choice([2, 5, 10]),
                stuck_ms=50,
                call_timeout_ms=rng.choice([150, 60_000]),
                heartbeat_timeout_ms=rng.choice([150, 400]),
                start_timeout_ms=400,
                pulse_ms=50,
                backlog_pause=rng.choice([3, 100_000]),
                backoff_ms_min=5,
                backoff_ms_max=60,
            ),
            embedded_of(describe_functions(self.functions), simulation.remote),
            lambda function_type: function_type in simulation.remote,
        )
        self._collector = retention.Collector(grace_ms=rng.choice([0, 0, 50]))
        self._is_collecting = False
        self._collect_after_ms = rng.choice([0, 0, 250])
        """It is background work, and may come to its turn when another generation runs."""

    def boot(self) -> None:
        """The process runs."""
        self.core.start(self.world.wall_ms(self))
        self._tick()

    def _tick(self) -> None:
        if self.stopped is not None:
            return
        now_ms = self.world.wall_ms(self)
        self.core.tick(now_ms)
        self.core.logs_known(self.simulation.ingress.addresses(), now_ms)
        self.perform()
        self.world.after(TICK_MS, self, self._tick)

    def hear(self, data: bytes) -> None:
        """Take a control message."""
        if self.is_alive and self.stopped is None:
            self.core.worker_said(decode_to_coordinator(data), self.world.wall_ms(self))
            self.perform()

    def worker_lost(self, generation: int, index: int, reason: str) -> None:
        """Learn that a worker process has ended."""
        if self.stopped is None:
            self.core.worker_lost(generation, index, reason, self.world.wall_ms(self))
            self.perform()

    def stop(self) -> None:
        """Ask for a final snapshot."""
        self.core.stop(self.world.wall_ms(self))
        self.perform()

    def workers_of(self, generation: int) -> list[SimulatedWorker]:
        """Return the workers of a generation, by index."""
        return [worker for worker in self.workers if worker.generation == generation]

    def perform(self) -> None:
        """Perform the core's effects."""
        simulation, world = self.simulation, self.world
        for effect in self.core.take_effects():
            match effect:
                case do.StoreCall(call_id, request):
                    self._store(call_id, request)
                case do.StartWorkers(generation, count):
                    self._start_workers(generation, count)
                case do.StopWorkers():
                    simulation.end_workers(self.workers)
                case do.SendControl(index, message):
                    self._send(index, message)
                case do.Collect(slots, generation):
                    self._collect(slots, generation)
                case do.Report(level, text):
                    world.note(f"{self.name} {level}: {text}")
                case do.Stopped(error):
                    world.note(f"{self.name} stopped: {error or 'in order'}")
                    self.stopped = error

    def _store(self, call_id: int, request: StoreRequest) -> None:
        def done(result: object) -> None:
            if self.stopped is None:
                self.core.store_done(call_id, result)
                self.perform()

        def failed(error: StoreError) -> None:
            if self.stopped is None:
                self.core.store_failed(call_id, error)
                self.perform()

        self.simulation.store.request(self, request, done, failed)

    def _start_workers(self, generation: int, count: int) -> None:
        world, simulation = self.world, self.simulation
        if self.mistake:
            simulation.problem(f"{self.name} starts workers, with a mistake in its {self.mistake}")
        for index in range(count):
            worker = SimulatedWorker(simulation, self, generation, index)
            self.workers.append(worker)
            if simulation.is_faulty and world.chance(simulation.faults.worker_lost_at_start):
                world.note(f"{worker.name} never comes up")
            else:
                world.after(world.rng.uniform(1, 25), worker, worker.boot)

    def _send(self, index: int, message: ToWorker) -> None:
        world, simulation = self.world, self.simulation
        data = encode_control(message)
        for worker in self.workers:
            if worker.index == index and worker.generation == self.core.generation:
                worker.from_coordinator.send(data)
        if simulation.is_faulty and world.chance(simulation.faults.misdelivered):
            # A copy comes late, to a worker of whatever generation runs then.
            world.after(world.rng.uniform(0, 150), None, lambda: simulation.mislead_worker(index, message))

    def _collect(self, slots: list[int], generation: int) -> None:
        if self._is_collecting:
            return
        self._is_collecting = True

        def over(_: object) -> None:
            self._is_collecting = False

        steps = self._collector.run(
            retained_slots=slots, generation=generation, now_ms=int(self.world.time_ms)
        )
        delay_ms = self._collect_after_ms * self.world.rng.random()
        self.world.after(delay_ms, self, lambda: self.simulation.store.run(self, steps, over, over))
