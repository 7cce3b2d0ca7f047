"""Errors survive pickling and say what to do."""

from __future__ import annotations

import pickle

import pytest

from statefun_checkpoints import errors

MADE = [
    errors.StoreError("data/x", "get", "why"),
    errors.StoreUnavailable("data/x", "create", "timeout"),
    errors.StoreRefused("data/x", "put", "AccessDenied"),
    errors.StoreUnsuitable("probe/x", "probe", "overwritten"),
    errors.UnsafePath("../x", "get", "'..'"),
    errors.CorruptObject("a", "b"),
    errors.CorruptEntry("log/1", "its sha256"),
    errors.CorruptPart("data/x", "short"),
    errors.CorruptValue("t of 'x'", "00"),
    errors.MissingObject("a", "b"),
    errors.MissingEntry("log/1", "the log"),
    errors.MissingPart("data/x", "snapshot 4"),
    errors.UnsupportedFormat("log/1", "2", "1"),
    errors.NoApplication("file:///x"),
    errors.NoApplication(""),
    errors.NoSnapshot(None),
    errors.NoSnapshot(7, (9, 6)),
    errors.NoTable("shop/x", ("shop/cart",)),
    errors.NoTable("shop/x", ()),
    errors.JobMismatch("key_group_count", "16", "32"),
    errors.FunctionsChanged(4, ("a is gone", "b too")),
    errors.ClaimContended(16, 4),
    errors.MissingExtra("duckdb", "sql"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: errors.CheckpointsError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_every_error_is_made_above() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    abstract = {errors.CheckpointsError, errors.CheckpointError}
    ours = {kind for kind in below(errors.CheckpointsError) if kind.__module__ == errors.__name__}
    assert ours - abstract == {type(error) for error in MADE}


def test_texts_name_the_way_out() -> None:
    assert str(errors.NoSnapshot(7, (9, 6))) == "no snapshot 7; the nearest: 9, 6"
    assert str(errors.NoSnapshot(None)) == "no snapshot has been committed yet"
    assert "start with key_group_count=16" in str(errors.JobMismatch("key_group_count", "16", "32"))
    assert "\n  - a is gone\n  - b too\n" in str(errors.FunctionsChanged(4, ("a is gone", "b too")))
    assert "pip install 'statefun-ray[sql]'" in str(errors.MissingExtra("duckdb", "sql"))
    assert "outcome is unknown" in str(errors.StoreUnavailable("data/x", "create", "timeout"))


def test_only_damage_is_advised_on() -> None:
    for error in (errors.CorruptPart("data/x", "short"), errors.MissingEntry("log/1", "the log")):
        assert errors.advised(error) == f"{error}; {errors.DAMAGE_ADVICE}"
    for other in (errors.CorruptValue("t of 'x'", "00"), errors.NoSnapshot(None)):
        assert errors.advised(other) == str(other)
