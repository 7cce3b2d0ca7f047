"""Judges of a finished simulation: each compares what the durable record says with what had to come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from statefun_checkpoints import reader
from statefun_checkpoints.model import FAILURES, Rows
from statefun_checkpoints.store import run_store
from statefun_checkpoints.verify import verify
from statefun_ray.core.message import REPLY_NAMESPACE
from statefun_ray.testing.workload import INLINE, ONCE

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation


def check_outcome(simulation: Simulation) -> list[str]:
    """Return everything that is wrong with the final snapshot, the sink and the replies."""
    entry = simulation.final_entry()
    if entry is None:
        return ["there is no snapshot"]
    if entry.kind != "stop":
        return [f"the newest entry is a {entry.kind}, expected the stop"]
    rows = run_store(simulation.store.objects, reader.load(entry)).state
    books, counts, parked = _states(rows)
    return [
        *_check_books(simulation, books, counts),
        *_check_poison(simulation, rows, counts, parked),
        *_check_egress(simulation),
        *_check_replies(simulation, books),
        *_check_reads(simulation, counts),
        *_check_store(simulation),
    ]


def _states(rows: Rows) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], int], int]:
    books: dict[tuple[str, str], Any] = {}
    counts: dict[tuple[str, str], int] = {}
    parked = 0
    for table, id, value in zip(rows.table, rows.id, rows.value, strict=True):
        assert value is not None, "a loaded row has a value"
        function, _, state = table.rpartition(".")
        if state == "book":
            books[function, id] = json.loads(value)
        elif state == "count":
            counts[function, id] = int.from_bytes(value[1:], "little", signed=True)
        parked += table == "~queue"
    return books, counts, parked


def _check_books(
    simulation: Simulation, books: dict[tuple[str, str], Any], counts: dict[tuple[str, str], int]
) -> Iterator[str]:
    for address, expected in simulation.workload.expected.items():
        count = counts.get(address, 0)
        book = books.get(address, {"seen": 0, "errors": []})
        if (count, book["seen"]) != (expected.count, expected.seen):
            yield f"{address}: ran {count} times on ids {book['seen']}, expected {expected.count} on {expected.seen}"
        if book["errors"]:
            yield f"{address}: out of order: {book['errors']}"
    once, anonymous = counts.pop((INLINE, ONCE), 0), simulation.anonymous
    if not anonymous.answered <= once <= anonymous.sent:
        yield f"{once} events without a number, expected {anonymous.answered} to {anonymous.sent}"
    for address in counts.keys() - simulation.workload.expected.keys():
        yield f"{address} ran {counts[address]} times, expected never"


def _is_parked(table: str, value: bytes | None) -> bool:
    return table == FAILURES and value is not None and bool(msgspec.msgpack.decode(value)[0])


def _check_poison(
    simulation: Simulation, rows: Rows, counts: dict[tuple[str, str], int], parked: int
) -> Iterator[str]:
    for address in simulation.poisons:
        if address in counts:
            yield f"{address}, which always fails, has state"
    remembered = sum(_is_parked(table, value) for table, value in zip(rows.table, rows.value, strict=True))
    if remembered != len(simulation.poisons):
        yield f"{remembered} addresses are recorded as parked, expected {len(simulation.poisons)}"
    if parked != simulation.poisonous:
        yield f"{parked} messages wait at the end, expected {simulation.poisonous}"


def _check_egress(simulation: Simulation) -> Iterator[str]:
    yield from simulation.sink.conflicts
    found: list[int] = []
    rows: dict[int, list[tuple[int, str, str, bytes | None]]] = {}
    for (shard, _, _), published in sorted(simulation.sink.files.items()):
        rows.setdefault(shard, []).extend(published)
    for shard, published in rows.items():
        sequences = [row[0] for row in published]
        if sequences != list(range(len(sequences))):
            yield f"egress shard {shard} holds rows {sequences}, expected every number once"
        found += [int.from_bytes(row[3][1:], "little", signed=True) for row in published if row[3]]
    if sorted(found) != sorted(simulation.workload.egress):
        lost = set(simulation.workload.egress) - set(found)
        yield f"egress holds {len(found)} records, expected {len(simulation.workload.egress)}; lost {sorted(lost)}"


def _check_replies(simulation: Simulation, books: dict[tuple[str, str], Any]) -> Iterator[str]:
    for producer in simulation.producers:
        for reply in producer.replies:
            given = books.get((reply.kind, reply.id), {"replies": {}})["replies"]
            recorded = given.get(f"{REPLY_NAMESPACE}/{reply.caller}")
            if recorded != reply.number:
                yield f"{producer.name} got {reply}, but that function answered {recorded}"
    core = simulation.ingress.core
    if core is not None and len(core.pending):
        yield f"{len(core.pending)} requests still wait for a reply"


def _check_reads(simulation: Simulation, counts: dict[tuple[str, str], int]) -> Iterator[str]:
    committed: dict[tuple[str, str], int] = {}
    for kind, id, is_committed, count in simulation.reads:
        if count > counts.get((kind, id), 0):
            yield f"a read of {kind}/{id} gave count {count}, the final one is {counts.get((kind, id), 0)}"
        if is_committed:
            if count < committed.get((kind, id), 0):
                yield f"a committed read of {kind}/{id} gave {count} after {committed[kind, id]}"
            committed[kind, id] = max(count, committed.get((kind, id), 0))


def _check_store(simulation: Simulation) -> Iterator[str]:
    report = run_store(simulation.store.objects, verify())
    for finding in report.findings:
        yield f"verify: {finding}"
