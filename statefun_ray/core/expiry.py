"""How long the values of a state live after they were stamped, here and in a snapshot.

A table keeps when a value expires, not when it was written or called last (``state``). So whoever
gives a state another duration has to know the one that its values were stamped with: a snapshot
records it, by worker where workers know different ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from statefun_checkpoints.model import FunctionSpec, StateSpec, state_table

REFRESH_FRACTION: Final = 16
"""An ``after_call`` expiry is rewritten only once a sixteenth of it has passed, or every read is a write.
So the value is given as much longer: it never goes too early, and at most that much too late."""


def lifetime_ms(expire_ms: int, *, on_call: bool) -> int:
    """Return how long a value is there after it was stamped, 0 for ever."""
    return expire_ms + expire_ms // REFRESH_FRACTION if on_call else expire_ms


def lifetimes_of(
    functions: Mapping[str, FunctionSpec], owners: Sequence[int]
) -> dict[tuple[str, str], list[int]]:
    """Return for how long the values in a snapshot were stamped: by table, type and key group.

    Args:
        functions: as the snapshot records them.
        owners: the workers that wrote it, by key group.
    """
    lifetimes: dict[tuple[str, str], list[int]] = {}
    for function_type, function in functions.items():
        for name, spec in function.states.items():
            words = {int(worker): word[name] for worker, word in function.differing.items() if name in word}
            for each in {spec, *words.values()}:
                if each.expire_ms:
                    lifetimes[state_table(function_type, name), each.type] = [
                        lifetime_of(word) if (word := words.get(owner, spec)).type == each.type else 0
                        for owner in owners
                    ]
    return lifetimes


def lifetime_of(spec: StateSpec) -> int:
    """As `lifetime_ms`, of what was declared."""
    return lifetime_ms(spec.expire_ms, on_call=spec.expire == "after_call")
