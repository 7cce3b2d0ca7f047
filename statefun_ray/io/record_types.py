"""What may be sent to which egress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from statefun_ray.module.model import PLAYGROUND_EGRESS, Module
from statefun_sdk.kafka import PRODUCER_RECORD_TYPENAME

PLAYGROUND_RECORD: Final = "io.statefun.playground/EgressRecord"


def record_types(module: Module, further: Iterable[str] = ()) -> Mapping[str, str | None]:
    """Return the type that the records of each egress must have, None where any will do.

    Args:
        module: configures egresses.
        further: egresses of the command line.
    """
    types: dict[str, str | None] = dict.fromkeys(further)
    types |= dict.fromkeys(egress.id for egress in module.file_egresses)
    types |= dict.fromkeys((egress.id for egress in module.kafka_egresses), PRODUCER_RECORD_TYPENAME)
    if module.playground_egress is not None:
        types[PLAYGROUND_EGRESS] = PLAYGROUND_RECORD
    return types
