"""Messages at a worker: order, effects all or nothing, failures, delays, ingress."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_checkpoints.model import StateSpec
from statefun_checkpoints.participant import ProtocolViolation
from statefun_ingress import frames
from statefun_ray.core.addresses import BACKOFF_MS_MAX, BACKOFF_MS_MIN
from statefun_ray.core.control import Pulse, Trigger
from statefun_ray.core.invoker import LaneSpec
from statefun_ray.core.metrics import RETRYING_REPORTED_MAX
from tests.unit.statefun_ray.core.staging import NOW, TEXT, Actor, Call, Script, Stage, id_of, ids_of, message


def remember(call: Call) -> None:
    call.write(call.read() + call.text)


def fragile(call: Call) -> None:
    """Fail on "poison", after having asked for everything."""
    remember(call)
    call.send("a/log", "seen", call.text)
    call.send_after(10, "a/log", "late", call.text)
    call.egress(call.text)
    if "poison" in call.text:
        raise ValueError("this is poison")


PLAYS = {"a/log": remember, "a/fragile": fragile}


def actor(**config: Any) -> Actor:
    return Actor(Script(PLAYS, awaiting=["a/slow"]), **config).start()


# --- order and atomicity -------------------------------------------------------------------------


def test_messages_of_an_address_are_applied_in_order_of_arrival() -> None:
    worker = actor()
    worker.admit(*(message("a/log", "1", text) for text in "abc"), message("a/log", "2", "x"))
    worker.admit(message("a/log", "1", "d"))
    while worker.turn(limit=1):
        pass

    assert worker.state("a/log", "1") == "abcd"
    assert worker.state("a/log", "2") == "x"


def test_a_turn_takes_no_more_than_its_limit() -> None:
    worker = actor()
    worker.admit(*(message("a/log", "1", text) for text in "abc"))

    assert worker.turn(limit=2)
    assert worker.state("a/log", "1") == "ab"
    assert not worker.turn(limit=2)


def test_nothing_happens_before_the_start() -> None:
    worker = Actor(Script(PLAYS))
    worker.admit(message("a/log", "1", "a"))

    assert not worker.turn()
    assert worker.texts() == []
    worker.start().run()
    assert worker.texts() == ["a"]


def test_a_function_that_fails_has_no_effect_at_all() -> None:
    worker = actor()
    worker.admit(message("a/fragile", "1", "poison"))
    worker.run()

    assert worker.state("a/fragile", "1") is None
    assert worker.texts("a/log") == []
    assert worker.core.next_due_ms == NOW + BACKOFF_MS_MIN, "no timer, only the retry"
    assert worker.core._outbox.is_empty
    assert worker.core.counters.emitted == 0


def test_messages_wait_behind_a_failing_one_and_others_do_not() -> None:
    script = Script(PLAYS)
    worker = Actor(script).start()
    worker.admit(*(message("a/fragile", "1", text) for text in ["a", "poison", "b"]))
    worker.admit(message("a/fragile", "2", "x"))
    worker.run()
    assert worker.state("a/fragile", "1") == "a"
    assert worker.state("a/fragile", "2") == "x"

    script.plays["a/fragile"] = remember
    worker.later(BACKOFF_MS_MIN)

    assert worker.state("a/fragile", "1") == "apoisonb"
    assert worker.core.backlog == 0


def test_an_awaiting_address_gets_all_that_waits_in_order_and_one_at_a_time() -> None:
    worker = actor()
    worker.admit(message("a/slow", "1", "a"))
    worker.run()
    worker.admit(*(message("a/slow", "1", text) for text in "bc"), message("a/slow", "2", "x"))
    worker.run()
    assert [(invoke.id, len(invoke.messages)) for invoke in worker.invokes] == [("1", 1), ("2", 1)]

    worker.finish(({0: b"a"}, [("a/log", "seen", TEXT, b"a")], [], []))
    worker.run()

    assert worker.state("a/slow", "1") == "a"
    assert worker.texts("a/log") == ["a"]
    assert [[(each[5] or b"").decode() for each in invoke.messages] for invoke in worker.invokes] == [
        ["x"],
        ["b", "c"],
    ]
    worker.finish()
    worker.finish()
    worker.run()
    assert worker.core.backlog == 0
    assert worker.core.counters.applied == 5


def test_only_so_many_invocations_are_in_flight() -> None:
    worker = actor(invocations_max=2)
    worker.admit(*(message("a/slow", id, "x") for id in "123"))
    worker.run()
    assert [invoke.id for invoke in worker.invokes] == ["1", "2"]

    worker.finish()
    assert worker.turn() is False
    assert [invoke.id for invoke in worker.invokes] == ["2", "3"]


def test_messages_between_workers_keep_their_order() -> None:
    sender, receiver = id_of(0, 2), id_of(1, 2)

    def fan(call: Call) -> None:
        for letter in call.text:
            call.send("a/log", receiver, letter)

    stage = Stage(Script({**PLAYS, "a/fan": fan}), 2)
    stage.admit(message("a/fan", sender, "abc"), message("a/fan", sender, "def"))
    stage.run()

    assert stage.state("a/log", receiver) == "abcdef"
    assert stage.counters()["emitted"] == 6


# --- failing -------------------------------------------------------------------------------------


def test_a_failing_batch_is_bisected_until_the_poison_stands_alone() -> None:
    worker = actor()
    worker.admit(message("a/slow", "1", "first"))
    worker.run()
    worker.admit(*(message("a/slow", "1", text) for text in ["a", "b", "poison", "c", "d", "e", "f", "g"]))
    worker.finish()
    worker.run()

    sizes = []
    applied: list[str] = []
    while worker.invokes:
        texts = [(each[5] or b"").decode() for each in worker.invokes[0].messages]
        sizes.append(len(texts))
        worker.finish(error="ValueError: poison" if "poison" in texts else None)
        applied += [] if "poison" in texts else texts
        worker.run()

    assert sizes == [8, 4, 2, 4, 2, 1]
    assert applied == ["a", "b"], "what is behind the poison waits"
    assert worker.core.backlog == 6


def test_what_arrives_while_a_message_waits_alone_does_not_join_it() -> None:
    worker = actor()
    worker.admit(message("a/slow", "1", "poison"))
    worker.run()
    worker.finish(error="poison")
    worker.admit(*(message("a/slow", "1", "x") for _ in range(5)))
    worker.later(BACKOFF_MS_MIN)

    assert len(worker.invokes[0].messages) == 1


def test_attempts_are_ever_further_apart() -> None:
    worker = actor()
    worker.admit(message("a/fragile", "1", "poison"))
    worker.run()
    waits = []
    for _ in range(12):
        due_ms = worker.core.next_due_ms
        assert due_ms is not None
        waits.append(due_ms - worker.now_ms)
        worker.later(waits[-1] - 1)
        before = len(worker.texts())
        worker.later(1)
        assert len(worker.texts()) == before + 1, "not before its time"

    assert waits[:4] == [100, 200, 400, 800]
    assert waits[-1] == BACKOFF_MS_MAX


def test_a_heartbeat_names_the_addresses_that_are_tried_again() -> None:
    worker = actor()
    worker.admit(message("a/fragile", "1", "poison"))
    worker.run()
    began_ms = worker.now_ms
    worker.later(100)

    heartbeat = worker.core.heartbeat(0)
    error = "ValueError: this is poison"
    assert heartbeat.retrying == [("a/fragile", "1", 2, began_ms, worker.now_ms + 200, error)]
    assert heartbeat.retrying_count == 1
    assert ("statefun_worker_retrying_addresses", "", 1) in worker.core.figures()


def test_a_heartbeat_names_a_few_of_many_failing_addresses_and_counts_all() -> None:
    worker = actor()
    worker.admit(*(message("a/fragile", str(number), "poison") for number in range(100)))
    worker.run()

    heartbeat = worker.core.heartbeat(0)
    assert heartbeat.retrying_count == 100
    assert [each[1] for each in heartbeat.retrying] == [
        str(number) for number in range(RETRYING_REPORTED_MAX)
    ]


def test_an_address_that_fails_for_too_long_is_parked_and_keeps_its_messages() -> None:
    worker = actor(retry_deadline_ms=350)
    worker.admit(message("a/fragile", "1", "poison"), message("a/fragile", "1", "b"))
    worker.run()
    for wait_ms in (100, 200, 400):
        worker.later(wait_ms)
    worker.admit(message("a/fragile", "1", "c"))
    worker.later(10_000_000)

    assert worker.texts() == ["poison"] * 4
    heartbeat = worker.core.heartbeat(0)
    assert heartbeat.parked == [("a/fragile", "1", "ValueError: this is poison", 3)]
    assert heartbeat.parked_count == 1
    assert heartbeat.backlog == 0, "they wait for a person, and hold up no source"
    assert worker.core._addresses.waiting_count == 3


def test_an_unknown_function_is_parked_with_what_there_is_instead() -> None:
    worker = actor()
    worker.admit(message("a/unknown", "1", "x"), message("a/log", "1", "y"))
    worker.run()

    [(function, id, error, count)] = worker.core.heartbeat(0).parked
    assert (function, id, count) == ("a/unknown", "1", 1)
    assert error == "no function 'a/unknown' in this application; it has a/log, a/fragile, a/slow"
    assert worker.state("a/log", "1") == "y"


def test_what_there_is_instead_includes_what_is_served_elsewhere_and_has_a_bound() -> None:
    lane = LaneSpec("service", 1)
    for script, words in (
        (Script({}), "it has none"),
        (Script({}, remote={"a/": lane, "b/": lane}), "it has a/*, b/*"),
        (Script({f"n/{i}": remember for i in range(22)}), ", n/18, n/19 and 2 more"),
    ):
        worker = Actor(script).start()
        worker.admit(message("q/f", "1", "x"))
        worker.run()
        [(_, _, error, _)] = worker.core.heartbeat(0).parked
        assert error.endswith(words)


def test_parked_addresses_stay_parked_over_a_crash_and_get_another_chance_after_a_stop() -> None:
    script = Script(PLAYS)
    stage = Stage(script, retry_deadline_ms=0)
    stage.admit(message("a/fragile", "1", "poison"), message("a/fragile", "1", "b"))
    stage.run()
    crashed = stage.restarted(entry=stage.snapshot())
    crashed.run()
    assert [each[:2] for each in crashed.actors[0].core.heartbeat(0).parked] == [("a/fragile", "1")]
    assert crashed.waiting() == 0

    script.plays["a/fragile"] = remember
    mended = crashed.restarted(entry=crashed.snapshot("final"))
    mended.run()

    assert mended.state("a/fragile", "1") == "poisonb"
    assert mended.actors[0].core.heartbeat(0).parked == []


def test_a_chance_after_a_stop_is_not_lost_to_a_crash_before_it_was_taken() -> None:
    stage = Stage(Script(awaiting=["a/slow"]), retry_deadline_ms=0)
    stage.admit(message("a/slow", "1", "x"))
    stage.run()
    stage.actors[0].finish(error="broken")
    stage.run()
    begun = stage.restarted(entry=stage.snapshot("final"))
    begun.run()
    assert len(begun.actors[0].invokes) == 1

    crashed = begun.restarted(entry=begun.snapshot())
    crashed.run()
    assert len(crashed.actors[0].invokes) == 1


def test_the_retry_deadline_is_not_renewed_by_a_crash() -> None:
    stage = Stage(Script(PLAYS), retry_deadline_ms=1_000)
    stage.admit(message("a/fragile", "1", "poison"))
    stage.run()

    later = stage.restarted(entry=stage.snapshot(), now_ms=NOW + 1_000, retry_deadline_ms=1_000)
    later.run()

    assert later.actors[0].core.heartbeat(0).parked_count == 1


# --- delayed messages ----------------------------------------------------------------------------


def timing(call: Call) -> None:
    """ "send 10 a t": "a" in 10 ms with token t; "cancel t"; several orders are separated by commas."""
    for order in call.text.split(","):
        match order.split():
            case ["send", delay, text, *token]:
                call.send_after(int(delay), "a/log", "target", text, *token)
            case ["cancel", token]:
                call.cancel(token)


def timekeeper() -> Actor:
    return Actor(Script({**PLAYS, "a/timing": timing, "b/timing": timing})).start()


def order(
    text: str, id: str = "1", function: str = "a/timing"
) -> tuple[str, str, str, str, str, bytes | None]:
    return message(function, id, text)


def test_a_delayed_message_comes_when_it_is_due_and_not_before() -> None:
    worker = timekeeper()
    worker.admit(order("send 10 a"))
    worker.run()
    worker.later(9)
    assert worker.texts("a/log") == []

    worker.later(1)
    assert worker.texts("a/log") == ["a"]
    assert worker.core.counters.timers_fired == 1


def test_equal_due_times_fire_in_order_of_registration() -> None:
    worker = timekeeper()
    worker.admit(order("send 20 c,send 10 a,send 10 b,send 0 z"))
    worker.run()
    worker.later(20)

    assert worker.texts("a/log") == ["z", "a", "b", "c"]


def test_a_turn_says_that_there_is_more_when_timers_are_left() -> None:
    def fan(call: Call) -> None:
        for _ in range(5):
            call.send_after(1, "a/log", other, "x")

    stage = Stage(Script({**PLAYS, "a/fan": fan}), 2)
    other = id_of(1, 2)
    stage.admit(message("a/fan", id_of(0, 2), "x"))
    stage.run()
    worker = stage.actors[0]
    worker.now_ms += 1

    assert [worker.turn(limit=2) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("orders", "fired"),
    [
        (["send 10 a t", "cancel t"], []),
        (["send 10 a t,cancel t"], []),
        (["cancel t,send 10 a t"], ["a"]),
        (["send 10 a t,cancel t,send 10 b t"], ["b"]),
        (["cancel t"], []),
        (["send 10 a", "send 10 b"], ["a", "b"]),
    ],
)
def test_cancelling_follows_the_order_of_the_calls(orders: list[str], fired: list[str]) -> None:
    worker = timekeeper()
    worker.admit(*map(order, orders))
    worker.run()
    worker.later(10)

    assert worker.texts("a/log") == fired
    counters = worker.core.counters
    assert counters.timers_set == counters.timers_fired + counters.timers_cancelled


def test_cancelling_too_late_does_nothing_and_the_token_is_free_again() -> None:
    worker = timekeeper()
    worker.admit(order("send 10 a t"))
    worker.run()
    worker.later(10)
    worker.admit(order("cancel t,send 10 b t"))
    worker.run()
    worker.later(10)

    assert worker.texts("a/log") == ["a", "b"]


def test_a_token_that_is_pending_is_refused_and_nothing_of_the_call_happens() -> None:
    worker = timekeeper()
    worker.admit(order("send 50 a t"))
    worker.admit(order("send 10 b,send 10 c t"))
    worker.run()

    [address] = worker.core._addresses.busy.values()
    assert address.error == (
        "UserCodeError: cancellation token 't' of id '1' is already pending; cancel it first or use another"
    )
    worker.later(10)
    assert worker.texts("a/log") == [], "b is discarded with c"
    worker.later(40)
    worker.later(100)
    worker.later(100)
    assert sorted(worker.texts("a/log")) == ["a", "b", "c"], "tried again when the token is free"


def test_tokens_are_shared_by_all_functions_of_an_id_and_by_no_other_id() -> None:
    worker = timekeeper()
    worker.admit(order("send 10 a t", "1"), order("send 10 b t", "2"), order("cancel t", "3"))
    worker.admit(order("cancel t", "1", "b/timing"))
    worker.run()
    worker.later(10)

    assert worker.texts("a/log") == ["b"]


def test_overdue_messages_fire_at_once_after_a_restart() -> None:
    stage = Stage(Script({**PLAYS, "a/timing": timing}))
    stage.admit(order("send 20 b,send 10 a,send 99999 c t"))
    stage.run()

    later = stage.restarted(entry=stage.snapshot(), now_ms=NOW + 5_000)
    later.run()

    assert later.state("a/log", "target") == "ab"
    later.admit(order("cancel t"))
    later.run()
    assert later.actors[0].core.next_due_ms is None


def test_a_delayed_reply_is_a_reply_and_no_message_to_a_function() -> None:
    def reply_later(call: Call) -> None:
        call.send_after(10, *call.caller, "at last")

    stage = Stage(Script({"a/later": reply_later}), 2)
    for id in (id_of(0, 2), id_of(1, 2)):
        stage.admit(message("a/later", id, "x", ("statefun-ray.reply/log.1", f"request-{id}")))
    stage.run()
    entry = stage.snapshot()
    assert entry.counters["replies"] == 0
    for actor in stage.actors:
        actor.later(10)
    stage.run()
    entry = stage.snapshot()

    replies = [
        reply for actor in stage.actors for frame in actor.fed(frames.Reply) for reply in frame.replies
    ]
    assert sorted(replies) == [(f"request-{id_of(worker, 2)}", TEXT, b"at last") for worker in (0, 1)]
    assert not any(actor.core.heartbeat(0).parked_count for actor in stage.actors)
    count = entry.counters
    assert count["timers_fired"] == count["timers_replied"] == 2
    assert count["admitted"] + count["emitted"] + count["timers_fired"] == (
        count["applied"] + entry.in_flight + count["timers_replied"]
    )


# --- expiration ----------------------------------------------------------------------------------

EXPIRING = {
    "a/write": {"state": StateSpec(type=TEXT, expire="after_write", expire_ms=160)},
    "a/call": {"state": StateSpec(type=TEXT, expire="after_call", expire_ms=160)},
}


def touch(call: Call) -> None:
    if call.text == "read":
        call.send("a/log", "seen", call.read() or "-")
    else:
        call.write(call.text)


def forgetful() -> Script:
    return Script({**PLAYS, "a/write": touch, "a/call": touch}, states=EXPIRING)


@pytest.mark.parametrize(("function", "seen"), [("a/write", "x-"), ("a/call", "xx")])
def test_only_after_call_is_refreshed_by_reading(function: str, seen: str) -> None:
    worker = Actor(forgetful()).start()
    worker.admit(message(function, "1", "x"))
    worker.run()
    for _ in range(2):
        worker.now_ms += 100
        worker.admit(message(function, "1", "read"))
        worker.run()

    assert worker.state("a/log", "seen") == seen


def test_writing_the_same_value_again_refreshes() -> None:
    worker = Actor(forgetful()).start()
    for text in ("x", "x", "read"):
        worker.admit(message("a/write", "1", text))
        worker.run()
        worker.now_ms += 100

    assert worker.state("a/log", "seen") == "x"


def test_a_value_that_an_awaiting_function_writes_lives_from_then_on() -> None:
    script = Script(PLAYS, awaiting=["a/write"], states=EXPIRING)
    worker = Actor(script).start()
    worker.admit(message("a/write", "1", "x"))
    worker.run()
    worker.now_ms += 10_000  # nothing else happens meanwhile
    worker.finish(({0: b"x"}, [], [], []))
    worker.now_ms += 159
    worker.run()

    assert worker.state("a/write", "1") == "x"


@pytest.mark.parametrize(("after_ms", "is_found"), [(159, True), (160, False)])
def test_time_passes_for_values_while_the_application_is_down(after_ms: int, is_found: bool) -> None:
    stage = Stage(forgetful())
    stage.admit(message("a/write", "1", "x"))
    stage.run()
    later = stage.restarted(entry=stage.snapshot(), now_ms=NOW + after_ms)
    later.actors[0].open_feed()
    later.actors[0].hear(frames.Query(1, "a/write", "1", False))

    [answer] = later.actors[0].fed(frames.State)
    assert answer.found is is_found
    later.admit(message("a/write", "1", "read"))
    later.run()
    assert later.state("a/log", "seen") == ("x" if is_found else "-")


# --- ingress -------------------------------------------------------------------------------------


def test_hello_names_the_key_groups_and_where_to_go_on() -> None:
    worker = actor(worker=1, worker_count=2, feed_window=10)
    worker.core.feed_opened("log")
    worker.perform()
    [hello] = worker.fed(frames.Hello)
    assert (hello.app_name, hello.generation, hello.worker_index, hello.worker_count) == ("app", 1, 1, 2)
    assert hello.positions == [(32, 64, 0)]
    assert hello.credit_events == 10

    worker.events(0, message("a/log", id_of(1, 2), "x"), to=7)
    worker.core.feed_closed("log")
    worker.open_feed()

    assert worker.fed(frames.Hello)[0].positions == [(32, 64, 7)]


def test_a_gap_in_the_feed_ends_the_generation() -> None:
    worker = actor()
    worker.open_feed()
    with pytest.raises(
        ProtocolViolation, match="ingress log log: the feed continues at sequence 5, expected 0"
    ):
        worker.events(5, message("a/log", "1", "x"))


def test_credit_is_given_as_events_come_in_and_not_while_too_much_waits() -> None:
    worker = actor(feed_window=4, backlog_max=4)
    worker.admit(*(message("a/slow", str(number), "x") for number in range(4)))
    worker.run()
    assert worker.fed(frames.Credit) == [], "four of four wait"

    worker.finish()
    worker.run()
    assert [credit.total_events for credit in worker.fed(frames.Credit)] == [8]


def test_a_paused_worker_gives_no_credit() -> None:
    worker = actor(feed_window=4)
    worker.pulse(paused=True)
    worker.admit(*(message("a/log", "1", "x") for _ in range(4)))
    worker.run()
    assert worker.fed(frames.Credit) == []

    worker.pulse(paused=False)
    worker.run()
    assert len(worker.fed(frames.Credit)) == 1


def test_a_refusal_by_the_ingress_ends_the_worker() -> None:
    worker = actor()
    worker.open_feed()
    worker.hear(frames.Refused("events are missing"))

    assert worker.deaths == ["ingress log log refused this worker: events are missing"]


def test_messages_of_other_generations_change_nothing() -> None:
    worker = actor()
    worker.core.control(Trigger(2, 1, "periodic", 0), NOW)
    worker.core.control(Pulse(2, True), NOW)
    worker.perform()

    assert worker.parts == []
    assert not worker.core._paused


def test_a_worker_is_quiet_when_nothing_is_left_but_parked_addresses() -> None:
    worker = actor()
    assert not worker.core.is_quiet("log", 0), "the log has not been opened"
    worker.admit(message("a/unknown", "1", "x"), message("a/log", "1", "x"))
    assert not worker.core.is_quiet("log", 2)
    worker.run()

    assert worker.core.is_quiet("log", 2)
    assert not worker.core.is_quiet("log", 3)


def test_the_counters_balance_at_any_moment() -> None:
    def spread(call: Call) -> None:
        depth = int(call.text)
        if depth:
            for _, id in zip(range(2), ids_of(depth % 2, 2), strict=False):
                call.send("a/spread", id, str(depth - 1))
            call.send_after(depth, "a/spread", call.id, "0")

    stage = Stage(Script({"a/spread": spread}), 2)
    stage.admit(message("a/spread", "1", "6"), message("a/unknown", "2", "x"))
    for step in range(40):
        for actor in stage.actors:
            actor.now_ms += 1
            actor.turn(limit=1 + step % 3)
        if step % 4 == 0:
            entry = stage.snapshot("reply" if step % 8 else "periodic")
            count = entry.counters
            assert count["admitted"] + count["emitted"] + count["timers_fired"] == (
                count["applied"] + entry.in_flight + count["timers_replied"]
            )
    assert entry.counters["applied"] > 20
