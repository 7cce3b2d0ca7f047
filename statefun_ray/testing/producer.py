"""Clients of a simulated ingress: they number their requests and repeat what is not answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from statefun_ingress.pending import ReplyValue
from statefun_ingress.record import Events
from statefun_ray.testing.workload import COMMANDS, INLINE, ONCE, encode_commands

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation


class Request(NamedTuple):
    """One request: its events, and whether the reply of the only one is awaited."""

    events: list[tuple[str, str, bytes]]
    """``(function type, id, value)``."""
    wants_reply: bool


class ReceivedReply(NamedTuple):
    """A reply as its client got it."""

    kind: str
    id: str
    caller: str
    """The reply address that its function answered to."""
    number: int
    """How often the function had run."""


class Anonymous:
    """A client that numbers nothing and repeats nothing: each event comes at most once, and once if answered."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.sent = 0
        self.answered = 0

    def run(self) -> None:
        """Send an event now, and others now and then."""
        world, simulation = self.simulation.world, self.simulation
        if not simulation.is_faulty:
            return
        value = encode_commands({"u": 0, "c": []})
        events = Events([INLINE], [ONCE], [""], [""], [COMMANDS.typename], [value])
        ingress = simulation.ingress
        self.sent += 1
        world.after(0.1, ingress, lambda: ingress.accept(events, "", None, self._count, None))
        world.after(world.rng.uniform(20, 200), None, self.run)

    def _count(self) -> None:
        self.answered += 1


class Producer:
    """A client with several requests under way."""

    def __init__(self, simulation: Simulation, name: str, requests: list[Request]) -> None:
        self.simulation = simulation
        self.name = name
        self.requests = requests
        self.unanswered = set(range(1, len(requests) + 1))
        self.replies: list[ReceivedReply] = []
        self._next = 1
        self._outstanding: set[int] = set()

    @property
    def is_done(self) -> bool:
        """Whether everything was acknowledged."""
        return not self.unanswered

    def run(self) -> None:
        """Send what may be sent now, and look again soon."""
        world = self.simulation.world
        while self._next <= len(self.requests) and len(self._outstanding) < self.simulation.outstanding:
            self._outstanding.add(self._next)
            self._send(self._next)
            self._next += 1
        if self._next <= len(self.requests):
            world.after(world.rng.uniform(2, 30), None, self.run)

    def _send(self, sequence: int) -> None:
        if sequence not in self.unanswered:
            return
        world, simulation = self.simulation.world, self.simulation
        request = self.requests[sequence - 1]
        ingress = simulation.ingress
        count = len(request.events)
        events = Events(
            [kind for kind, _, _ in request.events],
            [id for _, id, _ in request.events],
            [""] * count,
            [""] * count,
            [COMMANDS.typename] * count,
            [value for _, _, value in request.events],
        )

        def answered() -> None:
            if not (simulation.is_faulty and world.chance(simulation.faults.answer_lost)):
                self.unanswered.discard(sequence)
                self._outstanding.discard(sequence)

        def replied(incarnation: str, request_id: str, reply: ReplyValue) -> None:
            assert reply.value is not None, "replies of this workload carry a count"
            number = int.from_bytes(reply.value[1:], "little", signed=True)
            kind, id, _ = request.events[0]
            self.replies.append(ReceivedReply(kind, id, f"{incarnation}/{request_id}", number))

        def deliver() -> None:
            ingress.accept(events, self.name, sequence, answered, replied if request.wants_reply else None)

        world.after(world.rng.uniform(0.1, 4), ingress, deliver)
        world.after(world.rng.uniform(*simulation.patience_ms), None, lambda: self._send(sequence))
