"""Durations as people write them: ``500ms``, ``1s``, ``2m``, ``1h``."""

from __future__ import annotations

import re
from typing import Final

from statefun_sdk.errors import UserValueError

_MS_PER_UNIT: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")


def parse_duration_ms(text: str) -> int:
    """Return ``text`` in milliseconds.

    Raises:
        UserValueError: not a number with a unit, or less than a millisecond.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UserValueError(f"{text!r} is not a duration; write a number and a unit: 500ms, 1s, 2m or 1h")
    ms = round(float(match[1]) * _MS_PER_UNIT[match[2]])
    if ms < 1:
        raise UserValueError(f"{text!r} is less than a millisecond; the shortest duration is 1ms")
    return ms


def format_duration(ms: int) -> str:
    """Return ``ms`` in the largest unit that keeps it short: ``850ms``, ``1.5s``, ``3m``."""
    for unit in ("h", "m", "s"):
        size = _MS_PER_UNIT[unit]
        if ms >= size:
            return f"{round(ms / size, 1):g}{unit}"
    return f"{ms}ms"
