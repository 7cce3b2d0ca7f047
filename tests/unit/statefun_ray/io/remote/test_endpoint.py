"""What a service bears: a limit that grows, falls, pauses and probes."""

from __future__ import annotations

from itertools import pairwise

from statefun_ray.io.remote.endpoint import (
    LIMIT_SLOW,
    LIMIT_START,
    PROBE_MS_MAX,
    PROBE_MS_MIN,
    REFUSED_DELAY_MS,
    RETRY_AFTER_MS_MAX,
    SUSPICIOUS_MAX,
    TROUBLED_MAX,
    EndpointState,
)

ADA, BOB = ("a/b", "ada"), ("a/b", "bob")


def grown(limit_max: int = 1_024, to: int = 64) -> EndpointState:
    state = EndpointState("service", limit_max)
    while state.limit(0) < to:
        answer_all(state)
    return state


def answer_all(state: EndpointState, now_ms: float = 0) -> None:
    """Let a full load of requests succeed."""
    count = state.limit(now_ms)
    for _ in range(count):
        state.begun()
    for _ in range(count):
        state.succeeded(1)


def test_it_starts_small_and_grows_steeply_up_to_the_pool() -> None:
    state = EndpointState("service", 50)
    limits = []
    for _ in range(8):
        limits.append(state.limit(0))
        answer_all(state)
    assert limits[0] == LIMIT_START
    assert all(1.3 < later / earlier <= 2 for earlier, later in pairwise(limits[:4]))
    assert state.limit(0) == 50


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    state = EndpointState("service", 50)
    for _ in range(100):
        state.begun()
        state.succeeded(1)
    assert state.limit(0) == LIMIT_START


def test_a_refusal_halves_the_limit_once_per_round_and_from_there_it_grows_slowly() -> None:
    state = grown(to=64)
    before = state.limit(0)
    rounds = [state.begun() for _ in range(10)]
    delays = [state.refused(each, 0, None, "503", ("a/b", str(n))) for n, each in enumerate(rounds)]

    assert delays == [REFUSED_DELAY_MS] * 10
    assert state.limit(0) == before // 2
    assert not state.is_down
    answer_all(state)
    assert state.limit(0) <= before // 2 + 1


def test_an_address_that_is_asked_to_come_later_waits_for_itself() -> None:
    state = grown(to=64)
    for _ in range(SUSPICIOUS_MAX - 1):
        limit = state.limit(0)
        assert state.refused(state.begun(), 0, 60_000, "503", ADA) == 60_000
        assert state.pause_ends_ms(0) is None
        assert state.limit(0) >= limit // 2, "others go on"
        answer_one(state)
    assert state.refused(state.begun(), 0, 60_000, "503", ADA) is None, "and in the end it is to blame"


def test_addresses_that_are_asked_to_come_later_pause_the_service_if_nobody_has_a_result_between() -> None:
    state = grown()
    begun = [state.begun() for _ in range(3)]
    assert state.refused(begun[0], 1_000, 5_000, "503", ADA) == 5_000
    assert state.pause_ends_ms(1_000) is None
    assert state.refused(begun[1], 1_000, 5_000, "503", BOB) == 0, (
        "the lane waits, so the batch need not, and a request of an earlier round says that as well"
    )
    assert state.refused(begun[2], 2_000, 1_000, "503", ("a/b", "cy")) == 0

    assert state.limit(5_999) == 0
    assert state.pause_ends_ms(1_000) == 6_000
    assert state.limit(6_000) > 0
    assert state.pause_ends_ms(6_000) is None


def test_addresses_that_are_asked_to_come_later_pause_nothing_while_others_are_served() -> None:
    state = grown()
    for number in range(100):
        assert state.refused(state.begun(), 0, 60_000, "429", ("a/b", str(number))) == 60_000
        assert state.pause_ends_ms(0) is None
        answer_one(state)


def test_an_address_that_comes_again_after_a_pause_makes_no_other() -> None:
    state = grown()
    for who in (ADA, BOB):
        state.refused(state.begun(), 0, 1_000, "429", who)
    assert state.pause_ends_ms(0) == 1_000
    for who in (ADA, BOB):
        assert state.refused(state.begun(), 1_000, 1_000, "429", who) == 1_000
    assert state.pause_ends_ms(1_000) is None
    assert state.refused(state.begun(), 1_000, 1_000, "429", ("a/b", "cy")) == 0
    assert state.pause_ends_ms(1_000) == 2_000, "one more of those that wait is told the same"


def test_no_service_may_ask_for_a_pause_of_a_day() -> None:
    state = grown()
    for who in (ADA, BOB):
        state.refused(state.begun(), 0, 86_400_000, "503", who)
    assert state.pause_ends_ms(0) == RETRY_AFTER_MS_MAX


def test_a_service_that_is_gone_is_probed_ever_more_rarely() -> None:
    state = grown()
    waits = []
    now_ms = 0.0
    for number in range(12):
        state.unreachable(state.begun(), now_ms, "refused", ("a/b", str(number)))
        assert state.is_down
        assert state.limit(now_ms) == 0
        ends_ms = state.pause_ends_ms(now_ms)
        assert ends_ms is not None
        waits.append(ends_ms - now_ms)
        now_ms = ends_ms
        assert state.limit(now_ms) == 1
    assert waits[:3] == [PROBE_MS_MIN, 2 * PROBE_MS_MIN, 4 * PROBE_MS_MIN]
    assert waits[-1] == PROBE_MS_MAX


