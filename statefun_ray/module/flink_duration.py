"""Durations as Flink's configuration writes them: ``30s``, ``2 min``, ``1day``, ``500``.

Decimal digits, then a unit that any case may be used for; milliseconds without one. There is no
sign, no fraction and no sum. Not to be confused with :mod:`statefun_ray.durations`, the form of
our own command line.
"""

from __future__ import annotations

import re
from typing import Final

_NS_PER_UNIT: Final = {
    "ns": 1,
    "nano": 1,
    "nanos": 1,
    "nanosecond": 1,
    "nanoseconds": 1,
    "µs": 1_000,
    "micro": 1_000,
    "micros": 1_000,
    "microsecond": 1_000,
    "microseconds": 1_000,
    "": 1_000_000,
    "ms": 1_000_000,
    "milli": 1_000_000,
    "millis": 1_000_000,
    "millisecond": 1_000_000,
    "milliseconds": 1_000_000,
    "s": 1_000_000_000,
    "sec": 1_000_000_000,
    "secs": 1_000_000_000,
    "second": 1_000_000_000,
    "seconds": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "minute": 60_000_000_000,
    "minutes": 60_000_000_000,
    "h": 3_600_000_000_000,
    "hour": 3_600_000_000_000,
    "hours": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "day": 86_400_000_000_000,
    "days": 86_400_000_000_000,
}

_DURATION: Final = re.compile(r"([0-9]+)\s*(\S*)")
DURATION_MS_MAX: Final = 2**63 - 1

FORM: Final = (
    "a duration: digits and a unit, such as 500 ms, 30 s, 2 min, 1 h or 1 d; milliseconds without a unit"
)


class TooLong(ValueError):
    """A duration of this form that is longer than what 64 bits hold in milliseconds."""


def parse_flink_duration_ms(text: str) -> int:
    """Return ``text`` in whole milliseconds; what is smaller than one is cut off, as Flink does.

    Raises:
        TooLong: more milliseconds than 64 bits hold.
        ValueError: not of this form.
    """
    match = _DURATION.fullmatch(text.strip())
    ns_per_unit = None if match is None else _NS_PER_UNIT.get(match[2].lower())
    if match is None or ns_per_unit is None:
        raise ValueError(f"{text!r} is not {FORM}")
    ms = int(match[1]) * ns_per_unit // 1_000_000 if len(match[1]) <= 19 else DURATION_MS_MAX + 1
    if ms > DURATION_MS_MAX:
        raise TooLong(f"{text!r} is longer than {DURATION_MS_MAX} ms")
    return ms
