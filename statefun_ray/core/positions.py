"""How far each ingress log has been read, per range of key groups.

In one generation a worker reads each log for its whole range, and the position is one interval.
After a rescale it may inherit several: it then reads from the least of them and skips, per
interval, what the former owner had already taken; once all are level they are one again.
"""

from __future__ import annotations

from collections.abc import Iterable

from statefun_ray.core.key_groups import key_group_of
from statefun_ray.core.message import Message

Interval = tuple[int, int, int]
"""``(low, high, next sequence)`` for key groups in ``[low, high)``."""


def clip(intervals: Iterable[Interval], low: int, high: int) -> list[Interval]:
    """Return the parts of ``intervals`` within ``[low, high)``, in order; gaps start at sequence 0."""
    result: list[Interval] = []
    at = low
    for start, end, sequence in sorted(intervals):
        start, end = max(start, at), min(end, high)
        if start >= end:
            continue
        if start > at:
            result.append((at, start, 0))
        result.append((start, end, sequence))
        at = end
    if at < high:
        result.append((at, high, 0))
    return result


class LogPosition:
    """The position of one worker in one ingress log."""

    __slots__ = ("_key_group_count", "intervals", "next_sequence")

    def __init__(self, intervals: list[Interval], key_group_count: int) -> None:
        self._key_group_count = key_group_count
        self.intervals = intervals
        self.next_sequence = 0
        """Where the feed continues: the least of the intervals, and past what has arrived."""
        self._level(min(sequence for _, _, sequence in intervals))

    def _level(self, sequence: int) -> None:
        self.next_sequence = sequence
        self.intervals = [(low, high, max(sequence, at)) for low, high, at in self.intervals]
        if len({at for _, _, at in self.intervals}) == 1:
            self.intervals = [(self.intervals[0][0], self.intervals[-1][1], self.intervals[0][2])]

    def admit(
        self, from_sequence: int, to_sequence: int, sequences: list[int], messages: list[Message]
    ) -> list[Message]:
        """Return those of ``messages`` that were not taken before, and move past all of them.

        Raises:
            ValueError: the feed left a gap, so events would be lost.
        """
        if from_sequence > self.next_sequence:
            raise ValueError(f"the feed continues at sequence {from_sequence}, expected {self.next_sequence}")
        if len(self.intervals) > 1 or from_sequence < self.next_sequence:
            messages = [
                message
                for sequence, message in zip(sequences, messages, strict=True)
                if sequence >= max(self.next_sequence, self._next_for(message[1]))
            ]
        self._level(max(to_sequence, self.next_sequence))
        return messages

    def _next_for(self, id: str) -> int:
        key_group = key_group_of(id, self._key_group_count)
        for low, high, sequence in self.intervals:
            if low <= key_group < high:
                return sequence
        raise ValueError(f"the feed sent id {id!r} of key group {key_group}, outside {self.intervals}")
