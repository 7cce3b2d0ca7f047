"""State declarations are checked when they are made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statefun_sdk import IntType, UserTypeError, UserValueError, ValueSpec


@pytest.mark.parametrize("name", ["count", "a1", "_a", "é", "with_underscore", "match"])
def test_lower_case_identifiers_are_names(name: str) -> None:
    assert ValueSpec(name, IntType).name == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "needs a name"),
        (None, "needs a name"),
        ("a-b", "not a Python identifier"),
        ("1a", "not a Python identifier"),
        ("class", "Python keyword"),
        ("Count", "must be lower case"),
        ("_", "must be lower case"),
        ("_1", "must be lower case"),
    ],
)
def test_other_names_are_refused(name: Any, text: str) -> None:
    with pytest.raises(UserValueError, match=text):
        ValueSpec(name, IntType)


def test_a_name_is_text() -> None:
    with pytest.raises(UserTypeError, match="must be a str"):
        ValueSpec(7, IntType)  # type: ignore[arg-type]


def test_a_type_is_needed() -> None:
    with pytest.raises(UserValueError, match="state 'a' has no type"):
        ValueSpec("a", None)  # type: ignore[arg-type]
    with pytest.raises(UserTypeError, match="must be a statefun Type such as IntType, not <class 'int'>"):
        ValueSpec("a", int)  # type: ignore[arg-type]


def test_without_expiration_a_value_stays() -> None:
    spec = ValueSpec(name="a", type=IntType)
    assert (spec.duration, spec.after_call, spec.after_write, spec.expire_mode) == (0, False, False, "none")
    assert repr(spec) == "ValueSpec('a', 'io.statefun.types/int')"


def test_expiration_after_a_call() -> None:
    spec = ValueSpec("a", IntType, expire_after_call=timedelta(days=1, microseconds=1999))
    assert (spec.duration, spec.after_call, spec.after_write) == (86_400_001, True, False)
    assert spec.expire_mode == "after_call"
    assert repr(spec) == "ValueSpec('a', 'io.statefun.types/int', expire_after_call=86400001 ms)"


def test_expiration_after_a_write() -> None:
    spec = ValueSpec("a", IntType, expire_after_write=timedelta(seconds=2))
    assert (spec.duration, spec.after_call, spec.after_write) == (2_000, False, True)
    assert spec.expire_mode == "after_write"


def test_only_one_expiration_may_be_given() -> None:
    second = timedelta(seconds=1)
    with pytest.raises(UserValueError, match="keep one of them"):
        ValueSpec("a", IntType, expire_after_call=second, expire_after_write=second)


def test_a_zero_expiration_counts_as_not_given() -> None:
    second = timedelta(seconds=1)
    spec = ValueSpec("a", IntType, expire_after_call=timedelta(0), expire_after_write=second)
    assert (spec.duration, spec.expire_mode) == (1_000, "after_write")


@pytest.mark.parametrize("duration", [timedelta(microseconds=999), timedelta(seconds=-1)])
def test_an_expiration_shorter_than_a_millisecond_is_refused(duration: timedelta) -> None:
    with pytest.raises(
        UserValueError, match=r"expire_after_write of state 'a' .* shortest expiration is 1 milli"
    ):
        ValueSpec("a", IntType, expire_after_write=duration)


def test_an_expiration_is_a_timedelta() -> None:
    with pytest.raises(UserTypeError, match="expire_after_call of state 'a' must be a timedelta, not 5"):
        ValueSpec("a", IntType, expire_after_call=5)  # type: ignore[arg-type]
