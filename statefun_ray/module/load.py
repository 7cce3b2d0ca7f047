"""Reads module.yaml files from disk. The only part of this package that touches the world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from statefun_ray.module.locations import path_of
from statefun_ray.module.problems import Place, Problem
from statefun_ray.module.read import Reading, read

BYTES_MAX = 16 << 20
"""A larger file is no module.yaml."""


def load(paths: Sequence[str]) -> Reading:
    """Return the application that some files describe together; ``file:`` URLs will do as well."""
    sources: list[tuple[str, str]] = []
    problems: list[Problem] = []
    first: dict[Path, str] = {}
    for name in paths:
        try:
            path = Path(path_of(name))
            text = _text(path)
        except UnicodeDecodeError as error:
            problems.append(_not_utf8(name, error))
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problems.append(
                Problem(
                    "error", Place(name, 0), f"no file that can be read: {reason}", "a module.yaml in UTF-8"
                )
            )
            continue
        before = first.setdefault(path.resolve(), name)
        if len(first) > len(sources):
            sources.append((name, text))
            continue
        as_name = "" if before == name else f", first as {before}"
        problems.append(
            Problem(
                "error", Place(name, 0), f"the same file again{as_name}", "each file once", "name it once"
            )
        )
    reading = read(sources)
    if not problems:
        return reading
    return Reading(None, (*problems, *reading.problems))


def _text(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > BYTES_MAX:
        raise ValueError(f"it has {len(data)} bytes, at most {BYTES_MAX} are read")
    return data.decode().removeprefix("\ufeff")


def _not_utf8(name: str, error: UnicodeDecodeError) -> Problem:
    line = error.object.count(b"\n", 0, error.start) + 1
    found = f"the byte 0x{error.object[error.start]:02X} at offset {error.start}, which is not UTF-8"
    return Problem("error", Place(name, line), found, "a module.yaml in UTF-8", "save the file as UTF-8")
