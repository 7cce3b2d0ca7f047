"""The seeded driver: a whole cluster in simulated time, made of the production classes.

Coordinator, workers, participants, channels, commit log, snapshot parts, ingress core and ingress
log are the ones that run on Ray; only sockets, disks, object store, clock and chance are ours.
``Simulation(seed).run()`` returns what is wrong, an empty list if nothing is. The same seed does
the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from statefun_checkpoints import arrow_format, entry_format, layout, reader, retention, writer
from statefun_checkpoints.errors import CheckpointError, StoreError
from statefun_checkpoints.model import Entry, PartDescriptor, Rows
from statefun_checkpoints.store import run_store
from statefun_checkpoints.store_requests import Create, Put, StoreSteps
from statefun_ingress.core import IngressCore
from statefun_ingress.errors import IngressError
from statefun_ingress.feed import Feed
from statefun_ingress.frames import FrameSplitter, State, decode_worker_frame
from statefun_ingress.log import IngressLog, encode_events
from statefun_ingress.pending import ReplyValue
from statefun_ingress.producers import Answer
from statefun_ingress.record import NO_PRODUCER, Events

from statefun_ray.core import effects as do
from statefun_ray.core.control import (
    Plan,
    Ready,
    Shutdown,
    Start,
    ToCoordinator,
    ToWorker,
    WorkerFailed,
    WorkerHello,
    decode_to_coordinator,
    decode_to_worker,
    encode_control,
)
from statefun_ray.core.coordinator import Coordinator, CoordinatorConfig
from statefun_ray.core.key_groups import worker_ranges
from statefun_ray.core.worker import Worker, WorkerConfig
from statefun_ray.io.invoke_local import EmbeddedInvoker, describe_functions
from statefun_ray.testing.checkers import check_outcome
from statefun_ray.testing.faults import Faults, swarm
from statefun_ray.testing.storage import SimulatedFiles, SimulatedSink, SimulatedStore
from statefun_ray.testing.workload import COMMANDS, POISON, Workload, encode_commands
from statefun_ray.testing.world import Link, Process, SimulatedCrash, World

APP: Final = "simulation"
LOG_ID: Final = "log"
KEY_GROUPS: Final = 32
SHARDS: Final = 8
QUIET_MS: Final = 300
SETTLE_MS: Final = 60_000
"""Simulated time to settle in after the last fault; not to settle is a failure (I12)."""


class SimulatedWorker(Process):
    """A worker process: the core, its connections and the writing of its parts."""

    def __init__(self, simulation: Simulation, owner: SimulatedCoordinator, generation: int, index: int) -> None:
        super().__init__(f"worker {index} of generation {generation}")
        self.simulation = simulation
        self.owner = owner
        self.generation = generation
        self.index = index
        self.core: Worker | None = None
        self.key_groups = (0, KEY_GROUPS)
        self.channels: dict[int, Link] = {}
        self.to_coordinator = Link(simulation.world, owner, owner.hear, simulation.faults.slow_channel)
        self.from_coordinator = Link(simulation.world, self, self._hear, simulation.faults.slow_channel)
        self.to_ingress: Link | None = None
        self._invoker = EmbeddedInvoker(simulation.functions)
        self._turn_scheduled = False
        self._wake_ms = 0.0
        self._heard_ms = simulation.world.time_ms

    def boot(self) -> None:
        """The process runs: say hello and begin to beat."""
        self._tell(WorkerHello(self.generation, self.index, "host", self.index, 0, "node"))
        self._beat()

    def _tell(self, message: ToCoordinator) -> None:
        self.to_coordinator.send(encode_control(message))

    def _beat(self) -> None:
        simulation = self.simulation
        if simulation.world.time_ms - self._heard_ms > simulation.lease_ms:
            self.die("lost its lease")
            return
        if self.core is not None:
            self._tell(self.core.heartbeat(0))
        simulation.world.after(40, self, self._beat)

    def die(self, reason: str, *, detect: bool = True) -> None:
        """The process ends; its coordinator learns of it unless ``detect`` is False."""
        if not self.is_alive:
            return
        self.simulation.world.note(f"{self.name} dies: {reason}")
        self.is_alive = False
        self.simulation.ingress.disconnect(self)
        if detect:
            generation, index, owner = self.generation, self.index, self.owner
            world = self.simulation.world
            delay_ms = world.rng.uniform(1, 20)
            world.after(delay_ms, owner, lambda: owner.worker_lost(generation, index, reason))

    # --- control ----------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        self._heard_ms = self.simulation.world.time_ms
        message = decode_to_worker(data)
        match message:
            case Plan():
                self._load(message)
            case Start() if self.core is not None:
                self.core.start(self.simulation.world.now_ms)
            case Shutdown():
                # Give what was just committed a moment to leave, as the real host does.
                self.simulation.world.after(50, self, lambda: self.die("shut down", detect=False))
            case _ if self.core is not None:
                self.core.control(message, self.simulation.world.now_ms)
        self._perform()

    def _load(self, plan: Plan) -> None:
        simulation = self.simulation
        ranges = worker_ranges(
            worker_count=plan.worker_count, key_group_count=plan.key_group_count, shard_count=plan.shard_count
        )
        self.key_groups = ranges[self.index]
        config = WorkerConfig(
            app=APP,
            generation=self.generation,
            worker=self.index,
            worker_count=plan.worker_count,
            key_group_count=plan.key_group_count,
            shard_count=plan.shard_count,
            backlog_max=simulation.rng.choice([5, 50_000]),
            feed_window=simulation.rng.choice([2, 16, 8_192]),
            invocations_max=simulation.rng.choice([1, 3, 1_024]),
            retry_deadline_ms=400,
            base_deltas_max=simulation.rng.choice([2, 5, 20]),
            base_rows_min=simulation.rng.choice([5, 10_000]),
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
        keys = core.load(state, transient, entry, simulation.world.now_ms)
        self.core = core
        for peer in self.owner.workers_of(self.generation):
            if peer is not self:
                link = Link(simulation.world, peer, self._receiver(peer), simulation.faults.slow_channel)
                self.channels[peer.index] = link
        simulation.ingress.connect(self)
        delay_ms = simulation.rng.uniform(1, 30)
        simulation.world.after(delay_ms, self, lambda: self._tell(Ready(self.generation, self.index, keys)))

    def _receiver(self, peer: SimulatedWorker) -> Callable[[bytes], None]:
        sender = self.index

        def receive(frame: bytes) -> None:
            assert peer.core is not None, "channels open after every worker has loaded"
            peer.core.channel_frame(sender, frame)
            peer._perform()

        return receive

    # --- effects ----------------------------------------------------------------------------------

    def _perform(self) -> None:
        core = self.core
        if core is None or not self.is_alive:
            return
        for effect in core.take_effects():
            match effect:
                case do.SendFrame(peer, frame):
                    self.channels[peer].send(frame)
                case do.Tell(message):
                    self._tell(message)
                case do.Invoke():
                    self._invoke(effect)
                case do.WritePart():
                    self._write(effect)
                case do.Publish(shard, epoch, rows):
                    self._publish(shard, epoch, rows)
                case do.FeedFrame(_, frame):
                    if self.to_ingress is not None:
                        self.to_ingress.send(frame)
                case do.Die(reason):
                    self.die(reason)
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        world = self.simulation.world
        if not self._turn_scheduled:
            self._turn_scheduled = True
            world.after(world.rng.uniform(0.01, 0.5), self, self._turn)

    def _turn(self) -> None:
        assert self.core is not None, "turns begin after loading"
        self._turn_scheduled = False
        world = self.simulation.world
        is_busy = self.core.turn(world.now_ms, world.rng.choice([1, 2, 8, 64]))
        due_ms = self.core.next_due_ms
        effects_before = world.steps
        self._perform_without_turn()
        if is_busy:
            self._schedule_turn()
        elif due_ms is not None:
            self._wake(max(0.1, due_ms - world.now_ms), effects_before)

    def _perform_without_turn(self) -> None:
        scheduled, self._turn_scheduled = self._turn_scheduled, True
        self._perform()
        self._turn_scheduled = scheduled

    def _wake(self, delay_ms: float, _: int) -> None:
        world = self.simulation.world
        at_ms = world.time_ms + delay_ms
        if self._wake_ms <= world.time_ms or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            world.after(delay_ms, self, self._schedule_turn)

    def _invoke(self, effect: do.Invoke) -> None:
        world, core = self.simulation.world, self.core
        assert core is not None, "invocations come from a core"

        def complete() -> None:
            coroutine = self._invoker.run(effect)
            try:
                coroutine.send(None)
            except StopIteration as finished:
                core.invocation_done(effect.invocation_id, finished.value, None, world.now_ms)
            except Exception as error:  # noqa: BLE001 - as the real host: user code may raise anything
                core.invocation_done(effect.invocation_id, None, str(error), world.now_ms)
            self._perform()

        world.after(world.rng.choice([0.1, 2, 40, 300]) * world.rng.random(), self, complete)

    def _write(self, effect: do.WritePart) -> None:
        self._encode(effect, effect.slices, Rows())

    def _encode(self, effect: do.WritePart, slices: Iterator[Rows], rows: Rows) -> None:
        portion = next(slices, None)
        if portion is not None:
            rows.extend(portion)
            self.simulation.world.after(0.2, self, lambda: self._encode(effect, slices, rows))
            return
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
            self._written(effect, None)
        else:
            self._store(writer.write(part), lambda descriptor: self._written(effect, descriptor))

    def _written(self, effect: do.WritePart, descriptor: PartDescriptor | None) -> None:
        assert self.core is not None, "parts come from a core"
        self.core.part_written(effect.snapshot_id, effect.kind, descriptor)
        self._perform()

    def _store(self, steps: StoreSteps[Any], finished: Callable[[Any], None]) -> None:
        """Run a store procedure; one that fails just ends, and the snapshot times out."""
        self._advance_store(steps, finished, lambda: steps.send(None))

    def _advance_store(
        self, steps: StoreSteps[Any], finished: Callable[[Any], None], step: Callable[[], Any]
    ) -> None:
        try:
            request = step()
        except StopIteration as stop:
            finished(stop.value)
        except StoreError as error:
            self.simulation.world.note(f"{self.name} gives up a part: {error}")
        else:
            self.simulation.store.request(
                self,
                request,
                lambda result: self._advance_store(steps, finished, lambda: steps.send(result)),
                lambda error: self._advance_store(steps, finished, lambda: steps.throw(error)),
            )

    def _publish(self, shard: int, epoch: int, rows: list[tuple[int, str, str, bytes | None]]) -> None:
        simulation = self.simulation
        is_faulty = simulation.world.time_ms < simulation.faults.duration_ms
        if is_faulty and simulation.world.chance(simulation.faults.sink_failure):
            if simulation.world.chance(0.5):
                simulation.sink.publish(shard, rows)  # it happened, and the answer is lost
            simulation.world.after(20, self, lambda: self._publish(shard, epoch, rows))
            return

        def publish() -> None:
            assert self.core is not None, "rows come from a core"
            simulation.sink.publish(shard, rows)
            self.core.published(shard, epoch)

        simulation.world.after(simulation.world.rng.uniform(0.1, 10), self, publish)


class SimulatedCoordinator(Process):
    """A coordinator process and the workers it owns."""

    def __init__(self, simulation: Simulation, number: int, worker_count: int) -> None:
        super().__init__(f"coordinator {number}")
        self.simulation = simulation
        self.workers: list[SimulatedWorker] = []
        self.stopped: str | None = None
        self.core = Coordinator(
            CoordinatorConfig(
                name=APP,
                worker_count=worker_count,
                nonce=f"c{number}",
                key_group_count=KEY_GROUPS,
                shard_count=SHARDS,
                snapshot_interval_ms=simulation.interval_ms,
                snapshot_timeout_ms=300,
                heartbeat_timeout_ms=400,
                start_timeout_ms=1_000,
                pulse_ms=50,
                backlog_pause=simulation.rng.choice([3, 100_000]),
                backoff_ms_min=5,
                backoff_ms_max=100,
            ),
            describe_functions(simulation.functions),
        )

    def boot(self) -> None:
        """The process runs."""
        self.core.start(self.simulation.world.now_ms)
        self.core.logs_known(self.simulation.ingress.addresses(), self.simulation.world.now_ms)
        self._tick()

    def _tick(self) -> None:
        world = self.simulation.world
        self.core.tick(world.now_ms)
        self.core.logs_known(self.simulation.ingress.addresses(), world.now_ms)
        self.perform()
        world.after(5, self, self._tick)

    def hear(self, data: bytes) -> None:
        """Take a control message."""
        self.core.worker_said(decode_to_coordinator(data), self.simulation.world.now_ms)
        self.perform()

    def worker_lost(self, generation: int, index: int, reason: str) -> None:
        """Learn that a worker process has ended."""
        self.core.worker_lost(generation, index, reason, self.simulation.world.now_ms)
        self.perform()

    def stop(self) -> None:
        """Ask for a final snapshot."""
        self.core.stop(self.simulation.world.now_ms)
        self.perform()

    def workers_of(self, generation: int) -> list[SimulatedWorker]:
        """Return the workers of a generation, by index."""
        return [worker for worker in self.workers if worker.generation == generation]

    def perform(self) -> None:
        """Perform the core's effects."""
        simulation, world = self.simulation, self.simulation.world
        for effect in self.core.take_effects():
            match effect:
                case do.StoreCall(call_id, request):
                    self._store(call_id, request)
                case do.StartWorkers(generation, count):
                    for index in range(count):
                        worker = SimulatedWorker(simulation, self, generation, index)
                        self.workers.append(worker)
                        world.after(world.rng.uniform(1, 40), worker, worker.boot)
                case do.StopWorkers():
                    simulation.end_workers(self.workers)
                case do.SendControl(index, message):
                    self._send(index, message)
                case do.Collect(slots, generation):
                    simulation.collect(slots, generation)
                case do.Report(level, text):
                    world.note(f"{self.name} {level}: {text}")
                case do.Stopped(error):
                    world.note(f"{self.name} stopped: {error or 'clean'}")
                    self.stopped = error

    def _store(self, call_id: int, request: Any) -> None:
        def done(result: Any) -> None:
            self.core.store_done(call_id, result)
            self.perform()

        def failed(error: StoreError) -> None:
            self.core.store_failed(call_id, error)
            self.perform()

        self.simulation.store.request(self, request, done, failed)

    def _send(self, index: int, message: ToWorker) -> None:
        for worker in self.workers_of(self.core.generation):
            if worker.index == index:
                worker.from_coordinator.send(encode_control(message))


