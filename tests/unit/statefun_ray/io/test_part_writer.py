from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from statefun_checkpoints.arrow_format import decode_part
from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.model import PartDescriptor, Rows
from statefun_checkpoints.store import MemoryStore
from statefun_ray.core.effects import WritePart
from statefun_ray.io import part_writer
from statefun_ray.io.part_writer import INLINE_ROWS_MAX, PartWriter, warm_up


class FlakyStore(MemoryStore):
    """Gives no answer to the first ``failures`` puts."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures

    def put(self, path: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable(path, "put", "try later")
        super().put(path, data)


class Desk:
    """A part writer with what it reported."""

    def __init__(self, store: MemoryStore, executor: ThreadPoolExecutor) -> None:
        self.store = store
        self.written: list[tuple[int, str, PartDescriptor | None]] = []
        self.failures: list[str] = []
        self.changed = asyncio.Event()
        self.writer = PartWriter(
            store,
            executor,
            generation=7,
            worker=2,
            key_groups=(0, 16),
            on_written=self.on_written,
            on_failed=self.on_failed,
        )

    def on_written(self, snapshot_id: int, kind: str, descriptor: PartDescriptor | None) -> None:
        self.written.append((snapshot_id, kind, descriptor))
        self.changed.set()

    def on_failed(self, reason: str) -> None:
        self.failures.append(reason)
        self.changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def step_until_encoded(self) -> int:
        steps = 0
        while self.writer.step(is_busy=False) is not None:
            steps += 1
        return steps

    def rows_of(self, descriptor: PartDescriptor | None) -> Rows:
        assert descriptor is not None
        if descriptor.inline is not None:
            data = base64.b64decode(descriptor.inline)
        else:
            assert descriptor.path is not None
            data = self.store.objects[descriptor.path]
        assert len(data) == descriptor.bytes
        return decode_part(data)


@asynccontextmanager
async def desk(store: MemoryStore | None = None) -> AsyncIterator[Desk]:
    with ThreadPoolExecutor(2) as executor:
        made = Desk(store if store is not None else MemoryStore(), executor)
        yield made
        made.writer.close()


def rows(start: int, end: int, size_bytes: int = 8) -> Rows:
    return Rows.of(
        (i % 16, "a/b.c", f"id{i:07d}", "", "a/b", b"v" * size_bytes, None) for i in range(start, end)
    )


def part(
    slices: list[Rows], *, snapshot_id: int = 1, kind: str = "delta", expected: int | None = None
) -> WritePart:
    def one_by_one() -> Iterator[Rows]:
        yield from slices

    count = sum(map(len, slices)) if expected is None else expected
    return WritePart(snapshot_id, kind, "periodic" if kind == "delta" else "", one_by_one(), count)


async def test_a_small_part_is_written_before_add_returns_and_stays_inline() -> None:
    async with desk() as made:
        made.writer.add(part([rows(0, 10), rows(10, 20)]))

        [(snapshot_id, kind, descriptor)] = made.written
        assert (snapshot_id, kind) == (1, "delta")
        assert made.rows_of(descriptor) == rows(0, 20)
        assert made.store.objects == {}
        assert made.writer.step(is_busy=False) is None


async def test_a_part_without_rows_is_not_written() -> None:
    async with desk() as made:
        made.writer.add(part([]))
        made.writer.add(part([Rows()], kind="transient"))

        assert made.written == [(1, "delta", None), (1, "transient", None)]


@pytest.mark.parametrize("expected", [None, 0], ids=["announced", "not announced"])
async def test_a_large_part_takes_a_slice_a_turn_and_becomes_a_file(expected: int | None) -> None:
    slices = [rows(at, at + 2_000) for at in range(0, 20_000, 2_000)]
    async with desk() as made:
        made.writer.add(part(slices, expected=expected))
        assert made.written == []

        steps = made.step_until_encoded()
        await made.wait(lambda: bool(made.written))

        assert steps >= 8
        [(_, _, descriptor)] = made.written
        assert descriptor is not None
        assert descriptor.path == "data/g0000007/n0000000001/w002.delta.arrow"
        assert descriptor.rows == 20_000
        assert made.rows_of(descriptor) == rows(0, 20_000)


async def test_slices_longer_than_the_encoders_own_are_taken_whole() -> None:
    async with desk() as made:
        made.writer.add(part([rows(0, 9_000), Rows(), rows(9_000, 9_001)]))
        made.step_until_encoded()
        await made.wait(lambda: bool(made.written))

        assert made.rows_of(made.written[0][2]) == rows(0, 9_001)


async def test_a_few_rows_with_huge_values_are_left_to_a_thread() -> None:
    async with desk() as made:
        made.writer.add(part([rows(0, 3, size_bytes=200_000)]))
        made.step_until_encoded()
        await made.wait(lambda: bool(made.written))

        assert made.rows_of(made.written[0][2]) == rows(0, 3, size_bytes=200_000)


async def test_a_base_waits_for_everything_else_and_gives_way_to_messages() -> None:
    async with desk() as made:
        made.writer.add(part([rows(0, 1_000), rows(1_000, 2_000)], kind="base"))
        made.writer.add(part([rows(0, 2_000), rows(2_000, 4_000)], snapshot_id=2))

        assert made.writer.step(is_busy=True) == 0.0
        assert made.writer.step(is_busy=True) == 0.0
        made.step_until_encoded()
        await made.wait(lambda: len(made.written) == 2)

        assert [kind for _, kind, _ in made.written] == ["delta", "base"] or len(made.written) == 2
        base = next(descriptor for _, kind, descriptor in made.written if kind == "base")
        assert made.rows_of(base) == Rows.of(sorted(rows(0, 2_000)))


async def test_while_messages_wait_a_base_takes_a_slice_now_and_then() -> None:
    async with desk() as made:
        made.writer.add(part([rows(at, at + 10) for at in range(0, 50, 10)], kind="base"))

        first = made.writer.step(is_busy=True)
        second = made.writer.step(is_busy=True)

        assert first == part_writer.BASE_SLICE_GAP_S
        assert second is not None
        assert 0 < second <= part_writer.BASE_SLICE_GAP_S


async def test_a_newer_cut_drops_the_parts_of_an_older_one() -> None:
    async with desk() as made:
        made.writer.add(part([rows(0, 2_000), rows(2_000, 4_000)], snapshot_id=1))
        made.writer.add(part([rows(0, 1)], snapshot_id=2))
        made.step_until_encoded()

        assert [snapshot_id for snapshot_id, _, _ in made.written] == [2]


async def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "RETRY_S_FIRST", 0.001)
    async with desk(FlakyStore(failures=7)) as made:
        made.writer.add(part([rows(at, at + 2_000) for at in range(0, 20_000, 2_000)]))
        made.step_until_encoded()
        await made.wait(lambda: bool(made.written))

        assert made.rows_of(made.written[0][2]) == rows(0, 20_000)
        assert made.failures == []


async def test_a_part_that_can_not_be_encoded_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    broken = rows(0, INLINE_ROWS_MAX + 1)
    async with desk() as made:
        effect = part([broken])
        made.writer.add(effect)
        made.writer._key_groups = (5, 5)  # refused by the descriptor
        made.step_until_encoded()
        await made.wait(lambda: bool(made.failures))

        assert "delta part of snapshot 1: ValueError" in made.failures[0]
    assert "part not written" in caplog.text


def test_warming_up_leaves_nothing_behind() -> None:
    warm_up()
