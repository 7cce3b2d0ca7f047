"""What is wrong with a ``module.yaml``, as values: where, what was found, what is expected, what to do.

Readers go on after a problem, so that one look at a file shows everything that is wrong with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file."""

    source: str
    """The file, as it was named."""
    line: int
    """Counted from 1; 0 when the whole file is meant."""
    key: str = ""
    """Path of keys from the top of the document: ``spec.topics[0].targets``."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """An error keeps the application from starting, a warning does not."""

    severity: Severity
    place: Place
    found: str
    expected: str = ""
    advice: str = ""

    @property
    def text(self) -> str:
        """Everything but the place, in a sentence."""
        expected = f"expected {self.expected}" if self.expected else ""
        return "; ".join(part for part in (f"found {self.found}", expected, self.advice) if part)

    def __str__(self) -> str:
        parts = [str(self.place)]
        if self.place.key:
            parts.append(self.place.key)
        if self.severity == "warning":
            parts.append("warning")
        return ": ".join([*parts, self.text])

    def as_json(self) -> dict[str, Any]:
        """Return the fields under their own names, with those of the place among them."""
        return {
            "severity": self.severity,
            "file": self.place.source,
            "line": self.place.line,
            "key": self.place.key,
            "found": self.found,
            "expected": self.expected,
            "advice": self.advice,
        }


class Problems:
    """Collects the problems of one reading."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def error(self, place: Place, found: str, expected: str = "", advice: str = "") -> None:
        """Note what keeps the application from starting."""
        self._found.append(Problem("error", place, found, expected, advice))

    def warn(self, place: Place, found: str, advice: str) -> None:
        """Note what works, but perhaps not as it was meant."""
        self._found.append(Problem("warning", place, found, "", advice))

    @property
    def error_count(self) -> int:
        """Errors noted so far."""
        return sum(problem.severity == "error" for problem in self._found)

    def in_order(self, sources: Iterable[str]) -> tuple[Problem, ...]:
        """Return all problems by file, in the order of ``sources``, and by line.

        What was noted twice, because two readers looked at one node, is there once.
        """
        return in_order(dict.fromkeys(self._found), sources)


def in_order(problems: Iterable[Problem], sources: Iterable[str]) -> tuple[Problem, ...]:
    """Return problems by file, in the order of ``sources``, and by line; what names no file comes last."""
    rank = {source: index for index, source in reversed(list(enumerate(sources)))}
    return tuple(
        sorted(
            problems,
            key=lambda problem: (rank.get(problem.place.source, len(rank)), problem.place.line),
        )
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``word`` was probably meant to be; case does not count."""
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None
