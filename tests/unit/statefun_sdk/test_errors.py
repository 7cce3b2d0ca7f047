"""Errors travel between processes and are caught by the names the official SDK uses."""

from __future__ import annotations

import pickle

import pytest

from statefun_sdk.errors import (
    StateFunError,
    UndecodableValueError,
    UnknownFunctionError,
    UserError,
    UserKeywordError,
    UserTypeError,
    UserValueError,
)

EXAMPLES = [
    UserValueError("wrong"),
    UserTypeError("wrong"),
    UndecodableValueError("a/b", "a reason", b"\x01" * 40),
    UnknownFunctionError("a/b", ["c/d"]),
    UserKeywordError("wrong"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: StateFunError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


BUILTINS = [ValueError, TypeError, ValueError, KeyError, (TypeError, KeyError)]


@pytest.mark.parametrize(("error", "builtin"), list(zip(EXAMPLES, BUILTINS, strict=True)))
def test_errors_are_user_errors_and_builtin_ones(
    error: StateFunError, builtin: type[Exception] | tuple[type[Exception], ...]
) -> None:
    assert isinstance(error, UserError)
    assert all(isinstance(error, each) for each in (builtin if isinstance(builtin, tuple) else (builtin,)))


def test_texts_say_what_to_do() -> None:
    assert str(EXAMPLES[2]).startswith(f"40 bytes [{'01' * 32}...] are not a a/b: a reason; check that")
    assert (
        str(EXAMPLES[3]) == "no function is bound to 'a/b' (bound: c/d); bind it with @functions.bind('a/b')"
    )
    assert str(EXAMPLES[4]) == "wrong"
    assert "bound: none" in str(UnknownFunctionError("a/b", []))
