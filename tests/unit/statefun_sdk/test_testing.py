"""The test kit runs a function and shows what it did."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from statefun_sdk import (
    Context,
    IntType,
    Message,
    SdkAddress,
    StatefulFunctions,
    StringType,
    UnknownFunctionError,
    UserTypeError,
    UserValueError,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)
from statefun_sdk.testing import Cancellation, DelayedMessage, FunctionTester

functions = StatefulFunctions()
SEEN = make_json_type("t/seen")


@functions.bind("t/counter", specs=[ValueSpec("count", IntType), ValueSpec("name", StringType)])
def counter(context: Context, message: Message) -> None:
    context.storage.count = (context.storage.count or 0) + (message.as_int() or 0)
    if context.caller is not None:
        context.send(
            message_builder(context.caller.typename, context.caller.id, int_value=context.storage.count)
        )
    if context.storage.count > 100:
        raise OverflowError("too many")


@functions.bind("t/everything", specs=[ValueSpec("seen", SEEN), ValueSpec("gone", IntType)])
async def everything(context: Context, message: Message) -> None:
    await asyncio.sleep(0)
    context.storage.seen = message.as_type(SEEN)
    del context.storage.gone
    context.send(message_builder("t/a", "1", int_value=1))
    context.send(message_builder("t/a", "2", int_value=2))
    context.send_after(timedelta(seconds=5), message_builder("t/b", "1", str_value="later"), "token")
    context.cancel_delayed_message("token")
    context.send_egress(egress_message_builder("t/out", "hi", StringType))


def not_async(context: Context, message: Message) -> Any:
    return everything(context, message)


functions.register("t/not-async", not_async)


def test_state_carries_over_from_one_invocation_to_the_next() -> None:
    tester = FunctionTester(functions, "t/counter", "x", state={"count": 5})
    first = tester.invoke(int_value=2)
    second = tester.invoke(int_value=3)
    assert (first.changes, second.changes) == ({"count": 7}, {"count": 10})
    assert tester.state == {"count": 10, "name": None}


def test_the_caller_is_what_was_given() -> None:
    tester = FunctionTester(functions, "t/counter", "x")
    assert tester.invoke(int_value=2).messages == []
    effects = tester.invoke(int_value=2, caller=SdkAddress.of("t/user", "ann"))
    assert effects.message_to("t/user", "ann").as_int() == 4


def test_a_function_that_raises_changes_nothing() -> None:
    tester = FunctionTester(functions, "t/counter", "x", state={"count": 99})
    with pytest.raises(OverflowError):
        tester.invoke(int_value=2)
    assert tester.state["count"] == 99
    assert tester.invoke(int_value=1).changes == {"count": 100}


def test_every_kind_of_effect_is_shown_in_order() -> None:
    tester = FunctionTester(functions, "t/everything", "x", state={"gone": 1})
    effects = tester.invoke(value={"a": 1}, value_type=SEEN)
    assert effects
    assert effects.changes == {"seen": {"a": 1}, "gone": None}
    assert tester.state == {"seen": {"a": 1}, "gone": None}
    assert [message.as_int() for message in effects.messages_to("t/a")] == [1, 2]
    assert effects.message_to("t/a", "2").as_int() == 2
    [later, cancelled] = effects.timeline
    assert isinstance(later, DelayedMessage)
    assert (later.delay, later.cancellation_token) == (timedelta(seconds=5), "token")
    assert later.message.as_string() == "later"
    assert cancelled == Cancellation("token")
    assert effects.delayed == [later]
    assert effects.cancelled == ["token"]
    [record] = effects.egress_to("t/out")
    assert record.raw_value() == b"\x0a\x02hi"
    assert effects.egress_to("t/other") == []


async def test_an_async_function_can_be_awaited_inside_a_loop() -> None:
    tester = FunctionTester(functions, "t/everything", "x")
    effects = await tester.invoke_async(value=[1], value_type=SEEN)
    assert effects.changes["seen"] == [1]
    sync = FunctionTester(functions, "t/counter", "x")
    assert (await sync.invoke_async(int_value=1)).changes == {"count": 1}


def test_a_message_of_another_function_can_be_passed_on() -> None:
    sent = message_builder("t/counter", "x", int_value=3)
    tester = FunctionTester(functions, "t/counter", "x")
    assert tester.invoke(sent).changes == {"count": 3}
    assert tester.invoke(sent.typed_value).changes == {"count": 6}


def test_the_only_message_must_be_the_only_one() -> None:
    effects = FunctionTester(functions, "t/everything", "x").invoke(value=1, value_type=SEEN)
    with pytest.raises(
        AssertionError, match=r"expected one message to t/a, found 2; sent: \[Message\(to t/a/1"
    ):
        effects.message_to("t/a")
    with pytest.raises(AssertionError, match="expected one message to t/c/1, found 0"):
        effects.message_to("t/c", "1")


def test_an_invocation_without_effects_is_false() -> None:
    quiet = StatefulFunctions()
    quiet.register("t/quiet", lambda context, message: None)
    assert not FunctionTester(quiet, "t/quiet", "x").invoke(int_value=1)


def test_a_coroutine_that_nobody_awaits_is_refused() -> None:
    with pytest.raises(UserTypeError, match="t/not-async returned a coroutine that nobody awaits"):
        FunctionTester(functions, "t/not-async", "x").invoke(int_value=1)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(UnknownFunctionError):
        FunctionTester(functions, "t/unknown", "x")
    with pytest.raises(UserValueError, match="target id is missing"):
        FunctionTester(functions, "t/counter", "")
    with pytest.raises(UserValueError, match=r"declares no state 'cuont' \(declared: count, name\)"):
        FunctionTester(functions, "t/counter", "x", state={"cuont": 1})
    tester = FunctionTester(functions, "t/counter", "x")
    with pytest.raises(UserTypeError, match="a message takes exactly one"):
        tester.invoke()
    with pytest.raises(UserTypeError, match="give a message or keywords, not both"):
        tester.invoke(message_builder("t/counter", "x", int_value=1), int_value=1)
