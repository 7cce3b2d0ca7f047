"""The coordinator: one way to begin again, whatever happened, and snapshots one at a time."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from statefun_checkpoints import layout
from statefun_checkpoints.commit_log import CommitLog
from statefun_checkpoints.entry_format import decode_entry
from statefun_checkpoints.errors import StoreError, StoreUnavailable
from statefun_checkpoints.model import Entry, FunctionSpec, Job, PartDescriptor, Position, StateSpec
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import Create, perform, run_store
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
    ToWorker,
    Trigger,
    WorkerFailed,
    WorkerHello,
)
from statefun_ray.core.coordinator import SMALL_DELTAS_MAX, Coordinator, CoordinatorConfig
from statefun_ray.core.effects import (
    Collect,
    Report,
    SendControl,
    StartWorkers,
    Stopped,
    StopWorkers,
    StoreCall,
)
from statefun_ray.core.key_groups import worker_ranges
from statefun_ray.core.splits import split_name

T = TypeVar("T")

FUNCTIONS = {"a/b": FunctionSpec({"state": StateSpec(type="t")})}
LOGS = {"log": ("host", 1)}
JOB = Job(name="app", key_group_count=16, egress_shards=4)


class Director:
    """A coordinator, the store it asks, and workers that say what a story lets them say."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        functions: dict[str, FunctionSpec] | None = None,
        nonce: str = "one",
        worker_count: int = 2,
        **config: Any,
    ) -> None:
        self.store = store or MemoryStore()
        self.worker_count = worker_count
        self.ranges = worker_ranges(worker_count=worker_count, key_group_count=16, shard_count=4)
        self.core = Coordinator(
            CoordinatorConfig(
                name="app",
                worker_count=worker_count,
                nonce=nonce,
                key_group_count=16,
                shard_count=4,
                **config,
            ),
            FUNCTIONS if functions is None else functions,
        )
        self.now_ms = 1_000_000
        self.sent: list[SendControl] = []
        self.others: list[object] = []
        self.calls: list[StoreCall] = []
        self.holds_store = False

    def perform(self) -> None:
        while effects := self.core.take_effects():
            for effect in effects:
                if isinstance(effect, SendControl):
                    self.sent.append(effect)
                elif isinstance(effect, StoreCall):
                    self.calls.append(effect)
                else:
                    self.others.append(effect)
            if not self.holds_store:
                self.answer()

    def answer(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            self.core.store_done(call.call_id, perform(self.store, call.request))

    def release(self) -> None:
        """Let the store answer again."""
        self.holds_store = False
        self.answer()
        self.perform()

    def fail_store(self, error: StoreError) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            self.core.store_failed(call.call_id, error)
        self.perform()

    def start(self) -> Director:
        self.core.start(self.now_ms)
        self.perform()
        return self

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.core.worker_said(message, self.now_ms)
            self.perform()

    def hello(self, worker: int, generation: int | None = None) -> None:
        self.say(
            WorkerHello(generation or self.core.generation, worker, "host", 100 + worker, worker, "node")
        )

    def ready(self, worker: int) -> None:
        self.say(Ready(self.core.generation, worker, 0))

    def run(self) -> Director:
        """Bring all workers to where they work."""
        for worker in range(self.worker_count):
            self.hello(worker)
        for worker in range(self.worker_count):
            self.ready(worker)
        assert self.core.phase in ("running", "stopping")
        return self

    def beat(self, worker: int, **fields: Any) -> None:
        given: dict[str, Any] = {
            "tick_age_ms": 0,
            "busy_with": "",
            "backlog": 0,
            "processed": 0,
            "parked": [],
            "parked_count": 0,
        }
        self.say(Heartbeat(self.core.generation, worker, **{**given, **fields}))

    def tick(self, ms: int = 0) -> None:
        """Let time pass in steps of 10 ms, all workers beating."""
        end_ms = self.now_ms + ms
        while True:
            self.core.tick(self.now_ms)
            self.perform()
            if self.now_ms >= end_ms:
                return
            self.now_ms += min(10, end_ms - self.now_ms)
            for view in self.core._workers.values():
                view.heard_ms = self.now_ms

    def ack(
        self, worker: int, snapshot_id: int | None = None, *, next_seq: int = 0, reads_topic: bool = False
    ) -> None:
        opened = self.core._snapshots.open
        if snapshot_id is None:
            assert opened is not None
            snapshot_id = opened.snapshot_id
        small = opened is not None and opened.rhythm == "reply"
        part = PartDescriptor(
            kind="delta",
            level="small" if small else "periodic",
            worker=worker,
            snapshot=snapshot_id,
            key_groups=self.ranges[worker],
            rows=1,
            bytes=1,
            xxh3_128="0" * 32,
            inline="AA==",
        )
        positions = [Position("log", *self.ranges[worker], next_seq)]
        if reads_topic:
            split = split_name("a/records", "topic", worker)
            positions.append(Position(split, 0, self.core.config.key_group_count, next_seq))
        self.say(
            Ack(self.core.generation, worker, snapshot_id, [part], 0, positions, {}, {"applied": 1}, 0, 0, 0)
        )

    def snapshot(self, *, next_seq: int = 0, reads_topic: bool = False) -> Entry:
        """Let a periodic snapshot become due and be committed."""
        if self.core._snapshots.open is None:
            self.tick(self.core.config.snapshot_interval_ms)
        for worker in range(self.worker_count):
            self.ack(worker, next_seq=next_seq, reads_topic=reads_topic)
        assert self.core._last_committed is not None
        return self.core._last_committed

    def told(self, kind: type[T], worker: int = 0) -> list[T]:
        """Return and forget the messages of a kind to one worker."""
        found: list[T] = [
            effect.message
            for effect in self.sent
            if effect.worker == worker and isinstance(effect.message, kind)
        ]
        self.sent = [effect for effect in self.sent if not isinstance(effect.message, kind)]
        return found

    def asked(self, kind: type[T]) -> list[T]:
        """Return and forget the other effects of a kind."""
        found: list[T] = [effect for effect in self.others if isinstance(effect, kind)]
        self.others = [effect for effect in self.others if not isinstance(effect, kind)]
        return found

    def open_id(self) -> int | None:
        opened = self.core._snapshots.open
        return None if opened is None else opened.snapshot_id

    def log(self) -> list[Entry]:
        names = self.store.list(layout.LOG_PREFIX)
        return [decode_entry(self.store.objects[name], name) for name in names]


def running(store: MemoryStore | None = None, **config: Any) -> Director:
    return Director(store, **config).start().run()


# --- beginning -----------------------------------------------------------------------------------


def test_a_generation_is_claimed_before_anything_is_started() -> None:
    director = Director()
    director.holds_store = True
    director.start()
    assert director.core.phase == "claiming"
    assert director.others == []

    director.release()

    assert [entry.kind for entry in director.log()] == ["claim"]
    assert director.asked(StartWorkers) == [StartWorkers(1, 2)]
    assert director.core.phase == "starting"


def test_the_plan_goes_out_when_all_have_said_hello_and_the_start_when_all_are_ready() -> None:
    director = Director().start()
    director.hello(1)
    assert director.told(Plan) == []
    director.hello(0)
    [plan] = director.told(Plan, worker=1)
    assert plan.peers == [("host", 100), ("host", 101)]
    assert plan.entry is None
    assert director.core.phase == "loading"

    director.ready(1)
    assert director.told(Start) == []
    director.ready(0)
    assert director.told(Start) == [Start(1)]
    assert director.core.phase == "running"


def test_workers_of_another_generation_and_strangers_are_not_listened_to() -> None:
    director = Director().start()
    director.hello(0)
    director.hello(1, generation=9)
    director.hello(5)
    assert director.core.phase == "starting"
    director.core.worker_lost(9, 0, "late news", director.now_ms)
    assert director.core.phase == "starting"


def test_workers_wait_for_every_registered_ingress_log() -> None:
    store = MemoryStore()
    for log_id in ("log", "other"):
        store.put(layout.ingress_path(log_id), b"{}")
    director = Director(store).start()
    assert director.core.phase == "ingress"
    director.core.logs_known(LOGS, director.now_ms)
    director.perform()
    assert director.asked(StartWorkers) == []

    director.core.logs_known({**LOGS, "other": ("host", 2)}, director.now_ms)
    director.perform()

    assert director.asked(StartWorkers) == [StartWorkers(1, 2)]


def test_a_log_that_nobody_serves_is_named_and_the_application_stops() -> None:
    store = MemoryStore()
    store.put(layout.ingress_path("log"), b"{}")
    director = Director(store).start()
    director.tick(60_000)

    [stopped] = director.asked(Stopped)
    assert stopped.error.startswith("ingress log log is registered with 'app' but nobody serves it")


@pytest.mark.parametrize("phase", ["starting", "loading"])
def test_workers_that_are_late_are_named_and_tried_again(phase: str) -> None:
    director = Director().start()
    director.hello(0)
    if phase == "loading":
        director.hello(1)
        director.ready(0)
    director.tick(60_000)

    assert director.core.phase == "backoff"
    assert director.core.last_error == f"workers 1 are not past '{phase}' after 60000 ms"
    director.tick(100)
    assert director.core.generation == 2
    assert director.asked(StartWorkers)[-1].generation == 2


def test_ingress_addresses_reach_running_workers_when_they_change() -> None:
    director = running()
    director.core.logs_known(LOGS, director.now_ms)
    director.core.logs_known(LOGS, director.now_ms)
    director.perform()

    assert director.told(Logs) == [Logs(1, LOGS)]


def test_a_restart_goes_on_from_the_newest_snapshot() -> None:
    store = MemoryStore()
    entry = running(store).snapshot()

    director = Director(store, nonce="two").start()
    director.hello(0)
    director.hello(1)

    [plan] = director.told(Plan)
    assert plan.entry is not None
    assert decode_entry(plan.entry, "plan") == entry
    for worker in (0, 1):
        director.ready(worker)
    director.tick(1_000)
    assert director.told(Trigger) == [Trigger(2, 2, "periodic", 1)], "ids never go back"


@pytest.mark.parametrize(
    ("functions", "complaint"),
    [
        ({}, "function a/b is gone"),
        ({"a/b": FunctionSpec({"state": StateSpec(type="u")})}, "was t and is now u"),
    ],
)
def test_functions_that_would_lose_state_are_refused_without_fencing_anybody(
    functions: dict[str, FunctionSpec], complaint: str
) -> None:
    store = MemoryStore()
    first = running(store)
    first.snapshot()

    mistaken = Director(store, functions=functions, nonce="two").start()

    [stopped] = mistaken.asked(Stopped)
    assert complaint in stopped.error
    assert mistaken.core.phase == "stopped"
    first.snapshot()
    assert first.core.phase == "running", "the running generation is left alone"


def test_a_store_that_belongs_to_another_application_is_refused() -> None:
    store = MemoryStore()
    run_store(store, CommitLog(Job(name="other", key_group_count=16, egress_shards=4)).open())

    [stopped] = Director(store).start().asked(Stopped)
    assert "other" in stopped.error


def test_too_many_workers_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="use 1 to 4 workers"):
        Director(worker_count=5)


