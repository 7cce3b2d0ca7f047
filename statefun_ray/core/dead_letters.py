"""Dead letters: messages that nobody could process, kept until a person decides.

What is told to them are messages too, addressed to a reserved function type with the id that the
letter is kept under: so they take the ways of all messages, durable and exactly once, and arrive
at the worker that keeps the letter.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from statefun_ray.core.message import DEAD_LETTERS, Message

Rejected: TypeAlias = tuple[str, str, str, bytes | None, str]
"""``(target type, id of the letter, value type, value, why)`` of a record that can be no message."""

_encoder = msgspec.msgpack.Encoder()


def letter_of(rejected: Rejected) -> Message:
    """Return the message that puts a record of a source among the dead letters."""
    target_type, id, value_type, value, why = rejected
    return (DEAD_LETTERS, id, "", "", "", _encoder.encode(("add", target_type, value_type, value, why)))
