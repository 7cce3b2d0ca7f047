"""A simulated worker process: what ``io.worker_host`` is on sockets and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from statefun_checkpoints import entry_format, reader, writer
from statefun_checkpoints.errors import CheckpointError, StoreError
from statefun_checkpoints.model import FAILURES, Entry, PartDescriptor, Rows
from statefun_checkpoints.participant import ProtocolViolation
from statefun_checkpoints.store import run_store
from statefun_ray.core import effects as do
from statefun_ray.core.control import (
    Ack,
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
from statefun_ray.core.key_groups import shard_table, worker_ranges
from statefun_ray.core.outbox import first_rows
from statefun_ray.core.worker import Worker
from statefun_ray.core.worker_config import WorkerConfig
from statefun_ray.io.invoke_local import EmbeddedInvoker
from statefun_ray.testing.batches import Batches
from statefun_ray.testing.ingress_process import LOG_ID
from statefun_ray.testing.service import SimulatedInvokers
from statefun_ray.testing.source import SimulatedSource
from statefun_ray.testing.workload import INLINE
from statefun_ray.testing.world import Link, Process

if TYPE_CHECKING:
    from statefun_ray.testing.coordinator_process import SimulatedCoordinator
    from statefun_ray.testing.simulator import Simulation

HEARTBEAT_MS = 40
START_LIMIT = 4
"""Addresses of a lane that begin at once when a request has ended."""


class SimulatedWorker(Process):
    """A worker process: the core, its connections and the writing of its parts."""

    def __init__(
        self, simulation: Simulation, owner: SimulatedCoordinator, generation: int, index: int
    ) -> None:
        super().__init__(f"worker {index} of generation {generation}", simulation.clock_skew_ms())
        self.simulation = simulation
        self.world = simulation.world
        self.owner = owner
        self.generation = generation
        self.index = index
        self.side = Process(f"side thread of {self.name}")
        """Beats on while a function holds the loop."""
        self.core: Worker | None = None
        self.is_started = False
        self.key_groups = (0, simulation.key_group_count)
        self.channels: dict[int, Link] = {}
        slow = simulation.faults.slow_control
        self.to_coordinator = Link(self.world, owner, owner.hear, slow)
        self.from_coordinator = Link(self.world, self, self._hear, slow)
        self.to_ingress: Link | None = None
        self._invoker = SimulatedInvokers(
            EmbeddedInvoker(owner.functions),
            simulation.remote,
            self.world.rng,
            lambda: self.world.wall_ms(self),
        )
        self._base_pause_ms = self.world.rng.choice((0.3, 0.3, 5, 20))
        """Between two slices of a base: some workers finish theirs long after others."""
        self._source: SimulatedSource | None = None
        self._batches = Batches(simulation, self.name)
        self._turn_scheduled = False
        self._wake_ms = 0.0
        self._heard_ms = self.world.time_ms
        self._stuck_since_ms: float | None = None

    def boot(self) -> None:
        """The process runs: say hello and begin to beat."""
        self._tell(WorkerHello(self.generation, self.index, "host", self.index, 0, "node"))
        self._beat()

    def die(self, reason: str, *, detect: bool = True) -> None:
        """The process ends; its coordinator learns of it unless ``detect`` is False."""
        if not self.is_alive:
            return
        self.world.note(f"{self.name} dies: {reason}")
        self.is_alive = self.side.is_alive = False
        self.simulation.ingress.disconnect(self)
        if detect:
            generation, index, owner = self.generation, self.index, self.owner
            self.world.after(
                self.world.rng.uniform(1, 20), owner, lambda: owner.worker_lost(generation, index, reason)
            )

    def freeze(self, until_ms: float) -> None:
        """The whole process stops for a while, as by SIGSTOP."""
        self.world.freeze(self, until_ms)
        self.world.freeze(self.side, until_ms)

    def stick(self, until_ms: float) -> None:
        """A function holds the loop; the side thread says so."""
        if self.core is not None:
            self.world.freeze(self, until_ms)
            self._stuck_since_ms = self.world.time_ms
            self.core.current = (INLINE, "n0", "", "", "", None)

    # --- control ----------------------------------------------------------------------------------

    def _tell(self, message: ToCoordinator) -> None:
        self.to_coordinator.send(encode_control(message))
        if isinstance(message, Ack):
            self.simulation.overtake(message)
        if self.simulation.is_faulty and self.world.chance(self.simulation.faults.misdelivered):
            # A copy comes late, and to whoever coordinates then.
            delay_ms = self.world.rng.uniform(0, 150)
            self.world.after(delay_ms, None, lambda: self.simulation.mislead_coordinator(message))

    def _beat(self) -> None:
        world, simulation = self.world, self.simulation
        if world.time_ms - self._heard_ms > simulation.lease_ms:
            self.die("lost its lease")
            return
        if self._stuck_since_ms is not None and self.frozen_until_ms <= world.time_ms:
            self._stuck_since_ms = None
        if self.core is not None:
            stuck_ms = 0 if self._stuck_since_ms is None else int(world.time_ms - self._stuck_since_ms)
            self._tell(self.core.heartbeat(stuck_ms))
        world.after(HEARTBEAT_MS, self.side, self._beat)

    def _hear(self, data: bytes) -> None:
        world = self.world
        self._heard_ms = world.time_ms
        message = decode_to_worker(data)
        match message:
            case Plan() if message.generation == self.generation:
                self._load(message)
            case Start() if self.core is not None and message.generation == self.generation:
                self.core.start(world.wall_ms(self))
                self.perform()
                self.is_started = True
                self._dial()
                if self._source is not None:
                    self._source.start()
            case Shutdown() if message.generation == self.generation:
                # Give what was just committed a moment to leave, as the real host does.
                world.after(30, self, lambda: self.die("shut down", detect=False))
            case _ if self.core is not None:
                self.core.control(message, world.wall_ms(self))
        self.perform()

    def _dial(self) -> None:
        world, simulation = self.world, self.simulation
        is_slow = simulation.is_faulty and world.chance(simulation.faults.slow_dial)
        delay_ms = world.rng.uniform(0, 250) if is_slow else 0.0
        world.after(delay_ms, self, lambda: simulation.ingress.connect(self))

    def _load(self, plan: Plan) -> None:
        simulation, rng = self.simulation, self.world.rng
        ranges = worker_ranges(
            worker_count=plan.worker_count,
            key_group_count=plan.key_group_count,
            shard_count=plan.shard_count,
        )
        self.key_groups = ranges[self.index]
        config = WorkerConfig(
            app=simulation.app,
            generation=self.generation,
            worker=self.index,
            worker_count=plan.worker_count,
            key_group_count=plan.key_group_count,
            shard_count=plan.shard_count,
            backlog_max=rng.choice([5, 50_000]),
            feed_window=rng.choice([2, 16, 8_192]),
            invocations_max=rng.choice([1, 3, 1_024]),
            retry_deadline_ms=simulation.policy.retry_deadline_ms,
            on_failure=simulation.policy.on_failure,
            strict=simulation.policy.strict,
            base_deltas_max=rng.choice([2, 5, 20]),
            base_rows_min=rng.choice([5, 10_000]),
            eager_egresses=simulation.eager_egresses,
        )
        core = Worker(config, self._invoker)
        entry = entry_format.decode_entry(plan.entry, "plan") if plan.entry is not None else None
        state, transient = Rows(), Rows()
        if entry is not None:
            try:
                loaded = run_store(simulation.store.objects, reader.load(entry, self.key_groups))
            except (CheckpointError, StoreError) as error:
                self._tell(WorkerFailed(self.generation, self.index, str(error), is_final=True))
                return
            state, transient = loaded.state, loaded.transient
        keys = core.load(state, transient, entry, self.world.wall_ms(self))
        self._check_parked(core, state, entry)
        if entry is not None:
            self._check_outbox(transient, entry, config)
        self.core = core
        if simulation.topic is not None:
            self._source = SimulatedSource(self, core, simulation.topic)
        for peer in self.owner.workers_of(self.generation):
            if peer is not self:
                deliver = self._receiver(peer)
                self.channels[peer.index] = Link(self.world, peer, deliver, simulation.faults.slow_channel)
        delay_ms = rng.uniform(1, 20)
        self.world.after(delay_ms, self, lambda: self._tell(Ready(self.generation, self.index, keys)))

    def _check_parked(self, core: Worker, state: Rows, entry: Entry | None) -> None:
        # A parked address stays parked over a recovery, and is tried again after a stop.
        if entry is not None:
            failures = zip(state.table, state.value, strict=True)
            parked = sum(
                table == FAILURES and value is not None and value[1] == 0xC3 for table, value in failures
            )
            expected = 0 if entry.kind == "stop" else parked
            found = core.heartbeat(0).parked_count
            if found != expected:
                self.simulation.problem(f"{self.name} restored {found} parked addresses, expected {expected}")

    def _check_outbox(self, transient: Rows, entry: Entry, config: WorkerConfig) -> None:
        # What a sink is told when it opens: it has all rows below these.
        first = first_rows(transient)
        shards = shard_table(key_group_count=config.key_group_count, shard_count=config.shard_count)
        for shard in set(shards[slice(*self.key_groups)]):
            waiting = [sequence for (_, of_shard), sequence in first.items() if of_shard == shard]
            sequence = min(waiting, default=entry.out_seq.get(str(shard), 0))
            published = self.simulation.sink.end(shard)
            if published < sequence:
                self.simulation.problem(
                    f"{self.name} restored shard {shard} from row {sequence} on, the sink has {published}"
                )

    def _receiver(self, peer: SimulatedWorker) -> Callable[[bytes], None]:
        sender = self.index

        def receive(frame: bytes) -> None:
            assert peer.core is not None, "channels open after every worker has loaded"
            try:
                peer.core.channel_frame(sender, frame)
            except ProtocolViolation as error:
                peer.violated(error)
                return
            peer.perform()

        return receive

    def violated(self, error: ProtocolViolation) -> None:
        """The core has found an invariant broken: right if the simulation has broken it."""
        if self.generation not in self.simulation.tampered:
            raise error
        self._tell(WorkerFailed(self.generation, self.index, str(error)))
        self.die(str(error))

    # --- effects ----------------------------------------------------------------------------------

    def perform(self) -> None:
        """Perform what the core asks for, and see that a turn follows."""
        if self.core is not None and self.is_alive:
            self._perform(self.core)
            self._schedule_turn()

    def _perform(self, core: Worker) -> None:
        for effect in core.take_effects():
            match effect:
                case do.SendFrame(peer, frame):
                    self._send(peer, frame)
                case do.Tell(message):
                    self._tell(message)
                case do.Invoke():
                    self._batches.check(effect)
                    self._invoke(core, effect)
                case do.WritePart():
                    self._encode(effect, effect.slices, Rows())
                case do.Publish(shard, epoch, rows):
                    self._publish(core, shard, epoch, rows)
                case do.FeedFrame(log_id, frame):
                    if log_id == LOG_ID and self.to_ingress is not None:
                        self.to_ingress.send(frame)
                case do.SplitsCommitted(positions):
                    assert self._source is not None, "splits belong to a source"
                    self._source.committed(positions)
                case do.Die(reason):
                    self.simulation.check_death(self.name, reason)
                    self.die(reason)
                    return
        self.simulation.check_failures(self.name)

    def _send(self, peer: int, frame: bytes) -> None:
        simulation = self.simulation
        if simulation.is_faulty and self.world.chance(simulation.faults.frame_tampered):
            simulation.tampered.add(self.generation)
            if self.world.rng.random() < 0.5:
                self.world.note(f"a frame from {self.name} to {peer} is lost")
                return
            self.world.note(f"a frame from {self.name} to {peer} is doubled")
            self.channels[peer].send(frame)
        self.channels[peer].send(frame)

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self.world.after(0.01 + self.world.rng.random() * self.simulation.turn_ms, self, self._turn)

    def _turn(self) -> None:
        core, world = self.core, self.world
        assert core is not None, "turns begin after loading"
        is_busy = core.turn(world.wall_ms(self), world.rng.choice(self.simulation.turn_limits))
        due_ms = core.next_due_ms
        self._perform(core)
        if self._source is not None and self.is_alive and self.is_started and self._source.read():
            is_busy = True
            self._perform(core)
        self._turn_scheduled = False
        if is_busy:
            self._schedule_turn()
            return
        self._batches.prepare(core.upcoming())
        if due_ms is not None:
            self._wake(max(0.1, due_ms - world.wall_ms(self)))

    def _wake(self, delay_ms: float) -> None:
        world = self.world
        at_ms = world.time_ms + delay_ms
        if self._wake_ms <= world.time_ms or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            world.after(delay_ms, self, self._schedule_turn)

    def _invoke(self, core: Worker, effect: do.Invoke) -> None:
        world = self.world

        def complete() -> None:
            if self._is_postponed(core, effect):
                return
            if self._invoker.lacks_states(core, effect.function_type, effect.id):
                world.after(world.rng.uniform(0.1, 20), self, complete)
                return
            coroutine = self._invoker.run(effect)
            result, failure = None, None
            try:
                coroutine.send(None)
            except StopIteration as finished:
                result = finished.value
            except Exception as error:  # noqa: BLE001 - as the real host: user code may raise anything
                failure = str(error)
            core.invocation_done(effect.invocation_id, result, failure, world.wall_ms(self))
            if self._invoker.is_remote(effect.function_type):
                self._invoker.look(core)
                core.start_ready(world.wall_ms(self), START_LIMIT)
            self.perform()

        world.after(world.rng.choice([0.1, 2, 30, 150]) * world.rng.random(), self, complete)

    def _is_postponed(self, core: Worker, effect: do.Invoke) -> bool:
        """Let a service that runs functions be gone for a while, now and then."""
        simulation, world, invoker = self.simulation, self.world, self._invoker
        if not (
            invoker.is_remote(effect.function_type)
            and simulation.is_faulty
            and world.chance(simulation.service_failure)
        ):
            return False
        invoker.goes_down(core)
        core.invocation_postponed(effect.invocation_id, world.rng.choice([0, 0, 10]), world.wall_ms(self))

        def come_back() -> None:
            invoker.comes_back(core)
            self.perform()

        world.after(world.rng.uniform(1, 60), self, come_back)
        self.perform()
        return True

    def _encode(self, effect: do.WritePart, slices: Iterator[Rows], rows: Rows) -> None:
        is_slow = effect.kind == "base" and self._base_pause_ms > 1
        for _ in range(1 if is_slow else self.world.rng.choice((1, 1_000, 1_000))):
            portion = next(slices, None)
            if portion is None:
                self._write(effect, rows)
                return
            rows.extend(portion)
        pause_ms = self._base_pause_ms if effect.kind == "base" else 0.3
        self.world.after(pause_ms, self, lambda: self._encode(effect, slices, rows))

    def _write(self, effect: do.WritePart, rows: Rows) -> None:
        part = writer.encode(
            rows,
            kind=effect.kind,  # type: ignore[arg-type]
            level=effect.level or None,  # type: ignore[arg-type]
            generation=self.generation,
            snapshot=effect.snapshot_id,
            worker=self.index,
            key_groups=self.key_groups,
            inline_bytes_max=self.simulation.inline_bytes_max,
        )
        if part is None:
            self.world.after(0.1, self, lambda: self._written(effect, None))
            return
        self.simulation.store.run(
            self,
            writer.write(part),
            lambda descriptor: self.world.after(0.1, self, lambda: self._written(effect, descriptor)),
            lambda error: self.die(f"a part cannot be written: {error}"),
        )

    def _written(self, effect: do.WritePart, descriptor: PartDescriptor | None) -> None:
        assert self.core is not None, "parts come from a core"
        self.core.part_written(effect.snapshot_id, effect.kind, descriptor)
        self.perform()

    def _publish(
        self, core: Worker, shard: int, epoch: int, rows: list[tuple[int, str, str, bytes | None]]
    ) -> None:
        simulation, world = self.simulation, self.world

        def publish() -> None:
            failed = simulation.is_faulty and world.chance(simulation.faults.sink_failure)
            if not failed or world.rng.random() < 0.5:
                simulation.sink.publish(shard, rows)
            if failed:  # perhaps it happened, and the answer is lost
                world.after(15, self, publish)
            else:
                core.published(shard, epoch)

        world.after(world.rng.uniform(0.1, 10), self, publish)
