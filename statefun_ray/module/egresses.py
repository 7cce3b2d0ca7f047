"""What may be sent to which egress. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from statefun_ray.module.model import PLAYGROUND_EGRESS, Module

KAFKA_RECORD: Final = "type.googleapis.com/io.statefun.sdk.egress.KafkaProducerRecord"
PLAYGROUND_RECORD: Final = "io.statefun.playground/EgressRecord"


def record_types(module: Module, further: Iterable[str] = ()) -> Mapping[str, str | None]:
    """Return the type that the records of each egress must have, None where any will do.

    Args:
        module: configures egresses.
        further: egresses of the command line.
    """
    types: dict[str, str | None] = dict.fromkeys(further)
    types |= dict.fromkeys(egress.id for egress in module.file_egresses)
    types |= dict.fromkeys((egress.id for egress in module.kafka_egresses), KAFKA_RECORD)
    if module.playground_egress is not None:
        types[PLAYGROUND_EGRESS] = PLAYGROUND_RECORD
    return types
