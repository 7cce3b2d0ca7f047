"""The settings of a worker's core: who it is, its limits and its policies, each with its reason.

Drivers make one per generation, from the module and the coordinator's plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from statefun_ray.core.addresses import BATCH_MESSAGES_MAX
from statefun_ray.core.key_groups import EGRESS_SHARDS_DEFAULT, KEY_GROUP_COUNT_DEFAULT


@dataclass(frozen=True)
class WorkerConfig:
    """What one worker of one generation is told; times in milliseconds, limits in messages."""

    app: str
    generation: int
    worker: int
    worker_count: int
    key_group_count: int = KEY_GROUP_COUNT_DEFAULT
    shard_count: int = EGRESS_SHARDS_DEFAULT
    backlog_max: int = 16_384
    """Sources pause above this many waiting messages: two windows of a log, a tenth of a second of work. What
    waits when a snapshot is cut is written into it, so more would cost without making anything faster."""
    stalled_max: int = 200_000
    """Messages of one lane that do not count above, as they wait for a service that is down or for an
    address that fails or hangs: about 100 MB of small ones."""
    feed_window: int = 8_192
    """Events on their way from one ingress log: two rounds of the largest frame."""
    invocations_max: int = 1_024
    """Awaiting invocations of embedded functions in flight: bounds coroutines."""
    batch_max: int = BATCH_MESSAGES_MAX
    """Waiting messages given to one awaiting or remote invocation, unless its endpoint lets more wait."""
    invocation_timeout_ms: int = 600_000
    """An awaiting invocation that takes longer has failed: it holds its address and one of the above."""
    retry_deadline_ms: int = 3_600_000
    """A message that fails for an hour is given up."""
    on_failure: str = "dead-letter"
    """What giving up means: ``dead-letter``, ``park`` the address with all that waits for it, or
    ``fail``: the generation ends, and all is tried again from the last snapshot."""
    strict: bool = False
    """Whether the first failure is one too many, and means ``fail``."""
    eager_egresses: frozenset[str] = frozenset()
    """Egresses whose rows pull the next snapshot forward, as replies do: somebody waits for them."""
    base_deltas_max: int = 20
    """Periodic deltas between two bases: bounds what a restore reads."""
    base_rows_ratio: float = 0.5
    """A base is written when the deltas hold this share of the keys."""
    base_rows_min: int = 100_000
    """... but not for fewer delta rows than this, which a restore reads in 0.1 s or so: queues come and go, and
    a small store would be written whole every second."""