class SimulatedIngress(Process):
    """An ingress process on a disk that outlives it."""

    def __init__(self, simulation: Simulation, files: SimulatedFiles, boot: int) -> None:
        super().__init__(f"ingress {boot}")
        self.simulation = simulation
        self.files = files
        self.number = boot
        self.core: IngressCore | None = None
        self.feeds: dict[SimulatedWorker, Feed] = {}
        self._writing = False

    def boot(self) -> None:
        """Open the log; the disk may fail or the process die while it does."""
        simulation = self.simulation
        try:
            log = IngressLog.open(self.files, LOG_ID, segment_bytes=simulation.segment_bytes)
        except (SimulatedCrash, OSError) as error:
            simulation.world.note(f"{self.name} dies opening its log: {error}")
            simulation.restart_ingress()
            return
        self.core = IngressCore(log, app_name=APP, key_group_count=KEY_GROUPS)
        run_store(simulation.store.objects, _create(layout.ingress_path(LOG_ID)))
        for coordinator in simulation.coordinators:
            for worker in coordinator.workers:
                if worker.is_alive and worker.core is not None:
                    self.connect(worker)
        self._pump_all()

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Return where the log is served."""
        return {} if self.core is None else {LOG_ID: ("host", self.number)}

    def connect(self, worker: SimulatedWorker) -> None:
        """A worker opens a connection."""
        if self.core is None or worker.core is None:
            return
        feed = self.core.feeds.open()
        self.feeds[worker] = feed
        worker.to_ingress = Link(self.simulation.world, self, self._receiver(worker, feed), 0)
        worker.core.feed_opened(LOG_ID)
        worker._perform()

    def disconnect(self, worker: SimulatedWorker) -> None:
        """A worker's connection breaks, from its side."""
        feed = self.feeds.pop(worker, None)
        if worker.to_ingress is not None:
            worker.to_ingress.is_open = False
            worker.to_ingress = None
        if feed is not None and self.core is not None and self.is_alive:
            self.core.closed(feed)

    def _receiver(self, worker: SimulatedWorker, feed: Feed) -> Callable[[bytes], None]:
        splitter = FrameSplitter()

        def receive(data: bytes) -> None:
            assert self.core is not None, "connections open after the log"
            for body in splitter.receive(data):
                names = self.core.receive(feed, decode_worker_frame(body))
                self.core.log.remove_segments(names)
            self._pump(worker, feed)

        return receive

    def _pump_all(self) -> None:
        world = self.simulation.world
        if self.core is not None:
            self.core.feeds.advance_idle()
            for worker, feed in list(self.feeds.items()):
                self._pump(worker, feed)
            self._commit()
        world.after(world.rng.uniform(1, 8), self, self._pump_all)

    def _pump(self, worker: SimulatedWorker, feed: Feed) -> None:
        assert self.core is not None, "feeds open after the log"
        while self.core.feeds.pump(feed):
            pass
        link = self._links.get(worker)
        if link is None:
            link = self._links[worker] = Link(self.simulation.world, worker, self._deliverer(worker, feed), 0)
        for frame in feed.take_outgoing():
            link.send(frame[4:])
        if feed.closing is not None:
            self.disconnect(worker)

    @property
    def _links(self) -> dict[SimulatedWorker, Link]:
        return self.__dict__.setdefault("_link_table", {})  # type: ignore[no-any-return]

    def _deliverer(self, worker: SimulatedWorker, feed: Feed) -> Callable[[bytes], None]:
        def deliver(body: bytes) -> None:
            if self.feeds.get(worker) is not feed or worker.core is None:
                return
            worker.core.feed_frame(LOG_ID, body, self.simulation.world.now_ms)
            worker._perform()

        return deliver

    def _commit(self) -> None:
        assert self.core is not None, "commits follow the opening"
        if self._writing:
            return
        batch = self.core.take_batch()
        if batch is None:
            return
        self._writing = True
        core = self.core
        try:
            core.log.write_batch(batch)
        except SimulatedCrash:
            self.simulation.crash_ingress("at a disk operation")
            return

        def synced() -> None:
            self._writing = False
            core.batch_synced(batch)
            if core.log.failure is not None:
                self.simulation.crash_ingress(f"its log failed: {core.log.failure}")

        self.simulation.world.after(self.simulation.world.rng.uniform(0.1, 5), self, synced)

    def accept(
        self,
        events: Events,
        producer: str,
        sequence: int,
        answered: Callable[[Answer], None],
        replied: Callable[[ReplyValue], None] | None,
    ) -> None:
        """Take a request, as the HTTP app does."""
        core = self.core
        if core is None:
            return
        request_id = ""
        if replied is not None:
            request_id = core.pending.open(lambda reply: reply and replied(reply), self.simulation.world.time_ms + 1e9)  # type: ignore[arg-type]
            events.caller_types[0], events.caller_ids[0] = core.pending.caller_type, request_id
        try:
            answer = core.accept(
                encode_events(events),
                lambda given: answered(given) if given is not None else None,
                received_at_ms=self.simulation.world.now_ms,
                producer_id=producer,
                producer_sequence=sequence,
                request_id=request_id,
            )
        except IngressError as error:
            self.simulation.world.note(f"{self.name} refuses: {error}")
            return
        if answer is not None:
            answered(answer)


