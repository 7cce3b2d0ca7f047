"""What may be sent to which egress: checked where it is emitted, so that a bad record fails its own batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from statefun_ingress.topics import egress_problem
from statefun_ray.module.model import PLAYGROUND_EGRESS, Module
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME

RecordCheck: TypeAlias = Callable[[str, bytes | None], str | None]
"""Takes type and value of a record; returns what is wrong with it, None if nothing is."""


def record_checks(module: Module, further: Iterable[str] = ()) -> Mapping[str, RecordCheck | None]:
    """Return what checks the records of each egress, None where any record will do.

    Args:
        module: configures egresses.
        further: egresses of the command line.
    """
    checks: dict[str, RecordCheck | None] = dict.fromkeys(further)
    checks |= dict.fromkeys(egress.id for egress in module.file_egresses)
    checks |= {egress.id: _typed(egress.id, PRODUCER_RECORD_TYPENAME) for egress in module.kafka_egresses}
    playground = module.playground_egress
    if playground is not None:
        topics = frozenset(playground.topics)
        checks[PLAYGROUND_EGRESS] = lambda typename, value: egress_problem(topics, typename, value)
    return checks


def _typed(egress: str, expected: str) -> RecordCheck:
    def check(typename: str, value: bytes | None) -> str | None:
        if typename == expected and value is not None:
            return None
        found = f"of type {typename!r}" if value is not None else "without a value"
        return (
            f"egress {egress} takes records of type {expected!r}, not one {found}; "
            "build it with the builder for that egress"
        )

    return check
