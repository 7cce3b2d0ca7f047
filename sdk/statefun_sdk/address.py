"""Addresses of function instances, as user code sees them.

An address is a function typename (``namespace/name``) and an id. The hot path passes the
two strings around; ``SdkAddress`` is built only when user code asks for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from statefun_sdk.errors import UserTypeError, UserValueError

# Namespaces that the runtime keeps for itself: reply addresses of the HTTP ingress, and what keeps
# dead letters. So are those that begin as the tables of its own do, which share the keyed store with
# user state.
_RESERVED_NAMESPACES = ("statefun-ray.reply", "io.statefun-ray")
_RESERVED_PREFIX = "~"


@dataclass(frozen=True, slots=True)
class SdkAddress:
    """One function instance.

    Attributes:
        namespace: the part of the typename before its last slash.
        name: the part after it.
        id: which instance of that function.
        typename: ``namespace/name``.
    """

    namespace: str
    name: str
    id: str
    typename: str

    @classmethod
    def of(cls, typename: str, id: str) -> SdkAddress:
        """Return the address of instance ``id`` of the function ``typename``.

        Raises:
            UserValueError: ``typename`` has no slash.
        """
        namespace, name = split_typename(typename)
        return cls._of(namespace, name, id, typename)

    @staticmethod
    def _of(namespace: str, name: str, id: str, typename: str) -> SdkAddress:
        """Make an address from parts known to fit together.

        The initialiser of a frozen dataclass sets each field through a guard and costs
        almost three times as much; functions ask for their address in every call.
        """
        address: Any = _new(_ThawedAddress)
        address.namespace = namespace
        address.name = name
        address.id = id
        address.typename = typename
        address.__class__ = SdkAddress
        return address  # type: ignore[no-any-return]


class _ThawedAddress:
    """An ``SdkAddress`` whose fields can still be set: the same slots, no guard."""

    __slots__ = ("id", "name", "namespace", "typename")


_new: Callable[[type[_ThawedAddress]], _ThawedAddress] = object.__new__


def split_typename(typename: str) -> tuple[str, str]:
    """Return namespace and name of a function or egress typename.

    The last slash splits, as in every StateFun SDK, so ``a/b/c`` is ``c`` in ``a/b``.

    Raises:
        UserValueError: there is no slash.
    """
    namespace, slash, name = typename.rpartition("/")
    if not slash:
        raise UserValueError(f"typename {typename!r} has no slash; write it as 'namespace/name'")
    return namespace, name


def check_function_typename(typename: object) -> str:
    """Return ``typename`` if a function may be bound to it.

    Raises:
        UserTypeError: it is not a string.
        UserValueError: it is not ``namespace/name`` with exactly one slash and two non-empty
            parts (the HTTP routes and module files can name no other), or the namespace
            is reserved for the runtime.
    """
    text = check_qualified(typename, "function typename")
    problem = reserved_namespace(text)
    if problem:
        raise UserValueError(f"function typename {text!r}: {problem}")
    return text


def reserved_namespace(typename: str) -> str:
    """Return why no function may have ``typename``, a sentence about its namespace; "" if one may."""
    namespace = typename.partition("/")[0]
    if namespace not in _RESERVED_NAMESPACES and not namespace.startswith(_RESERVED_PREFIX):
        return ""
    return f"the namespace {namespace!r} is reserved for the runtime; choose another"


def check_qualified(typename: object, what: str) -> str:
    """Return ``typename`` if it is ``namespace/name`` with exactly one slash.

    Args:
        typename: what to check.
        what: how the error text calls it.

    Raises:
        UserTypeError: it is not a string.
        UserValueError: it is empty, or does not have exactly two non-empty parts.
    """
    if not isinstance(typename, str):
        raise UserTypeError(f"{what} must be a str like 'namespace/name', not {typename!r}")
    parts = typename.split("/")
    if len(parts) != 2 or not all(parts):
        raise UserValueError(f"{what} {typename!r} must be 'namespace/name': one slash, two non-empty parts")
    return check_text(typename, what)


def check_id(target_id: object) -> str:
    """Return ``target_id`` if it can be the id of a function instance.

    Raises:
        UserTypeError: it is something else than a string.
        UserValueError: it is missing, empty, or cannot be encoded as UTF-8 (an id is hashed and stored
            as UTF-8, so one that cannot be encoded has no place to live).
    """
    if not target_id:
        raise UserValueError(
            f"target id is missing, found {target_id!r}; name the instance the message is for"
        )
    if not isinstance(target_id, str):
        raise UserTypeError(
            f"target id must be a str, not {type(target_id).__name__} {target_id!r}; convert it with str(...)"
        )
    return check_text(target_id, "target id")


def check_text(text: object, what: str) -> str:
    """Return ``text`` if it is a string that can be hashed, stored and sent as UTF-8.

    Args:
        text: what to check.
        what: how the error text calls it.

    Raises:
        UserTypeError: it is not a string.
        UserValueError: it holds surrogate characters, which UTF-8 has no form for.
    """
    if not isinstance(text, str):
        raise UserTypeError(f"{what} must be a str, not {type(text).__name__} {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserValueError(
                f"{what} {text!r} cannot be encoded as UTF-8; remove the surrogate characters"
            ) from None
    return text
