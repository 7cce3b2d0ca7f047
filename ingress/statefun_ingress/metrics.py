"""``/metrics``: the figures of this ingress and of its workers in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Row = tuple[str, str, float]
"""Name, labels as Prometheus writes them, value."""


def metrics_text(own: Iterable[Row], workers: Mapping[int, Iterable[Row]]) -> str:
    """Return the page.

    Args:
        own: of the ingress.
        workers: by index; their rows get it as a label.
    """
    by_name: dict[str, list[str]] = {}
    for name, labels, value in own:
        by_name.setdefault(name, []).append(_line(name, labels, value))
    for index, rows in sorted(workers.items()):
        for name, labels, value in rows:
            named = f'worker="{index}"' + (f",{labels}" if labels else "")
            by_name.setdefault(name, []).append(_line(name, named, value))
    lines: list[str] = []
    described: set[str] = set()
    for name in sorted(by_name, key=lambda name: (_family(name), name)):
        family = _family(name)
        if family not in described:
            described.add(family)
            lines.append(f"# TYPE {family} {_kind(name)}")
        lines += by_name[name]
    return "\n".join(lines) + "\n"


def _line(name: str, labels: str, value: float) -> str:
    number = repr(float(value)) if value != int(value) else str(int(value))
    return f"{name}{{{labels}}} {number}" if labels else f"{name} {number}"


def _family(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _kind(name: str) -> str:
    if _family(name) != name:
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"
