"""What a run does with messages that fail for good, and which of its messages do."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from statefun_ray.testing.workload import AWAITING_POISON, POISON, UNKNOWN

POISONS: Final = [
    (POISON, "raises"),
    (POISON, "doubles-token"),
    (AWAITING_POISON, "raises"),
    (AWAITING_POISON, "doubles-token"),
    (UNKNOWN, "n0"),
]
"""Addresses that take nothing before they are mended."""

NEVER: Final = 3_600_000
"""A retry deadline that no run comes to."""


@dataclass(frozen=True)
class Policy:
    """One failure policy, and what there is for it to do."""

    on_failure: str = "dead-letter"
    strict: bool = False
    retry_deadline_ms: int = NEVER
    poisons: tuple[tuple[str, str], ...] = ()
    """Addresses that are sent messages which they cannot take."""
    poison_share: float = 0.0
    """Of the messages that functions send each other, those that fail for good at any address."""
    mended: str = "never"
    """When the functions take everything: "early", "at restart" after the faults, or "never"."""

    @property
    def buries(self) -> bool:
        """Whether there will be dead letters."""
        return self.on_failure == "dead-letter" and bool(self.poisons)

    @property
    def flaky(self) -> float:
        """Share of the messages that fail once or twice; none where they could come to the deadline."""
        return 0.0 if self.poisons else 0.05


def choose(rng: Random) -> Policy:
    """Choose the policy of one run; in more than half of them nothing fails for good."""
    choice = rng.random()
    if choice < 0.04:
        return Policy(strict=True)
    if choice < 0.08:
        poisons = tuple(rng.sample(POISONS[:-1], rng.randrange(1, 3)))
        return Policy("fail", retry_deadline_ms=rng.choice([0, 50]), poisons=poisons, mended="early")
    if choice < 0.2:
        poisons = tuple(rng.sample(POISONS, rng.randrange(1, 4)))
        return Policy("park", retry_deadline_ms=300, poisons=poisons, mended=rng.choice(_MENDED))
    if choice < 0.46:
        return Policy(
            retry_deadline_ms=rng.choice([0, 50, 50, 300]),
            poisons=tuple(rng.sample(POISONS, rng.randrange(1, 4))),
            poison_share=rng.choice([0.0, 0.02, 0.08]),
            mended=rng.choice(_MENDED),
        )
    return Policy()


_MENDED: Final = ("early", "at restart", "never")
