"""All functions of one application in one worker: those in Python, and those that live elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from statefun_checkpoints.model import FunctionSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InlineCall, InvocationEffects, LaneSpec
from statefun_ray.core.state import Table
from statefun_ray.io.clock import wall_ms
from statefun_ray.io.invoke_local import EmbeddedInvoker
from statefun_ray.io.remote.invoker import RemoteInvoker


class Invokers:
    """The `Invoker` of a worker."""

    now_ms = staticmethod(wall_ms)
    """See ``core.invoker.Invoker``; asked twice for a message whose function has states that expire."""

    def __init__(self, embedded: EmbeddedInvoker, remote: RemoteInvoker) -> None:
        self._embedded = embedded
        self.remote = remote

    @property
    def functions(self) -> Mapping[str, FunctionSpec]:
        """The embedded functions and their states."""
        return self._embedded.functions

    def bind(self, function_type: str, tables: Sequence[Table]) -> InlineCall | None:
        """Connect a function with its tables; see ``core.invoker.Invoker``."""
        if function_type in self._embedded.functions:
            return self._embedded.bind(function_type, tables)
        self.remote.bind(function_type, tables)
        return None

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Say who runs a function that is not embedded; None if nobody does."""
        return self.remote.lane_of(function_type)

    @property
    def elsewhere(self) -> Sequence[str]:
        """Those that live elsewhere, as the module has them."""
        return self.remote.elsewhere

    def is_embedded(self, function_type: str) -> bool:
        """Whether a function runs in this process."""
        return function_type in self._embedded.functions

    async def run(self, invoke: Invoke) -> InvocationEffects | None:
        """Run an awaiting invocation of an embedded function to its end; raises what went wrong with it.

        Those of other functions are started at ``remote``.
        """
        return await self._embedded.run(invoke)

    def close(self) -> None:
        """Let go of threads and connections."""
        self._embedded.close()
        self.remote.close()
