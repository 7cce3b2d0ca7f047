"""Which snapshot to restore, and whether an application may take it over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.errors import FunctionsChanged, NoSnapshot
from statefun_checkpoints.model import Entry, FunctionSpec
from statefun_checkpoints.store_requests import StoreSteps


def find_snapshot(log: LogReader, snapshot: int | None = None) -> StoreSteps[Entry]:
    """Return the entry of ``snapshot``, of the newest by default.

    Args:
        log: opened.
        snapshot: id. Ids grow along the log, so it is found by bisection.

    Raises:
        NoSnapshot: there is none, or not this one.
        CorruptEntry, MissingEntry: an entry on the way cannot be read.
    """
    newest = yield from log.latest_snapshot()
    if newest is None:
        raise NoSnapshot(snapshot)
    if snapshot is None:
        return newest
    found = yield from _at_or_below(log, newest, snapshot)
    if found is None or found.snapshot_id != snapshot:
        neighbours = {found.snapshot_id} if found else set()
        raise NoSnapshot(snapshot, tuple(sorted({newest.snapshot_id, *neighbours}, reverse=True)))
    return found


def _at_or_below(log: LogReader, newest: Entry, snapshot: int) -> StoreSteps[Entry | None]:
    """Return the newest entry whose snapshot id is at most ``snapshot``."""
    if newest.snapshot_id <= snapshot:
        return newest
    found: Entry | None = None
    low, high = log.first_slot, newest.slot  # the slot looked for is in [low, high)
    while low < high:
        middle = (low + high) // 2
        entry = yield from _snapshot_down_from(log, middle, low)
        if entry is None:
            low = middle + 1
        elif entry.snapshot_id <= snapshot:
            found, low = entry, middle + 1
        else:
            high = entry.slot
    return found


def _snapshot_down_from(log: LogReader, slot: int, lowest: int) -> StoreSteps[Entry | None]:
    for at in range(slot, lowest - 1, -1):
        entry = yield from log.read(at)
        if entry.is_snapshot:
            return entry
    return None


def newest_snapshots(log: LogReader, count: int) -> StoreSteps[list[Entry]]:
    """Return up to ``count`` snapshots of the retained kind, newest first, and the newest of any kind.

    Reply-driven snapshots are superseded by the next periodic one and do not count; the newest
    snapshot is in the list whatever its kind.

    Raises:
        CorruptEntry, MissingEntry: an entry on the way cannot be read.
    """
    found: list[Entry] = []
    retained = 0
    for slot in range(log.newest_slot, log.first_slot - 1, -1):
        if retained == count:
            break
        entry = yield from log.read(slot)
        if entry.is_snapshot and (entry.rhythm != "reply" or not found):
            found.append(entry)
            retained += entry.rhythm != "reply"
    return found


def _nobody(_function_type: str) -> bool:
    return False


def check_functions(
    entry: Entry, functions: Mapping[str, FunctionSpec], serves: Callable[[str], bool] = _nobody
) -> None:
    """Refuse to start ``functions`` from ``entry`` if state would be lost; see `compare_functions`.

    Raises:
        FunctionsChanged: with one line per difference.
    """
    differences = compare_functions(entry.functions, functions, serves)
    if differences:
        raise FunctionsChanged(entry.snapshot_id, differences)


def compare_functions(
    saved: Mapping[str, FunctionSpec],
    starting: Mapping[str, FunctionSpec],
    serves: Callable[[str], bool] = _nobody,
) -> tuple[str, ...]:
    """Say in what way ``starting`` cannot take over the state of ``saved``; empty if it can.

    Added functions and states are fine, and so is any change of expiry: what is stored expires as is
    declared now, counted from when it was written or called last. A removed or retyped one is not.

    Functions that live elsewhere, in ``saved`` or because ``serves`` says so, are not compared: they
    say what their states are when they are called, and may be gone; their state is kept.
    """
    differences = []
    for function_type, function in sorted(saved.items()):
        now = starting.get(function_type)
        if now is None:
            if function.remote or serves(function_type):
                continue
            states = ", ".join(f"{name}: {spec.type}" for name, spec in sorted(function.states.items()))
            differences.append(f"function {function_type} is gone (its states: {states or 'none'})")
            continue
        for name, spec in sorted(function.states.items()):
            if name not in now.states:
                if function.remote:
                    continue
                differences.append(f"state {name!r} of {function_type} is gone (it was {spec.type})")
            elif now.states[name].type != spec.type:
                differences.append(
                    f"state {name!r} of {function_type} was {spec.type} and is now {now.states[name].type}"
                )
    return tuple(differences)


def vanished_functions(
    saved: Mapping[str, FunctionSpec], starting: Mapping[str, FunctionSpec], serves: Callable[[str], bool]
) -> list[str]:
    """Return the functions of ``saved`` that lived elsewhere and that nobody runs any more, sorted."""
    return sorted(
        function_type
        for function_type, function in saved.items()
        if function.remote and function.states and function_type not in starting and not serves(function_type)
    )
