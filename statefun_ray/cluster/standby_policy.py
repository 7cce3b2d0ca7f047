"""How many standby worker processes to start, and when.

A standby is a started worker process with everything imported and no generation: a recovery that
finds as many as it needs starts no process. Pure, so that the coordinator only has to ask.
"""

from __future__ import annotations

import math
from typing import Final

REFILL_AFTER_S: Final = 1.0
"""A generation runs this long before standbys are started beside it: first it catches up."""

REFILL_STEPS: Final = 8
"""A refill starts at most this share of the standbys at once: each start takes a second of a core."""

RETRY_AFTER_S: Final = 10.0
"""After a standby that ended by itself: what ended it (code that cannot be imported) may end the next."""

_ABOUT_TO_START: Final = frozenset({"claiming", "ingress", "backoff"})
"""Phases of the coordinator in which the next generation has no processes yet."""


def standbys_to_start(
    phase: str,
    *,
    workers: int,
    standbys: int,
    ready: int,
    starting: int,
    running_s: float,
    since_failure_s: float,
) -> int:
    """Return how many standby processes to start now.

    Before a generation there should be one for each of its workers, so that they start while it is
    claimed; beside a running one there should be ``standbys``, started little by little.

    Args:
        phase: of the coordinator.
        workers: of the application.
        standbys: that it should have.
        ready: standbys that wait for a generation.
        starting: standbys whose processes are being started.
        running_s: since when the generation runs; only looked at in that phase.
        since_failure_s: since a standby ended by itself; infinite if none has.
    """
    if since_failure_s < RETRY_AFTER_S:
        return 0
    if phase in _ABOUT_TO_START:
        return max(0, workers - ready - starting)
    if phase == "running" and running_s >= REFILL_AFTER_S:
        at_once = math.ceil(standbys / REFILL_STEPS)
        return max(0, min(standbys - ready - starting, at_once - starting))
    return 0
