from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints.model import Position
from statefun_ray.core.splits import Splits, belongs_to, reader_of, split_name

A0, A1, B0 = (split_name("shop/in", *place) for place in (("a", 0), ("a", 1), ("b", 0)))


def splits(worker: int = 0, workers: int = 1) -> Splits:
    return Splits(worker=worker, worker_count=workers, key_group_count=16)


def test_a_split_is_opened_once_and_only_moves_forward() -> None:
    ours = splits()
    ours.open(A0, 5)
    ours.advance(A0, 7)
    ours.open(A0, 0)
    assert ours.positions() == [Position(A0, 0, 16, 7)]
    assert ours.position(A0) == 7
    with pytest.raises(ValueError, match="continues at 6, expected 7"):
        ours.advance(A0, 6)
    with pytest.raises(ValueError, match="expected None"):
        ours.advance(A1, 6)


def test_a_split_goes_back_when_it_is_told_so() -> None:
    ours = splits()
    ours.open(A0, 7)
    ours.reset(A0, 2)
    ours.advance(A0, 3)
    assert ours.positions() == [Position(A0, 0, 16, 3)]
    with pytest.raises(ValueError, match="never opened"):
        ours.reset(A1, 0)


def test_a_split_tells_whose_it_is() -> None:
    assert belongs_to(A0, "shop/in")
    assert not belongs_to(A0, "shop/i")
    assert not belongs_to("log-1", "shop/in")


def test_a_split_of_another_worker_is_not_opened() -> None:
    mine = reader_of(A0, 2)
    splits(mine, 2).open(A0, 0)
    with pytest.raises(ValueError, match=f"read by worker {mine}"):
        splits(1 - mine, 2).open(A0, 0)


@given(workers=st.integers(1, 7), before=st.integers(1, 7), partitions=st.integers(1, 20))
def test_positions_survive_any_change_of_the_number_of_workers(
    workers: int, before: int, partitions: int
) -> None:
    names = [split_name("shop/in", "t", partition) for partition in range(partitions)]
    old = [splits(worker, before) for worker in range(before)]
    for number, name in enumerate(names):
        old[reader_of(name, before)].open(name, number)
    rows = [row for worker in old for row in worker.positions()] + [Position("log", 0, 16, 3)]
    new = [splits(worker, workers) for worker in range(workers)]
    for worker in new:
        worker.restore(rows)
    after = sorted((row for worker in new for row in worker.positions()), key=str)
    assert after == sorted(rows[:-1], key=str)
    # Partitions of a topic go round, so no worker reads two more than another.
    shares = [len(worker.positions()) for worker in new]
    assert max(shares) - min(shares) <= 1


def test_a_split_is_late_when_its_topic_had_fewer_when_it_was_first_seen() -> None:
    before = splits()
    before.found("shop/in", "a", 1)
    before.found("shop/in", "a", 2)
    before.open(A0, 3)
    ours = splits()
    ours.restore(before.rows())
    ours.found("shop/in", "a", 2)
    assert ours.rows() == [Position(A0, 0, 16, 3), Position("kafka-topic:shop/in/a", 0, 0, 1)]
    assert ours.is_late(A1)
    assert not ours.is_late(B0)
    assert not splits().is_late(A0)


def test_a_split_that_was_not_open_at_the_first_snapshot_is_not_late() -> None:
    early = splits()
    early.found("shop/in", "a", 2)
    early.open(A0, 3)
    ours = splits()
    ours.restore(early.rows())
    assert not ours.is_late(A1)


def test_where_workers_saw_a_topic_grow_what_one_of_them_saw_added_is_late() -> None:
    rows = []
    for count in (2, 1, 2):
        worker = splits()
        worker.found("shop/in", "a", count)
        rows += worker.rows()
    ours = splits()
    ours.restore(rows)
    assert not ours.is_late(A0)
    assert ours.is_late(A1)


def test_what_a_snapshot_of_an_earlier_version_does_not_know_of_a_known_topic_is_late() -> None:
    rows = [Position(A0, 0, 16, 3)]
    ours = splits()
    ours.restore(rows)
    ours.found("shop/in", "a", 2)
    assert ours.rows() == rows
    assert ours.is_late(A1)
    assert not ours.is_late(B0)
