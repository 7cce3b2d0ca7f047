"""Dead letters: messages that nobody could process, kept until a person decides.

A letter is a row of the reserved table ``~dead``, so it is in every snapshot and moves with its key
group. What is told to letters are messages too, addressed to a reserved function type with the id
that the letter is kept under: so a command takes the ways of all messages, durable and exactly
once, and arrives at the worker that keeps the letter.

================================================  ===================================================
command, packed                                   effect
================================================  ===================================================
``["add", type, value type, value, why]``         a message that never was one becomes a letter
``["redrive", letter]``                           the letter's message is delivered once more; one that never
                                                  was a message has no address, and stays
``["drop", letter]``                              the letter is gone
================================================  ===================================================
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from statefun_ray.core.addresses import ERROR_CHARS_MAX
from statefun_ray.core.counters import Counters
from statefun_ray.core.message import DEAD_LETTERS, NO_ADDRESS, Message, ordinal_sub
from statefun_ray.core.state import Table

LISTED_MAX: Final = 1_000
"""Letters in one answer of a worker: more than a person reads at once."""

LISTED_BYTES_MAX: Final = 16 << 20
"""Likewise of all of them together, the first aside: the ingress refuses frames four times as large."""

Rejected: TypeAlias = tuple[str, str, str, bytes | None, str]
"""``(target type, id of the letter, value type, value, why)`` of a record that can be no message."""

Letter: TypeAlias = tuple[Message, int, str, int, int]
"""``(message, attempts, last error, first failed ms, last failed ms)`` as packed in ``~dead``."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Letter)
_command_decoder: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[Any])


def letter_of(rejected: Rejected) -> Message:
    """Return the message that puts a record of a source among the dead letters."""
    target_type, id, value_type, value, why = rejected
    return (DEAD_LETTERS, id, "", "", "", _encoder.encode(("add", target_type, value_type, value, why)))


def command(action: str, letter: str) -> bytes:
    """Return the value of a message that tells a letter to be redriven or dropped."""
    return _encoder.encode((action, letter))


class DeadLetters:
    """The letters of one worker."""

    __slots__ = ("_counters", "_table")

    def __init__(self, table: Table, counters: Counters) -> None:
        self._table = table
        self._counters = counters

    def __len__(self) -> int:
        return len(self._table.live)

    def bury(
        self, message: Message, ordinal: int, attempts: int, error: str, first_ms: int, last_ms: int
    ) -> None:
        """Keep a message; ``ordinal`` increases with every call and names the letter."""
        letter: Letter = (message, attempts, error[:ERROR_CHARS_MAX], first_ms, last_ms)
        self._table.put((message[1], ordinal_sub(ordinal)), _encoder.encode(letter))
        self._counters.buried += 1

    def obey(self, message: Message, ordinal: int, now_ms: int) -> Message | None:
        """Do what a message to the letters says.

        Returns:
            The message to be delivered once more, if that is what it says. What is not understood
            becomes a letter itself; a letter that is not there (any more) is no error.
        """
        _, id, _, _, _, value = message
        try:
            match _command_decoder.decode(value or b""):
                case ["add", str(target_type), str(value_type), bytes() | None as data, str(why)]:
                    rejected: Message = (target_type, id, NO_ADDRESS, "", value_type, data)
                    self.bury(rejected, ordinal, 0, why, now_ms, now_ms)
                case ["redrive", str(letter)]:
                    return self._take(id, letter) if self._has_address(id, letter) else None
                case ["drop", str(letter)]:
                    self._take(id, letter)
                case _:
                    raise ValueError("it is none of add, redrive and drop")
        except ValueError as error:  # msgspec's errors are among these
            self.bury(message, ordinal, 0, f"no command to the dead letters: {error}", now_ms, now_ms)
        return None

    def _has_address(self, id: str, letter: str) -> bool:
        row = self._table.get((id, letter))
        return row is not None and _decoder.decode(row)[0][2] != NO_ADDRESS

    def _take(self, id: str, letter: str) -> Message | None:
        value = self._table.get((id, letter))
        if value is None:
            return None
        self._table.delete((id, letter))
        self._counters.unburied += 1
        return _decoder.decode(value)[0]

    def listed(
        self, id: str | None, function_type: str = ""
    ) -> tuple[list[tuple[str, str, bytes | None]], bool]:
        """Return ``(letter/id, target type, row)`` of letters, oldest first, and whether there may be more.

        Args:
            id: those kept under this id, which may be empty; all for None.
            function_type: those to this function; all for "".
        """
        listed: list[tuple[str, str, bytes | None]] = []
        size_bytes = 0
        for letter, of_id in sorted(
            (letter, of_id) for of_id, letter in self._table.live if id in (None, of_id)
        ):
            row = self._table.live[of_id, letter]
            target_type = _decoder.decode(row)[0][0]
            if function_type in ("", target_type):
                size_bytes += len(of_id) + len(row)
                if len(listed) == LISTED_MAX or (listed and size_bytes > LISTED_BYTES_MAX):
                    return listed, True
                listed.append((f"{letter}/{of_id}", target_type, row))
        return listed, False