def _create(path: str) -> StoreSteps[bool]:
    created: bool = yield Create(path, b"{}")
    return created


class Producer:
    """A client that numbers its requests and repeats those that are not answered."""

    def __init__(self, simulation: Simulation, name: str, requests: list[tuple[list[tuple[str, str, dict[str, Any]]], bool]]):
        self.simulation = simulation
        self.name = name
        self.requests = requests
        self.unanswered = set(range(1, len(requests) + 1))
        self.replies: dict[int, list[tuple[str, str, int]]] = {}
        self._next = 1
        self._outstanding: set[int] = set()

    @property
    def is_done(self) -> bool:
        """Whether everything was acknowledged."""
        return not self.unanswered

    def begin(self) -> None:
        """Send what may be sent now, and look again soon."""
        world = self.simulation.world
        while self._next <= len(self.requests) and len(self._outstanding) < self.simulation.outstanding:
            self._outstanding.add(self._next)
            self._send(self._next)
            self._next += 1
        if not self.is_done:
            world.after(world.rng.uniform(2, 25), None, self.begin)

    def _send(self, sequence: int) -> None:
        if sequence not in self.unanswered:
            return
        world, simulation = self.simulation.world, self.simulation
        batch, wants_reply = self.requests[sequence - 1]
        ingress = simulation.ingress
        events = Events(
            [kind for kind, _, _ in batch],
            [id for _, id, _ in batch],
            [""] * len(batch),
            [""] * len(batch),
            [COMMANDS.typename] * len(batch),
            [encode_commands(message) for _, _, message in batch],
        )

        def answered(_: Answer) -> None:
            if world.time_ms < simulation.faults.duration_ms and world.chance(simulation.faults.answer_lost):
                return
            self.unanswered.discard(sequence)
            self._outstanding.discard(sequence)

        def replied(reply: ReplyValue) -> None:
            assert reply.value is not None, "replies of this workload carry a count"
            count = int.from_bytes(reply.value[1:], "little", signed=True)
            incarnation_request = next(iter(events.caller_ids))
            self.replies.setdefault(sequence, []).append((batch[0][1], incarnation_request, count))

        def deliver() -> None:
            if ingress.is_alive:
                ingress.accept(events, self.name, sequence, answered, replied if wants_reply else None)

        world.after(world.rng.uniform(0.1, 4), ingress, deliver)
        world.after(world.rng.uniform(30, 120), None, lambda: self._send(sequence))


