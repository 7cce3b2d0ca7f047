"""Limits of the product, made so small in some runs that what lies beyond them is reached.

A frame of 16 MiB or a slice of 2,000 rows does not come up in a run of a hundred events; one of
300 bytes or three rows does. Each limit is small in some seeds and as usual in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import ModuleType
from typing import Final, NamedTuple

from statefun_checkpoints import arrow_format, layout
from statefun_ingress import dead_letters as told_letters
from statefun_ingress import feed, log, log_reader, record
from statefun_ray.core import (
    addresses,
    channel,
    coordinator,
    dead_letters,
    feeds,
    outbox,
    snapshots,
    state,
    worker,
)

SHARE: Final = 0.35
"""Of the runs in which a limit is small."""


class Limit(NamedTuple):
    """A constant, in the modules that have imported it, and how small it may be."""

    name: str
    modules: tuple[ModuleType, ...]
    small: int


LIMITS: Final = (
    Limit("SLOTS_PER_FOLDER", (layout,), 4),
    Limit("SLICE_ROWS", (state, outbox, snapshots), 3),
    Limit("SLICE_ROWS", (arrow_format,), 5),
    Limit("FRAME_BYTES_MAX", (channel,), 300),
    Limit("FRAME_MESSAGES_MAX", (channel,), 3),
    Limit("REPLY_FRAME_BYTES_MAX", (feeds,), 15),
    Limit("SMALL_DELTAS_MAX", (coordinator,), 2),
    Limit("INDEX_BYTES", (log,), 200),
    Limit("CHUNK_EVENTS_MAX", (log, log_reader, record), 2),
    Limit("_READ_BYTES", (log_reader,), 300),
    Limit("_RECORDS_MAX", (log_reader,), 2),
    Limit("FRAME_EVENTS_MAX", (feed,), 3),
    Limit("SCAN_EVENTS_MAX", (feed,), 4),
    Limit("IDLE_EVENTS", (feed,), 5),
    Limit("LISTED_MAX", (dead_letters, told_letters), 2),
)

LATER: Final = (
    Limit("LARGE_BYTES", (addresses,), 0),
    Limit("BATCH_BYTES_MAX", (addresses,), 200),
    Limit("UPCOMING_MIN", (worker,), 1),
)
"""Those that came later."""


def choose(rng: Random, apart: Random) -> list[Limit]:
    """Return the limits that are small in a run.

    Args:
        rng: the run's own.
        apart: for those that came later, so that a seed in which they are as usual is what it was.
    """
    chosen = [limit for limit in LIMITS if rng.random() < SHARE]
    return chosen + [limit for limit in LATER if apart.random() < SHARE]


@contextmanager
def small(limits: list[Limit]) -> Iterator[None]:
    """Make these limits small for as long as the context lasts."""
    usual = [(module, limit, getattr(module, limit.name)) for limit in limits for module in limit.modules]
    for module, limit, _ in usual:
        setattr(module, limit.name, limit.small)
    try:
        yield
    finally:
        for module, limit, value in usual:
            setattr(module, limit.name, value)
