from __future__ import annotations

import pickle

import pytest

from statefun_ingress import errors

ALL = [
    errors.LogFailed("l", "OSError: disk"),
    errors.LogLocked("/var/log"),
    errors.CorruptLog("0.segment", 7, "bad"),
    errors.LogTrimmed("l", 3, 9),
    errors.SequenceTooFarAhead("p", 2000, 5, 1024),
    errors.SequenceReused("p", 7, 100),
    errors.TooManyProducers("p", 10),
    errors.TooManyPendingReplies(10),
    errors.FrameError("garbage"),
    errors.RequestRefused(429, "Slow down", "found this", 2),
    errors.CannotListen("127.0.0.1", 80, "--http", "taken"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_errors_survive_the_way_to_another_process(error: errors.IngressError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_every_error_is_tried() -> None:
    leaves = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.IngressError) and not value.__subclasses__()
    }

    assert {type(error) for error in ALL} == leaves
