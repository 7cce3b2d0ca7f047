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

So the same commit log runs on a file system, on S3 and in the simulator, which answers with
faults of its choice.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

import msgspec


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
