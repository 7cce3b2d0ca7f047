"""Judges the batches of one worker: their size, and what it said before of those that come next.

A driver encodes the next batch of an address while the one before is being run. What it has encoded
is right only if the batch that comes begins with the same messages, the same objects, in the same
order, or is no next batch at all but one more attempt at the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from statefun_ray.core import addresses
from statefun_ray.core.effects import Invoke
from statefun_ray.core.message import Message

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

Address: TypeAlias = tuple[str, str]


class Batches:
    """What a worker has been given to run, and what it was told to expect."""

    def __init__(self, simulation: Simulation, worker: str) -> None:
        self._simulation = simulation
        self._worker = worker
        self._given: dict[Address, list[Message]] = {}
        self._upcoming: dict[Address, list[Message]] = {}

    def prepare(self, upcoming: Iterable[tuple[str, str, list[Message]]]) -> None:
        """Remember the batches that are said to come next."""
        for function_type, id, messages in upcoming:
            self._upcoming[function_type, id] = messages

    def check(self, invoke: Invoke) -> None:
        """A batch is to be run."""
        address, messages = (invoke.function_type, invoke.id), invoke.messages
        given, expected = self._given.get(address, []), self._upcoming.pop(address, [])
        self._given[address] = messages
        where = f"{self._worker}: a batch of {'/'.join(address)}"
        if expected and messages[0] is expected[0]:
            if any(one is not other for one, other in zip(messages, expected, strict=False)):
                self._simulation.problem(f"{where} is not the one that was said to come")
        elif expected and not any(messages[0] is message for message in given):
            self._simulation.problem(f"{where} is neither what was said to come nor what was there before")
        # Only where every message is looked at is the bound exact.
        size_bytes = 0 if addresses.LARGE_BYTES else sum(len(message[5] or b"") for message in messages)
        if len(messages) > 1 and size_bytes > addresses.BATCH_BYTES_MAX:
            self._simulation.problem(f"{where} has {size_bytes} bytes, at most {addresses.BATCH_BYTES_MAX}")
