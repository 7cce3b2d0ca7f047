"""``context.storage``: the states of the running instance as attributes.

Every function gets a storage class of its own, with one property per state. Values stay
bytes: reading decodes, assigning encodes at once, so nothing that user code can still
change is ever kept, and changing a read object in place changes nothing.

A storage buffers. What was assigned or deleted lies in ``_Writes`` by position of the
spec until the runtime takes it (the call succeeded) or discards it (it did not).

Names of states are lower case. What a storage has besides them begins with a capital, so that
no state can be called the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from statefun_sdk.errors import UserValueError
from statefun_sdk.specs import ValueSpec
from statefun_sdk.types import codec_of


class StateTable(Protocol):
    """Where a storage reads one state: id to bytes, such as a dict.

    The bytes are of the spec's type. Whoever cannot promise that, because values came over
    a wire with a typename each, passes a table whose ``get`` compares and raises.
    """

    def get(self, id: str, /) -> bytes | None:
        """Return the stored bytes, None if there are none."""


_OF_PYTHON = frozenset(
    {
        "__classcell__",
        "__delattr__",
        "__getattr__",
        "__getattribute__",
        "__init__",
        "__new__",
        "__qualname__",
        "__setattr__",
        "__slots__",
    }
)
"""With what Python makes an object and gets at its attributes: a state cannot stand in for it."""


class Storage:
    """Base of the generated classes; knows everything but the states' names.

    The members belong to the runtime that runs the function.

    Attributes:
        _Id: the instance whose states are read.
        _Tables: where they are read, one per spec in the order of declaration.
        _Writes: what became of them, by place of the spec; None for deleted. It stays when another
            message of a batch comes, which builds on it.
    """

    __slots__ = ("_Id", "_Tables", "_Writes")

    def __init__(self, tables: Sequence[StateTable]) -> None:
        """Read from ``tables``."""
        self._Tables = tables
        self._Id = ""
        self._Writes: dict[int, bytes | None] = {}


def storage_class_for(typename: str, specs: Sequence[ValueSpec]) -> type[Storage]:
    """Make the storage class of the function ``typename``.

    Raises:
        UserValueError: two specs share a name, or a name is one that Python needs.
    """
    members: dict[str, Any] = {"__slots__": ()}
    for index, spec in enumerate(specs):
        if spec.name in _OF_PYTHON:
            raise UserValueError(
                f"function {typename!r}: state name {spec.name!r} is taken by Python itself; choose another"
            )
        if spec.name in members:
            raise UserValueError(
                f"function {typename!r} declares state {spec.name!r} twice; rename one of them"
            )
        members[spec.name] = _state_property(index, typename, spec)
    # Python's own AttributeError for an undeclared state then names the function.
    return type(f"Storage[{typename}]", (Storage,), members)


def _state_property(index: int, typename: str, spec: ValueSpec) -> property:
    encode, decode = codec_of(spec.type)
    name = spec.name

    def read(self: Storage) -> Any:
        if self._Writes and index in self._Writes:
            data = self._Writes[index]
        else:
            data = self._Tables[index].get(self._Id)
        return None if data is None else decode(data)

    def write(self: Storage, value: Any) -> None:
        if value is None:
            raise UserValueError(
                f"function {typename!r} assigned None to state {name!r}; "
                f"use `del context.storage.{name}` to delete it"
            )
        self._Writes[index] = encode(value)

    def delete(self: Storage) -> None:
        self._Writes[index] = None

    return property(read, write, delete, f"State {name!r}: {spec.type.typename}, None if absent.")
