from __future__ import annotations

import pytest

from statefun_ingress.core import IngressCore
from statefun_ingress.errors import LogFailed, SequenceReused, SequenceTooFarAhead
from statefun_ingress.feed import (
    EventsFrame,
    Feed,
    FrameSplitter,
    Hello,
    IngressFrame,
    Query,
    Refused,
    Reply,
    ReplyAck,
    State,
    Trim,
    decode_ingress_frame,
)
from statefun_ingress.log import IngressLog, encode_events
from statefun_ingress.pending import ReplyValue
from statefun_ingress.producers import Answer
from statefun_ingress.record import Events
from tests.ingress.faulty_files import FaultyFiles


def new_core(files: FaultyFiles | None = None) -> IngressCore:
    log = IngressLog.open(files or FaultyFiles(), "l", segment_bytes=300)
    return IngressCore(log, app_name="app", key_group_count=8)


class Answers(list[Answer | None]):
    """Collects what waiters are told."""

    def accept(
        self, core: IngressCore, sequence: int = -1, id: str = "id", request_id: str = ""
    ) -> Answer | None:
        caller_type = core.pending.caller_type if request_id else ""
        events = Events.of_one("n/t", id, caller_type, request_id, "t/x", b"v")
        producer = "p" if sequence >= 0 else ""
        return told(
            core.accept(
                encode_events(events),
                lambda answer: self.append(told(answer)),
                received_at_ms=1,
                producer_id=producer,
                producer_sequence=sequence,
                request_id=request_id,
            )
        )


def told(answer: Answer | None) -> Answer | None:
    """Return what a client learns of an answer."""
    return answer and answer._replace(digest=None)


def commit(core: IngressCore) -> None:
    batch = core.take_batch()
    assert batch is not None
    core.log.write_batch(batch)
    core.batch_synced(batch)


def hello(core: IngressCore, generation: int = 1) -> Feed:
    feed = core.feeds.open()
    core.receive(feed, Hello("app", generation, 0, 1, [(0, 8, 0)], 1_000))
    return feed


def sent(feed: Feed) -> list[IngressFrame]:
    splitter = FrameSplitter()
    return [decode_ingress_frame(body) for data in feed.take_outgoing() for body in splitter.receive(data)]


def test_a_request_is_answered_once_its_batch_is_durable() -> None:
    core, answers = new_core(), Answers()

    assert answers.accept(core) is None
    assert answers == []
    commit(core)
    assert answers == [Answer(0, 1)]


def test_durable_events_reach_the_feeds() -> None:
    core = new_core()
    feed = hello(core)
    Answers().accept(core)
    commit(core)

    core.feeds.pump(feed)

    assert [type(frame) for frame in sent(feed)][1:] == [EventsFrame]
    assert core.lag == 0


def test_a_repetition_of_a_durable_request_is_answered_at_once_and_not_appended() -> None:
    core, answers = new_core(), Answers()
    answers.accept(core, 0)
    commit(core)

    assert answers.accept(core, 0) == Answer(0, 1)
    assert core.log.end_seq == 1
    assert len(answers) == 1


def test_a_repetition_waits_for_the_sync_of_its_original_wherever_that_is() -> None:
    core, answers, repeated = new_core(), Answers(), Answers()
    answers.accept(core, 0)
    assert repeated.accept(core, 0) is None  # the original is in the buffer
    batch = core.take_batch()
    assert batch is not None
    answers.accept(core, 1)
    assert repeated.accept(core, 0) is None  # the original is being written
    assert repeated.accept(core, 1) is None  # the original waits for the next batch
    assert repeated == []

    core.log.write_batch(batch)
    core.batch_synced(batch)
    assert (answers, repeated) == ([Answer(0, 1)], [Answer(0, 1)] * 2)
    commit(core)
    assert repeated[2:] == [Answer(1, 1)]
    assert core.log.end_seq == 2


def test_a_number_used_for_other_events_is_refused_from_the_first_moment_on() -> None:
    core, answers = new_core(), Answers()
    answers.accept(core, 1)

    for _ in range(2):  # not durable yet, and durable
        with pytest.raises(SequenceReused, match="sequence 1 for a request with other events"):
            answers.accept(core, 1, id="other")
        if core.log.durable_seq == 0:
            commit(core)

    assert core.log.end_seq == 1
    assert answers == [Answer(0, 1)]
    assert answers.accept(core, 1) == Answer(0, 1), "the right one is still welcome"


def test_a_repetition_may_wait_for_a_reply_where_its_original_did_not() -> None:
    core, answers = new_core(), Answers()
    answers.accept(core, 1, request_id="1")
    commit(core)

    assert answers.accept(core, 1) == answers.accept(core, 1, request_id="2") == Answer(0, 1, "1")