# --- failing -------------------------------------------------------------------------------------


def test_a_lost_worker_ends_the_generation_and_the_next_begins_after_a_pause() -> None:
    director = running()
    director.core.worker_lost(1, 1, "killed", director.now_ms)
    director.perform()

    assert director.asked(StopWorkers) == [StopWorkers(1)]
    assert director.core.phase == "backoff"
    assert director.core.last_error == "worker 1 is gone: killed"
    director.tick(99)
    assert director.core.generation == 1
    director.tick(1)
    assert director.core.generation == 2


def test_pauses_grow_until_a_snapshot_is_committed() -> None:
    director = Director().start()
    pauses = []
    for _ in range(12):
        director.core.worker_lost(director.core.generation, 0, "killed", director.now_ms)
        pauses.append(director.core._retry_at_ms - director.now_ms)
        director.tick(pauses[-1])
    assert pauses[:3] == [100, 200, 400]
    assert pauses[-1] == 30_000

    director.run().snapshot()
    director.core.worker_lost(director.core.generation, 0, "killed", director.now_ms)
    assert director.core._retry_at_ms - director.now_ms == 100


def test_a_silent_worker_ends_the_generation() -> None:
    director = running()
    director.now_ms += 4_999
    director.beat(0)
    director.core.tick(director.now_ms)
    assert director.core.phase == "running"
    director.now_ms += 1
    director.core.tick(director.now_ms)

    assert director.core.phase == "backoff"
    assert "worker 1 has been silent for 5000 ms" in director.core.last_error


