"""What the pure code may ask of an object store, as values.

A procedure that needs the store is a generator of these. Whoever drives it performs the
request and resumes the generator with the answer, or throws the `StoreError` in:

=========  ==============================  ============================================
request    answer                          thrown in
=========  ==============================  ============================================
`Get`      bytes, or None if absent        StoreUnavailable, StoreRefused
`Put`      None                            the same; the write may have happened
`Create`   True, or False if it exists     the same; the object may have been created
`List`     names, sorted                   the same
`Delete`   None, also if absent            the same; the object may be gone
=========  ==============================  ============================================

`run_store` drives one on a blocking `ObjectStore`. So the same commit log runs on a file system, on S3 and in the simulator, which answers with
faults of its choice.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from statefun_checkpoints.errors import StoreError


class Get(msgspec.Struct, frozen=True):
    """Read an object whole."""

    path: str


class Put(msgspec.Struct, frozen=True):
    """Write an object whole, replacing what was there; durable when answered."""

    path: str
    data: bytes


class Create(msgspec.Struct, frozen=True):
    """Write an object whole if none is there, atomically; durable when answered."""

    path: str
    data: bytes


class List(msgspec.Struct, frozen=True):
    """Name the objects under ``prefix`` that sort after ``start_after``, in order."""

    prefix: str
    start_after: str = ""


class Delete(msgspec.Struct, frozen=True):
    """Remove an object; one that is absent is no error."""

    path: str


StoreRequest: TypeAlias = Get | Put | Create | List | Delete

T = TypeVar("T")

# A procedure on a store: yields requests, is sent answers, returns a T.
StoreSteps: TypeAlias = Generator[StoreRequest, Any, T]


class ObjectStore(Protocol):
    """Blocking access to objects under one root. Safe to use from several threads.

    Every method raises `StoreUnavailable` when there is no definite answer and `StoreRefused`
    when there is one and it is no; names are checked and refused with `UnsafePath`.
    """

    @property
    def uri(self) -> str:
        """The root, as `open_store` takes it."""
        ...

    def get(self, path: str) -> bytes | None:
        """Return the object, None if it is absent."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write the object, replacing what was there. Durable on return; readers see all or nothing."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write the object if it is absent and return whether it was. Durable on return.

        Of any number of concurrent callers at most one gets True.
        """
        ...

    def list(self, prefix: str, start_after: str = "") -> list[str]:
        """Return the names that start with ``prefix`` and sort after ``start_after``, sorted."""
        ...

    def delete(self, path: str) -> None:
        """Remove the object if it is there."""
        ...


def run_store(store: ObjectStore, steps: StoreSteps[T]) -> T:
    """Run a procedure on a store to its end and return its result.

    Retries nothing: what to do about a missing answer is the procedure's decision.
    """
    try:
        request = next(steps)
        while True:
            try:
                answer = perform(store, request)
            except StoreError as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def perform(store: ObjectStore, request: StoreRequest) -> bytes | bool | list[str] | None:
    """Perform one request and return its answer."""
    match request:
        case Get(path):
            return store.get(path)
        case Put(path, data):
            store.put(path, data)
            return None
        case Create(path, data):
            return store.create(path, data)
        case List(prefix, start_after):
            return store.list(prefix, start_after)
        case Delete(path):
            store.delete(path)
            return None
