"""The FIFO channels between workers: frames, and the numbers that prove nothing was lost.

A frame carries messages in columns, with function and value typenames as indexes into a
dictionary that both ends grow in step. Data and markers go through the same sequence, so a marker
can never overtake a message. Numbers are an assertion, not a repair: a gap or a repeat ends the
generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from statefun_checkpoints.participant import ProtocolViolation
from statefun_ray.core.message import Message

FRAME_MESSAGES_MAX: Final = 4_096
"""Messages per frame: bounds what a receiver decodes in one piece."""

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""A frame that comes out larger is sent as several: a connection refuses one that is far larger."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


class OutChannel:
    """The sending end: buffers messages until they are flushed into frames."""

    __slots__ = ("_names", "_sequence", "buffer")

    def __init__(self) -> None:
        self.buffer: list[Message] = []
        self._sequence = 0
        self._names: dict[str, int] = {}

    def flush(self) -> list[bytes]:
        """Return the buffered messages as frames, in order."""
        buffer, self.buffer = self.buffer, []
        return [
            frame
            for at in range(0, len(buffer), FRAME_MESSAGES_MAX)
            for frame in self._data(buffer[at : at + FRAME_MESSAGES_MAX])
        ]

    def marker(self, snapshot_id: int, rhythm: str, committed: int) -> list[bytes]:
        """Return frames that end with a marker, behind everything emitted so far.

        ``committed`` is the newest committed snapshot as the coordinator knew it: a receiver that has
        not heard the fate of its last snapshot yet must not guess it.
        """
        frames = self.flush()
        self._sequence += 1
        frames.append(_encoder.encode([self._sequence, snapshot_id, rhythm, committed]))
        return frames

    def _data(self, messages: list[Message]) -> list[bytes]:
        names = self._names
        known = len(names)
        target_types, target_ids, caller_types, caller_ids, value_types, values = zip(*messages, strict=True)
        columns: list[Sequence[Any]] = [
            [names.setdefault(name, len(names)) for name in column]
            for column in (target_types, caller_types, value_types)
        ]
        added = list(names)[known:] if len(names) > known else []
        return self._encoded(added, [*columns, target_ids, caller_ids, values])

    def _encoded(self, added: list[str], columns: list[Sequence[Any]]) -> list[bytes]:
        frame = _encoder.encode([self._sequence + 1, added, *columns])
        half = len(columns[0]) // 2
        if len(frame) > FRAME_BYTES_MAX and half:
            front, back = ([column[part] for column in columns] for part in (slice(half), slice(half, None)))
            return self._encoded(added, front) + self._encoded([], back)
        self._sequence += 1
        return [frame]


class InChannel:
    """The receiving end: checks the sequence and rebuilds messages."""

    __slots__ = ("_names", "_sequence", "peer")

    def __init__(self, peer: int) -> None:
        self.peer = peer
        self._sequence = 0
        self._names: list[str] = []

    def receive(self, frame: bytes) -> list[Message] | tuple[int, str, int]:
        """Return the messages of a data frame, or ``(snapshot id, rhythm, committed)`` of a marker.

        Raises:
            ProtocolViolation: the frame is not the next one, or not a frame at all.
        """
        try:
            sequence, second, *rest = _decoder.decode(frame)
        except (msgspec.DecodeError, ValueError) as error:
            raise self._undecodable(error) from error
        if sequence != self._sequence + 1:
            raise ProtocolViolation(
                f"channel from worker {self.peer}: frame {sequence} after {self._sequence}; frames were lost or repeated"
            )
        self._sequence = sequence
        if len(rest) == 2:
            return second, rest[0], rest[1]
        names = self._names
        try:
            names.extend(second)
            target_types, caller_types, value_types, target_ids, caller_ids, values = rest
            return list(
                zip(
                    [names[index] for index in target_types],
                    target_ids,
                    [names[index] for index in caller_types],
                    caller_ids,
                    [names[index] for index in value_types],
                    values,
                    strict=True,
                )
            )
        except (ValueError, TypeError, IndexError) as error:
            raise self._undecodable(error) from error

    def _undecodable(self, error: Exception) -> ProtocolViolation:
        return ProtocolViolation(f"channel from worker {self.peer}: undecodable frame: {error}")
