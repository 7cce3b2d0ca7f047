"""Which sink each egress of an application has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import UNSET

from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.store import ObjectStore, run_store
from statefun_checkpoints.store_requests import StoreSteps
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress import RestoredShards, Sink, SinkRefused, Sinks
from statefun_ray.io.egress_file import FileSink
from statefun_ray.io.egress_playground import PlaygroundSink
from statefun_ray.module.model import PLAYGROUND_EGRESS, Module

logger = logging.getLogger(__name__)

REJECTED_PREFIX: Final = "egress-rejected"
"""Rows that a broker will never take go here, inside the application's own storage."""

REGISTERS_PREFIX: Final = "egress-registers"
"""An egress with an object here has had registers for all shards: one that is missing is lost."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who publishes: one worker of one generation.

    Attributes:
        workers_since: the largest number of workers of any generation that may still run somewhere.
    """

    app: str
    generation: int
    worker: int
    worker_count: int
    workers_since: int
    shard_count: int
    restored: RestoredShards


def open_sinks(
    storage: ObjectStore, module: Module, uris: Mapping[str, str], playground: PlaygroundSink, owner: Owner
) -> Sinks:
    """Make the sinks of an application; those that must fence earlier owners do it in `Sinks.open`.

    Args:
        storage: of the application.
        module: says which egresses there are.
        uris: of file sinks, from the command line; they win over the module's.
        playground: for the playground's egress, if there is one.
        owner: who publishes.

    Raises:
        ValueError: a sink URI of an unknown scheme.
        UserValueError: a property that a client does not take.
    """
    files = {egress.id: egress.uri for egress in module.file_egresses}
    further: dict[str, Sink] = {}
    if module.kafka_egresses:
        # An extra, and not needed by an application without Kafka.
        from statefun_ray.io.kafka.registers import History
        from statefun_ray.io.kafka.sink import KafkaSink

        for egress in module.kafka_egresses:
            rejected = FileSink(storage, egress.id, REJECTED_PREFIX)
            further[egress.id] = KafkaSink(
                egress,
                app=owner.app,
                incarnation=partial(_incarnation, storage),
                worker=owner.worker,
                worker_count=owner.worker_count,
                slot_count=owner.workers_since,
                shard_count=owner.shard_count,
                is_current=partial(_is_current, storage, owner.generation),
                on_rejected=_refuse if module.failure_policy.strict else partial(_keep_rejected, rejected),
                history=History(
                    owner.restored.next_sequence,
                    {
                        shard: first
                        for (id, shard), first in owner.restored.unconfirmed.items()
                        if id == egress.id
                    },
                    partial(_had_registers, storage, egress.id),
                    partial(_note_registers, storage, egress.id),
                ),
            )
    if module.playground_egress is not None:
        further[PLAYGROUND_EGRESS] = playground
    return Sinks(storage, {**files, **uris}, further)


def _is_current(storage: ObjectStore, generation: int) -> bool:
    return run_store(storage, _newest_generation()) <= generation


def _newest_generation() -> StoreSteps[int]:
    log = LogReader()
    yield from log.open()
    return (yield from log.read(log.newest_slot)).generation


def _incarnation(storage: ObjectStore) -> str:
    found = run_store(storage, LogReader().open()).incarnation
    return "" if found is UNSET else found


def _had_registers(storage: ObjectStore, egress: str) -> bool:
    return storage.get(f"{REGISTERS_PREFIX}/{egress}") is not None


def _note_registers(storage: ObjectStore, egress: str) -> None:
    # Empty: that it is there says all. A second one to say so changes nothing.
    storage.create(f"{REGISTERS_PREFIX}/{egress}", b"")


def _keep_rejected(files: FileSink, shard: int, row: EgressRow, why: str) -> None:
    logger.error(
        "an egress record is refused for good, and kept in %s of the storage: %s", REJECTED_PREFIX, why
    )
    files.publish([(shard, [row])])


def _refuse(_shard: int, _row: EgressRow, why: str) -> None:
    raise SinkRefused(
        f"a record is refused for good, and that ends the generation: {why}. See that the broker takes it, or start once "
        f"without strict: then it is kept in {REJECTED_PREFIX} of the storage, and the rest goes on"
    )
