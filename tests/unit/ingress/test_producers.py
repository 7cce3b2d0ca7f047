from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ingress.errors import SequenceTooFarAhead, TooManyProducers
from statefun_ingress.producers import Answer, Producers


def settle(producers: Producers, *sequences: int, producer_id: str = "p") -> None:
    for sequence in sequences:
        producers.check(producer_id, sequence)
        producers.reserve(producer_id, sequence, Answer(100 + sequence, 1))
        producers.settle(producer_id, sequence)


@given(st.integers(0, 1), st.permutations(range(20)), st.integers(2, 30))
def test_every_sequence_is_new_once_and_a_duplicate_from_then_on(
    start: int, order: list[int], window: int
) -> None:
    producers = Producers(window=max(window, 20))
    accepted: set[int] = set()

    for offset in order:
        sequence = start + offset
        assert producers.find("p", sequence, 1) is None
        settle(producers, sequence)
        accepted.add(sequence)
        for known in range(start, 21):
            found = producers.find("p", known, 1)
            assert (found is not None) == (known in accepted)


def test_a_duplicate_gets_the_same_answer() -> None:
    producers = Producers()
    settle(producers, 0, 1)

    assert producers.find("p", 1, 1) == Answer(101, 1)
    assert producers.find("q", 1, 1) is None


def test_a_forgotten_answer_still_is_a_duplicate() -> None:
    producers = Producers(answers_max=1)
    settle(producers, 0, 1)

    assert producers.find("p", 0, 3) == Answer(-1, 3)


def test_a_reserved_sequence_is_no_duplicate_before_it_is_durable() -> None:
    producers = Producers()
    producers.reserve("p", 0, Answer(5, 1))

    assert producers.find("p", 0, 1) is None
    assert producers.find_reserved("p", 0) == Answer(5, 1)
    assert producers.dump() == []
    producers.settle("p", 0)
    assert producers.find("p", 0, 1) == Answer(5, 1)
    assert producers.find_reserved("p", 0) is None
    assert producers.dump() == [("p", 1, [])]


def test_a_sequence_beyond_the_window_names_the_missing_one() -> None:
    producers = Producers(window=4)
    settle(producers, 0, 1, 3, 4)

    settle(producers, 5)  # 2 is missing: 2, 3, 4 and 5 may be open
    with pytest.raises(SequenceTooFarAhead, match="sequence 2 has not been accepted") as caught:
        producers.check("p", 6)
    assert caught.value.expected == 2


def test_a_new_producer_cannot_begin_far_ahead() -> None:
    with pytest.raises(SequenceTooFarAhead, match="send 1 first"):
        Producers(window=4).check("p", 5)


def test_a_producer_may_count_from_one() -> None:
    producers = Producers(window=4)

    settle(producers, *range(1, 20))

    assert producers.dump() == [("p", 20, [])]


def test_a_producer_may_count_from_zero_and_send_it_late() -> None:
    producers = Producers(window=4)
    settle(producers, 1, 2, 3)

    assert producers.find("p", 0, 1) is None
    settle(producers, 0)
    assert producers.dump() == [("p", 4, [])]


def test_the_number_of_producers_is_bounded() -> None:
    producers = Producers(producers_max=2)
    settle(producers, 0, producer_id="a")
    producers.reserve("b", 0, Answer(0, 1))

    with pytest.raises(TooManyProducers, match="'c' is new"):
        producers.check("c", 0)
    producers.check("a", 1)
    producers.check("b", 1)


def test_a_dumped_table_loads_again() -> None:
    producers = Producers()
    settle(producers, 0, 1, 3, 7)
    again = Producers()

    again.load(producers.dump())

    assert again.dump() == producers.dump() == [("p", 2, [3, 7])]
    assert again.find("p", 3, 1) == Answer(-1, 1)
    assert again.find("p", 2, 1) is None
