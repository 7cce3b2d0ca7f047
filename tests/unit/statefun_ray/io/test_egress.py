from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.store import MemoryStore
from statefun_ray.core.effects import Publish
from statefun_ray.io import egress
from statefun_ray.io.egress import Publisher, ShardRows, Sinks, SinkUnavailable
from statefun_ray.io.egress_file import read_egress
from tests.waiting import until


class FlakyStore(MemoryStore):
    """Gives no answer to the first ``failures`` creates."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def create(self, path: str, data: bytes) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable(path, "create", "try later")
        return super().create(path, data)


class Desk:
    """A publisher with what it reported."""

    def __init__(self, store: MemoryStore, executor: ThreadPoolExecutor) -> None:
        self.is_leased = True
        self.published: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self.changed = asyncio.Event()
        self.publisher = Publisher(
            Sinks(store, {}),
            executor=executor,
            may_publish=lambda: self.is_leased,
            on_published=self.on_published,
            on_failed=self.on_failed,
        )

    def on_published(self, shard: int, epoch: int) -> None:
        self.published.append((shard, epoch))
        self.changed.set()

    def on_failed(self, reason: str) -> None:
        self.failures.append(reason)
        self.changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def desk(store: MemoryStore) -> AsyncIterator[Desk]:
    with ThreadPoolExecutor(2) as executor:
        made = Desk(store, executor)
        yield made
        made.publisher.close()


def publication(shard: int, epoch: int, *sequences: int, to: str = "shop/out") -> Publish:
    return Publish(shard, epoch, [(sequence, to, "a/b", b"x") for sequence in sequences])


async def test_epochs_of_a_shard_are_published_in_order_through_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "RETRY_MS_FIRST", 1)
    store = FlakyStore(failures=3)
    async with desk(store) as made:
        for epoch in range(1, 6):
            made.publisher.add(publication(0, epoch, epoch))

        await made.wait(lambda: len(made.published) == 5)

        assert made.published == [(0, epoch) for epoch in range(1, 6)]
        assert [row.seq for row in read_egress(store, "shop/out", "egress")] == [1, 2, 3, 4, 5]
        assert made.publisher.last_error == ""
        assert made.publisher.backlog == 0


async def test_rows_of_several_egresses_go_to_the_sink_of_each(tmp_path: Path) -> None:
    storage = MemoryStore()
    with ThreadPoolExecutor(1) as executor:
        done = asyncio.Event()
        publisher = Publisher(
            Sinks(storage, {"shop/configured": tmp_path.as_uri()}),
            executor=executor,
            may_publish=lambda: True,
            on_published=lambda _shard, _epoch: done.set(),
            on_failed=lambda _reason: None,
        )
        publisher.add(Publish(0, 1, [(0, "shop/configured", "a/b", b"x"), (1, "shop/other", "a/b", b"y")]))
        async with asyncio.timeout(5):
            await done.wait()

    assert [row.seq for row in read_egress(tmp_path.as_uri(), "shop/configured")] == [0]
    assert [row.seq for row in read_egress(storage, "shop/other", "egress")] == [1]


async def test_a_worker_without_a_lease_publishes_nothing() -> None:
    store = MemoryStore()
    async with desk(store) as made:
        made.is_leased = False
        made.publisher.add(publication(0, 1, 0))
        await asyncio.gather(*made.publisher._tasks.values())

        assert made.published == []
        assert store.objects == {}


async def test_a_sink_that_holds_other_rows_is_a_failure_and_not_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    store.put(f"egress/shop/out/000/{0:019d}-{0:019d}.ndjson", b"other")
    async with desk(store) as made:
        made.publisher.add(publication(0, 1, 0))

        await made.wait(lambda: bool(made.failures))

        assert "EgressConflict" in made.failures[0]
        assert made.published == []
    assert "egress failed" in caplog.text


class JoiningSink:
    """Remembers batches; can be made to give no answer."""

    joins_shards = True

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, list[int]]]] = []
        self.is_up = True
        self.is_open = self.is_closed = False

    def open(self) -> None:
        self.is_open = True

    def publish(self, batch: Sequence[ShardRows]) -> None:
        if not self.is_up:
            raise SinkUnavailable("not now")
        self.batches.append([(shard, [row[0] for row in rows]) for shard, rows in batch])

    def flush(self, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


async def test_a_sink_that_joins_shards_gets_them_together_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "RETRY_MS_FIRST", 1)
    sink, store = JoiningSink(), MemoryStore()
    sink.is_up = False
    published: list[tuple[int, int]] = []
    with ThreadPoolExecutor(1) as executor:
        publisher = Publisher(
            Sinks(store, {}, {"k/k": sink}),
            executor=executor,
            may_publish=lambda: True,
            on_published=lambda shard, epoch: published.append((shard, epoch)),
            on_failed=lambda _reason: None,
        )
        mixed = Publish(1, 1, [(0, "k/k", "a/b", b"x"), (1, "shop/out", "a/b", b"y")])
        for effect in (
            publication(0, 1, 0, 1, to="k/k"),
            mixed,
            publication(2, 1, 0),
            publication(0, 2, 2, to="k/k"),
        ):
            publisher.add(effect)
        await until(lambda: (2, 1) in published and bool(publisher.last_error))
        assert published == [(2, 1)]
        assert publisher.last_error == "egress k/k: not now"
        assert publisher.backlog == 3
        sink.is_up = True
        await until(lambda: not publisher.backlog)
        publisher.close()

    assert sink.batches == [[(0, [0, 1]), (1, [0]), (0, [2])]]
    assert published == [(2, 1), (0, 1), (1, 1), (0, 2)]
    assert [row.seq for row in read_egress(store, "shop/out", "egress")] == [1, 0]
    assert sink.is_closed
