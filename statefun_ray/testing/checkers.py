"""Judges of a finished simulation: each compares what the durable record says with what had to come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from statefun_checkpoints import reader
from statefun_checkpoints.model import DEAD, FAILURES, QUEUE, Rows
from statefun_checkpoints.store import run_store
from statefun_checkpoints.verify import verify
from statefun_ingress.dead_letters import Named
from statefun_ray.core.dead_letters import Letter
from statefun_ray.core.message import NO_ADDRESS, REPLY_NAMESPACE, unpack_message
from statefun_ray.testing.workload import INLINE, NO_MESSAGE, OLD, ONCE, REASONS, Poisoned, new_book

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
    books, counts = _states(rows)
    taken = [unique for book in books.values() for unique in book["taken"]]
    return [
        *_check_books(simulation, books, counts),
        *_check_poison(simulation, rows, taken),
        *_check_egress(simulation, taken),
        *_check_replies(simulation, books),
        *_check_reads(simulation, counts),
        *_check_store(simulation),
        *(simulation.topic.check_history(simulation.snapshots()) if simulation.topic is not None else ()),
    ]


def _states(rows: Rows) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], int]]:
    books: dict[tuple[str, str], Any] = {}
    counts: dict[tuple[str, str], int] = {}
    for table, id, value in zip(rows.table, rows.id, rows.value, strict=True):
        assert value is not None, "a loaded row has a value"
        function, _, state = table.rpartition(".")
        if state == "book":
            books[function, id] = json.loads(value)
        elif state == "count":
            counts[function, id] = int.from_bytes(value[1:], "little", signed=True)
    return books, counts


def _check_books(
    simulation: Simulation, books: dict[tuple[str, str], Any], counts: dict[tuple[str, str], int]
) -> Iterator[str]:
    for address, expected in simulation.workload.expected.items():
        count = counts.get(address, 0)
        book = books.get(address, new_book())
        if (count, book["seen"]) != (expected.count, expected.seen):
            yield f"{address}: ran {count} times on ids {book['seen']}, expected {expected.count} on {expected.seen}"
        if book["errors"]:
            yield f"{address}: out of order: {book['errors']}"
    once, anonymous = counts.pop((INLINE, ONCE), 0), simulation.anonymous
    if not anonymous.answered <= once <= anonymous.sent:
        yield f"{once} events without a number, expected {anonymous.answered} to {anonymous.sent}"
    if old := counts.pop((INLINE, OLD), 0):
        yield f"{old} records from before the application"
    for address in counts.keys() - simulation.workload.expected.keys():
        yield f"{address} ran {counts[address]} times, expected never"


def _is_parked(table: str, value: bytes | None) -> bool:
    return table == FAILURES and value is not None and bool(msgspec.msgpack.decode(value)[0])


def _check_poison(simulation: Simulation, rows: Rows, taken: list[int]) -> Iterator[str]:
    """Each message that fails for good is in one place: taken, waiting, a letter; or it was dropped."""
    policy, workload = simulation.policy, simulation.workload
    letters: dict[Named, int] = {}
    without_address: set[Named] = set()
    waiting: list[int] = []
    for table, id, sub, value in zip(rows.table, rows.id, rows.sub, rows.value, strict=True):
        if table == QUEUE and value is not None:
            waiting.append(_unique_of(unpack_message(value)[5]))
        elif table == DEAD and value is not None:
            letter = msgspec.msgpack.decode(value, type=Letter)
            letters[Named(id, sub)] = unique = _unique_of(letter[0][5])
            if letter[0][2] == NO_ADDRESS:
                without_address.add(Named(id, sub))
            if unique in workload.poisoned:
                yield from _check_letter(simulation, id, sub, letter, workload.poisoned[unique])
    places = Counter([*taken, *waiting, *letters.values()])
    if strangers := places.keys() - workload.poisoned.keys():
        yield f"{sorted(strangers)} failed for good, and nothing was wrong with them"
    dropped = {unique for unique in workload.poisoned if not places[unique]}
    for unique in taken:
        poisoned = workload.poisoned.get(unique)
        if poisoned is not None and NO_MESSAGE in poisoned.error:
            yield f"message {unique} never was one, and a function took it: {poisoned}"
    for unique, count in places.items():
        if count > 1:
            yield f"message {unique} is in {count} places: {workload.poisoned.get(unique)}"
    yield from _check_told(simulation, letters, without_address, dropped)
    remembered = sum(_is_parked(table, value) for table, value in zip(rows.table, rows.value, strict=True))
    is_parked = policy.on_failure == "park" and policy.mended == "never"
    if remembered != len(policy.poisons) * is_parked:
        yield f"{remembered} addresses are recorded as parked, expected {len(policy.poisons) * is_parked}"
    if policy.on_failure != "dead-letter" or not policy.poisons:
        found = waiting if is_parked else taken
        expected = [
            unique for unique, poisoned in workload.poisoned.items() if NO_MESSAGE not in poisoned.error
        ]
        if sorted(found) != sorted(expected):
            yield f"{len(found)} messages are {'waiting' if is_parked else 'taken'}, expected {len(expected)}"
        unfit = workload.poisoned.keys() - expected
        if sorted(letters.values()) != sorted(unfit):
            yield f"{len(letters)} records are dead letters, expected {len(unfit)}"


def _unique_of(value: bytes | None) -> int:
    assert value is not None, "messages of this workload carry commands"
    unique: int = json.loads(value)["u"]
    return unique


def _check_letter(
    simulation: Simulation, id: str, sub: str, letter: Letter, poisoned: Poisoned
) -> Iterator[str]:
    (target_type, target_id, *_), attempts, error, first_ms, last_ms = letter
    where = f"letter {id}/{sub}"
    if (target_type, target_id) != (poisoned.kind, poisoned.id):
        yield f"{where} is to {target_type}/{target_id}, expected {poisoned}"
    if not any(reason in error for reason in poisoned.error):
        yield f"{where} says {error!r}, expected {poisoned.error}"
    deadline_ms = simulation.policy.retry_deadline_ms
    was_tried = any(reason in error for reason in REASONS.values())
    if was_tried and (attempts < 1 + (deadline_ms > 0) or last_ms - first_ms < deadline_ms):
        yield f"{where} after {attempts} attempts in {last_ms - first_ms} ms, the retry deadline is {deadline_ms} ms"
    if not was_tried and (attempts, first_ms) != (0, last_ms):
        yield f"{where} after {attempts} attempts in {last_ms - first_ms} ms, expected none"


def _check_told(
    simulation: Simulation, letters: dict[Named, int], without_address: set[Named], dropped: set[int]
) -> Iterator[str]:
    """All that was told was durable, so each letter that was told something is gone.

    One that never was a message goes when it is dropped, and for nothing else.
    """
    droppable = set()
    present = set(letters.values())
    for named, unique in simulation.clerk.seen.items():
        told = simulation.clerk.told.get(named, [])
        if not told:
            continue
        actions = {action for action, _ in told}
        if "drop" in actions:
            droppable.add(unique)
        if named in without_address and actions == {"redrive"}:
            continue
        if named in letters:
            yield f"{named} was told {actions} and is still there"
        if actions == {"drop"} and unique not in dropped:
            yield f"{named} was dropped, and message {unique} is there"
        if actions == {"redrive"} and unique in present and all(is_mended for _, is_mended in told):
            yield f"{named} was redriven when all was mended, and message {unique} is a letter"
    for unique in dropped - droppable:
        yield f"message {unique} is lost: {simulation.workload.poisoned[unique]}"


def _check_egress(simulation: Simulation, taken: list[int]) -> Iterator[str]:
    expected = simulation.workload.egress + [
        poisoned.egress
        for unique in taken
        if (poisoned := simulation.workload.poisoned.get(unique)) is not None
    ]
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
    if sorted(found) != sorted(expected):
        lost = set(expected) - set(found)
        yield f"egress holds {len(found)} records, expected {len(expected)}; lost {sorted(lost)}"


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
