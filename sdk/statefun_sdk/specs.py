"""Declarations of the states a function keeps."""

from __future__ import annotations

import keyword
from datetime import timedelta
from typing import Any, Literal

from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.types import Type

ExpireMode = Literal["none", "after_write", "after_call"]

_MILLISECOND = timedelta(milliseconds=1)


class ValueSpec:
    """One named, typed value per function instance, optionally expiring.

    Attributes:
        name: how ``context.storage`` calls it.
        type: how it is encoded.
        duration: milliseconds until it expires; 0 if it never does.
        after_call: the clock starts again with every call of the instance.
        after_write: the clock starts again with every write of the value.
    """

    __slots__ = ("after_call", "after_write", "duration", "name", "type")

    def __init__(
        self,
        name: str,
        type: Type[Any],
        expire_after_call: timedelta | None = None,
        expire_after_write: timedelta | None = None,
    ) -> None:
        """Declare a state.

        Args:
            name: a lower-case Python identifier that is not a keyword.
            type: of the value.
            expire_after_call: forget the value this long after the last call (or write).
            expire_after_write: forget the value this long after the last write.
                At most one of the two; zero counts as not given.

        Raises:
            UserValueError: the name is not allowed, the type is missing, both expirations are
                given, or one is negative or shorter than a millisecond.
            UserTypeError: an argument is of the wrong Python type.
        """
        self.name = _checked_name(name)
        if type is None:
            raise UserValueError(f"state {name!r} has no type; pass one such as IntType")
        if not isinstance(type, Type):
            raise UserTypeError(
                f"the type of state {name!r} must be a statefun Type such as IntType, not {type!r}"
            )
        self.type = type
        call_ms = _milliseconds(name, "expire_after_call", expire_after_call)
        write_ms = _milliseconds(name, "expire_after_write", expire_after_write)
        if call_ms and write_ms:
            raise UserValueError(
                f"state {name!r} has both expire_after_call and expire_after_write; keep one of them"
            )
        self.duration = call_ms or write_ms
        self.after_call = call_ms > 0
        self.after_write = write_ms > 0

    @property
    def expire_mode(self) -> ExpireMode:
        """What starts the expiration clock again."""
        if self.after_call:
            return "after_call"
        return "after_write" if self.after_write else "none"

    def __repr__(self) -> str:
        expire = "" if self.expire_mode == "none" else f", expire_{self.expire_mode}={self.duration} ms"
        return f"ValueSpec({self.name!r}, {self.type.typename!r}{expire})"


def _checked_name(name: object) -> str:
    if name is None or name == "":
        raise UserValueError("a state needs a name")
    if not isinstance(name, str):
        raise UserTypeError(f"the name of a state must be a str, not {name!r}")
    if not name.isidentifier():
        raise UserValueError(f"state name {name!r} is not a Python identifier")
    if keyword.iskeyword(name):
        raise UserValueError(f"state name {name!r} is a Python keyword; choose another")
    if not name.islower():
        raise UserValueError(f"state name {name!r} must be lower case with at least one letter")
    return name


def _milliseconds(name: str, argument: str, duration: object) -> int:
    """Return whole milliseconds, 0 for "not given"."""
    if duration is None:
        return 0
    if not isinstance(duration, timedelta):
        raise UserTypeError(f"{argument} of state {name!r} must be a timedelta, not {duration!r}")
    if not duration:
        return 0
    if duration < _MILLISECOND:
        raise UserValueError(
            f"{argument} of state {name!r} is {duration}; the shortest expiration is 1 millisecond"
        )
    return duration // _MILLISECOND
