"""The seeded driver: a whole cluster in simulated time, made of the production classes.

Coordinator, workers, participants, channels, commit log, snapshot parts, retention, ingress core
and ingress log are the ones that run on Ray; only sockets, disks, object store, clocks and chance
are ours. ``Simulation(seed).run()`` returns what is wrong, an empty list if nothing is. The same
seed does the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from statefun_checkpoints import entry_format, layout, retention
from statefun_checkpoints.commit_log import CommitLog, LogReader
from statefun_checkpoints.errors import NoApplication
from statefun_checkpoints.model import Boundary, Entry
from statefun_checkpoints.store import run_store
from statefun_checkpoints.store_requests import StoreSteps
from statefun_ingress.frames import State
from statefun_ray.core.control import Ack, ToCoordinator, ToWorker, encode_control
from statefun_ray.core.dead_letters import letter_of
from statefun_ray.core.message import DEAD_LETTERS
from statefun_ray.testing import epilogue, limits, policy
from statefun_ray.testing.checkers import check_outcome
from statefun_ray.testing.clerk import Clerk
from statefun_ray.testing.coordinator_process import SimulatedCoordinator
from statefun_ray.testing.faults import Faults, swarm
from statefun_ray.testing.ingress_process import LOG_ID, SimulatedIngress
from statefun_ray.testing.producer import Anonymous, Producer, Request
from statefun_ray.testing.storage import SimulatedFiles, SimulatedSink, SimulatedStore
from statefun_ray.testing.topic import Topic
from statefun_ray.testing.worker_process import SimulatedWorker
from statefun_ray.testing.workload import (
    AWAITING,
    AWAITING_POISON,
    COMMANDS,
    EGRESS,
    INLINE,
    NO_MESSAGE,
    UNKNOWN,
    Poisoned,
    Workload,
    encode_commands,
)
from statefun_ray.testing.world import SLOW_FACTOR, Process, World

SETTLE_MS: Final = 10_000
"""Simulated time to settle in after the last fault; not to settle is a failure (I12)."""

QUIET_MS: Final = 15
"""Quiet for longer than a message can be on its way between workers ..."""

LATE_MS: Final = SLOW_FACTOR * 1.1
"""... after this, when the last slow one has arrived."""

TOPIC_SHARE: Final = 1 / 3
"""Of the runs in which workers read partitions of a topic as well."""

LEGITIMATE_REFUSALS: Final = ("has taken over", "is over", "has connected again", "was closed")
"""What an ingress says to workers of the past; any other refusal means that something was lost."""


class Simulation:
    """One run of one seed."""

    app: Final = "simulation"
    key_group_count: Final = 32
    shard_count: Final = 8

    def __init__(self, seed: int, *, faults: Faults | None = None, requests: int = 14) -> None:
        self.seed = seed
        self.world = World(seed)
        self.rng = self.world.rng
        self.faults = faults if faults is not None else swarm(self.rng)
        self.policy = policy.choose(self.rng)
        self.world.faults_until_ms = self.faults.duration_ms
        self.workload = Workload(
            self.rng,
            ids=self.rng.choice([2, 6]),
            flaky=self.policy.flaky,
            poison_share=self.policy.poison_share,
        )
        # Drawn apart, so that a seed without such functions is what it was before there were any.
        apart = Random(seed ^ 0x5EED)
        self.remote = frozenset({AWAITING, AWAITING_POISON}) if apart.random() < 0.35 else frozenset()
        """Functions that seem to live elsewhere."""
        self.service_failure = apart.choice([0.0, 0.05, 0.3])
        """Share of their requests that find nobody."""
        self.topic = Topic(self, apart) if apart.random() < TOPIC_SHARE else None
        self.eager_egresses = frozenset({EGRESS}) if apart.random() < 0.2 else frozenset()
        self.version = 0
        """Of the functions: it grows with every upgrade."""
        self.interval_ms = self.rng.choice([15, 40, 120])
        self.inline_bytes_max = self.rng.choice([0, 700, 65_536])
        self.segment_bytes = self.rng.choice([1_000, 3_000, 1 << 26])
        self.lease_ms = self.rng.choice([300, 1_000_000])
        self.turn_ms = self.rng.choice([0.8, 0.8, 4])
        self.turn_limits = self.rng.choice([(1, 4, 64, 64), (1,)])
        """Messages per turn: a slow worker has a long mailbox when it cuts."""
        self.outstanding = self.rng.choice([1, 3, 8])
        self.patience_ms = self.rng.choice([(20, 90), (20, 90), (2, 9)])
        """After which a producer repeats a request; some do while the first is being written."""
        self.store = SimulatedStore(self.world, self.faults, self._rival_claims)
        self.sink = SimulatedSink()
        self.files = SimulatedFiles(self.world, self.faults)
        self.problems: list[str] = []
        self.tampered: set[int] = set()
        """Generations whose frames were lost or doubled: their workers may find violations."""
        self.reads: list[tuple[str, str, bool, int]] = []
        """``(function type, id, as of a commit?, count)`` of every answered state query."""
        self.ingress = SimulatedIngress(self, 1)
        self.coordinators: list[SimulatedCoordinator] = []
        self.worker_count = self.rng.choice([1, 2, 3, 3])
        self.producers = [
            Producer(self, f"p{number}", self._requests(requests, has_poison=number == 0))
            for number in range(self.rng.choice([1, 2]))
        ]
        self.anonymous = Anonymous(self)
        self.clerk = Clerk(self)
        self.small_limits = limits.choose(self.rng, apart)
        self.first_slot = self.rng.choice([0, 0, 8])
        self._rivals = 0
        self._acks: dict[tuple[int, int], Ack] = {}
        """By worker and snapshot, the last one, of whatever generation."""
        self._quiet_since_ms = 0.0
        self._is_settled = False
        self._is_stopping = False
        self._is_starting = False
        self._is_last = False
        """Whether the cluster has been started for the last time."""

    def _requests(self, count: int, *, has_poison: bool) -> list[Request]:
        result = []
        for _ in range(count):
            wants_reply = self.rng.random() < 0.3
            size = 1 if wants_reply or self.rng.random() < 0.7 else self.rng.randrange(2, 5)
            events = [self.workload.event(reply=wants_reply) for _ in range(size)]
            encoded = [(kind, id, encode_commands(message)) for kind, id, message in events]
            result.append(Request(encoded, wants_reply))
        for event in self._poison() if has_poison else ():
            result.insert(self.rng.randrange(count), Request([event], False))
        return result

    def _poison(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the events that fail for good, or never were one."""
        workload, rng = self.workload, self.rng
        for kind, id in self.policy.poisons:
            for _ in range(rng.choice([1, 1, 3])):
                how = "doubles-token" if id == "doubles-token" else "raises"
                yield kind, id, encode_commands(workload.poison(kind, id, how))
        for _ in range(rng.randrange(5) if self.policy.buries else 0):
            id, how = f"n{rng.randrange(workload.ids)}", rng.choice(["raises", "doubles-token"])
            what = rng.choice([INLINE, AWAITING, UNKNOWN, "no command", "no message"])
            if what == "no command":
                # As a letter it is told to itself again when it is redriven.
                message = workload.poison(DEAD_LETTERS, id, how, "no command")
                yield DEAD_LETTERS, id, encode_commands(message)
            elif what == "no message":
                value = encode_commands(workload.poison(INLINE, id, how, NO_MESSAGE))
                letter = letter_of((INLINE, id, COMMANDS.typename, value, f"it {NO_MESSAGE}"))
                yield DEAD_LETTERS, id, letter[5] or b""
            else:
                yield what, id, encode_commands(workload.poison(what, id, how))

    # --- life -------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Run to the end and return what is wrong."""
        with limits.small(self.small_limits):
            return self._run()

    def _run(self) -> list[str]:
        assert self.final_entry() is None, "nothing is stored yet"
        if self.first_slot:
            boundary = entry_format.encode(Boundary(first_slot=self.first_slot))
            self.store.objects.put(layout.BOUNDARY, boundary)
        self.ingress.boot()
        self._start_coordinator()
        self._operate()
        self._watch()
        for producer in self.producers:
            producer.run()
        self.anonymous.run()
        self.clerk.run()
        if self.topic is not None:
            self.topic.run()
        if self.policy.mended == "early":
            self.world.after(self.rng.random() * self.faults.duration_ms, None, self._mend)
        self._schedule_faults()
        self._read_now_and_then()
        self.world.run_until(lambda: not self.is_faulty, 1e9)
        self._thaw()
        if not self._settle():
            return [*self.problems, f"not settled {SETTLE_MS} ms after the last fault: {self._unsettled()}"]
        # Stop and start once more: what the final snapshot holds is complete, its outbox is published.
        if not self._stop():
            return [*self.problems, f"not stopped {SETTLE_MS} ms after it was asked to"]
        if self.policy.mended == "at restart":
            self._mend()
        if self.policy.poisons:
            self.worker_count = self.rng.choice([self.worker_count, 1, 3])
        self._start_coordinator()
        self._is_stopping, self._is_last = False, True
        self.clerk.look_at_last()
        if self.topic is not None:
            self.topic.write_last()
        if not self._settle() or not self._stop():
            return [*self.problems, f"not settled after the last restart: {self._unsettled()}"]
        problems = self.problems + check_outcome(self)
        return problems if problems else epilogue.run(self)

    @property
    def is_faulty(self) -> bool:
        """Whether faults still happen."""
        return self.world.time_ms < self.world.faults_until_ms

    def problem(self, text: str) -> None:
        """Note that something is wrong."""
        self.world.note(f"PROBLEM: {text}")
        self.problems.append(text)

    def _mend(self) -> None:
        self.world.note("the functions are mended")
        self.workload.is_mended = True

    def is_mended(self, poisoned: Poisoned | None) -> bool:
        """Whether a message that failed for good would be taken now; an unknown function has to be deployed."""
        if poisoned is None or poisoned.kind == DEAD_LETTERS or not self.workload.is_mended:
            return False
        return poisoned.kind != UNKNOWN or (self._is_last and not self._is_stopping)

    def check_death(self, name: str, reason: str) -> None:
        """A worker ends because of this: it must have been arranged, or meant for workers of the past."""
        is_policy = self.policy.strict or self.policy.on_failure == "fail"
        expected = (*LEGITIMATE_REFUSALS, "that ends the generation") if is_policy else LEGITIMATE_REFUSALS
        self.workload.failed = 0
        if not any(text in reason for text in expected):
            self.problem(f"{name} must die: {reason}")

    def check_failures(self, name: str) -> None:
        """What failed in a strict application has ended its worker."""
        failed, self.workload.failed = self.workload.failed, 0
        if failed and self.policy.strict:
            self.problem(f"{name} goes on after {failed} failures, in a strict application")

    def clock_skew_ms(self) -> int:
        """Return by how much the clock of a new process is wrong."""
        skew_ms = self.faults.clock_skew_ms_max
        return self.rng.randint(-skew_ms, skew_ms) if skew_ms else 0

    @property
    def coordinator(self) -> SimulatedCoordinator:
        """The newest coordinator."""
        return self.coordinators[-1]

    def workers(self) -> Iterator[SimulatedWorker]:
        """Every worker that ever was."""
        for coordinator in self.coordinators:
            yield from coordinator.workers

    def start_coordinator(self) -> SimulatedCoordinator:
        """Start a coordinator, now."""
        self._start_coordinator()
        return self.coordinator

    def _start_coordinator(self) -> None:
        self._is_starting = False
        number = len(self.coordinators) + 1
        mistake = ""
        if self.is_faulty and self.world.chance(self.faults.bad_deploy) and self._has_snapshot():
            mistake = self.rng.choice(["functions", "shards"])
        elif self.is_faulty and self.world.chance(self.faults.upgrade):
            self.version += 1
        coordinator = SimulatedCoordinator(self, number, self.worker_count, mistake=mistake)
        self.coordinators.append(coordinator)
        self.world.note(f"{coordinator.name} starts with {self.worker_count} workers {mistake}")
        coordinator.boot()

    def _operate(self) -> None:
        """What a person or a service manager does: start again what has stopped."""
        if self.coordinator.stopped is not None and not self._is_stopping and not self._is_starting:
            if self.coordinator.stopped == "" and self.coordinator.mistake:
                self.problem(f"{self.coordinator.name} ran with a mistake in its {self.coordinator.mistake}")
            self._maybe_rescale()
            self._start_coordinator()
        self.world.after(20, None, self._operate)

    def _settle(self) -> bool:
        self._is_settled, self._quiet_since_ms = False, self.world.time_ms
        return self.world.run_until(lambda: self._is_settled or bool(self.problems), SETTLE_MS)

    def _stop(self) -> bool:
        self._is_stopping = True
        self.coordinator.stop()
        return self.world.run_until(lambda: self.coordinator.stopped is not None, SETTLE_MS)

    def _thaw(self) -> None:
        for process in [*self.coordinators, *self.workers()]:
            self.world.thaw(process)
            if isinstance(process, SimulatedWorker):
                self.world.thaw(process.side)
        for coordinator in self.coordinators[:-1]:
            # Two that live fence each other for ever; which one wins is not ours to judge.
            if coordinator.is_alive:
                self._end_coordinator(coordinator)
        if not self.coordinator.is_alive and not self._is_starting:
            self._start_coordinator()

    # --- faults -----------------------------------------------------------------------------------

    def _schedule_faults(self) -> None:
        faults = self.faults
        self._repeat(faults.worker_crash_ms, self._crash_worker)
        self._repeat(faults.coordinator_crash_ms, self._crash_coordinator)
        self._repeat(faults.ingress_crash_ms, lambda: self.crash_ingress("killed"))
        self._repeat(faults.ingress_stop_ms, lambda: self.ingress.stop())
        self._repeat(faults.freeze_ms, self._freeze)
        self._repeat(faults.stuck_ms, self._stick)
        self._repeat(faults.feed_break_ms, self._break_feed)
        self._repeat(faults.store_outage_ms, self._close_store)
        self._repeat(faults.stop_ms, lambda: self.coordinator.stop())

    def _repeat(self, mean_ms: float, fault: Callable[[], None]) -> None:
        if not mean_ms:
            return

        def happen() -> None:
            if self.is_faulty:
                fault()
                self.world.after(self.rng.expovariate(1 / mean_ms), None, happen)

        self.world.after(self.rng.expovariate(1 / mean_ms), None, happen)

    def _current_workers(self) -> list[SimulatedWorker]:
        return [worker for worker in self.coordinator.workers if worker.is_alive]

    def mislead_worker(self, index: int, message: ToWorker) -> None:
        """A message meant for a worker of another generation arrives at the present one."""
        for worker in self._current_workers():
            if worker.index == index and worker.generation != message.generation:
                worker.from_coordinator.send(encode_control(message))

    def mislead_coordinator(self, message: ToCoordinator) -> None:
        """What a worker of another generation says arrives at the present coordinator."""
        if self.coordinator.core.generation != message.generation:
            self.coordinator.hear(encode_control(message))

    def overtake(self, ack: Ack) -> None:
        """What a worker of an earlier generation said of this snapshot, long ago, arrives right before."""
        earlier = self._acks.get((ack.worker, ack.snapshot_id))
        if earlier is not None and self.is_faulty and self.faults.misdelivered:
            self.mislead_coordinator(earlier)
        self._acks[ack.worker, ack.snapshot_id] = ack

    def _crash_worker(self) -> None:
        workers = self._current_workers()
        if workers:
            self.rng.choice(workers).die("killed")

    def _crash_coordinator(self) -> None:
        old = self.coordinator
        self._maybe_rescale()
        if self.world.chance(self.faults.zombie):
            self.world.note(f"{old.name} lives on as a zombie")
            zombie_ms = self.rng.uniform(0, self.faults.zombie_ms_max)
            self.world.after(zombie_ms, None, lambda: self._end_coordinator(old))
        else:
            self._end_coordinator(old)
        if not self._is_starting:
            self._is_starting = True
            self.world.after(self.rng.uniform(5, 60), None, self._start_coordinator)

    def _maybe_rescale(self) -> None:
        if self.is_faulty and self.world.chance(self.faults.rescale):
            self.worker_count = self.rng.choice([1, 2, 3, 4])

    def _end_coordinator(self, coordinator: SimulatedCoordinator) -> None:
        self.world.note(f"{coordinator.name} dies")
        coordinator.is_alive = False
        # Ray ends the workers of a dead owner, some of them late.
        self.end_workers(coordinator.workers)

    def end_workers(self, workers: list[SimulatedWorker]) -> None:
        """These are to go; a zombie takes its time."""
        for worker in workers:
            if worker.is_alive:
                is_zombie = self.is_faulty and self.world.chance(self.faults.zombie)
                delay_ms = self.rng.uniform(0.1, self.faults.zombie_ms_max if is_zombie else 5)
                self.world.after(delay_ms, None, self._ender(worker))

    @staticmethod
    def _ender(worker: SimulatedWorker) -> Callable[[], None]:
        return lambda: worker.die("ended", detect=False)

    def _freeze(self) -> None:
        process: Process = self.rng.choice([self.coordinator, *self._current_workers()])
        until_ms = self.world.time_ms + self.rng.uniform(10, self.faults.freeze_ms_max)
        self.world.note(f"{process.name} freezes until {until_ms:.0f}")
        if isinstance(process, SimulatedWorker):
            process.freeze(until_ms)
        else:
            self.world.freeze(process, until_ms)

    def _stick(self) -> None:
        workers = self._current_workers()
        if workers:
            worker = self.rng.choice(workers)
            until_ms = self.world.time_ms + self.rng.uniform(60, self.faults.freeze_ms_max)
            self.world.note(f"a function holds {worker.name} until {until_ms:.0f}")
            worker.stick(until_ms)

    def _close_store(self) -> None:
        until_ms = self.world.time_ms + self.rng.uniform(20, 200)
        self.world.note(f"the store is away until {until_ms:.0f}")
        self.store.go_away(until_ms)

    def _rival_claims(self) -> None:
        """Somebody else claims a generation, and runs nothing."""
        self._rivals += 1
        run_store(self.store.objects, self._claim(f"rival {self._rivals}"))

    def _claim(self, nonce: str) -> StoreSteps[Entry]:
        log: CommitLog = self.coordinator.core.new_log()
        yield from log.open()
        return (yield from log.claim(nonce, int(self.world.time_ms)))

    def _break_feed(self) -> None:
        connected = list(self.ingress.connections)
        if connected:
            self.ingress.break_connection(self.rng.choice(connected))

    def crash_ingress(self, reason: str) -> None:
        """The ingress process dies, perhaps with its machine, and comes back on the same disk."""
        old = self.ingress
        if not old.is_alive:
            return
        self.world.note(f"{old.name} dies: {reason}")
        old.is_alive = False
        for worker in list(old.connections):
            old.disconnect(worker)
        if self.world.chance(self.faults.power_loss):
            self.world.note("and its machine loses power")
            self.files.lose_power()
        self.ingress = SimulatedIngress(self, old.number + 1)
        away_ms = self.rng.uniform(5, self.faults.ingress_away_ms_max)
        self.world.after(away_ms, self.ingress, self.ingress.boot)

    # --- observation ------------------------------------------------------------------------------

    def _read_now_and_then(self) -> None:
        """Read states through the ingress, live and as of a commit."""
        rng, ingress = self.rng, self.ingress
        if ingress.core is not None and ingress.is_alive:
            kind, id = rng.choice([*self.workload.expected, (UNKNOWN, "n0")])
            wait_commit = rng.random() < 0.5

            def answered(state: State | None) -> None:
                if state is not None:
                    values = {name: value for name, _, value in state.states}
                    count = values.get("count")
                    number = int.from_bytes(count[1:], "little", signed=True) if count else 0
                    self.reads.append((kind, id, wait_commit, number))

            ingress.core.query(kind, id, wait_commit=wait_commit, waiter=answered)
        if self.is_faulty:
            self.world.after(rng.uniform(4, 50), None, self._read_now_and_then)

    def check_trim(self, first_sequence: int) -> None:
        """The ingress log now begins here: every retained snapshot must find its events (I8)."""
        entries = run_store(self.store.objects, _retained())
        needed = retention.trim_positions(entries).get(LOG_ID, 0)
        if first_sequence > needed:
            self.problem(f"the log is trimmed to {first_sequence}, but a retained snapshot needs {needed}")

    def _watch(self) -> None:
        """Notice when nothing is left to do, for longer than a message can be under way."""
        if not self._is_quiet():
            self._quiet_since_ms = self.world.time_ms
        is_late = self.world.time_ms > self.world.faults_until_ms + LATE_MS
        self._is_settled = is_late and self.world.time_ms - self._quiet_since_ms > QUIET_MS
        self.world.after(4, None, self._watch)

    def _is_quiet(self) -> bool:
        coordinator, ingress = self.coordinator.core, self.ingress.core
        if not self.coordinator.is_alive or self._is_starting:
            return False
        if coordinator.phase != "running" or ingress is None or not all(p.is_done for p in self.producers):
            return False
        if not self.clerk.is_done or (self.topic is not None and not self.topic.is_done):
            return False
        workers = [w for w in self.coordinator.workers_of(coordinator.generation) if w.is_alive]
        return (
            len(workers) == coordinator.config.worker_count
            and all(
                worker.core is not None and worker.core.is_quiet(LOG_ID, ingress.log.durable_seq)
                for worker in workers
            )
            and (self.topic is None or not self.topic.unread(workers))
        )

    def _unsettled(self) -> str:
        core = self.ingress.core
        return (
            f"phase {self.coordinator.core.phase} ({self.coordinator.core.last_error}), "
            f"producers {[sorted(producer.unanswered) for producer in self.producers]}, "
            f"backlogs {[(w.name, w.core.backlog if w.core else None) for w in self._current_workers()]}, "
            f"ingress lag {core.lag if core else None}, "
            f"topic {self.topic.unread(self._current_workers()) if self.topic else None}"
        )

    def _has_snapshot(self) -> bool:
        return self.final_entry() is not None

    def final_entry(self) -> Entry | None:
        """Return the newest snapshot in the log."""
        return run_store(self.store.objects, _newest())

    def snapshots(self) -> list[Entry]:
        """Return every snapshot in the log, the oldest first."""
        return run_store(self.store.objects, _snapshots())[::-1]


def _newest() -> StoreSteps[Entry | None]:
    log = LogReader()
    try:
        yield from log.open()
    except NoApplication:
        return None
    entry: Entry | None = yield from log.latest_snapshot()
    return entry


def _retained() -> StoreSteps[list[Entry]]:
    return retention.retained((yield from _snapshots()))


def _snapshots() -> StoreSteps[list[Entry]]:
    log = LogReader()
    yield from log.open()
    entries = yield from log.entries(count=log.newest_slot + 1 - log.first_slot)
    return [entry for entry in entries if isinstance(entry, Entry) and entry.is_snapshot]
