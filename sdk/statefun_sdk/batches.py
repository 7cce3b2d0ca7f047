"""Many requests in one: what our runtime and our services say to each other instead of one at a time.

A body is a row of items. In a request each is the bytes of one ``ToFunction``, of any address; in
an answer each is what became of the item at the same place, so one that fails harms no other::

    request:  length (4 bytes, big-endian), ToFunction
    answer:   outcome (1 byte), length (4 bytes, big-endian), FromFunction or text in UTF-8

It is spoken where both know it: the runtime offers it in the header ``StateFun-Ray-Batch`` of
ordinary requests, and a service that can answers with the same header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

HEADER: Final = "statefun-ray-batch"
VERSION: Final = "1"
CONTENT_TYPE: Final = "application/vnd.statefun-ray.batch"

DONE: Final = 0
FAILED: Final = 1
"""The function raised, or the item was no request; the text says what."""

_LENGTH_BYTES: Final = 4


def join_requests(requests: Iterable[bytes]) -> bytes:
    """Return the body of a request."""
    parts: list[bytes] = []
    for request in requests:
        parts.append(len(request).to_bytes(_LENGTH_BYTES, "big"))
        parts.append(request)
    return b"".join(parts)


def split_requests(body: bytes) -> list[bytes]:
    """Return the items of a request.

    Raises:
        ValueError: the body is not a row of items.
    """
    items: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(body[at:start], "big")
        if start > len(body) or end > len(body):
            raise ValueError(f"item {len(items)} is cut off")
        items.append(body[start:end])
        at = end
    return items


def join_answers(answers: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the body of an answer."""
    parts: list[bytes] = []
    for outcome, data in answers:
        parts.append(bytes((outcome,)) + len(data).to_bytes(_LENGTH_BYTES, "big"))
        parts.append(data)
    return b"".join(parts)


def split_answers(body: bytes) -> list[tuple[int, bytes]]:
    """Return the items of an answer.

    Raises:
        ValueError: the body is not a row of items.
    """
    items: list[tuple[int, bytes]] = []
    at = 0
    while at < len(body):
        start = at + 1 + _LENGTH_BYTES
        end = start + int.from_bytes(body[at + 1 : start], "big")
        if start > len(body) or end > len(body):
            raise ValueError(f"item {len(items)} is cut off")
        items.append((body[at], body[start:end]))
        at = end
    return items
