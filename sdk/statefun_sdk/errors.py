"""The errors a function author can meet.

Every error of the SDK is a ``UserError``: something in a function, its specs or its
messages has to change. Each also derives from the builtin exception that the official
StateFun SDK raises in the same place (``ValueError``, ``TypeError``, ``KeyError``), so
code written against that one keeps catching it. Where that one stumbles instead, over an
attribute that None has not or in its protobuf, ours is the one that fits.

Errors travel between processes: their constructors take positional data only and hand
it to ``super().__init__``, which is what makes them survive pickling.
"""

from __future__ import annotations

from collections.abc import Sequence


class StateFunError(Exception):
    """Base of all errors raised on purpose by this project."""


class UserError(StateFunError):
    """A function or module has to be fixed; trying again does not help."""


class UserValueError(UserError, ValueError):
    """An argument has the right type but a value that is not allowed."""


class UserTypeError(UserError, TypeError):
    """An argument is of the wrong Python type."""


class UserKeywordError(UserTypeError, KeyError):
    """The keywords of a call do not go together."""

    __str__ = Exception.__str__  # a KeyError shows the repr


class UndecodableValueError(UserValueError):
    """Bytes are not an encoding of the type they were read as."""

    def __init__(self, typename: str, reason: str, data: bytes) -> None:
        super().__init__(typename, reason, data)
        self.typename, self.reason, self.data = typename, reason, data

    def __str__(self) -> str:
        shown = self.data[:32].hex() + ("..." if len(self.data) > 32 else "")
        return (
            f"{len(self.data)} bytes [{shown}] are not a {self.typename}: {self.reason}; "
            f"check that writer and reader use the same type"
        )


class UnknownFunctionError(UserError, KeyError):
    """No function is bound to a typename."""

    def __init__(self, typename: str, known: Sequence[str]) -> None:
        super().__init__(typename, tuple(known))
        self.typename, self.known = typename, tuple(known)

    def __str__(self) -> str:
        bound = ", ".join(self.known) or "none"
        return (
            f"no function is bound to {self.typename!r} (bound: {bound}); "
            f"bind it with @functions.bind({self.typename!r})"
        )
