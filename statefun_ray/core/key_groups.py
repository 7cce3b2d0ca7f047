"""Which worker owns which address: id -> key group -> egress shard -> worker.

Routing looks at the id alone, so all function types of one id share a worker. Workers own whole
shards: a shard is a fixed range of key groups whose egress rows share one sequence, and a counter
must have exactly one owner.
"""

from __future__ import annotations

from itertools import pairwise

from statefun_checkpoints.model import EGRESS_SHARDS_DEFAULT as EGRESS_SHARDS_DEFAULT
from statefun_checkpoints.model import KEY_GROUP_COUNT_DEFAULT as KEY_GROUP_COUNT_DEFAULT
from statefun_checkpoints.model import key_group_of as key_group_of


def shard_bounds(*, key_group_count: int, shard_count: int) -> list[int]:
    """Return ``shard_count + 1`` key groups: shard ``s`` covers ``[bounds[s], bounds[s + 1])``."""
    return [shard * key_group_count // shard_count for shard in range(shard_count + 1)]


def worker_ranges(*, worker_count: int, key_group_count: int, shard_count: int) -> list[tuple[int, int]]:
    """Return the contiguous key-group range ``[low, high)`` of every worker, in worker order.

    Raises:
        ValueError: more workers than shards, or none; a worker must own at least one whole shard, and
            that shard at least one key group.
    """
    if not 1 <= worker_count <= shard_count:
        raise ValueError(
            f"{worker_count} workers asked for, but this application has {shard_count} egress shards and a "
            f"worker owns at least one; use 1 to {shard_count} workers"
        )
    bounds = shard_bounds(key_group_count=key_group_count, shard_count=shard_count)
    cuts = [bounds[worker * shard_count // worker_count] for worker in range(worker_count + 1)]
    ranges = list(pairwise(cuts))
    if any(low == high for low, high in ranges):
        raise ValueError(
            f"{worker_count} workers asked for, but {key_group_count} key groups in {shard_count} egress shards "
            "leave some of them without any; use fewer workers"
        )
    return ranges


def owner_table(*, worker_count: int, key_group_count: int, shard_count: int) -> list[int]:
    """Return the owning worker of every key group, indexed by key group."""
    ranges = worker_ranges(
        worker_count=worker_count, key_group_count=key_group_count, shard_count=shard_count
    )
    return [worker for worker, (low, high) in enumerate(ranges) for _ in range(low, high)]


def shard_table(*, key_group_count: int, shard_count: int) -> list[int]:
    """Return the egress shard of every key group, indexed by key group."""
    bounds = shard_bounds(key_group_count=key_group_count, shard_count=shard_count)
    return [shard for shard in range(shard_count) for _ in range(bounds[shard], bounds[shard + 1])]
