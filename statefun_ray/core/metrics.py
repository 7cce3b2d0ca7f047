"""Figures of one worker, as it counts them: per function, and of the whole.

A figure is ``(name, labels, value)``, with labels as Prometheus writes them. Names follow those of
StateFun: ``in`` is ``statefun_function_in_total`` here. Messages are counted once each, when they
are applied; StateFun counts a remote one at least twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

Figure: TypeAlias = tuple[str, str, float]


class FunctionMetrics:
    """Of one function type, since the generation started."""

    __slots__ = ("failures", "out_egress", "out_local", "out_remote", "received")

    def __init__(self) -> None:
        self.received = 0
        """Messages whose effects were applied."""
        self.out_local = 0
        """Messages to addresses of the same worker."""
        self.out_remote = 0
        """Messages to addresses of other workers."""
        self.out_egress = 0
        self.failures = 0
        """Attempts that had no effects: what was tried again counts again."""


def label(name: str, value: str) -> str:
    """Return one label in Prometheus' text format."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def function_figures(functions: Mapping[str, FunctionMetrics]) -> Iterator[Figure]:
    """Yield the figures of all functions."""
    for function_type, metrics in functions.items():
        labels = label("function", function_type)
        yield "statefun_function_in_total", labels, metrics.received
        yield "statefun_function_out_local_total", labels, metrics.out_local
        yield "statefun_function_out_remote_total", labels, metrics.out_remote
        yield "statefun_function_out_egress_total", labels, metrics.out_egress
        yield "statefun_function_failures_total", labels, metrics.failures
