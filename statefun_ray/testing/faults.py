"""What may go wrong in a simulated run, and how likely: chosen per seed.

Swarm testing: a seed switches most faults off completely and makes the others frequent. A run
with everything at once spends its time restarting and reaches little; a run with a few kinds of
fault goes deep.
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
    power_loss: float = 0
    """Share of the ingress's deaths that take its machine along."""
    ingress_away_ms_max: float = 60
    """How long the ingress stays away; longer than a generation waits for it, in some runs."""
    ingress_stop_ms: float = 0
    """Mean time between orderly ends of the ingress, which finish what is under way."""
    slow_dial: float = 0
    """Share of the workers whose first connection to the ingress takes a while."""
    stop_ms: float = 0
    """Mean time between orderly stops, each followed by a start."""
    bad_deploy: float = 0
    """Share of the starts that come with other functions or settings than before, and must be refused."""
    upgrade: float = 0
    """Share of the starts that come with a state more, and with other expirations."""
    zombie: float = 0
    """Share of the processes that are to die and live on for up to ``zombie_ms_max``."""
    zombie_ms_max: float = 600
    freeze_ms: float = 0
    """Mean time between freezes of some process."""
    stuck_ms: float = 0
    """Mean time between functions that hold a worker's loop, while its heartbeats go on."""
    freeze_ms_max: float = 500
    worker_lost_at_start: float = 0
    """Share of the worker processes that never come up."""
    store_lost: float = 0
    """A store request that fails without having happened."""
    store_ambiguous: float = 0
    """A store request that happens, perhaps later, but whose answer is lost."""
    store_outage_ms: float = 0
    """Mean time between outages in which no request is answered."""
    store_stall: float = 0
    """A store request that takes up to ``stall_ms_max``."""
    commit_stall: float = 0
    """The same for creates, which commits are made of."""
    rival: float = 0
    """Share of the slots of the commit log that somebody else takes just before."""
    stall_ms_max: float = 400
    disk_crash: float = 0
    """An ingress write at which the process dies."""
    disk_error: float = 0
    """An fsync that fails."""
    sink_failure: float = 0
    answer_lost: float = 0
    """An acknowledgement that does not reach the producer, which sends again."""
    rescale: float = 0
    """A new coordinator that comes with another number of workers."""
    slow_channel: float = 0
    """A frame between workers that takes much longer than usual."""
    slow_control: float = 0
    """The same between coordinator and worker."""
    feed_break_ms: float = 0
    """Mean time between broken connections of worker and ingress."""
    frame_tampered: float = 0
    """A frame that is lost or doubled, as no TCP connection would: the numbers must show it."""
    misdelivered: float = 0
    """A control message that reaches another generation as well."""
    clock_skew_ms_max: int = 0
    duration_ms: float = 1_500
    """Faults stop here: liveness is judged afterwards."""


def swarm(rng: Random) -> Faults:
    """Choose the faults of one run."""

    def sometimes(share: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < share else 0.0

    return Faults(
        worker_crash_ms=sometimes(0.5, 80, 700),
        coordinator_crash_ms=sometimes(0.4, 150, 1_200),
        ingress_crash_ms=sometimes(0.35, 100, 900),
        power_loss=rng.choice([0, 0.5, 1]),
        ingress_away_ms_max=rng.choice([60, 60, 60, 900]),
        ingress_stop_ms=sometimes(0.2, 100, 900),
        slow_dial=sometimes(0.3, 0.2, 0.8),
        stop_ms=sometimes(0.2, 200, 1_500),
        bad_deploy=sometimes(0.1, 0.2, 0.6),
        upgrade=sometimes(0.3, 0.2, 0.9),
        zombie=sometimes(0.5, 0.2, 0.9),
        freeze_ms=sometimes(0.3, 80, 700),
        stuck_ms=sometimes(0.2, 80, 700),
        worker_lost_at_start=sometimes(0.1, 0.05, 0.2),
        store_lost=sometimes(0.3, 0.01, 0.15),
        store_outage_ms=sometimes(0.15, 100, 800),
        store_ambiguous=sometimes(0.35, 0.02, 0.25),
        store_stall=sometimes(0.4, 0.02, 0.2),
        commit_stall=sometimes(0.3, 0.05, 0.4),
        rival=rng.choice([0.1, 0.98]) if rng.random() < 0.12 else 0,
        disk_crash=sometimes(0.3, 0.01, 0.08),
        disk_error=sometimes(0.3, 0.03, 0.25),
        sink_failure=sometimes(0.3, 0.05, 0.4),
        answer_lost=sometimes(0.4, 0.05, 0.4),
        rescale=sometimes(0.5, 0.3, 1.0),
        slow_channel=sometimes(0.35, 0.02, 0.2),
        slow_control=sometimes(0.35, 0.05, 0.4),
        feed_break_ms=sometimes(0.25, 50, 500),
        frame_tampered=sometimes(0.12, 0.01, 0.05),
        misdelivered=sometimes(0.3, 0.2, 1.0),
        clock_skew_ms_max=rng.choice([0, 0, 50, 400]),
        duration_ms=rng.uniform(300, 1_500),
    )