def test_a_failure_that_would_repeat_itself_stops_the_application() -> None:
    director = Director().start()
    director.hello(0)
    director.say(WorkerFailed(1, 0, "part p is corrupt", True))

    [stopped] = director.asked(Stopped)
    assert stopped.error == "part p is corrupt"
    director.tick(100_000)
    assert director.core.generation == 1


def test_a_failure_a_worker_reports_begins_the_next_generation() -> None:
    director = running()
    director.say(WorkerFailed(1, 0, "channel broke"))

    assert director.core.phase == "backoff"
    assert director.core.last_error == "worker 0: channel broke"


def test_a_store_that_does_not_answer_the_claim_is_tried_again() -> None:
    director = Director()
    director.holds_store = True
    director.start()
    for _ in range(100):
        if director.core.phase != "claiming":
            break
        director.fail_store(StoreUnavailable("job.json", "create", "timed out"))

    assert director.core.phase == "backoff"
    director.holds_store = False
    director.tick(100)
    assert director.core.phase == "starting"


def test_a_commit_without_an_answer_is_found_by_the_next_generation() -> None:
    director = running()
    director.tick(1_000)
    director.ack(0)
    director.holds_store = True
    director.ack(1)
    [call] = director.calls
    assert isinstance(call.request, Create)
    perform(director.store, call.request)  # it happened, but nobody says so
    for _ in range(100):
        if director.core.phase == "backoff":
            break
        director.fail_store(StoreUnavailable("slot", "create", "timed out"))
    assert director.told(Committed) == []
    director.told(Plan)

    director.release()
    director.tick(100)
    director.run()

    [plan] = director.told(Plan)
    assert plan.entry is not None
    assert decode_entry(plan.entry, "plan").snapshot_id == 1


