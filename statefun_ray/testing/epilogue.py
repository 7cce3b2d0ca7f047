"""After a run that went well: break something on purpose, and see that it is noticed and named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statefun_checkpoints import layout
from statefun_checkpoints.commit_log import CommitLog, LogReader
from statefun_checkpoints.errors import CheckpointError
from statefun_checkpoints.model import Entry
from statefun_checkpoints.store import run_store
from statefun_checkpoints.store_requests import StoreSteps
from statefun_ingress.errors import CorruptLog, LogTrimmed
from statefun_ingress.log import IngressLog
from statefun_ingress.segment import META_NAME
from statefun_ray.testing.storage import SimulatedFiles

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

EPILOGUE_MS = 3_000
LOG_DAMAGES = 8
"""Damages tried on copies of one ingress log."""


def run(simulation: Simulation) -> list[str]:
    """Choose one of several endings and return what is wrong with it."""
    choice = simulation.rng.random()
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
    if log.first_seq:
        try:
            log.read(log.first_seq - 1)
        except LogTrimmed:
            pass
        else:
            return ["an event is read that is no longer there"]
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


def _damage(simulation: Simulation, files: SimulatedFiles) -> str:
    rng = simulation.rng
    segments = [name for name in files.list() if name != META_NAME]
    name = rng.choice([META_NAME, *segments])
    data = files.read(name, 0, files.size(name))
    damage = rng.choice(["missing", "cut", "changed", "renamed"])
    if name == META_NAME and damage == "changed":
        damage = "cut"  # replaced as a whole and a line long, it has no checksum
    if damage == "missing" and name == segments[0] != segments[-1]:
        name = segments[-1]  # a log without its beginning has been trimmed
    if damage == "cut":
        files.truncate(name, rng.randrange(len(data)))
    elif damage == "changed":
        files.replace(name, _changed(simulation, data))
    else:
        files.remove(name)
        if damage == "renamed":
            files.replace(name.replace("1", "2") if "1" in name else f"9{name[1:]}", data)
    return f"{name} is {damage}"
