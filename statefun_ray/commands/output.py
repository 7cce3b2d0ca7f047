"""What commands print: tables for people, lines of JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

PROG: Final = "statefun-ray"


def print_json(value: dict[str, Any]) -> None:
    """Print a line of JSON, at once."""
    print(json.dumps(value, default=_as_json), flush=True)


def print_table(rows: Sequence[dict[str, Any]], *, empty: str, columns: Sequence[str] | None = None) -> None:
    """Print rows in columns as wide as their widest cell, numbers to the right."""
    if not rows:
        print(empty)
        return
    names = list(columns or rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    for line in [names, ["-" * width for width in widths], *cells]:
        aligned = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(aligned).rstrip())


def moment(ms: int) -> str:
    """Return a time of the wall clock, given in milliseconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=_as_json)
    return str(value)


def _as_json(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
