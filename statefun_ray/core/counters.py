"""What a worker counts of its messages, so that all of them can be added up."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """What this worker did since its generation started; sums of all workers must balance (I10)."""

    admitted: int = 0
    emitted: int = 0
    applied: int = 0
    timers_set: int = 0
    timers_fired: int = 0
    timers_replied: int = 0
    """Of those that fired: replies, which no address receives."""
    timers_cancelled: int = 0
    buried: int = 0
    """Of those applied: messages that became dead letters."""
    unburied: int = 0
    """Letters that were redriven or dropped; the others are the rows of ``~dead``."""
    egress_rows: int = 0
    replies: int = 0
