"""Functions of the workload that seem to live elsewhere: with a handshake, outages and a moving limit.

Only the core sees a difference: it finds the functions when a message for them comes, in a lane of
their own, and learns their states from the first answer. Nothing here is HTTP; that is tested with
real services.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from statefun_checkpoints.model import FunctionSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InlineCall, InvocationEffects, LaneSpec
from statefun_ray.core.state import Table
from statefun_ray.core.worker import Worker
from statefun_ray.io.invoke_local import EmbeddedInvoker

LANE: Final = "service"


class SimulatedInvokers:
    """Runs all functions of the workload, some of them as if they lived elsewhere."""

    def __init__(
        self, embedded: EmbeddedInvoker, remote: frozenset[str], rng: Random, clock: Callable[[], int]
    ) -> None:
        self._clock = clock
        self._embedded = embedded
        self._remote = remote
        self._known: set[str] = set()
        """Functions whose states the core has been told of."""
        self._limit = rng.choice([1, 2, 1_024]) if remote else 0
        self._waiting_max = rng.choice([0, 1, 20]) if remote else 0
        self._rng = rng

    @property
    def functions(self) -> Mapping[str, FunctionSpec]:
        """The embedded functions and their states."""
        return embedded_of(self._embedded.functions, self._remote)

    def now_ms(self) -> int:
        """Return the time now; see ``core.invoker.Invoker``."""
        return self._clock()

    def bind(self, function_type: str, tables: Sequence[Table]) -> InlineCall | None:
        """Connect a function with its tables; see ``core.invoker.Invoker``."""
        return self._embedded.bind(function_type, tables)

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Say who runs a function that is not embedded."""
        return LaneSpec(LANE, self._limit, self._waiting_max) if function_type in self._remote else None

    @property
    def elsewhere(self) -> Sequence[str]:
        """Those that seem to live elsewhere."""
        return sorted(self._remote)

    def is_remote(self, function_type: str) -> bool:
        """Whether a function seems to live elsewhere."""
        return function_type in self._remote

    async def run(self, invoke: Invoke) -> InvocationEffects | None:
        """Run an invocation to its end; raises what the function raises."""
        return await self._embedded.run(invoke)

    def lacks_states(self, core: Worker, function_type: str, id: str) -> bool:
        """Answer the first request of a function with its states, instead of running it; say whether so."""
        if function_type not in self._remote or function_type in self._known:
            return False
        self._known.add(function_type)
        core.register_states(function_type, id, self._embedded.functions[function_type].states)
        return True

    def look(self, core: Worker) -> None:
        """A request has ended: ask whether it is the limit that keeps more from beginning, which is only advice."""
        core.is_held(LANE)

    def goes_down(self, core: Worker) -> None:
        """Nobody answers any more."""
        core.move_lane(LANE, self._rng.choice([0, 1]), is_down=True)

    def comes_back(self, core: Worker) -> None:
        """Somebody answers again, and bears more or less than before."""
        self._limit = self._rng.choice([1, 2, 1_024])
        core.move_lane(LANE, self._limit)


def embedded_of(functions: Mapping[str, FunctionSpec], remote: frozenset[str]) -> dict[str, FunctionSpec]:
    """Return those functions that do not seem to live elsewhere."""
    return {name: spec for name, spec in functions.items() if name not in remote}
