"""One request of the remote protocol, answered: states, order, failures, what runs where."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import statefun_sdk
from statefun_sdk import (
    Context,
    IntType,
    Message,
    RequestReplyHandler,
    StatefulFunctions,
    StringType,
    ValueSpec,
    egress_message_builder,
    message_builder,
)
from statefun_sdk.errors import UnknownFunctionError, UserTypeError, UserValueError
from statefun_sdk.protocol import FromFunction, ToFunction
from statefun_sdk.request_reply import MalformedRequestError

functions = StatefulFunctions()
SEEN: list[Any] = []

SPECS = [
    ValueSpec("count", IntType, expire_after_call=timedelta(seconds=5)),
    ValueSpec("name", StringType, expire_after_write=timedelta(days=1)),
    ValueSpec("spare", IntType),
]


@functions.bind("a/all", specs=SPECS)
def everything(context: Context, message: Message) -> None:
    text = message.as_string() or ""
    SEEN.append((context.address.id, context.caller and context.caller.id, text))
    if text == "nothing":
        return
    if text == "fail":
        raise ValueError("as told")
    if text == "exhausted":
        raise StopIteration("as told")
    if text == "read":
        SEEN.append(context.storage.count)
        return
    context.storage.name = text
    context.storage.count = (context.storage.count or 0) + 1
    if text == "forget":
        del context.storage.name
    other = message_builder("b/other", "2", str_value=text)
    context.send(other)
    context.send_after(timedelta(milliseconds=1500), other, "t")
    context.cancel_delayed_message("t")
    context.send_after(timedelta(0), other)
    context.send_egress(egress_message_builder("c/out", 7, IntType))


@functions.bind("a/async")
async def waits(context: Context, message: Message) -> None:
    await asyncio.sleep(0)
    SEEN.append(message.as_string())
    if message.as_string() == "fail":
        raise ValueError("as told")


@functions.bind("a/async-all", specs=SPECS)
async def waits_with_states(context: Context, message: Message) -> None:
    everything(context, message)


@functions.bind("a/blocking", blocking=True)
def blocks(context: Context, message: Message) -> None:
    SEEN.append(threading.current_thread().name)
    if message.as_string() == "exhausted":
        raise StopIteration("as told")


@functions.bind("a/mistaken")
def mistaken(context: Context, message: Message) -> Any:
    return waits(context, message)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


def text_value(text: str) -> bytes:
    data = text.encode()
    return b"\x0a" + bytes((len(data),)) + data if data else b""


def request(
    function: str, *texts: str, states: dict[str, tuple[str, bytes] | None] | None = None, caller: str = ""
) -> bytes:
    message = ToFunction()
    batch = message.invocation
    batch.target.namespace, _, batch.target.type = function.partition("/")
    batch.target.id = "1"
    for name, value in ({spec.name: None for spec in SPECS} if states is None else states).items():
        state = batch.state.add(state_name=name)
        if value is not None:
            state.state_value.typename, state.state_value.value = value
            state.state_value.has_value = True
    for text in texts:
        invocation = batch.invocations.add()
        if caller:
            invocation.caller.namespace, invocation.caller.type, invocation.caller.id = "x", "y", caller
        invocation.argument.typename = "io.statefun.types/string"
        invocation.argument.has_value, invocation.argument.value = True, text_value(text)
    return message.SerializeToString()


def handle(*arguments: Any, **named: Any) -> FromFunction:
    return FromFunction.FromString(RequestReplyHandler(functions).handle_sync(request(*arguments, **named)))


def test_missing_states_are_said_in_order_and_nothing_runs() -> None:
    answer = handle("a/all", "x", states={"name": None, "unknown": None})
    missing = answer.incomplete_invocation_context.missing_values
    assert [(spec.state_name, spec.type_typename) for spec in missing] == [
        ("count", "io.statefun.types/int"),
        ("spare", "io.statefun.types/int"),
    ]
    modes = [(spec.expiration_spec.mode, spec.expiration_spec.expire_after_millis) for spec in missing]
    assert modes == [(FromFunction.ExpirationSpec.AFTER_INVOKE, 5_000), (FromFunction.ExpirationSpec.NONE, 0)]
    assert all(spec.HasField("expiration_spec") for spec in missing)
    assert SEEN == []


def test_no_effects_are_no_bytes() -> None:
    handler = RequestReplyHandler(functions)
    assert handler.handle_sync(request("a/all", "nothing")) == b""
    assert handler.handle_sync(request("a/all")) == b""
    assert handler.handle_sync(request("a/all", states={})) != b"", "what is missing is said all the same"


@pytest.mark.parametrize("function", ["a/all", "a/async-all"])
async def test_missing_states_are_said_on_an_event_loop_as_well(function: str) -> None:
    handler = RequestReplyHandler(functions)
    answer = FromFunction.FromString(await handler.handle_async(request(function, "x", states={})))
    assert len(answer.incomplete_invocation_context.missing_values) == 3
    assert SEEN == []


def test_messages_without_a_value_stay_without_one() -> None:
    bound = StatefulFunctions()

    @bound.bind("a/forwards")
    def forwards(context: Context, message: Message) -> None:
        context._sends.append(("b/other", "1", message.value_typename(), message.raw_value()))

    sent = ToFunction()
    sent.invocation.target.namespace, sent.invocation.target.type, sent.invocation.target.id = (
        "a",
        "forwards",
        "1",
    )
    sent.invocation.invocations.add().argument.typename = "x/y"
    answer = FromFunction.FromString(RequestReplyHandler(bound).handle_sync(sent.SerializeToString()))
    [message] = answer.invocation_result.outgoing_messages
    assert (message.argument.typename, message.argument.has_value) == ("x/y", False)


def test_effects_of_a_batch() -> None:
    states = {"count": ("io.statefun.types/int", b"\x0d\x05\0\0\0"), "name": None, "spare": None}
    result = handle("a/all", "one", "two", states=states, caller="me").invocation_result
    assert SEEN == [("1", "me", "one"), ("1", "me", "two")]
    modify = FromFunction.PersistedValueMutation.MODIFY
    assert [(m.state_name, m.mutation_type, m.state_value.value) for m in result.state_mutations] == [
        ("count", modify, b"\x0d\x07\0\0\0"),
        ("name", modify, text_value("two")),
    ]
    assert [message.argument.value for message in result.outgoing_messages] == [
        text_value("one"),
        text_value("two"),
    ]
    assert (result.outgoing_messages[0].target.namespace, result.outgoing_messages[0].target.type) == (
        "b",
        "other",
    )
    delayed = [
        (one.is_cancellation_request, one.cancellation_token, one.delay_in_ms)
        for one in result.delayed_invocations
    ]
    assert delayed == [(False, "t", 1_500), (True, "t", 0), (False, "", 0)] * 2
    egress = result.outgoing_egresses[0]
    assert (egress.egress_namespace, egress.egress_type, egress.argument.value) == (
        "c",
        "out",
        b"\x0d\x07\0\0\0",
    )


def test_a_deleted_state_is_a_mutation_by_name_alone() -> None:
    result = handle("a/all", "forget").invocation_result
    deleted = result.state_mutations[1]
    assert (deleted.state_name, deleted.mutation_type) == ("name", FromFunction.PersistedValueMutation.DELETE)
    assert not deleted.HasField("state_value")


def test_a_state_of_another_type_can_only_be_overwritten() -> None:
    states = {"count": ("io.statefun.types/long", b""), "name": None, "spare": None}
    with pytest.raises(UserTypeError, match=r"state 'count' of a/all id '1' holds a value of type"):
        handle("a/all", "read", states=states)


def test_a_failure_discards_the_batch_and_says_where() -> None:
    with pytest.raises(ValueError, match="as told") as failed:
        handle("a/all", "one", "fail")
    assert failed.value.__notes__ == ["raised by function a/all, id '1', in a batch of 2"]


async def test_async_functions_are_awaited_one_message_after_another() -> None:
    handler = RequestReplyHandler(functions)
    assert await handler.handle_async(request("a/async", "one", "two")) == b""
    assert SEEN == ["one", "two"]
    with pytest.raises(ValueError, match="as told"):
        await handler.handle_async(request("a/async", "fail"))
    with pytest.raises(RuntimeError, match="await handle_async"):
        handler.handle_sync(request("a/async", "one"))


def test_an_async_function_runs_without_a_loop_too() -> None:
    assert RequestReplyHandler(functions).handle_sync(request("a/async", "one")) == b""
    assert SEEN == ["one"]


async def test_a_blocking_function_has_a_thread() -> None:
    handler = RequestReplyHandler(functions, blocking_threads=1)
    assert await handler.handle_async(request("a/blocking", "x")) == b""
    assert SEEN[0].startswith("blocking-function")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await handler.handle_async(request("a/blocking", "exhausted"))
    handler.close()
    handler.close()


def test_a_blocking_function_is_just_called_without_a_loop() -> None:
    RequestReplyHandler(functions).handle_sync(request("a/blocking", "x"))
    assert [threading.current_thread().name] == SEEN


def test_a_coroutine_that_nobody_awaits_is_a_mistake_that_is_told() -> None:
    with pytest.raises(UserTypeError, match="returned a coroutine"):
        handle("a/mistaken", "x", states={})


def test_what_is_no_request_is_refused() -> None:
    handler = RequestReplyHandler(functions)
    for bad in (b"\xff\xff", b"", ToFunction().SerializeToString()):
        with pytest.raises(MalformedRequestError):
            handler.handle_sync(bad)
    with pytest.raises(UnknownFunctionError, match="a/nothing"):
        handler.handle_sync(request("a/nothing", "x"))
    with pytest.raises(KeyError):
        handler.handle_sync(request("a/nothing", "x"))


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_a_handler_needs_functions(nothing: Any) -> None:
    with pytest.raises(UserValueError, match="no functions"):
        RequestReplyHandler(nothing)


def test_late_names_are_names_of_the_package() -> None:
    assert statefun_sdk.RequestReplyHandler is RequestReplyHandler
    assert statefun_sdk.MalformedRequestError is MalformedRequestError
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = statefun_sdk.nothing


def test_what_a_plain_function_returns_is_ignored() -> None:
    bound = StatefulFunctions()
    bound.register("a/returns", lambda context, message: "something")
    assert RequestReplyHandler(bound).handle_sync(request("a/returns", "x", states={})) == b""


def counting(kept: list[Any] | None = None, keep: str = "context") -> RequestReplyHandler:
    """Return a handler of a function that counts, and may keep what it is given."""
    bound = StatefulFunctions()

    @bound.bind("a/counts", specs=[ValueSpec("count", IntType)])
    def counts(context: Context, message: Message) -> None:
        if kept is not None:
            kept.append(context if keep == "context" else getattr(context, keep))
        context.storage.count = (context.storage.count or 0) + 1
        context.send(message_builder("b/other", context.address.id, str_value=message.as_string()))
        if message.as_string() == "fail":
            raise ValueError("as told")

    return RequestReplyHandler(bound)


def test_a_batch_sees_nothing_of_the_one_before() -> None:
    handler = counting()
    for text in ("one", "fail", "two", "three"):
        asked = request("a/counts", text, states={"count": ("io.statefun.types/int", b"\x0d\x05\0\0\0")})
        if text == "fail":
            with pytest.raises(ValueError, match="as told"):
                handler.handle_sync(asked)
            continue
        result = FromFunction.FromString(handler.handle_sync(asked)).invocation_result
        assert [change.state_value.value for change in result.state_mutations] == [b"\x0d\x06\0\0\0"]
        assert [sent.argument.value for sent in result.outgoing_messages] == [text_value(text)]
    absent = handler.handle_sync(request("a/counts", "one", states={"count": None}))
    [change] = FromFunction.FromString(absent).invocation_result.state_mutations
    assert change.state_value.value == b"\x0d\x01\0\0\0"


def test_states_that_are_missing_at_times() -> None:
    handler = counting()
    for _ in range(2):
        answer = FromFunction.FromString(handler.handle_sync(request("a/counts", "x", states={})))
        assert len(answer.incomplete_invocation_context.missing_values) == 1
        answer = FromFunction.FromString(
            handler.handle_sync(request("a/counts", "x", states={"count": None}))
        )
        assert len(answer.invocation_result.outgoing_messages) == 1


def test_a_context_serves_again_unless_it_was_kept() -> None:
    seen: list[int] = []
    bound = StatefulFunctions()
    bound.register("a/seen", lambda context, message: seen.append(id(context)))
    handler = RequestReplyHandler(bound)
    for _ in range(3):
        handler.handle_sync(request("a/seen", "x", states={}))
    assert len(set(seen)) == 1

    kept: list[Any] = []
    handler = counting(kept)
    for _ in range(3):
        handler.handle_sync(request("a/counts", "x", states={"count": None}))
    assert len({id(context) for context in kept}) == 3


@pytest.mark.parametrize("keep", ["context", "storage", "send"])
def test_what_is_done_with_a_kept_context_has_no_effect_on_later_batches(keep: str) -> None:
    kept: list[Any] = []
    handler = counting(kept, keep)
    asked = request("a/counts", "x", states={"count": None})
    first = handler.handle_sync(asked)
    if keep == "send":
        kept[0](message_builder("b/other", "late", int_value=1))
    else:
        storage = kept[0].storage if keep == "context" else kept[0]
        assert storage.count == 1, "it still sees what it has seen"
        storage.count = 99
    assert handler.handle_sync(asked) == first


def test_a_function_may_answer_other_requests_of_itself() -> None:
    bound = StatefulFunctions()
    handler = RequestReplyHandler(bound)

    @bound.bind("a/nested", specs=[ValueSpec("count", IntType)])
    def nested(context: Context, message: Message) -> None:
        depth = len(message.as_string())
        context.storage.count = depth
        if depth:
            inner = handler.handle_sync(request("a/nested", "x" * (depth - 1), states={"count": None}))
            SEEN.append(FromFunction.FromString(inner).invocation_result.state_mutations[0].state_value.value)
        context.send(message_builder("b/other", str(context.storage.count), int_value=depth))

    result = FromFunction.FromString(handler.handle_sync(request("a/nested", "xx", states={"count": None})))
    assert [sent.target.id for sent in result.invocation_result.outgoing_messages] == ["2"]
    assert SEEN == [b"", b"\x0d\x01\0\0\0"]


def test_threads_do_not_share_a_context() -> None:
    bound = StatefulFunctions()
    handler = RequestReplyHandler(bound)
    all_inside = threading.Barrier(4)

    @bound.bind("a/meets", specs=[ValueSpec("name", StringType)])
    def meets(context: Context, message: Message) -> None:
        context.storage.name = message.as_string()
        all_inside.wait(timeout=10)
        context.send(message_builder("b/other", context.storage.name, str_value=message.as_string()))

    def names(name: str) -> list[str]:
        found: list[str] = []
        for number in range(20):
            asked = request("a/meets", f"{name}-{number}", states={"name": None})
            result = FromFunction.FromString(handler.handle_sync(asked)).invocation_result
            found.extend(sent.target.id for sent in result.outgoing_messages)
        return found

    with ThreadPoolExecutor(4) as threads:
        for name, found in zip("abcd", threads.map(names, "abcd"), strict=True):
            assert found == [f"{name}-{number}" for number in range(20)]


def test_a_function_that_is_bound_anew_is_served_from_then_on() -> None:
    bound = StatefulFunctions()
    handler = RequestReplyHandler(bound)
    for text in ("old", "new"):
        bound.register("a/changes", functools.partial(lambda text, context, message: SEEN.append(text), text))
        handler.handle_sync(request("a/changes", "x", states={}))
    assert SEEN == ["old", "new"]