def test_answers_to_abandoned_calls_change_nothing() -> None:
    director = Director()
    director.holds_store = True
    director.start()
    [call] = director.calls
    director.core.store_done(call.call_id + 1, None)
    director.core.store_failed(call.call_id - 1, StoreUnavailable("x", "get", "?"))

    assert director.core.phase == "claiming"


def test_a_superseded_coordinator_stops_before_any_effect() -> None:
    store = MemoryStore()
    first = running(store)
    Director(store, nonce="two").start()
    first.tick(1_000)
    first.ack(0)
    first.ack(1)

    [stopped] = first.asked(Stopped)
    assert "generation 1 was superseded" in stopped.error
    assert "belongs to generation 2" in stopped.error
    assert first.told(Committed) == []


# --- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_is_committed_when_all_have_acknowledged() -> None:
    director = running()
    director.tick(999)
    assert director.told(Trigger) == []
    director.tick(1)
    assert director.told(Trigger, worker=1) == [Trigger(1, 1, "periodic", 0)]
    director.ack(0)
    director.ack(0)
    assert director.told(Committed) == []
    director.ack(1)

    assert director.told(Committed) == [Committed(1, 1, {})]
    assert [entry.kind for entry in director.log()] == ["claim", "snapshot"]
    director.ack(1, 1)
    assert len(director.log()) == 2, "a late acknowledgement commits nothing again"


