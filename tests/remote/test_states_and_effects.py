"""States that change their declaration, effects in their order, and answers that cannot be, end to end."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import Endpoint, FileEgress, Module
from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    Type,
    ValueSpec,
    message_builder,
)
from statefun_sdk.protocol import FromFunction, ToFunction
from tests.remote.serving import Answer, Service, result, serving


def storing(spec: ValueSpec | None) -> StatefulFunctions:
    """Return a function that keeps one state, and answers with what it was before."""
    functions = StatefulFunctions()

    def keep(context: Context, message: Message) -> None:
        text = message.as_string() or ""
        before = context.storage.kept if spec is not None else "nothing"
        if spec is not None and text:
            context.storage.kept = int(text) if spec.type is IntType else text
        if context.caller is not None:
            context.send(
                message_builder(context.caller.typename, context.caller.id, str_value=f"was {before}")
            )

    functions.register("ns/keep", keep, [spec] if spec is not None else [])
    functions.register("ns/other", lambda context, message: reply(context, message.as_string() or ""))
    return functions


def reply(context: Context, text: str) -> None:
    if context.caller is not None:
        context.send(message_builder(context.caller.typename, context.caller.id, str_value=text))


NUMBER = ValueSpec("kept", IntType)


def module_of(service: Service) -> Module:
    return Module(
        endpoints=(Endpoint("ns/*", service.url),), file_egresses=(FileEgress("out/file", "unused"),)
    )


def redeployed(service: Service, spec: ValueSpec | None) -> None:
    """Let another version of the functions answer from now on."""
    service.deploy(storing(spec))


def application(service: Service, place: Path, **settings: int) -> LocalApplication:
    return LocalApplication(
        module=module_of(service), storage=place / "s", log_dir=place / "l", worker=settings
    )


def test_a_state_of_another_type_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    with serving(storing(NUMBER)) as service:
        app = application(service, tmp_path)
        with app:
            assert app.ask("ns/keep", "a", "7") == "was None"
            app.stop()
            redeployed(service, ValueSpec("kept", StringType))
            app.start()
            app.send("ns/keep", "a", "8")
            before = len(service.requests)
            app.wait_until(lambda: len(service.requests) >= before + 3)
            # No crash loop: others go on, and the value is what it was.
            assert app.ask("ns/other", "x", "hello") == "hello"
            assert app.status()["generation"] == 2
            assert app.state("ns/keep", "a") == {"kept": 7}
            app.wait_until(lambda: app.status()["backlog"] == 1)

            redeployed(service, NUMBER)
            app.wait_until(lambda: app.state("ns/keep", "a") == {"kept": 8})


def test_a_state_that_is_added_while_running_and_one_that_goes(tmp_path: Path) -> None:
    with serving(storing(None)) as service:
        app = application(service, tmp_path)
        with app:
            assert app.ask("ns/keep", "a", "7") == "was nothing"
            redeployed(service, NUMBER)
            assert app.ask("ns/keep", "a", "7") == "was None"
            assert app.ask("ns/keep", "a", "8") == "was 7"
            redeployed(service, None)
            assert app.ask("ns/keep", "a", "9") == "was nothing"
            app.restart()
            assert app.ask("ns/keep", "a", "9") == "was nothing"
            redeployed(service, NUMBER)
            assert app.ask("ns/keep", "a", "9") == "was 8"


def test_values_expire_also_while_nobody_runs(tmp_path: Path) -> None:
    brief = ValueSpec("kept", IntType, expire_after_write=timedelta(milliseconds=400))
    with serving(storing(brief)) as service:
        app = application(service, tmp_path)
        with app:
            assert app.ask("ns/keep", "a", "7") == "was None"
            assert app.ask("ns/keep", "a", "") == "was 7"
            app.stop()
            time.sleep(0.45)  # what passes is the time of the machine
            app.start()
            assert app.ask("ns/keep", "a", "") == "was None"


def test_another_duration_counts_for_values_that_are_there_and_expired_ones_do_not_keep_their_type(
    tmp_path: Path,
) -> None:
    def lasting(type: Type[Any], ms: int) -> ValueSpec:
        return ValueSpec("kept", type, expire_after_write=timedelta(milliseconds=ms))

    with serving(storing(lasting(IntType, 400))) as service:
        app = application(service, tmp_path)
        with app:
            assert app.ask("ns/keep", "a", "7") == "was None"
            app.stop()
            time.sleep(0.45)
            redeployed(service, lasting(IntType, 3_600_000))
            app.start()
            assert app.ask("ns/keep", "a", "") == "was 7"
            app.stop()
            redeployed(service, lasting(IntType, 400))
            app.start()
            assert app.ask("ns/keep", "a", "") == "was None"
            app.stop()
            redeployed(service, lasting(StringType, 3_600_000))
            app.start()
            assert app.ask("ns/keep", "a", "text") == "was None"
            assert app.ask("ns/keep", "a", "") == "was text"


def test_callers_and_delays_and_egress() -> None:
    functions = StatefulFunctions()
    seen: list[tuple[str, str | None]] = []

    def note(context: Context, message: Message) -> None:
        caller = None if context.caller is None else f"{context.caller.typename}/{context.caller.id}"
        seen.append((message.as_string() or "", caller))
        if message.as_string() == "go":
            context.send_after(
                timedelta(milliseconds=30), message_builder("ns/note", "b", str_value="late"), "token"
            )
            context.send_after(
                timedelta(milliseconds=30), message_builder("ns/note", "b", str_value="never"), "gone"
            )
            context.cancel_delayed_message("gone")
            for number in range(5):
                context.send(message_builder("ns/note", "b", str_value=str(number)))

    functions.register("ns/note", note)
    with serving(functions) as service, LocalApplication(module=module_of(service)) as app:
        app.send("ns/note", "a", "go")
        app.wait_until(lambda: len(seen) == 7)
        time.sleep(0.05)  # for what must not come
    assert seen[0] == ("go", None)
    assert seen[1:] == [(text, "ns/note/a") for text in ["0", "1", "2", "3", "4", "late"]]


def _to_unknown_egress(answer: FromFunction.InvocationResponse) -> None:
    out = answer.outgoing_egresses.add()
    out.egress_namespace, out.egress_type = "not", "there"


def _unknown_state(answer: FromFunction.InvocationResponse) -> None:
    answer.state_mutations.add().state_name = "unheard"


def _token_twice(answer: FromFunction.InvocationResponse) -> None:
    for _ in range(2):
        later = answer.delayed_invocations.add()
        later.delay_in_ms, later.cancellation_token = 60_000, "t"
        later.target.namespace, later.target.type, later.target.id = "ns", "other", "x"


@pytest.mark.parametrize("ask", [_to_unknown_egress, _unknown_state, _token_twice])
def test_what_cannot_be_is_not_applied_by_half(ask: object) -> None:
    assert callable(ask)

    async def nonsense(request: ToFunction, _body: bytes) -> Answer | None:
        if request.invocation.target.id != "bad":
            return None
        answer = FromFunction()
        sent = answer.invocation_result.outgoing_messages.add()
        sent.target.namespace, sent.target.type, sent.target.id = "ns", "other", "never"
        ask(answer.invocation_result)
        return result(answer)

    with serving(storing(NUMBER)) as service:
        service.behaviour = nonsense
        with LocalApplication(
            module=module_of(service), worker={"retry_deadline_ms": 200, "on_failure": "park"}
        ) as app:
            app.send("ns/other", "bad", "x")
            for number in range(20):
                assert app.ask("ns/other", "x", str(number)) == str(number)
            app.wait_until(lambda: app.status()["parked"] == 1)
            assert not any(request.invocation.target.id == "never" for request in service.requests)
            assert app.status()["generation"] == 1


def test_a_function_that_nobody_serves_stops_nothing() -> None:
    with serving(storing(NUMBER)) as service, LocalApplication(module=module_of(service)) as app:
        assert app.ask("ns/other", "x", "a") == "a"
        functions = StatefulFunctions()
        functions.register(
            "ns/keep",
            lambda context, message: context.send(message_builder("nobody/there", "1", str_value="x")),
        )
        service.deploy(functions)
        app.send("ns/keep", "a", "x")
        app.wait_until(lambda: app.status()["dead_letters"] == 1)
        service.deploy(storing(NUMBER))
        assert app.ask("ns/other", "x", "b") == "b"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["kept"], "asks again for states that it was given: kept"),
        ([], "says that states are missing, and names none"),
    ],
)
def test_a_service_that_asks_for_nothing_new_is_stopped(names: list[str], text: str) -> None:
    async def forgetful(request: ToFunction, _body: bytes) -> Answer | None:
        return missing(*names) if request.invocation.target.id == "bad" else None

    with serving(storing(NUMBER)) as service:
        service.behaviour = forgetful
        with LocalApplication(
            module=module_of(service), worker={"retry_deadline_ms": 200, "on_failure": "park"}
        ) as app:
            app.send("ns/keep", "bad", "1")
            assert app.ask("ns/keep", "good", "1") == "was None"
            app.wait_until(lambda: app.status()["parked"] == 1)
            [parked] = app.status()["parked_addresses"]
            assert text in parked["error"]


def missing(*names: str) -> Answer:
    answer = FromFunction()
    answer.incomplete_invocation_context.SetInParent()
    for name in names:
        answer.incomplete_invocation_context.missing_values.add(
            state_name=name, type_typename="io.statefun.types/int"
        )
    return result(answer)


def test_a_service_may_ask_for_one_state_after_the_other() -> None:
    async def one_by_one(request: ToFunction, _body: bytes) -> Answer | None:
        count = len(request.invocation.state)
        return missing(f"s{count}") if count < 10 else None

    with serving(storing(NUMBER)) as service:
        service.behaviour = one_by_one
        with LocalApplication(module=module_of(service), worker={"retry_deadline_ms": 0}) as app:
            assert app.ask("ns/other", "a", "hello") == "hello"
            assert [len(request.invocation.state) for request in service.requests] == [*range(11)]
