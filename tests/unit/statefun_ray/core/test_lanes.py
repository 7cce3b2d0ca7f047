"""Lanes: who is started when, and when sources are held back."""

from __future__ import annotations

from statefun_ray.core.addresses import BACKOFF_MS_MIN
from statefun_ray.core.invoker import LaneSpec
from statefun_ray.core.lanes import AWAITING, FULL_MS_MAX, INLINE
from statefun_ray.core.worker import READ_FIRST, STALLED_MS, UPCOMING_MIN
from tests.unit.statefun_ray.core.staging import Actor, Call, Script, Stage, message


def count(call: Call) -> None:
    call.write(call.read() + call.text)
    if call.text == "poison":
        raise ValueError("this is poison")


def actor(waiting_max: int = 0, **config: int) -> Actor:
    remote = {
        "one/": LaneSpec("one", 2, waiting_max),
        "two/": LaneSpec("two", 2, waiting_max),
    }
    return Actor(Script({"a/count": count}, awaiting=["a/slow"], remote=remote), **config).start()


def started(worker: Actor) -> list[str]:
    return [f"{invoke.function_type}/{invoke.id}" for invoke in worker.invokes]


def takes_input(worker: Actor) -> bool:
    return worker.core.takes_input


def finish(worker: Actor, address: str) -> None:
    [invoke] = [each for each in worker.invokes if f"{each.function_type}/{each.id}" == address]
    worker.invokes.remove(invoke)
    worker.core.invocation_done(invoke.invocation_id, None, None, worker.now_ms)
    worker.perform()


def test_a_full_lane_delays_no_other() -> None:
    worker = actor(invocations_max=1)
    worker.admit(*(message(f"one/{name}", "1", "x") for name in "abc"))
    worker.admit(message("two/a", "1", "x"), message("a/slow", "1", "x"), message("a/slow", "2", "x"))
    worker.admit(message("a/count", "1", "x"))
    worker.run()

    assert sorted(started(worker)) == ["a/slow/1", "one/a/1", "one/b/1", "two/a/1"]
    assert worker.state("a/count", "1") == "x"


def test_a_place_that_is_free_goes_to_the_address_that_waits_longest() -> None:
    worker = actor()
    worker.admit(*(message("one/f", id, "x") for id in "1234"))
    worker.run()
    finish(worker, "one/f/2")
    worker.run()

    assert started(worker) == ["one/f/1", "one/f/3"]


def test_a_batch_has_as_many_messages_as_may_wait() -> None:
    for waiting_max, expected in ((0, 1_000), (100, 1_000), (2_500, 2_500)):
        worker = actor(waiting_max)
        worker.admit(message("one/f", "1", "x"))
        worker.run()
        worker.admit(*(message("one/f", "1", "x") for _ in range(3_000)))
        worker.run()
        finish(worker, "one/f/1")
        worker.run()
        [invoke] = worker.invokes
        assert len(invoke.messages) == expected


def test_the_driver_moves_the_limit() -> None:
    worker = actor()
    worker.admit(*(message("one/f", id, "x") for id in "12345"))
    worker.run()
    worker.core.move_lane("one", 1)
    finish(worker, "one/f/1")
    worker.run()
    assert started(worker) == ["one/f/2"], "what is in flight goes on, and counts"

    worker.core.move_lane("one", 4)
    worker.run()
    assert len(worker.invokes) == 4


def test_a_lane_of_limit_0_starts_nothing_and_does_not_keep_the_turns_busy() -> None:
    worker = actor()
    worker.admit(message("one/f", "0", "x"))
    worker.run()
    finish(worker, "one/f/0")
    worker.core.move_lane("one", 0, is_down=True)
    worker.admit(message("one/f", "1", "x"))

    assert not worker.turn()
    assert worker.invokes == []
    assert worker.core.backlog == 1


def test_a_postponed_batch_comes_again_with_what_arrived_meanwhile_and_is_not_to_blame() -> None:
    worker = actor()
    worker.admit(message("one/f", "1", "a"))
    worker.run()
    [invoke] = worker.invokes
    worker.invokes.clear()
    worker.core.move_lane("one", 0, is_down=True)
    worker.core.invocation_postponed(invoke.invocation_id, 0, worker.now_ms)
    worker.admit(message("one/f", "1", "b"))
    worker.run()
    assert worker.invokes == []

    worker.core.move_lane("one", 1)
    worker.run()

    [again] = worker.invokes
    assert [each[5] for each in again.messages] == [b"a", b"b"]
    assert worker.core._store.failures.live == {}
    worker.finish()
    worker.run()
    assert worker.core.backlog == 0


