from __future__ import annotations

import asyncio
import pickle
import threading
from datetime import timedelta
from typing import Any

import pytest

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.addresses import BACKOFF_MS_MAX, BACKOFF_MS_MIN
from statefun_ray.core.effects import Invoke
from statefun_ray.core.errors import UserCodeError
from statefun_ray.core.invoker import InlineCall
from statefun_ray.core.message import Message as MessageTuple
from statefun_ray.core.state import Table, tables_of
from statefun_ray.io.invoke_local import (
    FAULT_FORGOTTEN_S,
    FAULTS_MAX,
    EmbeddedInvoker,
    FailureLog,
    FunctionExited,
    describe_functions,
)
from statefun_ray.io.record_checks import record_checks
from statefun_ray.module.model import KafkaEgress, Module
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


def raised(kind: type[Exception], text: str = "boom") -> Exception:
    try:
        raise kind(text)
    except kind as error:
        return error


class LogBook:
    """A `FailureLog` under a clock, and what it wrote."""

    def __init__(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("statefun_ray.io.invoke_local.time.monotonic", lambda: self.now_s)
        self.log = FailureLog()
        self._caplog = caplog

    def lines(self) -> list[tuple[str, bool]]:
        """Return and forget the lines, and whether each has a traceback."""
        lines = [(record.getMessage(), record.exc_info is not None) for record in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def book(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> LogBook:
    return LogBook(caplog, monkeypatch)


def test_a_failure_is_logged_with_its_traceback_once_and_then_in_a_line_for_every_retry(
    book: LogBook,
) -> None:
    for attempt in range(16):
        book.log.report("t/a", "x", raised(ValueError))
        book.now_s += min(BACKOFF_MS_MAX, BACKOFF_MS_MIN << attempt) / 1000

    text = "will be tried again address=t/a/x cause=ValueError: boom unlogged=0"
    assert book.lines() == [(f"function failed and {text}", True)] + 15 * [
        (f"function fails still and {text}", False)
    ]


def test_many_addresses_that_fail_in_the_same_way_are_ever_fewer_lines(book: LogBook) -> None:
    for number in range(10_000):
        book.log.report("t/a", str(number), raised(ValueError))
        book.now_s += 0.01

    lines = book.lines()
    assert len(lines) == 12, "after 0.05 s, 0.1 s, 0.2 s, ... and then every 30 s"
    assert [has_traceback for _, has_traceback in lines] == [True] + [False] * 11
    unlogged = sum(int(line.rpartition("=")[2]) for line, _ in lines)
    assert 5_000 < unlogged + len(lines) < 10_000, "those since the last line are told by the next"


def test_another_function_or_another_fault_has_a_traceback_of_its_own(book: LogBook) -> None:
    book.log.report("t/a", "x", raised(ValueError))
    book.log.report("t/b", "x", raised(ValueError))
    book.log.report("t/a", "x", raised(KeyError))
    try:
        raise ValueError("boom")
    except ValueError as error:
        book.log.report("t/a", "x", error)

    assert [has_traceback for _, has_traceback in book.lines()] == [True] * 4


def test_a_fault_that_was_over_has_its_traceback_again(book: LogBook) -> None:
    book.log.report("t/a", "x", raised(ValueError))
    book.now_s += FAULT_FORGOTTEN_S
    book.log.report("t/a", "x", raised(ValueError))

    assert [has_traceback for _, has_traceback in book.lines()] == [True, True]


def test_an_error_that_says_it_all_has_no_traceback(book: LogBook) -> None:
    book.log.report("t/a", "x", raised(ValueError), traceback=False)

    assert [has_traceback for _, has_traceback in book.lines()] == [False]


def test_faults_are_remembered_up_to_a_limit(book: LogBook) -> None:
    for number in range(FAULTS_MAX + 1):
        book.log.report(f"t/{number}", "x", raised(ValueError))
    book.lines()
    book.log.report("t/0", "x", raised(ValueError))
    book.log.report(f"t/{FAULTS_MAX}", "x", raised(ValueError))

    assert [has_traceback for _, has_traceback in book.lines()] == [True]


def test_function_exited_survives_pickling() -> None:
    error = FunctionExited("t/a", "SystemExit(1)")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_a_record_of_the_wrong_type_for_its_egress_fails_the_invocation() -> None:
    bound = StatefulFunctions()

    @bound.bind("shop/cart")
    def cart(context: Context, message: Message) -> None:
        for egress in ("shop/any", "shop/kafka"):
            context.send_egress(egress_message_builder(egress, "x", StringType))

    module = Module(kafka_egresses=(KafkaEgress("shop/kafka"),))
    invoker = EmbeddedInvoker(bound, record_checks=record_checks(module, ["shop/any"]))
    call = invoker.bind("shop/cart", [])
    assert call is not None
    with pytest.raises(
        UserCodeError, match=r"egress shop/kafka takes records of type .*KafkaProducerRecord.*build it"
    ):
        call("a", "", "", "a/b", b"")
