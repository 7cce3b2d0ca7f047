"""Who owns an id: fixed for ever from id to key group, and cut into whole shards from there on."""

from __future__ import annotations

import itertools

import pytest

from statefun_checkpoints import model
from statefun_ingress import key_groups as ingress
from statefun_ray.core.key_groups import (
    key_group_of,
    owner_table,
    shard_bounds,
    shard_table,
    worker_ranges,
)

GOLDEN = {"": 194, "0": 85, "1": 344, "Bob": 657, "socks": 409, "cart-42": 984, "ä": 180, "日本": 960}


@pytest.mark.parametrize(("id", "key_group"), GOLDEN.items())
def test_an_id_has_the_same_key_group_for_ever(id: str, key_group: int) -> None:
    assert key_group_of(id, 1024) == key_group


@pytest.mark.parametrize("id", GOLDEN)
def test_runtime_snapshots_and_ingress_agree(id: str) -> None:
    assert key_group_of(id, 1024) == model.key_group_of(id, 1024) == ingress.key_group_of(id, 1024)


@pytest.mark.parametrize("worker_count", [1, 2, 3, 5, 128])
def test_every_key_group_has_one_owner_and_every_worker_whole_shards(worker_count: int) -> None:
    sizes = {"key_group_count": 1024, "shard_count": 128}
    ranges = worker_ranges(worker_count=worker_count, **sizes)
    owners = owner_table(worker_count=worker_count, **sizes)

    assert ranges[0][0] == 0
    assert ranges[-1][1] == 1024
    assert all(low < high for low, high in ranges)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert set(sum(ranges, ())) <= set(shard_bounds(**sizes)), "a shard has one owner"
    assert [owners[low] for low, _ in ranges] == list(range(worker_count))
    assert max(high - low for low, high in ranges) - min(high - low for low, high in ranges) <= 8


@pytest.mark.parametrize("worker_count", [0, 129])
def test_more_workers_than_shards_are_refused_and_so_are_none(worker_count: int) -> None:
    with pytest.raises(ValueError, match=f"{worker_count} workers asked for.*use 1 to 128 workers"):
        worker_ranges(worker_count=worker_count, key_group_count=1024, shard_count=128)


def test_fewer_key_groups_than_workers_are_refused() -> None:
    assert len(worker_ranges(worker_count=16, key_group_count=16, shard_count=128)) == 16
    with pytest.raises(ValueError, match=r"17 workers asked for, but 16 key groups.*use fewer"):
        worker_ranges(worker_count=17, key_group_count=16, shard_count=128)


def test_shards_cover_all_key_groups_in_order() -> None:
    shards = shard_table(key_group_count=100, shard_count=7)

    assert shards == sorted(shards)
    assert set(shards) == set(range(7))
    assert shard_bounds(key_group_count=100, shard_count=7)[0::7] == [0, 100]
