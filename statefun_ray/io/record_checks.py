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
    checks |= {egress.id: _kafka(egress.id) for egress in module.kafka_egresses}
    playground = module.playground_egress
    if playground is not None:
        topics = frozenset(playground.topics)
        checks[PLAYGROUND_EGRESS] = lambda typename, value: egress_problem(topics, typename, value)
    return checks


def _kafka(egress: str) -> RecordCheck:
    # Protobuf is loaded for applications that write records of it, and no others.
    from statefun_ray.io.kafka.records import read_record

    def check(typename: str, value: bytes | None) -> str | None:
        if typename != PRODUCER_RECORD_TYPENAME or value is None:
            found = f"of type {typename!r}" if value is not None else "without a value"
            return (
                f"egress {egress} takes records of type {PRODUCER_RECORD_TYPENAME!r}, not one {found}; "
                "build it with the builder for that egress"
            )
        # Half a microsecond, and half of the publication's own work on it.
        record = read_record(value)
        return f"egress {egress}: {record}" if isinstance(record, str) else None

    return check