def test_the_next_probe_is_that_of_another_address() -> None:
    worker = actor()
    worker.admit(*(message("one/f", id, "x") for id in "123"))
    worker.run()
    worker.core.move_lane("one", 1)
    probed = []
    for _ in range(6):
        invoke = worker.invokes.pop(0)
        probed.append(invoke.id)
        worker.core.invocation_postponed(invoke.invocation_id, 0, worker.now_ms)
        worker.run()

    assert probed == ["1", "2", "3", "1", "2", "3"]


def test_a_postponed_batch_may_have_to_wait() -> None:
    worker = actor()
    worker.admit(message("one/f", "1", "a"))
    worker.run()
    worker.core.invocation_postponed(worker.invokes.pop().invocation_id, 50, worker.now_ms)
    worker.run()
    assert worker.invokes == []

    worker.later(49)
    assert worker.invokes == []
    worker.later(1)
    assert len(worker.invokes) == 1


def test_an_outage_does_not_use_up_the_time_for_attempts() -> None:
    worker = actor(retry_deadline_ms=1_000)
    worker.admit(message("one/f", "1", "poison"))
    worker.run()
    worker.finish(error="it is poison")
    for _ in range(20):
        worker.later(500)
        worker.core.invocation_postponed(worker.invokes.pop().invocation_id, 1, worker.now_ms)
    worker.later(1)
    worker.finish(error="it is poison")
    assert worker.core.heartbeat(0).parked_count == 0

    worker.later(5_000)
    worker.finish(error="it is poison")
    assert worker.core.heartbeat(0).parked_count == 1


def test_a_batch_has_a_largest_size() -> None:
    worker = actor(batch_max=3)
    worker.admit(message("one/f", "1", "0"))
    worker.run()
    worker.admit(*(message("one/f", "1", str(number)) for number in range(5)))
    worker.finish()
    worker.run()

    assert len(worker.invokes[0].messages) == 3


def test_a_batch_of_large_messages_is_small() -> None:
    worker = actor()
    worker.admit(message("one/f", "1", "0"))
    worker.run()
    worker.admit(*(message("one/f", "1", "x" * 3_000_000) for _ in range(4)), message("one/f", "1", "y"))
    worker.finish()
    worker.run()

    assert len(worker.invokes[0].messages) == 2


def test_sources_wait_while_one_address_has_enough() -> None:
    worker = actor(waiting_max=2)
    worker.admit(*(message("one/f", "1", text) for text in "ab"))
    worker.run()
    assert not worker.core._is_held_back(), "one is in flight, one waits"

    worker.admit(message("one/f", "1", "c"))
    worker.run()
    assert not worker.core._is_held_back(), "both went out together"
    worker.admit(*(message("one/f", "1", text) for text in "de"))
    worker.run()
    assert worker.core._is_held_back()

    worker.finish()
    worker.run()
    assert not worker.core._is_held_back()


def test_an_answer_that_takes_long_does_not_hold_back_the_sources_for_as_long() -> None:
    worker = actor(waiting_max=1)
    worker.admit(message("one/f", "1", "a"))
    worker.run()
    worker.later(5_000)
    worker.admit(message("one/f", "1", "b"), message("one/f", "1", "c"))
    worker.run()
    assert not takes_input(worker)
    assert worker.core.next_due_ms == worker.now_ms + FULL_MS_MAX, "no event would say that sources may go on"

    worker.later(FULL_MS_MAX - 1)
    assert not takes_input(worker)
    worker.later(1)
    assert takes_input(worker)
    assert worker.core.next_due_ms is None


def test_an_address_that_works_through_a_long_queue_holds_back_the_sources_until_it_is_short() -> None:
    worker = actor(waiting_max=2, batch_max=2)
    worker.admit(*(message("one/f", "1", text) for text in "abcdefghij"))
    worker.run()
    held = []
    for _ in range(5):
        worker.later(FULL_MS_MAX - 1)
        held.append(not takes_input(worker))
        worker.finish()
        worker.run()
    assert held == [True, True, True, True, False]


def test_what_waits_for_a_service_that_is_down_stops_other_sources_only_when_it_is_very_much() -> None:
    worker = actor(backlog_max=5, stalled_max=20)
    worker.admit(*(message("one/f", str(n), "x") for n in range(2)))
    worker.run()
    worker.core.move_lane("one", 0, is_down=True)
    worker.admit(*(message("one/f", str(n), "x") for n in range(22)))
    worker.run()
    assert worker.core.backlog == 24
    assert takes_input(worker)

    worker.admit(message("one/f", "1", "x"))
    worker.later(STALLED_MS)
    assert not takes_input(worker)
    worker.core.move_lane("one", 2)
    assert not takes_input(worker), "it is there again, so that waiting helps"


