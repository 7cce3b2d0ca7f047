"""Cuts: what belongs to a snapshot, whoever speaks first, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_checkpoints.model import INFLIGHT, Rhythm
from statefun_checkpoints.participant import ProtocolViolation
from statefun_ingress import frames
from statefun_ray.core.control import Ack
from tests.unit.statefun_ray.core.staging import (
    NOW,
    TEXT,
    Actor,
    Call,
    Script,
    Stage,
    id_of,
    ids_of,
    message,
)

HERE, THERE = id_of(0, 2), id_of(1, 2)
CLIENT = ("statefun-ray.reply/log.1", "request-1")


def remember(call: Call) -> None:
    call.write(call.read() + call.text)


def forward(call: Call) -> None:
    call.send("a/log", THERE, call.text)


def answer(call: Call) -> None:
    remember(call)
    call.reply(call.text)


def publish(call: Call) -> None:
    call.egress(call.text)


PLAYS = {"a/log": remember, "a/forward": forward, "a/answer": answer, "a/publish": publish}


def stage(worker_count: int = 2, **config: Any) -> Stage:
    return Stage(Script(PLAYS, awaiting=["a/slow"]), worker_count, **config)


# --- the cut and the channels --------------------------------------------------------------------


def test_a_message_on_its_way_at_the_cut_is_recorded() -> None:
    two = stage()
    two.admit(message("a/forward", HERE, "x"))
    two.actors[0].run()  # sent, not delivered

    entry = two.snapshot()
    restored = two.restarted(entry=entry)
    restored.run()

    assert entry.in_flight == 1
    assert restored.state("a/log", THERE) == "x"
    two.run()
    assert two.state("a/log", THERE) == "x", "recording takes nothing away"


def test_a_marker_may_come_before_the_trigger() -> None:
    two = stage()
    two.actors[0].trigger(1)
    two.deliver(0, 1)
    assert [part.kind for part in two.actors[1].parts] == ["delta", "transient"], "all channels are closed"
    two.actors[1].trigger(1)
    assert [part.kind for part in two.actors[1].parts] == ["delta", "transient"], "one cut only"

    two.deliver(1, 0)
    for actor in two.actors:
        actor.write_parts()
        assert actor.acknowledged().snapshot_id == 1


def test_a_trigger_before_the_marker_records_until_it_comes() -> None:
    two = stage()
    two.admit(message("a/forward", HERE, "x"))
    two.actors[1].trigger(1)
    two.actors[0].run()
    two.deliver(0, 1)  # sent before the cut of the sender, received after our own
    assert [part.kind for part in two.actors[1].parts] == ["delta"]

    two.actors[0].trigger(1)
    two.admit(message("a/forward", HERE, "y"))
    two.actors[0].run()
    two.deliver(0, 1)

    [(_, _), (_, transient)] = two.actors[1].write_parts()
    assert len(transient.of_table(INFLIGHT)) == 1, "y was sent behind the marker"
    assert two.actors[1].acknowledged().in_flight == 1


def test_a_message_received_and_not_processed_at_the_cut_is_in_the_snapshot_once() -> None:
    two = stage()
    two.admit(message("a/forward", HERE, "x"))
    two.actors[0].run()
    two.deliver(0, 1)  # in the mailbox of worker 1

    entry = two.snapshot()

    assert entry.in_flight == 1
    restored = two.restarted(entry=entry)
    restored.run()
    assert restored.state("a/log", THERE) == "x"


def test_what_happens_after_the_cut_is_not_in_the_snapshot() -> None:
    one = stage(1)
    one.admit(message("a/log", "1", "before"))
    one.run()
    one.trigger()
    one.admit(message("a/log", "1", "after"))
    one.run()

    restored = one.restarted(entry=one.commit())

    assert restored.state("a/log", "1") == "before"
    assert restored.actors[0].core._feeds._positions == {}
    restored.actors[0].open_feed()
    assert restored.actors[0].fed(frames.Hello)[0].positions == [(0, 64, 1)], "the event is read again"


def test_every_place_a_message_can_be_in_is_in_the_snapshot() -> None:
    script = Script(PLAYS, awaiting=["a/slow"])
    fails = {"poison"}

    def fragile(call: Call) -> None:
        if call.text in fails:
            raise ValueError(call.text)
        remember(call)

    def delay(call: Call) -> None:
        call.send_after(1_000, "a/log", "timer", call.text)

    script.plays |= {"a/fragile": fragile, "a/delay": delay}
    script.functions |= dict.fromkeys(("a/fragile", "a/delay"), script.functions["a/log"])
    two = Stage(script, 2, retry_deadline_ms=10_000)
    two.admit(message("a/slow", HERE, "in flight"), message("a/fragile", "1", "poison"))
    two.admit(message("a/delay", "2", "timer"), message("a/unknown", "3", "parked"))
    two.run()
    two.admit(message("a/slow", HERE, "queued"), message("a/fragile", "1", "behind"))
    two.run()
    two.admit(message("a/forward", HERE, "channel"))
    two.actors[0].run()
    two.admit(message("a/log", "4", "mailbox"))

    entry = two.snapshot()
    fails.clear()
    again = two.restarted(entry=entry, now_ms=NOW + 1_000)
    again.run()

    assert entry.in_flight == 7
    assert [
        [(each[5] or b"").decode() for each in invoke.messages] for invoke in again.owner(HERE).invokes
    ] == [["in flight", "queued"]]
    assert again.state("a/fragile", "1") == "poisonbehind"
    assert again.state("a/log", "timer") == "timer"
    assert again.state("a/log", THERE) == "channel"
    assert again.state("a/log", "4") == "mailbox"
    assert [each[:2] for actor in again.actors for each in actor.core.heartbeat(0).parked] == [
        ("a/unknown", "3")
    ]


@pytest.mark.parametrize("worker_count", [1, 2, 3, 8])
def test_a_snapshot_is_restored_by_any_number_of_workers(worker_count: int) -> None:
    two = stage()
    ids = [id for worker in (0, 1) for id, _ in zip(ids_of(worker, 2), range(10), strict=False)]
    for text in "abc":
        two.admit(*(message("a/log", id, text) for id in ids))
        two.actors[0].run()  # worker 1 has everything in its mailbox
    entry = two.snapshot()

    other = two.restarted(worker_count, entry=entry)
    other.run()

    assert {id: other.state("a/log", id) for id in ids} == dict.fromkeys(ids, "abc")


# --- the fate of a snapshot ----------------------------------------------------------------------


def test_the_layers_of_an_aborted_snapshot_are_carried_into_the_next() -> None:
    one = stage(1)
    one.admit(message("a/log", "1", "a"))
    one.run()
    one.trigger()
    one.admit(message("a/log", "2", "b"))
    one.run()
    one.abort()
    one.admit(message("a/log", "3", "c"))
    one.run()

    restored = one.restarted(entry=one.snapshot())

    assert [restored.state("a/log", id) for id in "123"] == ["a", "b", "c"]


@pytest.mark.parametrize("rhythms", [("periodic", "reply", "reply"), ("reply", "periodic", "reply")])
def test_small_and_periodic_snapshots_restore_alike(rhythms: tuple[Rhythm, ...]) -> None:
    one = stage(1)
    for number, rhythm in enumerate(rhythms):
        one.admit(message("a/log", str(number), rhythm), message("a/log", "all", str(number)))
        one.run()
        entry = one.snapshot(rhythm)

    restored = one.restarted(entry=entry)
    assert restored.state("a/log", "all") == "012"
    assert restored.state("a/log", "0") == rhythms[0]


def test_an_abort_of_another_snapshot_changes_nothing() -> None:
    one = stage(1)
    one.trigger()
    one.actors[0].abort(7)

    assert one.commit().snapshot_id == 1


def test_a_commit_that_was_not_heard_is_learnt_from_the_next_trigger() -> None:
    one = stage(1)
    one.admit(message("a/log", "1", "a"))
    one.run()
    one.trigger()
    one.commit_unheard()
    one.admit(message("a/log", "2", "b"))
    one.run()

    one.trigger()
    [part] = [part for part in one.actors[0].parts if part.kind == "delta"]

    assert part.rows == 1, "the first delta is known to be committed"
    one.actors[0].committed(1)  # late, and harmless
    restored = one.restarted(entry=one.commit())
    assert [restored.state("a/log", id) for id in "12"] == ["a", "b"]


def test_a_commit_that_was_not_heard_is_learnt_from_a_marker() -> None:
    two = stage()
    two.admit(message("a/publish", THERE, "x"))
    two.run()
    two.trigger()
    two.commit_unheard()
    assert two.actors[1].published == []

    two.actors[0].trigger(2, committed=1)
    two.deliver(0, 1)

    assert [(each.epoch, len(each.rows)) for each in two.actors[1].published] == [(1, 1)]


def test_an_abort_that_was_not_heard_is_learnt_from_the_next_cut() -> None:
    one = stage(1)
    one.admit(message("a/publish", "1", "x"))
    one.run()
    one.trigger()
    one.snapshots.abort()
    one.actors[0].parts.clear()

    entry = one.snapshot()

    assert entry.snapshot_id == 2
    assert [(each.epoch, [row[0] for row in each.rows]) for each in one.actors[0].published] == [(2, [0])]


def test_a_late_part_of_an_aborted_snapshot_is_ignored() -> None:
    one = stage(1)
    one.trigger()
    late, one.actors[0].parts = one.actors[0].parts, []
    one.abort()
    one.trigger()
    one.actors[0].parts += late
    one.actors[0].write_parts()

    assert one.actors[0].acknowledged().snapshot_id == 2


def test_markers_of_an_aborted_snapshot_do_not_close_channels_of_the_next() -> None:
    two = stage()
    two.trigger()
    two.snapshots.abort()
    two.actors[1].abort(1)
    two.admit(message("a/forward", HERE, "x"))
    two.actors[0].run()
    two.actors[1].trigger(2)
    two.deliver(0, 1)  # marker 1, then x

    assert "transient" not in [part.kind for part in two.actors[1].parts if part.snapshot_id == 2]
    two.actors[0].trigger(2)
    two.deliver(0, 1)
    [_, (_, transient)] = [each for each in two.actors[1].write_parts() if each[0].snapshot_id == 2]
    assert len(transient.of_table(INFLIGHT)) == 1


def test_a_lost_frame_ends_the_generation() -> None:
    two = stage()
    two.trigger()
    two.actors[0].out[1].clear()
    two.actors[0].trigger(2)

    with pytest.raises(ProtocolViolation, match="frames were lost"):
        two.deliver(0, 1)


# --- output --------------------------------------------------------------------------------------


def test_rows_are_published_when_their_snapshot_is_committed_and_not_before() -> None:
    one = stage(1)
    one.admit(message("a/publish", "1", "a"))
    one.run()
    one.trigger()
    one.admit(message("a/publish", "1", "b"))
    one.run()
    assert one.actors[0].published == []

    one.commit()
    [publish] = one.actors[0].published
    assert [(row[0], row[3]) for row in publish.rows] == [(0, b"a")]
    one.snapshot()
    assert [(row[0], row[3]) for row in one.actors[0].published[1].rows] == [(1, b"b")]


def test_rows_stay_in_snapshots_until_they_are_published() -> None:
    one = stage(1)
    one.admit(message("a/publish", "1", "a"))
    one.run()
    one.snapshot()
    restored = one.restarted(entry=one.snapshot())
    [publish] = restored.actors[0].published
    assert (publish.epoch, [row[3] for row in publish.rows]) == (1, [b"a"]), (
        "the same rows under the same name"
    )

    restored.actors[0].core.published(publish.shard, publish.epoch)
    once_more = restored.restarted(entry=restored.snapshot())
    assert once_more.actors[0].published == []
    once_more.admit(message("a/publish", "1", "b"))
    once_more.run()
    once_more.snapshot()
    assert [row[0] for row in once_more.actors[0].published[0].rows] == [1], "sequences go on"


def test_a_reply_waits_for_its_commit_and_pulls_it_forward() -> None:
    one = stage(1)
    one.admit(message("a/answer", "1", "hello", CLIENT))
    one.run()
    actor = one.actors[0]
    assert actor.wants_snapshot()
    one.run()
    assert not actor.wants_snapshot(), "once is enough"
    assert actor.fed(frames.Reply) == []

    one.snapshot("reply")

    [reply] = actor.fed(frames.Reply)
    assert (reply.incarnation, reply.replies) == ("log.1", [("request-1", TEXT, b"hello")])
    one.run()
    assert not actor.wants_snapshot()


def test_an_aborted_snapshot_is_wanted_again_by_the_reply_that_waits_for_it() -> None:
    one = stage(1)
    one.admit(message("a/answer", "1", "hello", CLIENT))
    one.run()
    assert one.actors[0].wants_snapshot()
    one.trigger("reply")
    one.abort()
    one.run()

    assert one.actors[0].wants_snapshot()


def test_a_reply_is_sent_again_to_the_same_incarnation_and_dropped_for_a_gone_one() -> None:
    one = stage(1)
    actor = one.actors[0]
    one.admit(message("a/answer", "1", "a", CLIENT))
    one.admit(message("a/answer", "1", "b", ("statefun-ray.reply/other.1", "request-2")))
    one.run()
    one.snapshot("reply")
    assert len(actor.fed(frames.Reply)) == 2

    actor.core.feed_closed("log")
    actor.open_feed("log", "log.1")
    [again] = actor.fed(frames.Reply)
    assert [each[0] for each in again.replies] == ["request-1"]

    actor.core.feed_closed("log")
    actor.open_feed("log", "log.2")
    assert actor.fed(frames.Reply) == []
    assert list(actor.core._outbox.released(0, 9)) == ["other.1"], "another log is not concerned"


def test_an_acknowledged_reply_is_forgotten() -> None:
    one = stage(1)
    actor = one.actors[0]
    one.admit(message("a/answer", "1", "a", CLIENT))
    one.run()
    one.snapshot("reply")
    [reply] = actor.fed(frames.Reply)

    actor.hear(frames.ReplyAck(reply.ack_id))
    actor.hear(frames.ReplyAck(reply.ack_id))
    assert actor.core._outbox.is_empty
    assert actor.core._feeds._unacked == {}


def test_connections_that_come_and_go_leave_nothing_behind() -> None:
    one = stage(1)
    actor = one.actors[0]
    one.admit(message("a/answer", "1", "a", CLIENT))
    one.run()
    one.snapshot("reply")
    for _ in range(5):
        actor.core.feed_closed("log")
        actor.open_feed()

    assert len(actor.core._feeds._unacked) == 1


def test_a_reply_that_was_committed_survives_the_worker() -> None:
    one = stage(1)
    one.admit(message("a/answer", "1", "hello", CLIENT))
    one.run()
    restored = one.restarted(entry=one.snapshot("reply"))
    restored.actors[0].feed.clear()
    restored.actors[0].open_feed()

    assert [reply.replies for reply in restored.actors[0].fed(frames.Reply)] == [
        [("request-1", TEXT, b"hello")]
    ]


def test_logs_are_trimmed_to_what_the_coordinator_allows_and_never_twice() -> None:
    one = stage(1)
    actor = one.actors[0]
    for number, sequence in enumerate([5, 5, 3, 8], 1):
        actor.trigger(number, committed=number - 1)
        actor.write_parts()
        actor.committed(number, {"log": sequence})

    assert [trim.next_seq for trim in actor.fed(frames.Trim)] == [5, 8]


# --- reads ---------------------------------------------------------------------------------------


def ask(actor: Actor, *, wait_commit: bool, id: str = "1", function: str = "a/log") -> list[frames.State]:
    actor.hear(frames.Query(1, function, id, wait_commit))
    return actor.fed(frames.State)


def test_a_read_shows_what_is_there_and_since_when() -> None:
    one = stage(1)
    actor = one.actors[0]
    one.admit(message("a/log", "1", "a"))
    one.run()
    one.snapshot()
    one.admit(message("a/log", "1", "b"))
    one.run()

    [now] = ask(actor, wait_commit=False)
    assert (now.generation, now.snapshot_id, now.found) == (1, 1, True)
    assert now.states == [("state", TEXT, b"ab")]
    assert not ask(actor, wait_commit=False, id="2")[0].found
    assert not ask(actor, wait_commit=False, function="a/unknown")[0].found


def test_a_committed_read_waits_for_the_next_commit_and_names_it() -> None:
    one = stage(1)
    actor = one.actors[0]
    one.admit(message("a/log", "1", "a"))
    one.run()
    one.trigger()
    assert ask(actor, wait_commit=True) == []
    one.run()
    assert actor.wants_snapshot()
    one.commit()
    assert actor.fed(frames.State) == [], "that cut was before the read"

    one.trigger("reply")
    one.abort()
    one.snapshot("reply")
    [answer] = actor.fed(frames.State)
    assert (answer.snapshot_id, answer.states) == (3, [("state", TEXT, b"a")])


def test_a_committed_read_of_a_closed_feed_is_not_answered() -> None:
    one = stage(1)
    actor = one.actors[0]
    actor.open_feed()
    assert ask(actor, wait_commit=True) == []
    actor.core.feed_closed("log")
    actor.open_feed()
    one.snapshot()

    assert actor.fed(frames.State) == []


# --- bases ---------------------------------------------------------------------------------------


def bases(actor: Actor) -> list[int]:
    return [part.snapshot_id for part in actor.parts if part.kind == "base"]


def test_a_base_follows_so_many_periodic_deltas_and_is_attached_to_a_later_snapshot() -> None:
    one = stage(1, base_deltas_max=2)
    actor = one.actors[0]
    for number in range(2):
        one.admit(message("a/log", str(number), "x"))
        one.run()
        one.snapshot()
    one.run()
    assert bases(actor) == [2]
    one.admit(message("a/log", "0", "y"))
    one.run()
    actor.write_parts(one.store)

    entry = one.snapshot()

    assert [(part.kind, part.snapshot) for part in entry.parts] == [("delta", 3), ("base", 2)]
    restored = one.restarted(entry=entry)
    assert [restored.state("a/log", id) for id in "01"] == ["xy", "x"]


def test_a_finished_base_survives_the_abort_of_the_snapshot_it_was_attached_to() -> None:
    one = stage(1, base_deltas_max=1)
    one.admit(message("a/log", "1", "x"))
    one.run()
    one.snapshot()
    one.run()
    one.actors[0].write_parts(one.store)
    one.trigger()
    one.abort()
    one.run()

    entry = one.snapshot()
    assert [(part.kind, part.snapshot) for part in entry.parts] == [("base", 1)]


def test_small_cuts_alone_do_not_ask_for_a_base() -> None:
    one = stage(1, base_deltas_max=2)
    for number in range(5):
        one.admit(message("a/log", str(number), "x"))
        one.run()
        one.snapshot("reply")
    one.run()

    assert bases(one.actors[0]) == []


@pytest.mark.parametrize("worker_count", [1, 4])
def test_after_a_rescale_every_worker_writes_a_base_also_if_it_is_interrupted(worker_count: int) -> None:
    two = stage()
    ids = [f"id-{number}" for number in range(40)]
    two.admit(*(message("a/log", id, "x") for id in ids))
    two.run()
    rescaled = two.restarted(worker_count, entry=two.snapshot())
    rescaled.run()
    assert all(bases(actor) == [1] for actor in rescaled.actors)
    rescaled.actors[0].write_parts(rescaled.store)
    for actor in rescaled.actors[1:]:
        actor.parts.clear()  # their scans are not done when the snapshot is taken
    interrupted = rescaled.snapshot()

    again = rescaled.restarted(worker_count, entry=interrupted)
    again.run()
    assert [again.state("a/log", id) for id in ids] == ["x"] * len(ids)
    for actor in again.actors:
        actor.write_parts(again.store)
    entry = again.snapshot()

    assert {part.kind for part in entry.parts} == {"base"}
    last = again.restarted(2, entry=entry)
    assert [last.state("a/log", id) for id in ids] == ["x"] * len(ids)


def test_acknowledgements_name_what_was_written() -> None:
    one = stage(1)
    one.admit(message("a/log", "1", "a"))
    one.run()
    actor = one.actors[0]
    actor.trigger(1)
    assert actor.take(Ack) == []
    actor.write_parts()

    ack = actor.acknowledged()
    assert [(part.kind, part.level, part.rows) for part in ack.parts] == [("delta", "periodic", 1)]
    assert (ack.based_on, ack.in_flight, ack.cut_ms) == (0, 0, NOW)
    assert [(position.log_id, position.next_seq) for position in ack.positions] == [("log", 1)]
