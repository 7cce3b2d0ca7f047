"""After any rescale every event of a log is taken once: by the old owners or by the new."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statefun_ray.core.key_groups import key_group_of
from statefun_ray.core.message import Message
from statefun_ray.core.positions import Interval, LogPosition, clip
from tests.unit.statefun_ray.core.staging import message

GROUPS = 16
LOG = [message("a/b", f"id-{number % 40}", str(number)) for number in range(60)]


def group_of(event: Message) -> int:
    return key_group_of(event[1], GROUPS)


def take(position: LogPosition, low: int, high: int, end: int, step: int) -> list[Message]:
    """Let a feed hand over what there is up to ``end``, ``step`` sequences at a time."""
    taken = []
    while position.next_sequence < end:
        first = position.next_sequence
        upto = min(first + step, end)
        found = [sequence for sequence in range(first, upto) if low <= group_of(LOG[sequence]) < high]
        taken += position.admit(first, upto, found, [LOG[sequence] for sequence in found])
    return taken


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Ranges of key groups that together are all there are."""
    inner = sorted(draw(st.sets(st.integers(1, GROUPS - 1), max_size=5)))
    return list(zip([0, *inner], [*inner, GROUPS], strict=True))


@settings(max_examples=60)
@given(st.lists(st.tuples(cuts(), st.data()), min_size=1, max_size=4), st.integers(1, 20))
def test_every_event_is_taken_once_over_any_series_of_rescales(
    generations: list[tuple[list[tuple[int, int]], st.DataObject]], step: int
) -> None:
    intervals: list[Interval] = []
    taken: list[Message] = []
    generations = [*generations, ([(0, GROUPS)], generations[-1][1])]

    for number, (ranges, data) in enumerate(generations):
        left: list[Interval] = []
        for low, high in ranges:
            position = LogPosition(clip(intervals, low, high), GROUPS)
            is_last = number == len(generations) - 1
            end = len(LOG) if is_last else data.draw(st.integers(0, len(LOG)))
            taken += take(position, low, high, end, step)
            left += position.intervals
        intervals = left

    assert sorted(taken, key=lambda event: int(event[5] or b"")) == LOG
    assert intervals == [(0, GROUPS, len(LOG))], "level again, so one interval again"


@given(st.lists(st.tuples(cuts(), st.integers(0, 50)), min_size=1, max_size=1), cuts())
def test_clipped_intervals_cover_the_range_without_overlap(
    before: list[tuple[list[tuple[int, int]], int]], after: list[tuple[int, int]]
) -> None:
    [(ranges, sequence)] = before
    intervals = [(low, high, sequence + low) for low, high in ranges]

    for low, high in after:
        clipped = clip(intervals, low, high)
        assert clipped[0][0] == low
        assert clipped[-1][1] == high
        assert all(left[1] == right[0] for left, right in itertools.pairwise(clipped))
        for start, end, at in clipped:
            assert any(first <= start and end <= last and at == found for first, last, found in intervals)


def test_a_log_nobody_has_read_starts_at_its_beginning() -> None:
    assert clip([], 4, 8) == [(4, 8, 0)]
    assert clip([(0, 5, 9), (7, 9, 3)], 4, 10) == [(4, 5, 9), (5, 7, 0), (7, 9, 3), (9, 10, 0)]


def test_a_gap_in_the_feed_is_refused() -> None:
    position = LogPosition([(0, GROUPS, 10)], GROUPS)

    with pytest.raises(ValueError, match="continues at sequence 11, expected 10"):
        position.admit(11, 12, [11], [LOG[11]])


def test_what_comes_again_after_a_reconnect_is_skipped() -> None:
    position = LogPosition([(0, GROUPS, 0)], GROUPS)
    position.admit(0, 5, [0, 1, 2, 3, 4], LOG[:5])

    assert position.admit(3, 7, [3, 4, 5, 6], LOG[3:7]) == LOG[5:7]
    assert position.admit(0, 7, list(range(7)), LOG[:7]) == []
    assert position.next_sequence == 7


def test_an_event_of_a_stranger_is_refused() -> None:
    position = LogPosition([(0, 1, 0), (1, 2, 5)], GROUPS)
    stranger = next(event for event in LOG if group_of(event) > 1)

    with pytest.raises(ValueError, match="outside"):
        position.admit(0, 1, [0], [stranger])


def test_frames_without_events_move_the_position() -> None:
    position = LogPosition([(0, 8, 3), (8, 16, 7)], GROUPS)

    assert position.admit(3, 6, [], []) == []
    assert position.intervals == [(0, 8, 6), (8, 16, 7)]
    position.admit(6, 9, [], [])
    assert position.intervals == [(0, 16, 9)]
