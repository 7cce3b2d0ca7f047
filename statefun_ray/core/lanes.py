"""Lanes: what bounds concurrency together.

One lane for embedded functions that run inside the turn, one for those that await or block, one for
each service that runs functions elsewhere. Each lane has its own queue of addresses that may be
started and its own limit of invocations in flight, so a service that is slow or down delays
nobody but the addresses it serves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statefun_ray.core.addresses import BusyAddress

INLINE = "inline"
"""The lane of functions that are called inside the turn, and of types that nobody serves."""

AWAITING = "awaiting"
"""The lane of embedded functions that await or block."""


class Lane:
    """The addresses of one lane that wait for their turn, and how many are being run."""

    __slots__ = ("batch_max", "full", "in_flight", "is_down", "limit", "name", "ready", "waiting_max")

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
        self.full = 0
        """Addresses at ``waiting_max`` that make progress: those that fail or are parked do not count."""
        self.is_down = False
        """Whether the service does not answer at all; then waiting helps nobody, and sources go on."""

    @property
    def can_start(self) -> bool:
        """Whether an address is ready and the limit allows for it."""
        return bool(self.ready) and self.in_flight < self.limit

    @property
    def holds_back_sources(self) -> bool:
        """Whether more messages would only lengthen a queue that is long enough."""
        return self.full > 0 and not self.is_down
