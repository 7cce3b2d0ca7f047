"""After a run that went well: break something on purpose, and see that it is noticed and named."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import xxhash

from statefun_checkpoints import layout
from statefun_checkpoints.commit_log import CommitLog, LogReader
from statefun_checkpoints.errors import CheckpointError
from statefun_checkpoints.model import Entry
from statefun_checkpoints.store import run_store
from statefun_checkpoints.store_requests import StoreSteps
from statefun_ingress.errors import CorruptLog, LogTrimmed
from statefun_ingress.log import IngressLog
from statefun_ingress.record import check_record
from statefun_ingress.segment import FORMAT, META_NAME, decode_segment_header
from statefun_ray.testing.storage import SimulatedFiles

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

EPILOGUE_MS = 3_000
LOG_DAMAGES = 8
"""Damages tried on copies of one ingress log."""


def run(simulation: Simulation) -> list[str]:
    """Choose one of several endings and return what is wrong with it."""
    choice = simulation.rng.random()
    if simulation.topic is not None:
        simulation.topic.is_judged = False
    if choice < 0.1:
        return _without_ingress(simulation)
    if choice < 0.3:
        return _with_damaged_store(simulation)
    if choice < 0.5:
        return _with_damaged_log(simulation)
    return []


def _with_damaged_store(simulation: Simulation) -> list[str]:
    """Damage an object that the newest snapshot needs: nobody may start from it, or from an older one."""
    entry = simulation.final_entry()
    assert entry is not None, "the run ended with a snapshot"
    objects, rng = simulation.store.objects, simulation.rng
    slot = layout.slot_path(entry.slot)
    name = rng.choice([*(part.path for part in entry.parts if part.path is not None), slot])
    damage = rng.choice(["missing", "truncated", "changed"])
    if name == slot:
        # Somebody claimed a generation and died, so that the log does not just end earlier.
        run_store(objects, _claim(simulation))
    data = objects.objects[name]
    if damage == "missing":
        objects.delete(name)
    elif damage == "truncated":
        objects.put(name, data[:-1])
    else:
        objects.put(name, _changed(simulation, data))
    unreadable = run_store(objects, _unreadable())
    if unreadable != (name == slot):
        return [f"{name} is {damage}, and {unreadable} entries are unreadable"]
    return _refused(simulation, f"{name} is {damage}", name)


def _claim(simulation: Simulation) -> StoreSteps[Entry]:
    log: CommitLog = simulation.coordinator.core.new_log()
    yield from log.open()
    return (yield from log.claim("epilogue", simulation.world.wall_ms(simulation.coordinator)))


def _unreadable() -> StoreSteps[int]:
    log = LogReader()
    yield from log.open()
    entries = yield from log.entries(count=3)
    return sum(isinstance(entry, CheckpointError) for entry in entries)


def _changed(simulation: Simulation, data: bytes) -> bytes:
    at = simulation.rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _without_ingress(simulation: Simulation) -> list[str]:
    """Start while a registered log is not served: its accepted events would be lost."""
    simulation.ingress.is_alive = False
    return _refused(simulation, "the ingress is away", "nobody serves it")


def _refused(simulation: Simulation, what: str, text: str) -> list[str]:
    simulation.world.note(f"epilogue: {what}")
    coordinator = simulation.start_coordinator()
    simulation.world.run_until(lambda: coordinator.stopped is not None, EPILOGUE_MS)
    if not coordinator.stopped or text not in coordinator.stopped:
        return [f"{what}, and the coordinator says {coordinator.stopped!r} in phase {coordinator.core.phase}"]
    return []


def _with_damaged_log(simulation: Simulation) -> list[str]:
    """Damage the closed ingress log in many ways: each must be noticed when it is opened."""
    assert simulation.ingress.core is not None, "the run ended with an open log"
    log = simulation.ingress.core.log
    if log.read(log.durable_seq).read() is not None:
        return ["an event is read that is not there yet"]
    if log.first_seq and not _is_trimmed(lambda: log.read(log.first_seq - 1)):
        return ["an event is read that is no longer there"]
    late = log.read(log.first_seq)
    if log.trim(log.durable_seq) and not _is_trimmed(late.read):
        return ["an event is read that was trimmed meanwhile"]
    log.close()
    for _ in range(LOG_DAMAGES):
        files = simulation.files.copy()
        damage = _damage(simulation, files)
        try:
            IngressLog.open(files, "another")
        except CorruptLog:
            continue
        return [f"ingress log: {damage}, and it opens"]
    return []


def _is_trimmed(read: Callable[[], object]) -> bool:
    try:
        read()
    except LogTrimmed:
        return True
    return False


def _damage(simulation: Simulation, files: SimulatedFiles) -> str:
    rng = simulation.rng
    segments = [name for name in files.list() if name != META_NAME]
    name = rng.choice([META_NAME, *segments])
    data = files.read(name, 0, files.size(name))
    damage = rng.choice(["missing", "cut", "changed", "renamed", "a record short", "of another version"])
    if name == META_NAME and damage not in ("missing", "renamed"):
        damage = "cut"  # replaced as a whole and a line long, it has no checksum
    if damage == "missing" and name == segments[0] != segments[-1]:
        name = segments[-1]  # a log without its beginning has been trimmed
    if damage == "cut":
        files.truncate(name, rng.randrange(len(data)))
    elif damage == "changed":
        files.replace(name, _changed(simulation, data))
    elif damage == "of another version":
        files.replace(name, _of_another_version(data))
    elif damage == "a record short":
        records = _records(data) or [(len(data) - 1, len(data))]
        # Without the last one a segment reads well: only its successor knows better.
        start, end = rng.choice([records[-1], rng.choice(records)])
        files.replace(name, data[:start] + data[end:])
    else:
        files.remove(name)
        if damage == "renamed":
            files.replace(name.replace("1", "2") if "1" in name else f"9{name[1:]}", data)
    return f"{name} is {damage}"


def _records(segment: bytes) -> list[tuple[int, int]]:
    """Return where each record of a segment begins and ends."""
    _, at = decode_segment_header(segment)
    records = []
    while at < len(segment):
        end = check_record(segment, at).end_offset
        records.append((at, end))
        at = end
    return records


def _of_another_version(segment: bytes) -> bytes:
    header, at = decode_segment_header(segment)
    body = msgspec.msgpack.encode(header | {"format": FORMAT + 1})
    checksum = xxhash.xxh32_intdigest(body, seed=len(body))
    return b"".join((segment[:8], struct.pack("<II", len(body), checksum), body, segment[at:]))