class Simulation:
    """One run of one seed."""

    def __init__(self, seed: int, *, faults: Faults | None = None, requests: int = 16) -> None:
        self.seed = seed
        self.world = World(seed)
        self.rng = self.world.rng
        self.faults = faults if faults is not None else swarm(self.rng)
        self.workload = Workload(self.rng)
        self.functions = self.workload.functions()
        self.interval_ms = self.rng.choice([15, 40, 120])
        self.inline_bytes_max = self.rng.choice([0, 65_536])
        self.segment_bytes = self.rng.choice([2_000, 1 << 26])
        self.lease_ms = self.rng.choice([600, 1_000_000])
        self.outstanding = self.rng.choice([1, 3, 8])
        self.store = SimulatedStore(self.world, self.faults)
        self.sink = SimulatedSink()
        self.files = SimulatedFiles(self.world, self.faults)
        self.collector = retention.Collector(grace_ms=100)
        self.ingress = SimulatedIngress(self, self.files, 1)
        self.coordinators: list[SimulatedCoordinator] = []
        self.worker_count = self.rng.choice([1, 2, 3])
        self.poisoned = self.rng.random() < 0.3
        self.problems: list[str] = []
        self._quiet_since_ms = 0.0
        self.reads: list[tuple[str, str, bool, int]] = []
        self.producers = [
            Producer(self, f"p{number}", self._requests(requests)) for number in range(self.rng.choice([1, 2]))
        ]
        if self.poisoned:
            self.producers[0].requests.append(([(POISON, "n0", {"u": 1, "c": []})], False))
            self.producers[0].unanswered.add(len(self.producers[0].requests))

    def _requests(self, count: int) -> list[tuple[list[tuple[str, str, dict[str, Any]]], bool]]:
        result = []
        for _ in range(count):
            wants_reply = self.rng.random() < 0.3
            size = 1 if wants_reply or self.rng.random() < 0.7 else self.rng.randrange(2, 5)
            result.append(([self.workload.event(reply=wants_reply) for _ in range(size)], wants_reply))
        return result

    # --- life -------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Run to the end and return what is wrong."""
        self.ingress.boot()
        self._start_coordinator()
        for producer in self.producers:
            producer.begin()
        self._schedule_faults()
        self._read_now_and_then()
        faults_over = self.world.run_until(lambda: self.world.time_ms >= self.faults.duration_ms, 1e9)
        assert faults_over, "the world went silent"
        self._thaw()
        if not self.world.run_until(self._is_settled, SETTLE_MS):
            return [f"not settled {SETTLE_MS} ms after the last fault: {self._unsettled()}"]
        self._stop()
        if not self.world.run_until(lambda: self._current().stopped is not None, SETTLE_MS):
            return [f"not stopped {SETTLE_MS} ms after it was asked to"]
        # Restart once: what the final snapshot holds must be complete, and its outbox be published.
        self._start_coordinator()
        if not self.world.run_until(self._is_settled, SETTLE_MS):
            return [f"not settled after the last restart: {self._unsettled()}"]
        self._stop()
        self.world.run_until(lambda: self._current().stopped is not None, SETTLE_MS)
        return self.problems + check_outcome(self)

    def _current(self) -> SimulatedCoordinator:
        return self.coordinators[-1]

    def _start_coordinator(self) -> None:
        coordinator = SimulatedCoordinator(self, len(self.coordinators) + 1, self.worker_count)
        self.coordinators.append(coordinator)
        self.world.note(f"{coordinator.name} starts with {self.worker_count} workers")
        coordinator.boot()
        coordinator.perform()

    def _stop(self) -> None:
        self._current().stop()

    def _thaw(self) -> None:
        for coordinator in self.coordinators:
            for process in (coordinator, *coordinator.workers):
                process.frozen_until_ms = min(process.frozen_until_ms, self.world.time_ms)
        if self._current().stopped is not None or not self._current().is_alive:
            self._start_coordinator()

    def end_workers(self, workers: list[SimulatedWorker]) -> None:
        """The coordinator wants these gone; a zombie takes its time."""
        for worker in workers:
            if not worker.is_alive:
                continue
            delay_ms = self.rng.uniform(0.1, 5)
            if self.world.time_ms < self.faults.duration_ms and self.world.chance(self.faults.zombie):
                delay_ms = self.rng.uniform(0, self.faults.zombie_ms_max)
            self.world.after(delay_ms, None, lambda worker=worker: worker.die("ended", detect=False))  # type: ignore[misc]

    # --- faults -----------------------------------------------------------------------------------

    def _schedule_faults(self) -> None:
        faults = self.faults
        self._repeat(faults.worker_crash_ms, self._crash_worker)
        self._repeat(faults.coordinator_crash_ms, self._crash_coordinator)
        self._repeat(faults.ingress_crash_ms, lambda: self.crash_ingress("killed"))
        self._repeat(faults.freeze_ms, self._freeze)

    def _repeat(self, mean_ms: float, fault: Callable[[], None]) -> None:
        if not mean_ms:
            return

        def happen() -> None:
            if self.world.time_ms < self.faults.duration_ms:
                fault()
                self.world.after(self.rng.expovariate(1 / mean_ms), None, happen)

        self.world.after(self.rng.expovariate(1 / mean_ms), None, happen)

    def _crash_worker(self) -> None:
        alive = [worker for worker in self._current().workers if worker.is_alive]
        if alive:
            self.rng.choice(alive).die("killed")

    def _crash_coordinator(self) -> None:
        old = self._current()
        if self.world.chance(self.faults.rescale):
            self.worker_count = self.rng.choice([1, 2, 3, 4])
        if self.world.chance(self.faults.zombie):
            self.world.note(f"{old.name} lives on as a zombie")
            zombie_ms = self.rng.uniform(0, self.faults.zombie_ms_max)
            self.world.after(zombie_ms, None, lambda: self._end_coordinator(old))
        else:
            self._end_coordinator(old)
        self.world.after(self.rng.uniform(5, 100), None, self._start_coordinator)

    def _end_coordinator(self, coordinator: SimulatedCoordinator) -> None:
        self.world.note(f"{coordinator.name} dies")
        coordinator.is_alive = False
        for worker in coordinator.workers:
            if worker.is_alive:
                # Ray ends the workers of a dead owner, some of them late.
                delay_ms = self.rng.uniform(0, self.faults.zombie_ms_max if self.world.chance(self.faults.zombie) else 10)
                self.world.after(delay_ms, None, lambda worker=worker: worker.die("owner died", detect=False))  # type: ignore[misc]

    def _freeze(self) -> None:
        processes: list[Process] = [self._current(), *(w for w in self._current().workers if w.is_alive)]
        process = self.rng.choice(processes)
        process.frozen_until_ms = self.world.time_ms + self.rng.uniform(10, self.faults.freeze_ms_max)
        self.world.note(f"{process.name} freezes")

    def crash_ingress(self, reason: str) -> None:
        """The ingress process dies and comes back on the same disk."""
        ingress = self.ingress
        if not ingress.is_alive:
            return
        self.world.note(f"{ingress.name} dies: {reason}")
        for worker in list(ingress.feeds):
            ingress.feeds.pop(worker)
            if worker.core is not None:
                worker.to_ingress = None
                worker.core.feed_closed(LOG_ID)
        self.restart_ingress()

    def restart_ingress(self) -> None:
        """Start the next ingress process on what the disk has kept."""
        old = self.ingress
        old.is_alive = False
        self.files.crash()
        self.ingress = SimulatedIngress(self, self.files, old.number + 1)
        self.world.after(self.rng.uniform(5, 60), self.ingress, self.ingress.boot)

    # --- observation ------------------------------------------------------------------------------

    def collect(self, slots: list[int], generation: int) -> None:
        """Delete what the retained entries do not need, as the real host does."""
        run_store(
            self.store.objects,
            self.collector.run(retained_slots=slots, generation=generation, now_ms=self.world.now_ms),
        )

    def _read_now_and_then(self) -> None:
        """Read states through the ingress, live and committed."""
        rng, ingress = self.rng, self.ingress
        if ingress.core is not None and ingress.is_alive:
            kind, id = rng.choice(list(self.workload.expected))
            wait_commit = rng.random() < 0.5

            def answered(state: State | None) -> None:
                if state is not None:
                    values = {name: value for name, _, value in state.states}
                    count = values["count"]
                    number = int.from_bytes(count[1:], "little", signed=True) if count else 0
                    self.reads.append((kind, id, wait_commit, number))

            ingress.core.query(kind, id, wait_commit=wait_commit, waiter=answered)
        if self.world.time_ms < self.faults.duration_ms:
            self.world.after(rng.uniform(20, 150), None, self._read_now_and_then)

    def _unsettled(self) -> str:
        current = self._current()
        core = self.ingress.core
        return (
            f"phase {current.core.phase} ({current.core.last_error}), "
            f"producers {[sorted(producer.unanswered) for producer in self.producers]}, "
            f"workers {[(w.name, w.core.backlog if w.core else None) for w in current.workers if w.is_alive]}, "
            f"ingress lag {core.lag if core else None}"
        )

    def _is_settled(self) -> bool:
        current = self._current()
        core = self.ingress.core
        if current.core.phase != "running" or core is None or not all(p.is_done for p in self.producers):
            return False
        workers = [worker for worker in current.workers_of(current.core.generation) if worker.is_alive]
        is_quiet = len(workers) == current.core.config.worker_count and all(
            worker.core is not None and worker.core.is_quiet(LOG_ID, core.log.durable_seq) for worker in workers
        )
        # Messages between workers are nobody's for a moment: all must stay quiet for longer than that.
        if not is_quiet:
            self._quiet_since_ms = self.world.time_ms
        return self.world.time_ms - self._quiet_since_ms > QUIET_MS

    def final_entry(self) -> Entry | None:
        """Return the newest snapshot in the log."""
        return run_store(self.store.objects, self._newest())

    def _newest(self) -> StoreSteps[Entry | None]:
        log = self._current().core._new_log()
        yield from log.open()
        entry: Entry | None = yield from log.latest_snapshot()
        return entry


def simulate(seed: int) -> list[str]:
    """Run one seed and return what is wrong with it."""
    return Simulation(seed).run()