def test_a_number_used_for_other_events_is_known_after_a_crash() -> None:
    files = FaultyFiles()
    core, answers = new_core(files), Answers()
    answers.accept(core, 1, request_id="1")
    commit(core)

    again = new_core(files.crash())

    assert answers.accept(again, 1) == Answer(0, 1)
    with pytest.raises(SequenceReused):
        answers.accept(again, 1, id="other")


def test_a_number_too_old_to_be_remembered_counts_as_repeated() -> None:
    core, answers = new_core(), Answers()
    core.log.producers.answers_max = 1
    for sequence in (1, 2):
        answers.accept(core, sequence)
    commit(core)

    assert answers.accept(core, 1, id="other") == Answer(-1, 1)


def test_a_sequence_that_cannot_be_taken_appends_nothing() -> None:
    core, answers = new_core(), Answers()

    with pytest.raises(SequenceTooFarAhead):
        answers.accept(core, 5_000)
    assert core.take_batch() is None


def test_after_a_failed_sync_nobody_is_acknowledged_neither_then_nor_later() -> None:
    files = FaultyFiles()
    core, answers, repeated = new_core(files), Answers(), Answers()
    feed = hello(core)
    sent(feed)
    answers.accept(core, 0)
    batch = core.take_batch()
    assert batch is not None
    answers.accept(core, 1)  # gathers for the next batch meanwhile
    files.fail_sync = lambda name: True

    core.log.write_batch(batch)
    core.batch_synced(batch)

    assert answers == [None, None]
    core.feeds.pump(feed)
    assert sent(feed) == []
    for sequence in (0, 1, 2):
        with pytest.raises(LogFailed):
            repeated.accept(core, sequence)
    assert core.take_batch() is None


def test_replies_are_handed_on_and_acknowledged_dropped_or_not() -> None:
    core, got = new_core(), list[ReplyValue | None]()
    feed = hello(core)
    sent(feed)
    request_id = core.pending.open(got.append, 100)

    core.receive(feed, Reply(1, "l.1", [(request_id, "t/x", b"r"), ("999", "t/x", b"r")]))
    core.receive(feed, Reply(2, "l.0", [(request_id, "t/x", b"r")]))

    assert sent(feed) == [ReplyAck(1), ReplyAck(2)]
    assert got == [ReplyValue("t/x", b"r")]
    assert core.replies_dropped == 2


def test_the_first_frame_must_be_hello() -> None:
    core, got = new_core(), list[ReplyValue | None]()
    request_id = core.pending.open(got.append, 100)
    feed = core.feeds.open()

    core.receive(feed, Reply(1, "l.1", [(request_id, "t/x", b"forged")]))

    assert sent(feed) == [Refused("a connection begins with hello")]
    assert got == []


def test_trim_names_the_files_to_remove() -> None:
    core = new_core()
    feed = hello(core)
    for _ in range(30):
        Answers().accept(core)
        commit(core)

    names = core.receive(feed, Trim(20))

    assert names
    core.log.remove_segments(names)
    assert 0 < core.log.first_seq <= 20


def test_a_query_is_answered_by_the_owner_only() -> None:
    core, got = new_core(), list[State | None]()
    assert core.query("n/t", "id", wait_commit=False, waiter=got.append) is None
    feed = hello(core)
    sent(feed)

    query_id = core.query("n/t", "id", wait_commit=True, waiter=got.append)

    assert query_id is not None
    assert sent(feed) == [Query(query_id, "n/t", "id", True)]
    answer = State(query_id, 1, 7, True, [("s", "t/x", b"v")])
    stranger = core.feeds.open()
    stranger.hello = feed.hello
    core.receive(stranger, answer)
    assert got == []
    core.receive(feed, answer)
    core.receive(feed, answer)
    assert got == [answer]


def test_queries_end_with_the_connection_and_can_be_forgotten() -> None:
    core, got = new_core(), list[State | None]()
    feed = hello(core)
    forgotten = core.query("n/t", "id", wait_commit=False, waiter=got.append)
    core.query("n/t", "id", wait_commit=False, waiter=got.append)
    assert forgotten is not None

    core.forget_query(forgotten)
    core.closed(feed)

    assert got == [None]


def test_letters_are_asked_for_as_of_a_commit() -> None:
    # Told to a letter that is gone after a crash, a command would do nothing, or meet another letter.
    core = new_core()
    feed = hello(core)
    feed.take_outgoing()
    found: list[State | None] = []
    query_id = core.query_letters(feed, "n/t", "ada", found.append)
    assert query_id is not None
    [frame] = feed.take_outgoing()
    assert decode_ingress_frame(frame[4:]) == Query(query_id, "io.statefun-ray/dead-letters#n/t", "ada", True)
    state = State(query_id, 1, 7, False, [])
    core.receive(feed, state)
    assert found == [state]
