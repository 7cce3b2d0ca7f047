"""Somebody who decides about dead letters, through the ingress: lists them, redrives and drops them.

What is told to a letter is repeated until it is answered, and sometimes when it was; some of it is
for letters that never were, or are no more. A letter may be told both, and the first one counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from statefun_ingress.dead_letters import Choice, Named, chosen, commands, letters_of
from statefun_ingress.frames import State
from statefun_ingress.registry import Registry
from statefun_ray.testing.workload import COMMANDS

if TYPE_CHECKING:
    from statefun_ray.testing.simulator import Simulation

LAST_LOOKS: Final = 3
"""Lists that are read when the faults are over."""


class Told(NamedTuple):
    """Something a letter was told."""

    action: str
    is_mended: bool
    """Whether the letter's function took everything by then."""


class Clerk:
    """A client of the ingress that knows nothing but what it lists."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.seen: dict[Named, int] = {}
        """Letters that were listed -> unique id of their message."""
        self.told: dict[Named, list[Told]] = {}
        self._registry = Registry((), [COMMANDS.typename])
        self._unanswered: set[int] = set()
        self._last_number = 0
        self._looks_left = 0

    @property
    def is_done(self) -> bool:
        """Whether everything that was told is durable, and every list that is needed was read."""
        return not self._unanswered and not self._looks_left

    def run(self) -> None:
        """Look now and then, as long as there are faults."""
        world, simulation = self.simulation.world, self.simulation
        if simulation.policy.buries and simulation.is_faulty:
            self._look()
            world.after(world.rng.uniform(20, 200), None, self.run)

    def look_at_last(self) -> None:
        """Look a few times more, and decide what is to be decided."""
        if self.simulation.policy.buries:
            self._looks_left = LAST_LOOKS
            self._go_on_looking()

    def _go_on_looking(self) -> None:
        if self._looks_left:
            self._look()
            self.simulation.world.after(60, None, self._go_on_looking)

    def _look(self) -> None:
        rng, ingress = self.simulation.rng, self.simulation.ingress
        core = ingress.core
        feeds = core.feeds.serving if core is not None and ingress.is_alive else []
        if core is None or not feeds or len(feeds) < core.feeds.worker_count:
            return
        function = rng.choice(["", "", *(kind for kind, _ in self.simulation.policy.poisons)])
        choice = Choice(function=function) if function else Choice(all=True)
        answers: list[State] = []

        def answered(state: State | None) -> None:
            if state is not None:
                answers.append(state)
                if len(answers) == len(feeds):
                    self._read(choice, letters_of(answers, self._registry))

        for feed in feeds:
            core.query_letters(feed, function, None, answered)

    def _read(self, choice: Choice, letters: list[dict[str, Any]]) -> None:
        rng = self.simulation.rng
        self._looks_left = max(0, self._looks_left - 1)
        for letter in letters:
            named, unique = Named(letter["id"], letter["letter"]), letter["value"]["u"]
            if self.seen.setdefault(named, unique) != unique:
                self.simulation.problem(f"{named} was {self.seen[named]}, and is {unique} now")
        if rng.random() < 0.7:
            picked = [Named(letter["id"], letter["letter"]) for letter in letters if rng.random() < 0.4]
            choice = Choice(letters=picked + self._others())
        if rng.random() < 0.8:
            action = rng.choice(["redrive", "redrive", "drop"])
            for named in chosen(choice, letters):
                self._tell(action, named)

    def _others(self) -> list[Named]:
        """Letters that were told something before, and some that there never were."""
        rng = self.simulation.rng
        told = list(self.told)
        others = [rng.choice(told)] if told and rng.random() < 0.3 else []
        if self.seen and rng.random() < 0.3:
            known = rng.choice(list(self.seen))
            others.append(Named(known.id, f"{known.letter}-never"))
        return others

    def _tell(self, action: str, named: Named) -> None:
        simulation = self.simulation
        simulation.world.note(f"{named.id}/{named.letter} ({self.seen.get(named)}) is told: {action}")
        unique = self.seen.get(named)
        is_mended = unique is not None and simulation.is_mended(simulation.workload.poisoned.get(unique))
        self.told.setdefault(named, []).append(Told(action, is_mended))
        for _ in range(simulation.rng.choice([1, 1, 1, 2])):
            self._last_number += 1
            self._unanswered.add(self._last_number)
            self._send(action, named, self._last_number)

    def _send(self, action: str, named: Named, number: int) -> None:
        world, simulation = self.simulation.world, self.simulation
        if number not in self._unanswered:
            return
        ingress = simulation.ingress
        [event] = commands(action, [named])

        def answered() -> None:
            if not (simulation.is_faulty and world.chance(simulation.faults.answer_lost)):
                self._unanswered.discard(number)

        world.after(
            world.rng.uniform(0.1, 4), ingress, lambda: ingress.accept(event, "", None, answered, None)
        )
        world.after(
            world.rng.uniform(*simulation.patience_ms), None, lambda: self._send(action, named, number)
        )
