"""What may go wrong in a simulated run, and how likely: chosen per seed.

Swarm testing: a seed switches most faults off completely and makes the others frequent. A run
with everything at once spends its time restarting and reaches little; a run with one or two kinds
of fault goes deep.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Faults:
    """Probabilities per opportunity, and mean times between events in milliseconds (0 = never)."""

    worker_crash_ms: float = 0
    coordinator_crash_ms: float = 0
    ingress_crash_ms: float = 0
    zombie: float = 0
    """Of a process that is to die: it lives on, frozen or not, for up to ``zombie_ms_max``."""
    zombie_ms_max: float = 2_000
    freeze_ms: float = 0
    """Mean time between freezes of some process."""
    freeze_ms_max: float = 1_500
    store_lost: float = 0
    """A store request that fails without having happened."""
    store_ambiguous: float = 0
    """A store request that happens but whose answer is lost."""
    store_stall: float = 0
    """A store request that takes up to ``stall_ms_max``."""
    stall_ms_max: float = 1_000
    disk_crash: float = 0
    """An ingress write at which the process dies, its unsynced bytes torn."""
    disk_error: float = 0
    """An fsync that fails."""
    sink_failure: float = 0
    answer_lost: float = 0
    """An acknowledgement that does not reach the producer, which sends again."""
    rescale: float = 0
    """A restart of the coordinator that comes with another number of workers."""
    slow_channel: float = 0
    """A frame that takes up to a hundred times longer than usual."""
    duration_ms: float = 3_000
    """Faults stop here: liveness is judged afterwards."""


def swarm(rng: Random) -> Faults:
    """Choose the faults of one run."""

    def sometimes(share: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < share else 0.0

    return Faults(
        worker_crash_ms=sometimes(0.5, 150, 1_500),
        coordinator_crash_ms=sometimes(0.35, 300, 2_500),
        ingress_crash_ms=sometimes(0.35, 200, 2_000),
        zombie=sometimes(0.4, 0.2, 0.9),
        freeze_ms=sometimes(0.3, 200, 1_500),
        store_lost=sometimes(0.3, 0.01, 0.15),
        store_ambiguous=sometimes(0.35, 0.02, 0.25),
        store_stall=sometimes(0.3, 0.02, 0.2),
        disk_crash=sometimes(0.3, 0.005, 0.05),
        disk_error=sometimes(0.15, 0.005, 0.03),
        sink_failure=sometimes(0.3, 0.05, 0.4),
        answer_lost=sometimes(0.4, 0.05, 0.4),
        rescale=sometimes(0.5, 0.3, 1.0),
        slow_channel=sometimes(0.3, 0.02, 0.2),
        duration_ms=rng.uniform(800, 3_000),
    )
