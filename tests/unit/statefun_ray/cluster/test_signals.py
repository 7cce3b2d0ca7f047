"""Ctrl-C and SIGTERM while an application starts, and after."""

from __future__ import annotations

import signal

import pytest

from statefun_ray.cluster import signals


def fail(why: str) -> None:
    raise OSError(why)


def test_the_first_signal_ends_a_start_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    steps = []
    with signals.caught():
        signal.raise_signal(signal.SIGTERM)
        steps.append("not reached")
    assert steps == []
    assert capsys.readouterr().out == "stopped while starting; nothing was lost, the next start goes on\n"


def test_what_fails_because_of_a_signal_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with signals.caught():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            fail("others got the signal too")
    assert "nothing was lost" in capsys.readouterr().out


def test_a_failure_without_a_signal_is_one() -> None:
    with pytest.raises(OSError, match="disk"), signals.caught():
        fail("disk")


def test_taking_down_what_was_started_is_not_interrupted() -> None:
    steps = []
    with signals.caught() as caught:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            caught.note(signal.SIGINT, None)
            signal.raise_signal(signal.SIGTERM)
            steps.append("down")
    assert steps == ["down"]


def test_once_it_is_ready_signals_are_only_counted() -> None:
    with signals.caught() as caught:
        caught.only_count()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # by another way, at the same time
        assert caught.count == 1


def test_handlers_of_the_program_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.caught(), signals.held():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_held_comes_when_the_block_is_done() -> None:
    steps = []
    with signals.caught():
        with signals.held():
            signal.raise_signal(signal.SIGINT)
            steps.append("whole")
        steps.append("not reached")
    assert steps == ["whole"]
