"""Commit-log entries, job.json and boundary.json as bytes. Pure.

Canonical JSON: keys sorted, no spaces, defaults left out of entries; so equal entries are equal
bytes. Each object ends in ``,"sha256":"<64 hex>"}``, the hash of the bytes before that suffix
followed by ``}``. The check is on bytes and comes before parsing: a flipped bit anywhere is found.

Unknown fields are ignored, so a later version may add optional ones under the same format
number; anything that an older reader must not ignore raises the number.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from statefun_checkpoints.errors import CorruptEntry, UnsupportedFormat
from statefun_checkpoints.model import FORMAT, Boundary, Entry, Job

_ENCODER = msgspec.json.Encoder(order="sorted")
_SUFFIX = b',"sha256":"%s"}'
_SUFFIX_BYTES = len(_SUFFIX) - 2 + 64

S = TypeVar("S", Entry, Job, Boundary)


class _Versioned(msgspec.Struct):
    format: int


def encode(value: Entry | Job | Boundary) -> bytes:
    """Return the canonical bytes of an object of the log."""
    body = _ENCODER.encode(value)
    return body[:-1] + _SUFFIX % hashlib.sha256(body).hexdigest().encode()


def decode_entry(data: bytes, name: str) -> Entry:
    """Return the entry in ``data``.

    Args:
        data: the object's bytes.
        name: of the object, for the error.

    Raises:
        CorruptEntry: it is not what was written.
        UnsupportedFormat: a newer version wrote it.
    """
    return _decode(data, name, Entry)


def decode_job(data: bytes, name: str) -> Job:
    """As `decode_entry`, for job.json."""
    return _decode(data, name, Job)


def decode_boundary(data: bytes, name: str) -> Boundary:
    """As `decode_entry`, for boundary.json."""
    return _decode(data, name, Boundary)


def _decode(data: bytes, name: str, kind: type[S]) -> S:
    body = data[:-_SUFFIX_BYTES] + b"}"
    if data != body[:-1] + _SUFFIX % hashlib.sha256(body).hexdigest().encode():
        raise CorruptEntry(name, f"its sha256 does not match its {len(data)} bytes")
    try:
        found = msgspec.json.decode(body, type=_Versioned).format
        if found != FORMAT:
            raise UnsupportedFormat(name, str(found), str(FORMAT))
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise CorruptEntry(name, str(error)) from error