def test_requests_that_fail_together_are_one_sign() -> None:
    state = grown()
    rounds = [state.begun() for _ in range(20)]
    for number, each in enumerate(rounds):
        state.unreachable(each, 0, "reset", ("a/b", str(number)))
    assert state.pause_ends_ms(0) == PROBE_MS_MIN
    assert state.in_flight == 0


def test_when_it_is_back_it_is_not_flooded() -> None:
    state = grown(to=64)
    state.unreachable(state.begun(), 0, "refused", ADA)
    assert state.limit(PROBE_MS_MIN) == 1
    state.begun()
    state.succeeded(1)

    assert not state.is_down
    assert state.limit(PROBE_MS_MIN) == LIMIT_START


def test_a_bad_answer_is_an_answer() -> None:
    state = grown()
    before = state.limit(0)
    state.begun()
    state.answered_badly(ADA)
    assert state.limit(0) == before

    state.unreachable(state.begun(), 0, "refused", ADA)
    state.begun()
    state.answered_badly(ADA)
    assert not state.is_down


def test_a_service_that_refuses_every_probe_is_down() -> None:
    state = EndpointState("service", 8)
    now_ms = 0.0
    while not state.is_down:
        state.refused(state.begun(), now_ms, None, "503", ADA)
    assert state.limit(now_ms) == 0


def test_time_outs_slow_down_but_leave_room_for_functions_that_are_fast() -> None:
    state = grown(to=64)
    for _ in range(10):
        state.timed_out(state.begun(), ADA)
    assert state.limit(0) == LIMIT_SLOW
    assert not state.is_down

    small = EndpointState("service", 4)
    small.timed_out(small.begun(), ADA)
    assert small.limit(0) == 4


def test_requests_and_failures_are_counted() -> None:
    state = EndpointState("service", 8)
    for _ in range(4):
        state.begun()
        state.succeeded(1)
    state.unreachable(state.begun(), 0, "refused", ADA)
    state.begun()

    assert (state.requests, state.failures, state.in_flight) == (6, 1, 1)
    state.abandoned()
    assert state.in_flight == 0


def answer_one(state: EndpointState) -> None:
    state.begun()
    state.succeeded(1)


def test_an_address_that_is_refused_alone_is_to_blame_in_the_end_and_disturbs_nobody_any_more() -> None:
    state = grown()
    delays: list[int | None] = []
    for _ in range(SUSPICIOUS_MAX - 1):
        delays.append(state.unreachable(state.begun(), 0, "closed", ADA))
        answer_one(state)
    assert delays == [0, 200, 400, 800], "it comes again ever more rarely"

    limit = state.limit(0)
    assert state.unreachable(state.begun(), 0, "closed", ADA) is None
    assert state.refused(state.begun(), 0, 60_000, "503", ADA) is not None, "nobody had a result since"
    answer_one(state)
    assert state.refused(state.begun(), 60_000, 60_000, "503", ADA) is None
    assert not state.is_down
    assert state.limit(60_000) >= limit // 2


def test_a_refusal_of_one_address_does_not_lengthen_the_pauses_for_others_again_and_again() -> None:
    state = grown()
    for _ in range(20):
        state.unreachable(state.begun(), 0, "closed", ADA)
        assert state.pause_ends_ms(0) in (PROBE_MS_MIN, 2 * PROBE_MS_MIN)
    assert state.unreachable(state.begun(), 0, "closed", ADA) == PROBE_MS_MAX, "its own pause is long"


def test_nobody_is_to_blame_for_an_outage_however_long_and_however_often() -> None:
    state = grown()
    for _ in range(100):
        assert state.unreachable(state.begun(), 0, "closed", ADA) is not None
    answer_one(state)  # it was back for a moment
    for _ in range(100):
        assert state.unreachable(state.begun(), 0, "closed", BOB) is not None
        assert state.refused(state.begun(), 0, None, "503", ADA) is not None


def test_probes_of_a_service_that_comes_and_goes_are_not_held_against_their_address() -> None:
    state = grown()
    for _ in range(100):
        state.unreachable(state.begun(), 0, "closed", BOB)
        state.troubled.pop(BOB)
        assert state.is_down
        assert state.unreachable(state.begun(), 0, "closed", ADA) is not None
        answer_one(state)


def test_a_result_ends_the_row() -> None:
    state = grown()
    for _ in range(3 * SUSPICIOUS_MAX):
        for _ in range(SUSPICIOUS_MAX - 1):
            assert state.unreachable(state.begun(), 0, "closed", ADA) is not None
            answer_one(state)
        state.troubled.pop(ADA)


def test_refusals_are_remembered_of_so_many_addresses_at_most() -> None:
    state = grown()
    for number in range(TROUBLED_MAX + 10):
        state.unreachable(state.begun(), 0, "closed", ("a/b", str(number)))
    assert len(state.troubled) == TROUBLED_MAX
    assert ("a/b", "9") not in state.troubled
