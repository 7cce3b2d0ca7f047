"""What the core needs of whoever runs user functions. It trades in bytes and knows no SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from statefun_checkpoints.model import FunctionSpec
from statefun_ray.core.state import Table

Send: TypeAlias = tuple[str, str, str, bytes | None]
"""``(target type, target id, value type, value)``."""

Delayed: TypeAlias = tuple[Any, ...]
"""``("send", delay ms, token, target type, target id, value type, value)`` or ``("cancel", token)``."""

Egress: TypeAlias = tuple[str, str, bytes | None]
"""``(egress typename, value type, value)``."""

InvocationEffects: TypeAlias = tuple[dict[int, bytes | None], list[Send], list[Delayed], list[Egress]]
"""State writes by index of the state (None deletes), messages, delayed messages and cancellations in
call order, egress records. The containers belong to the invoker and are read before its next call."""

InlineCall: TypeAlias = Callable[[str, str, str, str, bytes | None], InvocationEffects | None]
"""``(id, caller type, caller id, value type, value)`` -> effects, None for none. Raises what the
function raised, having discarded its effects."""


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """Who runs a function that lives elsewhere: functions of one service share a lane."""

    name: str
    limit: int
    """Invocations in flight to begin with; the driver moves it, see ``Worker.move_lane``."""
    waiting_max: int = 0
    """Messages waiting for one address at which sources are held back; 0 for never."""


class Invoker(Protocol):
    """Runs the functions of one application inside one worker."""

    @property
    def functions(self) -> Mapping[str, FunctionSpec]:
        """The embedded functions and their states, as a commit-log entry records them."""

    def now_ms(self) -> int:
        """Return wall-clock time: a turn takes as long as its functions do, and some effects count from their end.

        Asked only where it matters: delayed messages, and functions whose states expire.
        """

    def bind(self, function_type: str, tables: Sequence[Table]) -> InlineCall | None:
        """Connect a function with its state tables, in the order of its states.

        For a function that lives elsewhere the sequence is empty and grows as the worker is told
        of its states; see ``Worker.register_states``.

        Returns:
            The call for a function to be run inside the turn; None for one that awaits or blocks
            and is run through an ``Invoke`` effect.
        """

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Say who runs a function that is not among ``functions``; None if nobody does.

        Asked when a message for the type is seen first.
        """

    @property
    def elsewhere(self) -> Sequence[str]:
        """Function types that live elsewhere, and ``namespace/*`` for any of a namespace, for texts."""