def test_what_waits_for_an_address_that_fails_or_hangs_stops_no_other_source() -> None:
    worker = actor(backlog_max=5, waiting_max=1)
    worker.admit(message("one/f", "fails", "poison"), message("two/f", "hangs", "x"))
    worker.run()
    worker.finish(error="it is poison")
    for id, function in (("fails", "one/f"), ("hangs", "two/f")):
        worker.admit(*(message(function, id, "x") for _ in range(10)))
    worker.run()
    assert not takes_input(worker)

    worker.later(FULL_MS_MAX)
    assert worker.core.backlog == 22
    assert takes_input(worker)


def test_an_address_that_fails_does_not_hold_back_the_sources() -> None:
    worker = actor(waiting_max=1)
    worker.admit(message("one/f", "1", "poison"))
    worker.run()
    worker.admit(message("one/f", "1", "a"))
    worker.run()
    assert worker.core._is_held_back()

    worker.finish(error="it is poison")
    worker.run()
    assert not worker.core._is_held_back(), "that would hold them back for as long as it fails"

    worker.later(BACKOFF_MS_MIN)
    assert not worker.core._is_held_back(), "nor while it is tried again"
    worker.finish()
    worker.run()
    worker.admit(message("one/f", "1", "b"))
    worker.run()
    assert worker.core._is_held_back(), "it works again"
    worker.finish()
    worker.run()
    assert not worker.core._is_held_back()


def test_a_service_that_is_down_does_not_hold_back_the_sources() -> None:
    worker = actor(waiting_max=1)
    worker.admit(message("one/f", "1", "a"))
    worker.run()
    worker.admit(message("one/f", "1", "b"))
    worker.run()
    assert worker.core._is_held_back()

    worker.core.move_lane("one", 1, is_down=True)
    assert not worker.core._is_held_back()


def test_a_function_that_nobody_serves_is_parked_at_once() -> None:
    worker = actor()
    worker.admit(message("three/f", "1", "a"))
    worker.run()

    assert worker.core.heartbeat(0).parked_count == 1


def test_waiting_messages_find_their_lane_after_a_restart() -> None:
    stage = Stage(actor().script)
    stage.admit(*(message("one/f", id, "a") for id in "123"))
    stage.run()
    assert len(stage.actors[0].invokes) == 2
    entry = stage.snapshot()

    again = stage.restarted(entry=entry)
    again.run()

    assert started(again.actors[0]) == ["one/f/1", "one/f/2"]
    assert set(again.actors[0].core._lanes) == {INLINE, AWAITING, "one"}


# --- what the driver asks -------------------------------------------------------------------------


def test_a_lane_is_held_while_its_limit_alone_keeps_invocations_from_beginning() -> None:
    worker = actor()
    worker.admit(*(message("one/f", id, "x") for id in "1234"))
    worker.run()
    worker.core.is_held("one")  # until now it was not: it took all there was

    worker.run()
    assert worker.core.is_held("one")
    finish(worker, "one/f/1")
    worker.run()
    assert worker.core.is_held("one"), "3 has begun, and 4 cannot"
    finish(worker, "one/f/2")
    worker.run()
    assert not worker.core.is_held("one"), "4 has begun, and nothing is left"


def test_a_lane_that_was_not_held_for_a_moment_was_not_held() -> None:
    worker = actor()
    worker.admit(message("one/f", "1", "x"))
    worker.run()
    worker.admit(message("one/f", "2", "x"), message("one/f", "3", "x"))
    worker.run()
    assert not worker.core.is_held("one")
    worker.run()
    assert worker.core.is_held("one")


def test_more_is_read_than_begun_while_there_is_more_to_read() -> None:
    worker = actor()
    worker.admit(message("one/f", "first", "x"))
    worker.run()
    worker.core.move_lane("one", 1_000)
    limit = 4 * READ_FIRST
    worker.admit(*(message("one/f", str(n), "x") for n in range(limit + 1)))

    worker.turn(limit)
    assert len(started(worker)) == 1 + limit // READ_FIRST, "one is left to read"
    worker.turn(limit)  # now as many as the limit allows for, and these are all
    assert len(started(worker)) == 1 + limit + 1


def test_upcoming_batches_are_those_behind_the_ones_in_flight() -> None:
    worker = actor()
    worker.admit(message("one/f", "1", "first"), message("one/f", "2", "first"))
    worker.run()
    worker.admit(*(message("one/f", "1", str(n)) for n in range(UPCOMING_MIN)), message("one/f", "2", "few"))
    worker.run()

    [(function_type, id, messages)] = worker.core.upcoming()
    assert (function_type, id) == ("one/f", "1")
    assert [message[5] for message in messages] == [str(n).encode() for n in range(UPCOMING_MIN)]
    finish(worker, "one/f/1")
    worker.run()
    assert worker.invokes[-1].messages == messages
