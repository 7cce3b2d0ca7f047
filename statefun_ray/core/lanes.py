"""Lanes: what bounds concurrency together.

One lane for embedded functions that run inside the turn, one for those that await or block, one for
each service that runs functions elsewhere. Each lane has its own queue of addresses that may be
started and its own limit of invocations in flight, so a service that is slow or down delays
nobody but the addresses it serves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from statefun_ray.core.addresses import BusyAddress

INLINE = "inline"
"""The lane of functions that are called inside the turn, and of types that nobody serves."""

AWAITING = "awaiting"
"""The lane of embedded functions that await or block."""

FULL_MS_MAX: Final = 1_000
"""An address that has enough holds back the sources for so long after its last batch began. An answer that
takes longer is no reason to let everybody else wait: its request may hang until it times out."""


class Lane:
    """The addresses of one lane that wait for their turn, and how many are being run."""

    __slots__ = (
        "batch_max",
        "full",
        "in_flight",
        "is_down",
        "is_held",
        "limit",
        "name",
        "ready",
        "waiting",
        "waiting_max",
    )

    def __init__(self, name: str, limit: int, *, batch_max: int, waiting_max: int = 0) -> None:
        self.name = name
        self.limit = limit
        """Invocations in flight at most; a driver may move it at any time, down to 0."""
        self.batch_max = batch_max
        """Messages given to one invocation at most."""
        self.waiting_max = waiting_max
        """Messages waiting for one address at which sources are held back; 0 for never."""
        self.in_flight = 0
        self.ready: deque[BusyAddress] = deque()
        """Addresses in phase READY, each once."""
        self.waiting = 0
        """Messages of its addresses, those in flight included and those of parked ones not."""
        self.full: dict[BusyAddress, int] = {}
        """Addresses at ``waiting_max`` and when they last got there or began a batch, in the order of that;
        those that fail or are parked are none."""
        self.is_held = False
        """Whether it was nothing but the limit that kept more from beginning, since that was last asked."""
        self.is_down = False
        """Whether the service does not answer at all; then waiting helps nobody, and sources go on."""

    @property
    def can_start(self) -> bool:
        """Whether an address is ready and the limit allows for it."""
        return bool(self.ready) and self.in_flight < self.limit

    def held_until_ms(self) -> int:
        """Return until when more messages would only lengthen a queue that is long enough; 0 if none is."""
        if not self.full or self.is_down:
            return 0
        return next(reversed(self.full.values())) + FULL_MS_MAX
