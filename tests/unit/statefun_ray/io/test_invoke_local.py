from __future__ import annotations

import asyncio
import pickle
import threading
from datetime import timedelta
from typing import Any

import pytest

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.errors import UserCodeError
from statefun_ray.core.invoker import InlineCall
from statefun_ray.core.message import Message as MessageTuple
from statefun_ray.core.state import Table, tables_of
from statefun_ray.io.invoke_local import EmbeddedInvoker, FailureLog, FunctionExited, describe_functions
from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    ValueSpec,
    codecs,
    egress_message_builder,
    make_json_type,
    message_builder,
)

INT = codecs.INT
ONE = codecs.encode_int(1)

functions = StatefulFunctions()


@functions.bind("t/everything", specs=[ValueSpec("n", IntType), ValueSpec("name", StringType)])
def everything(context: Context, message: Message) -> None:
    order = message.as_int()
    if order < 0:
        context.storage.n = 99
        context.send(message_builder("t/other", "x", int_value=99))
        raise {-1: ValueError, -2: SystemExit, -3: asyncio.CancelledError}[order]("told to")
    if order == 0:
        return
    context.storage.n = (context.storage.n or 0) + order
    del context.storage.name
    assert context.caller is not None
    context.send(message_builder("t/other", context.caller.id, int_value=order))
    context.send_after(timedelta(seconds=2), message_builder("t/other", "later", str_value="x"), "token")
    context.cancel_delayed_message("other token")
    context.send_egress(egress_message_builder("t/out", order, IntType))


@functions.bind("t/waits", specs=[ValueSpec("n", IntType, expire_after_call=timedelta(minutes=1))])
async def waits(context: Context, message: Message) -> None:
    await asyncio.sleep(0)
    context.storage.n = (context.storage.n or 0) + message.as_int()
    if message.as_int() < 0:
        raise ValueError("told to")


@functions.bind("t/blocks", specs=[ValueSpec("thread", make_json_type("t/json"))], blocking=True)
def blocks(context: Context, message: Message) -> None:
    context.storage.thread = threading.current_thread().name


def bound(typename: str) -> tuple[EmbeddedInvoker, InlineCall | None, list[Table]]:
    invoker = EmbeddedInvoker(functions)
    tables = tables_of(typename, invoker.functions[typename])
    return invoker, invoker.bind(typename, tables), tables


def call(inline: InlineCall | None, order: int, id: str = "a") -> Any:
    assert inline is not None
    return inline(id, "t/caller", "c", INT, codecs.encode_int(order))


def test_functions_are_described_as_a_commit_log_entry_records_them() -> None:
    described = describe_functions(functions)

    assert described["t/everything"].states == {
        "n": StateSpec(type=INT),
        "name": StateSpec(type=codecs.STRING),
    }
    assert described["t/waits"].states == {"n": StateSpec(type=INT, expire="after_call", expire_ms=60_000)}
    assert described["t/blocks"].states == {"thread": StateSpec(type="t/json", json=True)}


def test_the_effects_of_one_call_are_returned_in_bytes() -> None:
    _, inline, [n, name] = bound("t/everything")
    n.put("a", codecs.encode_int(5))
    name.put("a", codecs.encode_string("old"))

    writes, sends, delayed, egress = call(inline, 2)

    assert writes == {0: codecs.encode_int(7), 1: None}
    assert sends == [("t/other", "c", INT, codecs.encode_int(2))]
    assert delayed == [
        ("send", 2000, "token", "t/other", "later", codecs.STRING, codecs.encode_string("x")),
        ("cancel", "other token"),
    ]
    assert egress == [("t/out", INT, codecs.encode_int(2))]
    assert n.get("a") == codecs.encode_int(5), "nothing is applied by the invoker"


def test_a_call_without_effects_returns_none() -> None:
    _, inline, _ = bound("t/everything")

    assert call(inline, 0) is None


def test_a_failed_call_leaves_nothing_to_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    _, inline, _ = bound("t/everything")

    with pytest.raises(ValueError, match="told to"):
        call(inline, -1)

    assert call(inline, 0) is None
    assert "address=t/everything/a" in caplog.text


@pytest.mark.parametrize(("order", "raised"), [(-2, "SystemExit"), (-3, "CancelledError")])
def test_a_call_that_would_end_the_process_is_an_ordinary_failure(order: int, raised: str) -> None:
    _, inline, _ = bound("t/everything")

    with pytest.raises(
        FunctionExited, match=rf"function t/everything raised {raised}.*must not end the process"
    ):
        call(inline, order)


def awaited(typename: str, *orders: int) -> Invoke:
    messages: list[MessageTuple] = [
        (typename, "a", "", "", INT, codecs.encode_int(order)) for order in orders
    ]
    return Invoke(1, typename, "a", messages)


async def test_a_batch_of_an_async_function_sees_its_own_writes() -> None:
    invoker, inline, [n] = bound("t/waits")
    n.put("a", codecs.encode_int(10))

    effects = await invoker.run(awaited("t/waits", 1, 2, 3))

    assert inline is None
    assert effects is not None
    assert effects[0] == {0: codecs.encode_int(16)}


async def test_a_batch_that_fails_raises_what_the_function_raised() -> None:
    invoker, _, _ = bound("t/waits")

    with pytest.raises(ValueError, match="told to"):
        await invoker.run(awaited("t/waits", 1, -1, 1))


async def test_a_blocking_function_runs_in_a_thread_of_its_own() -> None:
    invoker, inline, _ = bound("t/blocks")

    effects = await invoker.run(awaited("t/blocks", 1))
    invoker.close()

    assert inline is None
    assert effects is not None
    assert b"blocking-function" in (effects[0][0] or b"")


def test_failures_of_one_function_are_logged_once_a_second_with_the_number_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("statefun_ray.io.invoke_local.time.monotonic", lambda: now_s)
    log = FailureLog()

    for _ in range(5):
        log.report("t/a", "x", ValueError("boom"))
    log.report("t/b", "x", ValueError("boom"))
    now_s += 1.5
    log.report("t/a", "x", ValueError("boom"))

    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == [
        "unlogged=0",
        "unlogged=0",
        "unlogged=4",
    ]


def test_function_exited_survives_pickling() -> None:
    error = FunctionExited("t/a", "SystemExit(1)")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_a_record_of_the_wrong_type_for_its_egress_fails_the_invocation() -> None:
    bound = StatefulFunctions()

    @bound.bind("shop/cart")
    def cart(context: Context, message: Message) -> None:
        for egress in ("shop/any", "shop/kafka"):
            context.send_egress(egress_message_builder(egress, "x", StringType))

    invoker = EmbeddedInvoker(bound, record_types={"shop/kafka": "shop/record", "shop/any": None})
    call = invoker.bind("shop/cart", [])
    assert call is not None
    with pytest.raises(UserCodeError, match="egress shop/kafka, which takes shop/record"):
        call("a", "", "", "a/b", b"")