def test_one_snapshot_at_a_time() -> None:
    director = running()
    director.tick(5_000)
    assert len(director.told(Trigger)) == 1


def test_a_snapshot_that_takes_too_long_is_given_up_and_the_next_one_tried() -> None:
    director = running(snapshot_timeout_ms=5_000)
    director.tick(1_000)
    director.ack(0)
    director.tick(5_000)

    assert director.told(Abort) == [Abort(1, 1)]
    assert "snapshot 1 is aborted: workers 1 have not acknowledged within 5000 ms" in [
        report.text for report in director.asked(Report)
    ]
    assert director.open_id() == 2
    director.ack(1, 1)
    director.ack(0, 1)
    assert director.told(Committed) == [], "that one is over"
    assert director.snapshot().snapshot_id == 2


def test_a_snapshot_that_is_being_committed_is_not_given_up() -> None:
    director = running(snapshot_timeout_ms=1_000)
    director.tick(1_000)
    director.ack(0)
    director.holds_store = True
    director.ack(1)
    director.tick(3_000)
    assert director.told(Abort) == []

    director.release()
    assert director.told(Committed) == [Committed(1, 1, {})]


def test_too_many_aborted_snapshots_in_a_row_end_the_generation() -> None:
    director = running(snapshot_timeout_ms=1_000, snapshot_failures_max=3)
    director.tick(1_000 + 2 * 1_000)
    assert director.core.phase == "running"
    director.tick(1_100)
    assert "3 snapshots in a row were aborted" in director.core.last_error

    director.tick(100)
    director.run()
    director.tick(1_000 + 1_000)
    assert director.core.phase == "running", "the next generation counts from the beginning"


def test_a_function_that_holds_the_loop_costs_one_snapshot_and_is_tolerated() -> None:
    director = running()
    director.tick(1_000)
    for age_ms in range(4_000, 59_000, 1_000):
        director.beat(0, tick_age_ms=age_ms, busy_with="a/b/1")
        director.tick(1_000)
    assert director.told(Abort) == [Abort(1, 1)]
    assert director.core.phase == "running"

    director.beat(0)
    director.tick(10)
    assert director.open_id() == 2


def test_a_loop_that_hangs_for_too_long_ends_the_generation_and_names_the_function() -> None:
    director = running()
    director.beat(1, tick_age_ms=60_000, busy_with="a/b/1")

    assert director.core.phase == "backoff"
    assert "worker 1 has been inside a/b/1 for 60000 ms" in director.core.last_error
    assert "blocking=True" in director.core.last_error


# --- replies pull snapshots forward ---------------------------------------------------------------


def want(director: Director, after: int) -> None:
    director.say(SnapshotWanted(director.core.generation, 0, after))


def test_a_reply_begins_a_small_snapshot_at_once() -> None:
    director = running()
    want(director, 0)

    assert director.told(Trigger) == [Trigger(1, 1, "reply", 0)]
    for worker in (0, 1):
        director.ack(worker)
    assert director.open_id() is None, "nobody wants another"


def test_a_reply_that_came_after_the_cut_begins_the_next_when_this_is_done() -> None:
    director = running()
    want(director, 0)
    want(director, 1)
    assert len(director.told(Trigger)) == 1
    director.ack(0)
    director.ack(1)

    assert director.told(Trigger) == [Trigger(1, 2, "reply", 1)]


