"""Many requests in one: what our runtime and our services say to each other instead of one at a time.

A body is a row of items. In a request each is the bytes of one ``ToFunction``, of any address; in
an answer each is what became of the item at the same place, so one that fails harms no other::

    request:  length (4 bytes, big-endian), ToFunction
    answer:   outcome (1 byte), length (4 bytes, big-endian), FromFunction or text in UTF-8

It is spoken where both know it: the runtime offers it in the header ``StateFun-Ray-Batch`` of
ordinary requests, and a service that can answers with the same header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

HEADER: Final = "statefun-ray-batch"
VERSION: Final = "1"
CONTENT_TYPE: Final = "application/vnd.statefun-ray.batch"

DONE: Final = 0
FAILED: Final = 1
"""The function raised, or the item was no request; the text says what."""

_LENGTH: Final = struct.Struct(">I")
_OUTCOME_AND_LENGTH: Final = struct.Struct(">BI")
_pack_outcome_and_length = _OUTCOME_AND_LENGTH.pack


def join_requests(requests: Iterable[bytes]) -> bytes:
    """Return the body of a request."""
    parts: list[bytes] = []
    for request in requests:
        parts.append(_LENGTH.pack(len(request)))
        parts.append(request)
    return b"".join(parts)


def split_requests(body: bytes) -> list[bytes]:
    """Return the items of a request.

    Raises:
        ValueError: the body is not a row of items.
    """
    items: list[bytes] = []
    at, end = 0, len(body)
    while at < end:
        start = at + _LENGTH.size
        if start > end:
            raise ValueError(f"item {len(items)} is cut off")
        at = start + _LENGTH.unpack_from(body, at)[0]
        if at > end:
            raise ValueError(f"item {len(items)} is cut off")
        items.append(body[start:at])
    return items


def join_answers(answers: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the body of an answer."""
    return b"".join(answer_item(outcome, data) for outcome, data in answers)


def answer_item(outcome: int, data: bytes) -> bytes:
    """Return one item of the body of an answer."""
    return _pack_outcome_and_length(outcome, len(data)) + data


def split_answers(body: bytes) -> list[tuple[int, bytes]]:
    """Return the items of an answer.

    Raises:
        ValueError: the body is not a row of items.
    """
    items: list[tuple[int, bytes]] = []
    at, end = 0, len(body)
    while at < end:
        start = at + _OUTCOME_AND_LENGTH.size
        if start > end:
            raise ValueError(f"item {len(items)} is cut off")
        outcome, length = _OUTCOME_AND_LENGTH.unpack_from(body, at)
        at = start + length
        if at > end:
            raise ValueError(f"item {len(items)} is cut off")
        items.append((outcome, body[start:at]))
    return items
