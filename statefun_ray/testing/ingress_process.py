"""A simulated ingress process on a disk that outlives it: what ``service.py`` is on sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from statefun_checkpoints import layout
from statefun_checkpoints.participant import ProtocolViolation
from statefun_checkpoints.store import run_store
from statefun_checkpoints.store_requests import Create, StoreSteps
from statefun_ingress.core import IngressCore
from statefun_ingress.errors import CorruptLog, IngressError
from statefun_ingress.feed import Feed
from statefun_ingress.frames import FrameSplitter, decode_worker_frame
from statefun_ingress.log import IngressLog, encode_events
from statefun_ingress.pending import ReplyValue
from statefun_ingress.producers import Answer
from statefun_ingress.record import NO_PRODUCER, Events
from statefun_ray.testing.world import Link, Process, SimulatedCrash

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation
    from statefun_ray.testing.worker_process import SimulatedWorker

IDLE_MS = 30
LOG_ID = "log"


class _Connection:
    """A worker's connection, both directions, as long as both ends think that it stands."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.to_worker: Link | None = None


class SimulatedIngress(Process):
    """One ingress process."""

    def __init__(self, simulation: Simulation, boot: int) -> None:
        super().__init__(f"ingress {boot}", simulation.clock_skew_ms())
        self.simulation = simulation
        self.world = simulation.world
        self.number = boot
        self.core: IngressCore | None = None
        self.connections: dict[SimulatedWorker, _Connection] = {}
        self._commit_scheduled = False
        self._is_stopping = False

    def boot(self) -> None:
        """Open the log; the disk may fail or the process die while it does."""
        simulation = self.simulation
        try:
            log = IngressLog.open(simulation.files, LOG_ID, segment_bytes=simulation.segment_bytes)
        except (SimulatedCrash, OSError) as error:
            if isinstance(error, CorruptLog):
                raise
            simulation.crash_ingress(f"while it opens its log: {error}")
            return
        self.core = IngressCore(log, app_name=simulation.app, key_group_count=simulation.key_group_count)
        run_store(simulation.store.objects, _create(layout.ingress_path(LOG_ID)))
        for worker in simulation.workers():
            if worker.is_alive and worker.is_started:
                self.connect(worker)
        self._advance_idle()

    def stop(self) -> None:
        """Refuse new events, make durable what was taken, note the end of the log, and end."""
        if self.core is not None and self.is_alive:
            self._is_stopping = True
            self._end_when_idle(self.core)

    def _end_when_idle(self, core: IngressCore) -> None:
        if self._commit_scheduled and core.log.failure is None:
            self.world.after(2, self, lambda: self._end_when_idle(core))
            return
        core.pending.abandon()
        try:
            core.log.close()
        except SimulatedCrash as crash:
            self.simulation.crash_ingress(str(crash))
            return
        self.simulation.crash_ingress("stopped in order")

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Return where the log is served."""
        return {} if self.core is None or not self.is_alive else {LOG_ID: ("host", self.number)}

    # --- connections ------------------------------------------------------------------------------

    def connect(self, worker: SimulatedWorker) -> None:
        """A worker opens a connection."""
        if self.core is None or worker.core is None or not self.is_alive or worker in self.connections:
            return
        feed = self.core.feeds.open()
        connection = self.connections[worker] = _Connection(feed)
        connection.to_worker = Link(self.world, worker, self._deliverer(worker, connection))
        worker.to_ingress = Link(self.world, self, self._receiver(worker, connection))
        worker.core.feed_opened(LOG_ID)
        worker.perform()

    def disconnect(self, worker: SimulatedWorker) -> None:
        """A worker's connection breaks."""
        connection = self.connections.pop(worker, None)
        if connection is None:
            return
        if worker.to_ingress is not None:
            worker.to_ingress.is_open = False
            worker.to_ingress = None
        if worker.core is not None and worker.is_alive:
            worker.core.feed_closed(LOG_ID)
        feed = connection.feed
        if self.core is not None and self.is_alive:
            # A dead connection shows late, sometimes after its successor has said hello.
            core = self.core
            delay_ms = self.world.rng.choice([0, 30])
            self.world.after(delay_ms, self, lambda: core.closed(feed))

    def break_connection(self, worker: SimulatedWorker) -> None:
        """A connection breaks, and the worker connects again."""
        self.disconnect(worker)
        self.world.after(
            self.world.rng.uniform(0.1, 20), worker, lambda: self.simulation.ingress.connect(worker)
        )

    def _receiver(self, worker: SimulatedWorker, connection: _Connection) -> Callable[[bytes], None]:
        splitter = FrameSplitter()

        def receive(data: bytes) -> None:
            core = self.core
            assert core is not None, "connections open after the log"
            for body in splitter.receive(data):
                names = core.receive(connection.feed, decode_worker_frame(body))
                if names:
                    self.simulation.check_trim(core.log.first_seq)
                    core.log.remove_segments(names)
            self._pump(worker, connection)

        return receive

    def _deliverer(self, worker: SimulatedWorker, connection: _Connection) -> Callable[[bytes], None]:
        def deliver(body: bytes) -> None:
            if self.connections.get(worker) is not connection or worker.core is None:
                return
            try:
                worker.core.feed_frame(LOG_ID, body, self.world.wall_ms(worker))
            except ProtocolViolation as error:
                worker.violated(error)
                return
            worker.perform()

        return deliver

    def _pump(self, worker: SimulatedWorker, connection: _Connection) -> None:
        core, feed, simulation = self.core, connection.feed, self.simulation
        assert core is not None, "feeds open after the log"
        while core.feeds.pump(feed):
            pass
        assert connection.to_worker is not None, "a connection has two directions"
        for frame in feed.take_outgoing():
            if simulation.is_faulty and self.world.chance(simulation.faults.frame_tampered):
                self.world.note(f"a frame from {self.name} to {worker.name} is lost")
                simulation.tampered.add(worker.generation)
                self.world.after(30, worker, lambda: self.break_connection(worker))
                continue
            connection.to_worker.send(frame[4:])
        if feed.closing is not None and self.connections.get(worker) is connection:
            # What it says last still arrives.
            self.world.after(2, None, lambda: self._close(worker, connection))

    def _close(self, worker: SimulatedWorker, connection: _Connection) -> None:
        if self.connections.get(worker) is connection:
            self.disconnect(worker)

    def _pump_all(self) -> None:
        for worker, connection in list(self.connections.items()):
            self._pump(worker, connection)

    def _advance_idle(self) -> None:
        assert self.core is not None, "the log is open"
        self.core.feeds.advance_idle()
        self._pump_all()
        self.world.after(IDLE_MS, self, self._advance_idle)

    # --- accepting --------------------------------------------------------------------------------

    def accept(
        self,
        events: Events,
        producer: str,
        sequence: int | None,
        answered: Callable[[], None],
        replied: Callable[[str, str, ReplyValue], None] | None,
    ) -> None:
        """Take a request, as the HTTP app does.

        Args:
            sequence: None for a producer that does not number its requests.
            replied: gets incarnation, request id and reply; None if no reply is wanted.
        """
        core = self.core
        if core is None or self._is_stopping:
            return
        request_id = ""
        pending = core.pending
        if replied is not None:
            deadline_ms = int(self.world.time_ms) + 1_000_000
            incarnation = pending.incarnation

            def waiter_of(request_id: str) -> Callable[[ReplyValue | None], None]:
                return lambda reply: reply and replied(incarnation, request_id, reply)

            request_id = pending.open(lambda reply: waiter_of(request_id)(reply), deadline_ms)
            events.caller_types[0], events.caller_ids[0] = pending.caller_type, request_id

        def answer_with(answer: Answer | None) -> None:
            if answer is not None and answer.request_id != request_id and replied is not None:
                pending.discard(request_id)
                pending.join(answer.request_id, waiter_of(answer.request_id), deadline_ms)
            if answer is not None:
                answered()

        try:
            answer = core.accept(
                encode_events(events),
                answer_with,
                received_at_ms=self.world.wall_ms(self),
                producer_id=producer,
                producer_sequence=NO_PRODUCER if sequence is None else sequence,
                request_id=request_id,
            )
        except IngressError as error:
            self.world.note(f"{self.name} refuses: {error}")
            pending.discard(request_id)
            return
        if answer is not None:
            answer_with(answer)
        self._schedule_commit()

    def _schedule_commit(self) -> None:
        if not self._commit_scheduled:
            self._commit_scheduled = True
            self.world.after(self.world.rng.random() * 3, self, self._commit)

    def _commit(self) -> None:
        core, simulation = self.core, self.simulation
        assert core is not None, "commits follow the opening"
        batch = core.take_batch()
        if batch is None:
            self._commit_scheduled = False
            return
        try:
            core.log.write_batch(batch)
        except SimulatedCrash as crash:
            simulation.crash_ingress(str(crash))
            return

        def synced() -> None:
            self._commit_scheduled = False
            core.batch_synced(batch)
            if core.log.failure is not None:
                # It goes on for a moment, and must refuse everything.
                self.world.note(f"the log of {self.name} failed: {core.log.failure}")
                self.world.after(10, self, self.stop)
                return
            self._pump_all()
            self._schedule_commit()

        self.world.after(0.1 + self.world.rng.random() * 4, self, synced)


def _create(path: str) -> StoreSteps[bool]:
    created: bool = yield Create(path, b"{}")
    return created
