"""The coordinator: generations, and the snapshots within them.

One mechanism for everything that can happen: end the generation, claim the next one in the commit
log, read what to restore, start workers, load, connect, go on. There is no partial restart.

Knows nothing that is not in the commit log, so its process may die at any moment: its successor
starts here again with an empty memory. Being superseded shows when a slot of the log is taken by
another's entry; then nothing may happen any more but stopping.

=============  =====================================================================
phase          what is awaited
=============  =====================================================================
``claiming``   the store: open the log, claim a generation, read the newest snapshot
``ingress``    feed addresses of all registered ingress logs
``starting``   every worker's hello
``loading``    every worker's ready: state loaded, channels connected
``running``    anything
``backoff``    time, before the next attempt
``stopping``   the final snapshot
``stopped``    nothing
=============  =====================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from statefun_checkpoints import entry_format, resolve, retention
from statefun_checkpoints.commit_log import CommitLog, Fenced, Outcome
from statefun_checkpoints.coordinator import SnapshotCoordinator, WorkerPart
from statefun_checkpoints.errors import CheckpointError, StoreError, advised
from statefun_checkpoints.layout import INGRESS_PREFIX, parse_ingress
from statefun_checkpoints.model import Entry, FunctionSpec, Job
from statefun_checkpoints.store_requests import List, StoreRequest
from statefun_ray.core.control import (
    Abort,
    Ack,
    Committed,
    Heartbeat,
    Logs,
    Plan,
    Pulse,
    Ready,
    Shutdown,
    SnapshotWanted,
    Start,
    ToCoordinator,
    ToWorker,
    Trigger,
    WorkerFailed,
    WorkerHello,
)
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
from statefun_ray.core.key_groups import EGRESS_SHARDS_DEFAULT, KEY_GROUP_COUNT_DEFAULT, worker_ranges
from statefun_ray.core.splits import is_log

SMALL_DELTAS_MAX: Final = 32
"""Reply-driven snapshots in a row before one is made periodic: bounds entry and restore."""

SNAPSHOT_SHARE: Final = 0.3
"""Of the time that reply-driven snapshots may take when workers have a backlog."""

BACKLOG_IDLE: Final = 1_000
"""Below this many waiting messages snapshots follow each other without a gap."""


@dataclass(frozen=True)
class CoordinatorConfig:
    """What the coordinator of one application is told; times in milliseconds."""

    name: str
    worker_count: int
    nonce: str
    """Unique to this coordinator process: tells its own entries from another's."""
    key_group_count: int = KEY_GROUP_COUNT_DEFAULT
    shard_count: int = EGRESS_SHARDS_DEFAULT
    snapshot_interval_ms: int = 1_000
    snapshot_timeout_ms: int = 60_000
    snapshot_failures_max: int = 10
    """Aborted snapshots in a row before the generation ends: object stores have bad minutes."""
    stuck_ms: int = 5_000
    """An open snapshot is aborted when user code has held a worker's loop for this long."""
    call_timeout_ms: int = 60_000
    """... and the generation ends after this long."""
    heartbeat_timeout_ms: int = 5_000
    start_timeout_ms: int = 60_000
    """For workers to say hello, to load, and for registered ingress logs to appear."""
    pulse_ms: int = 1_000
    backlog_pause: int = 100_000
    """All sources pause while one worker has more waiting messages than this."""
    retain: int = 3
    """Snapshots kept; ingress logs are kept from the oldest of them on."""
    backoff_ms_min: int = 100
    backoff_ms_max: int = 30_000


class _WorkerView:
    """What the coordinator knows of one worker of the generation."""

    __slots__ = ("heard_ms", "heartbeat", "hello", "is_ready")

    def __init__(self, now_ms: int) -> None:
        self.hello: WorkerHello | None = None
        self.is_ready = False
        self.heard_ms = now_ms
        self.heartbeat: Heartbeat | None = None