def test_a_wish_that_a_committed_snapshot_has_fulfilled_begins_nothing() -> None:
    director = running()
    director.snapshot()
    director.told(Trigger)
    want(director, 0)

    assert director.told(Trigger) == []


def test_under_load_reply_driven_snapshots_keep_a_distance() -> None:
    director = running()
    want(director, 0)
    director.tick(30)  # this one takes 30 ms
    director.ack(0)
    director.ack(1)
    director.beat(0, backlog=1_001)
    want(director, 1)
    director.tick(60)
    assert director.open_id() is None, "30 of 100 ms is their share"
    director.tick(10)
    assert director.open_id() == 2


def test_reply_driven_snapshots_are_made_periodic_now_and_then() -> None:
    director = running()
    rhythms = []
    for number in range(SMALL_DELTAS_MAX + 2):
        want(director, number)
        rhythms += [trigger.rhythm for trigger in director.told(Trigger)]
        director.ack(0)
        director.ack(1)

    assert rhythms == ["reply"] * SMALL_DELTAS_MAX + ["periodic", "reply"]


def test_reply_driven_snapshots_do_not_put_off_periodic_ones() -> None:
    director = running()
    for number in range(10):
        director.tick(99)
        want(director, number)
        director.ack(0)
        director.ack(1)
    director.told(Trigger)
    director.tick(10)

    assert [trigger.rhythm for trigger in director.told(Trigger)] == ["periodic"]


# --- retention -----------------------------------------------------------------------------------


def test_trimming_and_collecting_begin_with_the_last_of_the_retained_snapshots() -> None:
    director = running(retain=2)
    director.snapshot(next_seq=10)
    assert director.told(Committed)[0].trim == {}, "what came before this generation is not known"
    assert director.asked(Collect) == []

    second = director.snapshot(next_seq=20)
    assert director.told(Committed)[0].trim == {"log": 10}
    third = director.snapshot(next_seq=30)

    assert director.told(Committed)[0].trim == {"log": 20}
    assert director.asked(Collect)[-1] == Collect([second.slot, third.slot], 1)


def test_partitions_of_topics_are_not_ours_to_trim() -> None:
    director = running(retain=1)
    director.snapshot(next_seq=10, reads_topic=True)

    assert director.told(Committed)[0].trim == {"log": 10}
    assert len(director.core.status()["last_snapshot"]["positions"]) == 3


def test_reply_driven_snapshots_are_not_retained() -> None:
    director = running(retain=2)
    for number in range(4):
        want(director, number)
        director.ack(0)
        director.ack(1)

    assert all(committed.trim == {} for committed in director.told(Committed))
    assert director.asked(Collect) == []


# --- stopping ------------------------------------------------------------------------------------


def stop(director: Director) -> None:
    director.core.stop(director.now_ms)
    director.perform()


def test_a_stop_takes_a_final_snapshot_and_ends_all_workers() -> None:
    director = running()
    stop(director)
    assert director.told(Trigger) == [Trigger(1, 1, "final", 0)]
    assert director.core.phase == "stopping"
    director.ack(0)
    director.ack(1)

    assert director.told(Shutdown) == [Shutdown(1)]
    assert director.log()[-1].kind == "stop"
    [stopped] = director.asked(Stopped)
    assert stopped.error == ""


def test_a_stop_waits_for_the_snapshot_that_is_open() -> None:
    director = running()
    director.tick(1_000)
    director.told(Trigger)
    stop(director)
    assert director.told(Trigger) == []
    director.ack(0)
    director.ack(1)

    assert [trigger.rhythm for trigger in director.told(Trigger)] == ["final"]


def test_a_final_snapshot_that_is_aborted_is_taken_again() -> None:
    director = running(snapshot_timeout_ms=1_000)
    stop(director)
    director.tick(1_000)

    assert [trigger.snapshot_id for trigger in director.told(Trigger)] == [1, 2]
    assert director.core.phase == "stopping"


