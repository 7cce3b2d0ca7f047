"""Claiming, committing, fencing, and every way the store can fail to answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from statefun_checkpoints import entry_format, layout
from statefun_checkpoints.commit_log import ATTEMPTS_MAX, CommitLog, Committed, Fenced, LogReader, Outcome
from statefun_checkpoints.errors import (
    ClaimContended,
    CorruptEntry,
    JobMismatch,
    MissingEntry,
    NoApplication,
    StoreRefused,
    StoreUnavailable,
)
from statefun_checkpoints.model import Boundary, Entry, Job
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import Create, Get, List, ObjectStore, StoreRequest, run_store
from tests.unit.checkpoints.building import LOST, UNANSWERED, App, run_with_faults, snapshot

JOB = Job(name="shop", key_group_count=16, egress_shards=4)


def opened(store: ObjectStore, job: Job = JOB) -> CommitLog:
    log = CommitLog(job)
    run_store(store, log.open())
    return log


def owner(store: ObjectStore, nonce: str) -> CommitLog:
    log = opened(store)
    run_store(store, log.claim(nonce, 1))
    return log


def kinds(store: ObjectStore) -> list[tuple[str, int, str]]:
    log = LogReader()
    run_store(store, log.open())
    entries = [entry for entry in run_store(store, log.entries(count=100)) if isinstance(entry, Entry)]
    return [(entry.kind, entry.generation, entry.nonce) for entry in reversed(entries)]


# --- job.json ----------------------------------------------------------------------------


def test_first_opening_creates_the_job(store: ObjectStore) -> None:
    log = opened(store)
    assert log.job == JOB
    assert log.newest_slot == -1
    assert opened(store).job == JOB


def test_the_incarnation_is_that_of_whoever_came_first() -> None:
    store = MemoryStore()
    job = msgspec.structs.replace(JOB, incarnation="first")
    assert opened(store, job).job == job
    assert opened(store, msgspec.structs.replace(JOB, incarnation="second")).job == job


def test_a_storage_without_an_incarnation_never_gets_one() -> None:
    store = MemoryStore()
    opened(store)
    assert opened(store, msgspec.structs.replace(JOB, incarnation="late")).job == JOB


@pytest.mark.parametrize(
    ("field", "job"),
    [
        ("name", Job(name="other", key_group_count=16, egress_shards=4)),
        ("key_group_count", Job(name="shop", key_group_count=32, egress_shards=4)),
        ("egress_shards", Job(name="shop", key_group_count=16, egress_shards=8)),
    ],
)
def test_job_set_up_differently_is_refused(field: str, job: Job) -> None:
    store = MemoryStore()
    opened(store)
    with pytest.raises(JobMismatch, match=f"start with {field}="):
        opened(store, job)


def test_reading_where_nothing_is_stored_says_so() -> None:
    with pytest.raises(NoApplication, match=r"job\.json is missing"):
        run_store(MemoryStore(), LogReader().open())


def test_corrupt_job_is_named() -> None:
    store = MemoryStore()
    opened(store)
    store.objects[layout.JOB] = store.objects[layout.JOB].replace(b"16", b"17")
    with pytest.raises(CorruptEntry, match=r"job\.json is corrupt"):
        opened(store)


# --- the plain story ---------------------------------------------------------------------


def test_commits_fill_slots_in_order(store: ObjectStore) -> None:
    app = App(store)
    first, second = app.snapshot(1), app.snapshot(2)
    assert (first.slot, second.slot, second.parent) == (1, 2, 1)
    assert kinds(store) == [("claim", 1, "shop.1"), ("snapshot", 1, "shop.2"), ("snapshot", 1, "shop.3")]


def test_a_claim_takes_the_next_generation_and_fences_the_older(store: ObjectStore) -> None:
    old = App(store)
    old.snapshot(1)
    new = App(store)
    assert new.log.generation == 2
    outcome = run_store(store, old.log.commit(snapshot(2), "late"))
    assert isinstance(outcome, Fenced)
    assert (outcome.by.kind, outcome.by.generation) == ("claim", 2)
    assert new.snapshot(2).slot == 3


def test_a_fenced_owner_stays_fenced() -> None:
    store = MemoryStore()
    old, _ = owner(store, "a"), owner(store, "b")
    for nonce in ("x", "y"):
        assert isinstance(run_store(store, old.commit(snapshot(1), nonce)), Fenced)


def test_the_latest_snapshot_lies_below_any_claims() -> None:
    store = MemoryStore()
    assert run_store(store, opened(store).latest_snapshot()) is None
    committed = App(store).snapshot(7)
    for nonce in ("b", "c"):
        log = owner(store, nonce)
    assert run_store(store, log.latest_snapshot()) == committed


def test_body_gets_slot_generation_and_nonce() -> None:
    app = App(MemoryStore())
    entry = app.commit(snapshot(1, slot=99, generation=77, nonce="z"))
    assert (entry.slot, entry.generation, entry.nonce) == (1, 1, "shop.2")


# --- finding the newest slot -------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_000, 3_500, 7_999, 8_001, 9_000])
def test_newest_slot_is_found(count: int) -> None:
    store = MemoryStore()
    opened(store)
    for slot in range(count):
        store.objects[layout.slot_path(slot)] = b""
    assert opened(store).newest_slot == count - 1


def test_finding_the_newest_reads_little() -> None:
    store = MemoryStore()
    opened(store)
    for slot in range(30_500):
        store.objects[layout.slot_path(slot)] = b""
    asked: list[StoreRequest] = []

    class Watching(MemoryStore):
        def get(self, path: str) -> bytes | None:
            asked.append(Get(path))
            return store.get(path)

        def list(self, prefix: str, start_after: str = "") -> list[str]:
            asked.append(List(prefix, start_after))
            return store.list(prefix, start_after)

    log = LogReader()
    run_store(Watching(), log.open())
    assert log.newest_slot == 30_499
    assert len(asked) < 20
    behind = List("log/", layout.slot_path(29_999))  # one folder, and whatever lies behind a gap
    assert [request for request in asked if isinstance(request, List)] == [behind]


def test_slots_may_start_at_a_boundary() -> None:
    store = MemoryStore()
    opened(store)
    store.objects[layout.BOUNDARY] = entry_format.encode(Boundary(first_slot=5_000))
    assert opened(store).newest_slot == 4_999
    claim = run_store(store, opened(store).claim("a", 1))
    assert claim.slot == 5_000
    for slot in range(5_001, 6_200):
        store.objects[layout.slot_path(slot)] = b""
    assert opened(store).newest_slot == 6_199


def test_strangers_among_the_slots_decide_nothing() -> None:
    app = App(MemoryStore())
    app.store.put("log/0000000000/notes.txt", b"")
    app.store.put("log/zzz", b"")
    assert app.snapshot(1).slot == 1
    assert opened(app.store).newest_slot == 1


# --- reading -----------------------------------------------------------------------------


def test_unreadable_entries_are_reported_in_place() -> None:
    store = MemoryStore()
    app = App(store)
    for number in (1, 2, 3):
        app.snapshot(number)
    store.objects[layout.slot_path(2)] = b"{}"
    del store.objects[layout.slot_path(1)]
    found = run_store(store, app.log.entries(count=10))
    assert [type(entry) for entry in found] == [Entry, CorruptEntry, MissingEntry, Entry]
    assert str(run_store(store, app.log.entries(before=3, count=1))[0]) == str(found[1])
    with pytest.raises(MissingEntry, match=r"0000000000000000001\.json is missing.*slot 0 to 3"):
        run_store(store, app.log.read(1))


def test_a_corrupt_newest_entry_stops_everything() -> None:
    store = MemoryStore()
    App(store).snapshot(1)
    store.objects[layout.slot_path(1)] += b" "
    log = opened(store)
    with pytest.raises(CorruptEntry, match=r"log/0000000000/0000000000000000001\.json"):
        run_store(store, log.latest_snapshot())
    with pytest.raises(CorruptEntry):
        run_store(store, log.claim("b", 1))


def test_reading_is_repeated_a_few_times() -> None:
    store = MemoryStore()
    committed = App(store).snapshot(1)
    log = opened(store)
    few = dict.fromkeys(range(ATTEMPTS_MAX - 1), LOST)
    assert run_with_faults(store, log.latest_snapshot(), few) == committed
    with pytest.raises(StoreUnavailable):
        run_with_faults(store, log.latest_snapshot(), few | {ATTEMPTS_MAX - 1: LOST})


# --- ambiguous answers -------------------------------------------------------------------

FAULTS = [LOST, UNANSWERED]


def requests_of_a_commit() -> list[type[StoreRequest]]:
    app = App(MemoryStore())
    asked: list[type[StoreRequest]] = []
    steps = app.log.commit(snapshot(1), "n")
    request = next(steps)
    try:
        while True:
            asked.append(type(request))
            request = steps.send(True if isinstance(request, Create) else [])
    except StopIteration:
        return asked


def test_a_commit_asks_twice() -> None:
    assert requests_of_a_commit() == [Create, List]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_answer_is_not_taken_for_failure_or_success(at: int, fault: str) -> None:
    app = App(MemoryStore())
    outcome = run_with_faults(app.store, app.log.commit(snapshot(1), "mine"), {at: fault})
    assert isinstance(outcome, Committed)
    assert kinds(app.store)[1:] == [("snapshot", 1, "mine")]


@pytest.mark.parametrize("first", FAULTS)
@pytest.mark.parametrize("reading", [None, LOST])
@pytest.mark.parametrize("second", [None, *FAULTS])
def test_a_run_of_missing_answers_ends_in_one_entry(
    first: str, reading: str | None, second: str | None
) -> None:
    app = App(MemoryStore())
    faults = {n: fault for n, fault in enumerate([first, reading, second]) if fault is not None}
    outcome = run_with_faults(app.store, app.log.commit(snapshot(1), "mine"), faults)
    assert isinstance(outcome, Committed)
    assert outcome.entry.slot == 1
    assert len(kinds(app.store)) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_unanswered_create_of_a_taken_slot_is_fenced(fault: str) -> None:
    store = MemoryStore()
    old, _ = owner(store, "a"), owner(store, "b")
    outcome = run_with_faults(store, old.commit(snapshot(1), "mine"), {0: fault})
    assert isinstance(outcome, Fenced)
    assert outcome.by.nonce == "b"


def test_an_answer_that_says_exists_may_be_our_own_success() -> None:
    class RepeatsBehindOurBack(MemoryStore):
        def create(self, path: str, data: bytes) -> bool:
            super().create(path, data)
            return super().create(path, data)

    app = App(RepeatsBehindOurBack())
    assert app.snapshot(1).slot == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_no_answer_at_all_is_raised(fault: str) -> None:
    app = App(MemoryStore())
    silent = dict.fromkeys(range(100), LOST) | {0: fault}
    with pytest.raises(StoreUnavailable, match=f"no definite answer in {ATTEMPTS_MAX} attempts"):
        run_with_faults(app.store, app.log.commit(snapshot(1), "mine"), silent)


def test_exists_but_absent_for_ever_is_raised() -> None:
    class Haunted(MemoryStore):
        def create(self, path: str, data: bytes) -> bool:
            return self.haunted is False and super().create(path, data)

        haunted = False

    store = Haunted()
    app = App(store)
    store.haunted = True
    with pytest.raises(StoreUnavailable, match="no definite answer"):
        run_store(store, app.log.commit(snapshot(1), "mine"))


def test_a_refusal_is_raised_at_once() -> None:
    app = App(MemoryStore())
    steps = app.log.commit(snapshot(1), "mine")
    next(steps)
    with pytest.raises(StoreRefused):
        steps.throw(StoreRefused("log/1", "create", "AccessDenied"))


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("fault", FAULTS)
def test_claiming_survives_a_missing_answer_anywhere(at: int, fault: str) -> None:
    store = MemoryStore()
    App(store).snapshot(1)
    log = opened(store)
    claim = run_with_faults(store, log.claim("second", 2), {at: fault})
    assert (claim.slot, claim.generation) == (2, 2)
    assert len(kinds(store)) == 3


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("fault", FAULTS)
def test_opening_survives_a_missing_answer_anywhere(at: int, fault: str) -> None:
    store = MemoryStore()
    log = CommitLog(JOB)
    run_with_faults(store, log.open(), {at: fault})
    assert log.newest_slot == -1
    run_store(store, log.claim("a", 1))


# --- races and zombies -------------------------------------------------------------------


def test_a_claim_that_loses_its_slot_takes_the_next() -> None:
    class SomeoneIsQuicker(MemoryStore):
        rivals = 1

        def create(self, path: str, data: bytes) -> bool:
            if layout.parse_slot(path) is not None and self.rivals:
                self.rivals -= 1
                owner(self, "early")  # between the look and the create
            return super().create(path, data)

    store = SomeoneIsQuicker()
    claim = run_store(store, opened(store).claim("late", 1))
    assert (claim.slot, claim.generation) == (1, 2)
    assert kinds(store) == [("claim", 1, "early"), ("claim", 2, "late")]


def test_a_claim_gives_up_against_a_crowd() -> None:
    class Crowded(MemoryStore):
        def create(self, path: str, data: bytes) -> bool:
            slot = layout.parse_slot(path)
            if slot is not None:
                rival = Entry(kind="claim", slot=slot, generation=slot + 1, nonce=f"r{slot}", created_at_ms=1)
                super().create(path, entry_format.encode(rival))
            return super().create(path, data)

    store = Crowded()
    log = opened(store)
    with pytest.raises(ClaimContended, match="started more than once"):
        run_store(store, log.claim("mine", 1))


def test_recreating_a_collected_slot_is_noticed() -> None:
    store = MemoryStore()
    zombie = owner(store, "a")
    young = owner(store, "b")
    for number in (1, 2):
        run_store(store, young.commit(snapshot(number), f"n{number}"))
    del store.objects[layout.slot_path(1)]  # as if collected while the zombie was frozen
    outcome = run_store(store, zombie.commit(snapshot(1), "zombie"))
    assert isinstance(outcome, Fenced)
    assert outcome.by.nonce == "n2"
    assert zombie.newest_slot == 0


@pytest.mark.parametrize("rounds", [10])
def test_of_two_racing_committers_exactly_one_wins(store: ObjectStore, rounds: int) -> None:
    for number in range(1, rounds + 1):
        holder = owner(store, f"holder-{number}")
        twin = CommitLog(JOB)  # a second process that believes it is the same owner
        run_store(store, twin.open())
        twin.generation = holder.generation
        start = threading.Barrier(2)

        def commit(
            log: CommitLog, nonce: str, start: threading.Barrier = start, number: int = number
        ) -> Outcome:
            start.wait()
            return run_store(store, log.commit(snapshot(number), nonce))

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(commit, [holder, twin], [f"h{number}", f"t{number}"]))
        won = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Fenced)]
        assert len(won) == len(lost) == 1
        assert lost[0].by == won[0].entry


def test_racing_claims_get_different_generations(store: ObjectStore) -> None:
    opened(store)
    start = threading.Barrier(4)

    def claim(number: int) -> int:
        start.wait()
        return owner(store, f"n{number}").generation

    with ThreadPoolExecutor(4) as pool:
        generations = list(pool.map(claim, range(4)))
    # One that finds itself overtaken right after its claim claims again, so numbers may be left out.
    assert len(set(generations)) == 4
