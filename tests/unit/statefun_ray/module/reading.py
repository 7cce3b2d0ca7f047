"""Short forms for tests that read a module.yaml."""

from __future__ import annotations

import textwrap

from statefun_ray.module.model import Module
from statefun_ray.module.read import Reading, read


def reading_of(*texts: str) -> Reading:
    """Read texts as the files ``a.yaml``, ``b.yaml``, …"""
    return read([(f"{chr(ord('a') + i)}.yaml", textwrap.dedent(text)) for i, text in enumerate(texts)])


def module_of(*texts: str) -> Module:
    """Return the module of texts in which there is nothing to complain about."""
    reading = reading_of(*texts)
    assert [str(problem) for problem in reading.problems] == []
    assert reading.module is not None
    return reading.module


def warned_module(*texts: str) -> tuple[Module, list[str]]:
    """Return the module of texts, and ``key: text`` of the warnings."""
    reading = reading_of(*texts)
    assert [str(problem) for problem in reading.errors] == []
    assert reading.module is not None
    return reading.module, [f"{problem.place.key}: {problem.text}" for problem in reading.warnings]


def errors_of(*texts: str) -> list[tuple[str, int, str]]:
    """Return ``(key, line, text)`` of the errors of texts that are refused."""
    reading = reading_of(*texts)
    assert reading.module is None
    assert reading.errors
    return [(problem.place.key, problem.place.line, problem.text) for problem in reading.errors]


def error_of(*texts: str) -> tuple[str, int, str]:
    """Return the one error of texts."""
    (error,) = errors_of(*texts)
    return error


def document(kind: str, spec: str) -> str:
    """Return a document of ``kind``; its spec starts in line 3."""
    return f"kind: {kind}\nspec:\n" + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n"