@pytest.mark.parametrize("phase", ["claiming", "ingress", "starting", "loading", "backoff", "stopping"])
def test_a_stop_in_any_phase_ends_with_a_final_snapshot(phase: str) -> None:
    store = MemoryStore()
    store.put(layout.ingress_path("log"), b"{}")
    director = Director(store)
    if phase == "claiming":
        director.holds_store = True
        director.start()
        stop(director)
        director.release()
    else:
        director.start()
        if phase == "ingress":
            stop(director)
    director.core.logs_known(LOGS, director.now_ms)
    director.perform()
    if phase == "starting":
        stop(director)
    if phase == "loading":
        director.hello(0)
        director.hello(1)
        stop(director)
    if phase in ("backoff", "stopping"):
        director.run()
        if phase == "stopping":
            stop(director)
        director.core.worker_lost(1, 0, "killed", director.now_ms)
        stop(director)
        director.tick(100)
    director.run()
    director.ack(0)
    director.ack(1)

    assert [stopped.error for stopped in director.asked(Stopped)] == [""]
    assert director.log()[-1].kind == "stop"


def test_nothing_happens_after_the_end() -> None:
    director = running()
    stop(director)
    director.ack(0)
    director.ack(1)
    director.sent.clear()
    director.others.clear()

    director.core.worker_lost(1, 0, "gone", director.now_ms)
    director.say(WorkerFailed(1, 1, "gone"))
    stop(director)
    director.tick(10_000)

    assert director.sent == []
    assert director.others == []


# --- pulse and status ----------------------------------------------------------------------------


def test_pulses_renew_the_lease_and_pause_the_sources_of_all_when_one_is_behind() -> None:
    director = running()
    director.tick()
    director.told(Pulse)
    director.tick(1_000)
    assert director.told(Pulse) == [Pulse(1, False)]
    director.beat(1, backlog=100_001)
    director.tick(1_000)

    assert director.told(Pulse, worker=0) == [Pulse(1, True)]


def test_status_says_how_things_stand() -> None:
    director = running()
    entry = director.snapshot(next_seq=7)
    director.beat(
        0,
        processed=5,
        backlog=3,
        retrying=[("a/b", "7", 3, 50, 90, "no"), ("a/b", "8", 1, 60, 0, "no")],
        retrying_count=21,
    )
    director.beat(1, processed=6, parked=[("a/b", "1", "broken", 2)], parked_count=1, busy_with="a/b/2")

    status = director.core.status()

    assert (status["name"], status["phase"], status["generation"]) == ("app", "running", 1)
    assert status["last_snapshot"]["id"] == entry.snapshot_id
    assert status["last_snapshot"]["positions"] == {"log": 7}
    assert (status["processed"], status["backlog"], status["parked"]) == (11, 3, 1)
    assert status["parked_addresses"] == [{"function": "a/b", "id": "1", "error": "broken", "messages": 2}]
    assert [worker["busy_with"] for worker in status["workers"]] == ["", "a/b/2"]
    assert status["retrying"] == 21
    retrying = {"function": "a/b", "error": "no"}
    assert status["retrying_addresses"] == [
        {**retrying, "id": "7", "attempts": 3, "since_ms": 50, "next_attempt_ms": 90},
        {**retrying, "id": "8", "attempts": 1, "since_ms": 60, "next_attempt_ms": None},
    ]


def test_status_is_there_before_anything_has_happened() -> None:
    status = Director().core.status()
    assert status["phase"] == "claiming"
    assert status["last_snapshot"] is None
    assert status["workers"] == []


def test_messages_to_workers_are_known_to_the_codec() -> None:
    director = running()
    director.snapshot()
    kinds: set[type[ToWorker]] = {type(effect.message) for effect in director.sent}
    assert kinds >= {Plan, Start, Trigger, Committed}
