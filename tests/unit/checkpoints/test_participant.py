"""One participant of a snapshot: when it cuts, and what it records until the markers are in."""

from __future__ import annotations

import pytest

from statefun_checkpoints.participant import Participant


def participant(*channels: int, last_cut: int = 0) -> Participant[str]:
    return Participant(channels, last_cut=last_cut)


def test_whatever_comes_first_of_trigger_and_marker_wants_the_cut_and_nothing_after_it() -> None:
    worker = participant(1, 2, last_cut=6)

    assert worker.wants_cut(7)
    worker.begin(7)

    assert not worker.wants_cut(7)
    assert not worker.wants_cut(6), "an older snapshot is over"
    assert worker.wants_cut(8)


def test_what_arrives_between_cut_and_marker_was_in_flight() -> None:
    worker = participant(1, 2)

    worker.record(1, ["before the cut"])
    worker.begin(1)
    worker.record(1, ["a", "b"])
    worker.record(2, ["c"])
    worker.marker(1, 1)
    worker.record(1, ["behind the marker"])
    worker.record(2, ["d"])

    assert worker.open_channels == {2}
    worker.marker(2, 1)
    assert worker.is_complete
    assert worker.recorded() == ["a", "b", "c", "d"]


def test_a_worker_without_peers_is_complete_as_soon_as_it_has_cut() -> None:
    worker = participant()

    assert worker.open_snapshot is None
    worker.begin(1)

    assert worker.is_complete
    assert worker.recorded() == []


def test_a_marker_of_another_snapshot_closes_nothing() -> None:
    worker = participant(1)
    worker.begin(4)
    worker.close()
    worker.begin(5)

    worker.marker(1, 4)
    worker.record(1, ["sent before cut 5 of its sender"])

    assert worker.open_channels == {1}
    assert worker.recorded() == ["sent before cut 5 of its sender"]


def test_a_closed_snapshot_records_nothing_and_its_late_markers_are_harmless() -> None:
    worker = participant(1)
    worker.begin(1)
    worker.close()

    worker.record(1, ["late"])
    worker.marker(1, 1)

    assert not worker.is_complete
    assert worker.open_snapshot is None
    assert worker.last_cut == 1


def test_one_snapshot_at_a_time() -> None:
    worker = participant(1)
    worker.begin(1)

    with pytest.raises(AssertionError, match="cut 2 with snapshot 1 open"):
        worker.begin(2)


def test_cuts_never_go_back() -> None:
    worker = participant(1, last_cut=9)

    with pytest.raises(AssertionError, match="cut 9 after cut 9"):
        worker.begin(9)
