"""Async and blocking functions: batches that overlap, fail, and raise odd things."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from statefun_ray.core.effects import Invoke
from statefun_ray.core.state import Table, tables_of
from statefun_ray.io.invoke_local import EmbeddedInvoker
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec, codecs

INT = codecs.INT


def invoke(*numbers: int, id: str = "1") -> Invoke:
    return Invoke(
        1, "t/one", id, [("t/one", id, "", "", INT, codecs.encode_int(number)) for number in numbers]
    )


def bound(functions: StatefulFunctions) -> tuple[EmbeddedInvoker, list[Table]]:
    invoker = EmbeddedInvoker(functions)
    tables = tables_of("t/one", invoker.functions["t/one"])
    for table in tables:
        table.now_ms = 1_000
    assert invoker.bind("t/one", tables) is None
    return invoker, tables


async def test_invocations_that_overlap_do_not_see_each_other() -> None:
    gate = asyncio.Event()
    functions = StatefulFunctions()

    @functions.bind("t/one", [ValueSpec("count", IntType)])
    async def slow(context: Context, message: Message) -> None:
        context.storage.count = message.as_int()
        await gate.wait()
        context.storage.count = context.storage.count + int(context.address.id)

    invoker, _ = bound(functions)
    running = [asyncio.ensure_future(invoker.run(invoke(10, id=id))) for id in ("1", "2")]
    await asyncio.sleep(0)
    gate.set()
    counts = [effects[0][0] for effects in await asyncio.gather(*running) if effects is not None]

    assert counts == [codecs.encode_int(11), codecs.encode_int(12)]


async def test_a_failed_batch_applies_nothing_and_an_expired_value_is_not_seen() -> None:
    seen: list[int | None] = []
    functions = StatefulFunctions()

    @functions.bind("t/one", [ValueSpec("count", IntType, expire_after_write=timedelta(seconds=1))])
    async def look(context: Context, message: Message) -> None:
        seen.append(context.storage.count)
        context.storage.count = 7
        if message.as_int() < 0:
            raise ValueError("negative")

    invoker, [table] = bound(functions)
    table.put("1", codecs.encode_int(5))
    with pytest.raises(ValueError, match="negative"):
        await invoker.run(invoke(1, -1))
    table.now_ms = 2_000
    await invoker.run(invoke(1))

    assert seen == [5, 7, None]


async def test_a_blocking_function_that_raises_stop_iteration_fails_like_any_other() -> None:
    functions = StatefulFunctions()

    @functions.bind("t/one", blocking=True)
    def first_of_none(context: Context, message: Message) -> None:
        next(iter(()))

    invoker, _ = bound(functions)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="function t/one raised StopIteration"):
            await invoker.run(invoke(1))
    invoker.close()
