"""Delayed messages and their cancellation.

A delayed message is a row of the reserved table ``~timers``, so cut, delta, restore and rescale
come with the keyed store; the heap and the token index here are rebuilt from the rows. It belongs
to the key group of the *sender's* id: fired, it is an ordinary message. Tokens are scoped to the
sender id, as in StateFun: all function types of one id share them.

Due times are wall-clock milliseconds. Late is allowed, lost or double is not: the row goes in the
same step that emits the message.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TypeAlias

import msgspec

from statefun_ray.core.message import Message, ordinal_sub
from statefun_ray.core.state import Table

Timer: TypeAlias = tuple[int, str, Message]
"""``(due_ms, token, message)`` as packed in the row's value."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Timer] = msgspec.msgpack.Decoder(Timer)


class Timers:
    """The pending delayed messages of one worker."""

    __slots__ = ("_heap", "_table", "_tokens")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._heap: list[tuple[int, str, str]] = []
        """``(due_ms, sub, sender id)``; cancelled ones stay until they come up."""
        self._tokens: dict[tuple[str, str], str] = {}
        """``(sender id, token)`` -> sub of the pending row."""

    def rebuild(self) -> None:
        """Index the rows of the table after they were loaded."""
        for (sender_id, sub), value in self._table.live.items():
            due_ms, token, _ = _decoder.decode(value)
            self._heap.append((due_ms, sub, sender_id))
            if token:
                self._tokens[sender_id, token] = sub
        heapify(self._heap)

    def has_token(self, sender_id: str, token: str) -> bool:
        """Whether a pending message of this sender id carries ``token``."""
        return (sender_id, token) in self._tokens

    def add(self, due_ms: int, token: str, message: Message, ordinal: int) -> None:
        """Register a message for ``due_ms``; ``ordinal`` increases and orders equal due times."""
        sender_id, sub = message[3], ordinal_sub(ordinal)
        self._table.put((sender_id, sub), _encoder.encode((due_ms, token, message)))
        heappush(self._heap, (due_ms, sub, sender_id))
        if token:
            self._tokens[sender_id, token] = sub

    def cancel(self, sender_id: str, token: str) -> bool:
        """Remove the pending message with ``token``; False when there is none (any more)."""
        sub = self._tokens.pop((sender_id, token), None)
        if sub is None:
            return False
        self._table.delete((sender_id, sub))
        return True

    def next_due_ms(self) -> int | None:
        """Return when the next message is due, or None."""
        while self._heap and (self._heap[0][2], self._heap[0][1]) not in self._table.live:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> Message | None:
        """Remove and return the next message that is due, or None."""
        due_ms = self.next_due_ms()
        if due_ms is None or due_ms > now_ms:
            return None
        _, sub, sender_id = heappop(self._heap)
        _, token, message = _decoder.decode(self._table.live[sender_id, sub])
        self._table.delete((sender_id, sub))
        if token:
            del self._tokens[sender_id, token]
        return message

    def __len__(self) -> int:
        return len(self._table.live)
