"""Which sink each egress of an application has."""

from __future__ import annotations

from collections.abc import Mapping

from statefun_checkpoints.store import ObjectStore
from statefun_ray.io.egress import Sink, Sinks
from statefun_ray.io.egress_playground import PlaygroundSink
from statefun_ray.module.model import PLAYGROUND_EGRESS, Module


def open_sinks(
    storage: ObjectStore, module: Module, uris: Mapping[str, str], playground: PlaygroundSink
) -> Sinks:
    """Open the sinks of an application.

    Args:
        storage: of the application.
        module: says which egresses there are.
        uris: of file sinks, from the command line; they win over the module's.
        playground: for the playground's egress, if there is one.

    Raises:
        ValueError: a sink URI of an unknown scheme.
    """
    files = {egress.id: egress.uri for egress in module.file_egresses}
    further: dict[str, Sink] = {}
    if module.playground_egress is not None:
        further[PLAYGROUND_EGRESS] = playground
    return Sinks(storage, {**files, **uris}, further)
