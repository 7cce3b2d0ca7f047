"""``context.storage``: the states of the running instance as attributes.

Every function gets a storage class of its own, with one property per state. Values stay
bytes: reading decodes, assigning encodes at once, so nothing that user code can still
change is ever kept, and changing a read object in place changes nothing.

A storage buffers. What was assigned or deleted lies in ``_writes`` by position of the
spec until the runtime takes it (the call succeeded) or discards it (it did not).
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


class Storage:
    """Base of the generated classes; knows everything but the states' names.

    The underscored members belong to the runtime that runs the function.
    """

    __slots__ = ("_id", "_tables", "_writes")

    def __init__(self, tables: Sequence[StateTable]) -> None:
        """Read from ``tables``, one per spec in the order of declaration."""
        self._tables = tables
        self._id = ""
        self._writes: dict[int, bytes | None] = {}

    def _begin(self, id: str) -> None:
        """Turn to instance ``id``. Buffered writes stay: a batch of calls builds on them."""
        self._id = id

    def _discard(self) -> None:
        """Forget buffered writes. A dict taken before is left as it is."""
        if self._writes:
            self._writes = {}


def storage_class_for(typename: str, specs: Sequence[ValueSpec]) -> type[Storage]:
    """Make the storage class of the function ``typename``.

    Raises:
        UserValueError: two specs share a name, or a name is one of the class's own members.
    """
    members: dict[str, Any] = {"__slots__": ()}
    for index, spec in enumerate(specs):
        if spec.name in members:
            raise UserValueError(
                f"function {typename!r} declares state {spec.name!r} twice; rename one of them"
            )
        if hasattr(Storage, spec.name):
            raise UserValueError(
                f"function {typename!r}: state name {spec.name!r} is taken by the storage itself; choose another"
            )
        members[spec.name] = _state_property(index, typename, spec)
    # Python's own AttributeError for an undeclared state then names the function.
    return type(f"Storage[{typename}]", (Storage,), members)


def _state_property(index: int, typename: str, spec: ValueSpec) -> property:
    encode, decode = codec_of(spec.type)
    name = spec.name

    def read(self: Storage) -> Any:
        if self._writes and index in self._writes:
            data = self._writes[index]
        else:
            data = self._tables[index].get(self._id)
        return None if data is None else decode(data)

    def write(self: Storage, value: Any) -> None:
        if value is None:
            raise UserValueError(
                f"function {typename!r} assigned None to state {name!r}; "
                f"use `del context.storage.{name}` to delete it"
            )
        self._writes[index] = encode(value)

    def delete(self: Storage) -> None:
        self._writes[index] = None

    return property(read, write, delete, f"State {name!r}: {spec.type.typename}, None if absent.")
