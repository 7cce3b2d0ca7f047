"""The shape of a message inside the runtime, and the names the runtime reserves.

A message is a plain tuple, because the hot path can afford no object per message: the interpreter
builds and unpacks a tuple in some tens of nanoseconds and the garbage collector stops tracking one
that holds only strings and bytes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from statefun_ingress.pending import REPLY_NAMESPACE as REPLY_NAMESPACE

Message: TypeAlias = tuple[str, str, str, str, str, bytes | None]
"""``(target_type, target_id, caller_type, caller_id, value_type, value)``.

Types are ``namespace/name``. ``caller_type`` is empty for a message without a caller, ``value`` is
None for a typed value that carries no value.
"""

REPLY_PREFIX: Final = REPLY_NAMESPACE + "/"
"""Begins every reply address: ``<namespace>/<incarnation>`` with a request id."""

DEAD_LETTERS: Final = "io.statefun-ray/dead-letters"
"""The reserved function type that keeps dead letters: messages to it are commands to the runtime."""

NO_ADDRESS: Final = "io.statefun-ray/no-address"
"""The caller of a dead letter that never was a message: its id is no address but a place in a source."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pack_message(message: Message) -> bytes:
    """Return the bytes of one message as they stand in a reserved table of a snapshot."""
    return _encoder.encode(message)


def unpack_message(data: bytes) -> Message:
    """Return the message that :func:`pack_message` encoded.

    Raises:
        msgspec.DecodeError: ``data`` is not a packed message.
    """
    return _decoder.decode(data)


def ordinal_sub(ordinal: int) -> str:
    """Return a reserved-table sub key that sorts as ``ordinal`` does."""
    return f"{ordinal:016x}"


def ordinal_of(sub: str) -> int:
    """Return the ordinal that :func:`ordinal_sub` wrote.

    Raises:
        ValueError: ``sub`` is no such key.
    """
    return int(sub, 16)
