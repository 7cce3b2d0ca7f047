"""Reads module.yaml files from disk. The only part of this package that touches the world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from statefun_ray.module.problems import Place, Problem
from statefun_ray.module.read import Reading, read

BYTES_MAX = 16 << 20
"""A larger file is no module.yaml."""


def load(paths: Sequence[str]) -> Reading:
    """Return the application that some files describe together; ``file:`` URLs will do as well."""
    sources: list[tuple[str, str]] = []
    unreadable: list[Problem] = []
    for name in paths:
        try:
            sources.append((name, _text(name)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            unreadable.append(
                Problem(
                    "error", Place(name, 0), f"no file that can be read: {reason}", "a module.yaml in UTF-8"
                )
            )
    reading = read(sources)
    if not unreadable:
        return reading
    return Reading(None, (*unreadable, *reading.problems))


def _text(name: str) -> str:
    path = Path(name.removeprefix("file://").removeprefix("file:"))
    data = path.read_bytes()
    if len(data) > BYTES_MAX:
        raise ValueError(f"it has {len(data)} bytes, at most {BYTES_MAX} are read")
    return data.decode("utf-8-sig")