class Coordinator:
    """The core of the coordinator process."""

    def __init__(
        self,
        config: CoordinatorConfig,
        functions: Mapping[str, FunctionSpec],
        serves: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Args:
        functions: the embedded ones, with their states.
        serves: whether a function of another type is run by some service.
        """
        self._key_groups = worker_ranges(
            worker_count=config.worker_count,
            key_group_count=config.key_group_count,
            shard_count=config.shard_count,
        )
        self.config = config
        self._functions = dict(functions)
        self._serves = serves
        self._log = self.new_log()
        self.phase = "claiming"
        self.generation = 0
        self._phase_since_ms = 0
        self._now_ms = 0
        self._nonces = 0
        self._restored: Entry | None = None
        self._snapshots = self._new_snapshots()
        self._workers: dict[int, _WorkerView] = {}
        self._logs: dict[str, tuple[str, int]] = {}
        self._registered: list[str] = []
        self._workers_since = config.worker_count
        self._retained: deque[Entry] = deque(maxlen=config.retain)
        self._committing = False
        self._last_committed: Entry | None = None
        self._last_cut_ms = 0
        self._last_commit_ms = 0
        self._last_duration_ms = 0
        self._wanted_after = -1
        self._snapshot_failures = 0
        self._generation_failures = 0
        self._retry_at_ms = 0
        self._pulsed_ms = 0
        self._stop_requested = False
        self._procedure: Generator[StoreRequest, Any, Any] | None = None
        self._continuation: Callable[[Any], None] = lambda _: None
        self._call_id = 0
        self._effects: list[CoordinatorEffect] = []
        self.last_error = ""
        self.has_run = False
        """Whether a generation has begun to process since this process began."""

    def new_log(self) -> CommitLog:
        """Return the commit log as this coordinator would write it, not opened."""
        config = self.config
        return CommitLog(
            Job(
                name=config.name,
                key_group_count=config.key_group_count,
                egress_shards=config.shard_count,
                incarnation=config.nonce,  # counts for a new storage only, and is as unique as is needed
            )
        )

    def _new_snapshots(self) -> SnapshotCoordinator:
        return SnapshotCoordinator(
            key_groups=self._key_groups, functions=self._functions, restored=self._restored
        )

    def take_effects(self) -> list[CoordinatorEffect]:
        """Return what the driver has to do since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    # --- procedures on the store ------------------------------------------------------------------

    def _run(self, procedure: Generator[StoreRequest, Any, Any], continuation: Callable[[Any], None]) -> None:
        self._procedure, self._continuation = procedure, continuation
        self._resume(lambda: procedure.send(None))

    def _resume(self, step: Callable[[], StoreRequest]) -> None:
        try:
            request = step()
        except StopIteration as finished:
            self._procedure = None
            self._continuation(finished.value)
        except StoreError as error:
            # The outcome is unknown: the next generation finds out what the log holds.
            self._procedure = None
            self._fail(f"object store: {error}")
        except CheckpointError as error:
            self._procedure = None
            self._end(advised(error))
        else:
            self._call_id += 1
            self._effects.append(StoreCall(self._call_id, request))

    def store_done(self, call_id: int, result: Any) -> None:
        """The store has answered; answers to abandoned calls are ignored."""
        procedure = self._procedure
        if procedure is not None and call_id == self._call_id:
            self._resume(lambda: procedure.send(result))

    def store_failed(self, call_id: int, error: StoreError) -> None:
        """The store has not answered, or refused; whether a write happened is unknown."""
        procedure = self._procedure
        if procedure is not None and call_id == self._call_id:
            self._resume(lambda: procedure.throw(error))

    # --- generations ------------------------------------------------------------------------------

    def start(self, now_ms: int) -> None:
        """Begin a new generation."""
        self._now_ms = now_ms
        self._enter("claiming")
        self._log = self.new_log()
        self._run(self._claim(), self._claimed)

    def _claim(self) -> Generator[StoreRequest, Any, tuple[Entry, Entry | None, list[str]]]:
        yield from self._log.open()
        # Before the claim as well, so that a mistaken start leaves a running generation alone.
        self._check_functions((yield from self._log.latest_snapshot()))
        claim = yield from self._log.claim(self._nonce(), self._now_ms, self.config.worker_count)
        restored = yield from self._log.latest_snapshot()
        self._workers_since = yield from self._log.workers_since(restored.slot if restored is not None else 0)
        self._check_functions(restored)
        names: list[str] = yield List(INGRESS_PREFIX, "")
        registered = [log_id for name in names if (log_id := parse_ingress(name)) is not None]
        return claim, restored, registered

    def _check_functions(self, restored: Entry | None) -> None:
        if restored is not None:
            resolve.check_functions(restored, self._functions, self._serves)

    def _claimed(self, result: tuple[Entry, Entry | None, list[str]]) -> None:
        claim, self._restored, self._registered = result
        self.generation = claim.generation
        if self._restored is not None:
            self._last_committed = self._restored
        self._snapshots = self._new_snapshots()
        self._retained.clear()
        self._committing = False
        self._snapshot_failures = 0
        self._wanted_after = -1
        restored = f"snapshot {self._restored.snapshot_id}" if self._restored is not None else "no snapshot"
        self._report("info", f"generation {self.generation} begins from {restored}")
        if self._restored is not None:
            gone = resolve.vanished_functions(self._restored.functions, self._functions, self._serves)
            if gone:
                self._report(
                    "warning", f"nobody runs {', '.join(gone)} any more; what they have stored is kept"
                )
        self._enter("ingress")
        self._start_workers()

    def _start_workers(self) -> None:
        if self.phase == "ingress" and all(log_id in self._logs for log_id in self._registered):
            self._enter("starting")
            self._workers = {worker: _WorkerView(self._now_ms) for worker in range(self.config.worker_count)}
            self._effects.append(StartWorkers(self.generation, self.config.worker_count))

    def logs_known(self, logs: Mapping[str, tuple[str, int]], now_ms: int) -> None:
        """These ingress logs are served at these addresses; a restarted ingress has a new one."""
        self._now_ms = now_ms
        if logs != self._logs:
            self._logs = dict(logs)
            self._broadcast(Logs(self.generation, self._logs))
            self._start_workers()

    def worker_said(self, message: ToCoordinator, now_ms: int) -> None:
        """Take what a worker says; other generations change nothing."""
        self._now_ms = now_ms
        view = self._workers.get(message.worker)
        if message.generation != self.generation or view is None:
            return
        view.heard_ms = now_ms
        match message:
            case WorkerHello():
                view.hello = message
                self._plan()
            case Ready():
                view.is_ready = True
                self._begin_running()
            case Ack():
                self._acknowledged(message)
            case SnapshotWanted():
                self._wanted_after = max(self._wanted_after, message.after)
                self._trigger()
            case Heartbeat():
                view.heartbeat = message
                self._check_stuck(message)
            case WorkerFailed():
                if message.is_final:
                    self._end(message.reason)
                else:
                    self._fail(f"worker {message.worker}: {message.reason}")
            case unexpected:
                assert_never(unexpected)

    def worker_lost(self, generation: int, worker: int, reason: str, now_ms: int) -> None:
        """A worker's process or connection is gone: its generation is over."""
        self._now_ms = now_ms
        if generation == self.generation and worker in self._workers:
            self._fail(f"worker {worker} is gone: {reason}")

    def _plan(self) -> None:
        hellos = [view.hello for view in self._workers.values() if view.hello is not None]
        if self.phase != "starting" or len(hellos) < self.config.worker_count:
            return
        self._enter("loading")
        plan = Plan(
            generation=self.generation,
            worker_count=self.config.worker_count,
            key_group_count=self.config.key_group_count,
            shard_count=self.config.shard_count,
            peers=[(hello.host, hello.port) for hello in sorted(hellos, key=lambda hello: hello.worker)],
            logs=self._logs,
            workers_since=self._workers_since,
            entry=entry_format.encode(self._restored) if self._restored is not None else None,
        )
        self._broadcast(plan)

    def _begin_running(self) -> None:
        if self.phase != "loading" or not all(view.is_ready for view in self._workers.values()):
            return
        self._enter("running")
        self.has_run = True
        self._last_cut_ms = self._now_ms
        self._broadcast(Start(self.generation))
        self._report("info", f"generation {self.generation} runs with {self.config.worker_count} workers")
        self._trigger()

    def _fail(self, reason: str) -> None:
        assert self.phase not in ("backoff", "stopped"), f"phase {self.phase}: {reason}"
        delay_ms = min(
            self.config.backoff_ms_max, self.config.backoff_ms_min << min(self._generation_failures, 20)
        )
        self._generation_failures += 1
        self.last_error = reason
        self._report("warning", f"generation {self.generation} ends: {reason}; next attempt in {delay_ms} ms")
        self._abandon()
        self._retry_at_ms = self._now_ms + delay_ms
        self._enter("backoff")

    def _end(self, error: str) -> None:
        assert self.phase != "stopped", f"stopped: {error}"
        self.last_error = error
        if error:
            self._report("error", error)
        self._abandon()
        self._enter("stopped")
        self._effects.append(Stopped(error, self.status()))

    def _abandon(self) -> None:
        self._procedure = None
        self._snapshots.abort()
        self._workers = {}
        self._effects.append(StopWorkers(self.generation))

    # --- snapshots --------------------------------------------------------------------------------

    def _trigger(self) -> None:
        if self.phase != "running" or self._snapshots.open is not None:
            return
        if any(
            view.heartbeat is not None and self._is_stuck(view.heartbeat) for view in self._workers.values()
        ):
            return  # it could not cut; aborting one snapshot after another would end the generation
        now_ms = self._now_ms
        if self._stop_requested:
            self._enter("stopping")
            rhythm = "final"
        elif now_ms - self._last_cut_ms >= self.config.snapshot_interval_ms:
            rhythm = "periodic"
        elif self._wanted_after >= self._snapshots.committed_id and self._may_follow(now_ms):
            rhythm = "reply" if self._snapshots.small_deltas() < SMALL_DELTAS_MAX else "periodic"
        else:
            return
        if rhythm != "reply":
            self._last_cut_ms = now_ms
        committed = self._snapshots.committed_id
        snapshot = self._snapshots.begin(rhythm, now_ms)  # type: ignore[arg-type]
        self._broadcast(Trigger(self.generation, snapshot.snapshot_id, rhythm, committed))

    def _may_follow(self, now_ms: int) -> bool:
        backlog = max(
            (view.heartbeat.backlog for view in self._workers.values() if view.heartbeat), default=0
        )
        gap_ms = self._last_duration_ms * (1 - SNAPSHOT_SHARE) / SNAPSHOT_SHARE
        return backlog <= BACKLOG_IDLE or now_ms - self._last_commit_ms >= gap_ms

    def _acknowledged(self, ack: Ack) -> None:
        part = WorkerPart(
            parts=ack.parts,
            based_on=ack.based_on,
            positions=ack.positions,
            out_seq=ack.out_seq,
            counters=ack.counters,
            in_flight=ack.in_flight,
            timer_next=ack.timer_next,
            cut_ms=ack.cut_ms,
            functions=ack.functions,
        )
        if self._snapshots.acknowledge(ack.worker, ack.snapshot_id, part) and not self._committing:
            self._committing = True
            self._run(
                self._log.commit(self._snapshots.entry(now_ms=self._now_ms), self._nonce()), self._committed
            )

    def _committed(self, outcome: Outcome) -> None:
        self._committing = False
        if isinstance(outcome, Fenced):
            self._end(
                f"generation {self.generation} was superseded: slot {outcome.by.slot} of the commit log belongs to "
                f"generation {outcome.by.generation}; another coordinator runs {self.config.name!r}"
            )
            return
        entry, snapshot = outcome.entry, self._snapshots.open
        assert snapshot is not None, "the committed snapshot is open"
        self._snapshots.committed(entry)
        self._last_committed = entry
        self._last_commit_ms = self._now_ms
        self._last_duration_ms = self._now_ms - snapshot.begun_ms
        self._snapshot_failures = self._generation_failures = 0
        if entry.rhythm != "reply":
            self._retained.append(entry)
        self._broadcast(Committed(self.generation, entry.snapshot_id, self._trim()))
        if entry.kind == "stop":
            self._broadcast(Shutdown(self.generation))
            self._end("")
            return
        if entry.rhythm != "reply" and len(self._retained) == self.config.retain:
            self._effects.append(Collect([kept.slot for kept in self._retained], self.generation))
        self._trigger()

    def _trim(self) -> dict[str, int]:
        # Only once all retained snapshots are known: one from before the restore may be older.
        if len(self._retained) < self.config.retain:
            return {}
        lowest = retention.trim_positions(self._retained)
        return {log_id: sequence for log_id, sequence in lowest.items() if is_log(log_id)}

    def _abort_snapshot(self, reason: str) -> None:
        if self._committing:
            return
        snapshot_id = self._snapshots.abort()
        if snapshot_id is None:
            return
        self._snapshot_failures += 1
        self._report("warning", f"snapshot {snapshot_id} is aborted: {reason}")
        if self._snapshot_failures >= self.config.snapshot_failures_max:
            self._fail(
                f"{self._snapshot_failures} snapshots in a row were aborted, the last because {reason}"
            )
            return
        self._broadcast(Abort(self.generation, snapshot_id))
        if self.phase == "stopping":
            self._enter("running")

    def _check_stuck(self, heartbeat: Heartbeat) -> None:
        if heartbeat.tick_age_ms >= self.config.call_timeout_ms:
            self._fail(
                f"worker {heartbeat.worker} has been inside {heartbeat.busy_with or 'its loop'} for "
                f"{heartbeat.tick_age_ms} ms, longer than call_timeout ({self.config.call_timeout_ms} ms); "
                "bind a function that blocks with blocking=True"
            )
        elif self._is_stuck(heartbeat):
            self._abort_snapshot(
                f"{heartbeat.busy_with} has held the loop of worker {heartbeat.worker} for {heartbeat.tick_age_ms} ms"
            )

    def _is_stuck(self, heartbeat: Heartbeat) -> bool:
        return heartbeat.tick_age_ms >= self.config.stuck_ms and bool(heartbeat.busy_with)

    # --- time -------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Do what is due; to be called every 10 or 20 ms."""
        self._now_ms = now_ms
        if self.phase == "backoff" and now_ms >= self._retry_at_ms:
            self.start(now_ms)
        elif self.phase in ("ingress", "starting", "loading"):
            self._check_start()
        elif self.phase in ("running", "stopping"):
            self._check_workers()
        if now_ms - self._pulsed_ms >= self.config.pulse_ms:
            self._pulsed_ms = now_ms
            backlog = max(
                (view.heartbeat.backlog for view in self._workers.values() if view.heartbeat), default=0
            )
            self._broadcast(Pulse(self.generation, backlog > self.config.backlog_pause))
        self._trigger()

    def _check_start(self) -> None:
        if self._now_ms - self._phase_since_ms < self.config.start_timeout_ms:
            return
        if self.phase == "ingress":
            missing = ", ".join(log_id for log_id in self._registered if log_id not in self._logs)
            self._end(
                f"ingress log {missing} is registered with {self.config.name!r} but nobody serves it, so accepted "
                "events would be lost; start with the --log-dir that holds it, on its machine: 'statefun-ray logs' with "
                "the URI of the storage says which, and gives up one that is gone for good"
            )
            return
        late = [
            str(worker)
            for worker, view in self._workers.items()
            if (view.hello is None if self.phase == "starting" else not view.is_ready)
        ]
        self._fail(
            f"workers {', '.join(late)} are not past {self.phase!r} after {self.config.start_timeout_ms} ms"
        )

    def _check_workers(self) -> None:
        for worker, view in self._workers.items():
            silent_ms = self._now_ms - view.heard_ms
            if silent_ms >= self.config.heartbeat_timeout_ms:
                self._fail(f"worker {worker} has been silent for {silent_ms} ms; frozen or cut off")
                return
        snapshot = self._snapshots.open
        if snapshot is not None and self._now_ms - snapshot.begun_ms >= self.config.snapshot_timeout_ms:
            missing = [
                str(worker) for worker in range(self.config.worker_count) if worker not in snapshot.acks
            ]
            self._abort_snapshot(
                f"workers {', '.join(missing)} have not acknowledged within {self.config.snapshot_timeout_ms} ms"
            )

    def stop(self, now_ms: int) -> None:
        """End with a final snapshot; in a phase that cannot take one, as soon as it can."""
        self._now_ms = now_ms
        self._stop_requested = True
        self._trigger()

    # --- small things -----------------------------------------------------------------------------

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self._phase_since_ms = self._now_ms

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self.config.nonce}.{self._nonces}"

    def _broadcast(self, message: ToWorker) -> None:
        self._effects.extend(
            SendControl(worker, message) for worker, view in self._workers.items() if view.hello
        )

    def _report(self, level: str, text: str) -> None:
        self._effects.append(Report(level, text))

    def status(self) -> dict[str, Any]:
        """Return the state of the application as far as it is known here, as plain data."""
        last = self._last_committed
        heartbeats = [view.heartbeat for view in self._workers.values() if view.heartbeat is not None]
        counted = last.counters.get("applied", 0) if last is not None else 0
        restored = self._restored.counters.get("applied", 0) if self._restored is not None else 0
        return {
            "name": self.config.name,
            "phase": self.phase,
            "generation": self.generation,
            "last_error": self.last_error,
            "snapshot_open": self._snapshots.open.snapshot_id if self._snapshots.open is not None else None,
            "last_snapshot": None
            if last is None
            else {
                "id": last.snapshot_id,
                "age_ms": max(0, self._now_ms - last.created_at_ms),
                "bytes": sum(part.bytes for part in last.parts if part.snapshot == last.snapshot_id),
                "positions": retention.trim_positions([last]),
                "in_flight": last.in_flight,
            },
            "workers": [
                {
                    "index": worker,
                    "pid": view.hello.pid if view.hello is not None else None,
                    "node": view.hello.node if view.hello is not None else None,
                    "state": self.phase if not view.is_ready else "running",
                    "busy_with": view.heartbeat.busy_with if view.heartbeat is not None else "",
                    "tick_age_ms": view.heartbeat.tick_age_ms if view.heartbeat is not None else None,
                    "trouble": view.heartbeat.trouble if view.heartbeat is not None else "",
                }
                for worker, view in self._workers.items()
            ],
            "backlog": sum(heartbeat.backlog for heartbeat in heartbeats),
            "processed": max(counted, restored + sum(heartbeat.processed for heartbeat in heartbeats)),
            "parked": sum(heartbeat.parked_count for heartbeat in heartbeats),
            "dead_letters": sum(heartbeat.dead_letters for heartbeat in heartbeats),
            "retrying": sum(heartbeat.retrying_count for heartbeat in heartbeats),
            "retrying_addresses": [
                {
                    "function": function,
                    "id": id,
                    "attempts": attempts,
                    "since_ms": since_ms,
                    "next_attempt_ms": next_ms or None,
                    "error": error,
                }
                for heartbeat in heartbeats
                for function, id, attempts, since_ms, next_ms, error in heartbeat.retrying
            ],
            "parked_addresses": [
                {"function": function, "id": id, "error": error, "messages": messages}
                for heartbeat in heartbeats
                for function, id, error, messages in heartbeat.parked
            ],
        }
