"""Twenty things a drop-in runtime for StateFun 3.3 does, each as a test of its own.

Where functions are enough, they run on each SDK of ``KINDS`` in turn, in a process of their own: directly, or
behind a window that passes requests and answers on as they are, where requests have to be seen or held
up. Where an answer is needed that no SDK gives, the service is written by hand, and the test says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from statefun_ray.io.egress_file import read_egress
from statefun_ray.local import LocalApplication
from statefun_ray.module.model import (
    AsyncTransport,
    Endpoint,
    FileEgress,
    KafkaEgress,
    KafkaIngress,
    KafkaTopic,
    Module,
    StartupPosition,
)
from statefun_sdk import (
    Context,
    Message,
    StatefulFunctions,
    StringType,
    egress_message_builder,
    kafka_egress_message,
)
from statefun_sdk.protocol import ToFunction
from tests.conformance.lab import Gate, decode_text, lab_module, logged, module, text, texts_of
from tests.kafka import test_source as source
from tests.kafka.broker import Broker, noida
from tests.parts import test_remote_greeter as remote_greeter
from tests.parts.conftest import KINDS, service_of
from tests.parts.processes import ServiceProcess
from tests.remote import test_headers as headers
from tests.remote import test_playground as playground
from tests.remote import test_states_and_effects as states
from tests.remote.serving import OCTETS, Answer, forwarded, serving, window
from tests.smoke import drive
from tests.smoke.commands import Parameters
from tests.smoke.services import ours as interpreters
from tests.unit.statefun_ray.module.reading import document, error_of, module_of, warned_module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

strict = headers.strict
greeter = remote_greeter.greeter


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with noida(tmp_path_factory.mktemp("broker")) as started:
        yield started


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """An SDK that services are built with."""
    named: str = request.param
    return named


@pytest.fixture(scope="module")
def lab(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """The functions of ``tests/parts/services/lab.py`` on one SDK, in a process of their own."""
    made = service_of(kind, tmp_path_factory.mktemp(kind) / "service.log")
    made.start()
    yield made
    made.kill()


def test_01_requests_are_what_the_strictest_handler_demands(strict: str) -> None:
    """The Go SDK was not at hand; the server demands what its handler does."""
    headers.test_a_handler_as_strict_as_that_of_go_takes_every_request(strict)


def test_02_an_empty_answer_is_a_success_and_one_without_content_type_is_not() -> None:
    """Written by hand: no SDK leaves the content type out, or answers nothing at all."""
    answers: list[Answer] = [
        (200, {}, b""),
        (200, {"status": "500"}, b""),
        (200, {"content-type": OCTETS}, b""),
    ]

    async def answer(_request: ToFunction, _body: bytes) -> Answer | None:
        return answers.pop(0) if answers else (200, {"content-type": OCTETS}, b"")

    with serving(StatefulFunctions()) as service, LocalApplication(module=module(service)) as app:
        service.behaviour = answer
        app.send("ns/any", "a", "one")
        app.wait_until(lambda: len(service.requests) == 3)
        app.send("ns/any", "a", "two")
        app.wait_until(lambda: len(service.requests) == 4)
        app.snapshot()
        assert [texts_of(request) for request in service.requests] == [["one"], ["one"], ["one"], ["two"]]
        assert app.status()["dead_letters"] == 0


def test_03_the_same_batch_comes_again_with_every_state(lab: ServiceProcess) -> None:
    with window(lab.url) as seen, LocalApplication(module=lab_module(seen.url)) as app:
        gate = Gate(seen, lambda request: not request.invocation.state)
        app.send("lab/log", "x", "0")
        app.wait_until(lambda: gate.held == 1)
        for number in range(1, 4):
            app.send("lab/log", "x", str(number))
        app.wait_until(lambda: app.status()["lag"] == 0)
        gate.open()
        app.wait_until(lambda: logged(app) == ["0", "1", "2", "3"])
        first, second, third = seen.requests[:3]
        assert not first.invocation.state
        assert sorted(state.state_name for state in second.invocation.state) == ["log", "other"]
        assert not any(state.HasField("state_value") for state in second.invocation.state)
        assert texts_of(first) == texts_of(second) == ["0"]  # nothing that waited was merged
        assert texts_of(third)[0] == "1"
        assert {state.state_name: state.HasField("state_value") for state in third.invocation.state} == {
            "log": True,
            "other": False,
        }


def test_04_states_come_and_go_and_two_versions_are_alive_at_once(lab: ServiceProcess) -> None:
    random = Random(4)

    async def either(_request: ToFunction, body: bytes) -> Answer | None:
        return await forwarded(f"{lab.url}/{random.choice(('number', 'more'))}", body)

    with window(f"{lab.url}/none") as seen, LocalApplication(module=lab_module(seen.url)) as app:

        def said(value: str) -> str:
            answer: str = app.ask("lab/versioned", "a", value)
            return answer

        assert said("7") == "none was nothing"
        seen.upstream = f"{lab.url}/number"
        assert [said("7"), said("8")] == ["number was nothing", "number was 7"]
        seen.upstream = f"{lab.url}/none"
        assert said("9") == "none was nothing"
        app.restart()
        assert said("9") == "none was nothing"
        seen.upstream = f"{lab.url}/number"
        assert said("9") == "number was 8"

        seen.behaviour = either
        answers = [app.ask("lab/versioned", "b", str(number)) for number in range(30)]
        versions = [answer.split()[0] for answer in answers]
        assert set(versions) == {"number", "more"}
        assert [answer.split()[2] for answer in answers] == ["nothing", *map(str, range(29))]
        assert app.state("lab/versioned", "b") == {"kept": 29, "more": versions.count("more")}


def test_05_a_state_of_another_type_is_found_before_it_is_overwritten(lab: ServiceProcess) -> None:
    """StateFun crashes again and again after a restart; here the address waits and others go on."""
    with window(f"{lab.url}/number") as seen, LocalApplication(module=lab_module(seen.url)) as app:
        assert app.ask("lab/versioned", "a", "7") == "number was nothing"
        app.stop()
        seen.upstream = f"{lab.url}/text"
        app.start()
        before = len(seen.requests)
        app.send("lab/versioned", "a", "8")
        app.wait_until(lambda: len(seen.requests) >= before + 3)
        assert app.ask("lab/echo", "x", "hello") == "hello"
        assert app.status()["generation"] == 2
        assert app.state("lab/versioned", "a") == {"kept": 7}
        app.wait_until(lambda: app.status()["backlog"] == 1)

        seen.upstream = f"{lab.url}/number"
        app.wait_until(lambda: app.state("lab/versioned", "a") == {"kept": 8})


def test_06_one_request_per_address_and_what_waits_is_the_next_batch(lab: ServiceProcess) -> None:
    with window(lab.url) as seen, LocalApplication(module=lab_module(seen.url)) as app:
        app.send("lab/log", "y", "known")  # from here on, no request asks for states
        app.wait_until(lambda: logged(app, "y") == ["known"])
        app.send("lab/log", "x", "0")
        app.wait_until(lambda: logged(app) == ["0"])
        gate = Gate(seen, lambda request: request.invocation.target.id == "x")
        before = len(seen.requests)
        for number in range(1, 4):
            app.send("lab/log", "x", str(number))
        app.wait_until(lambda: gate.held == 1)
        app.wait_until(lambda: app.status()["lag"] == 0)
        app.send("lab/act", "r", "relay;send lab/log x 4")
        app.send("lab/log", "y", "meanwhile")
        app.wait_until(lambda: logged(app, "y") == ["known", "meanwhile"])
        app.wait_until(lambda: logged(app, "r", "lab/act") == ["relay"])
        app.snapshot()  # what was sent to x has arrived
        assert gate.held == 1
        gate.open()
        app.wait_until(lambda: logged(app) == ["0", "1", "2", "3", "4"])
        batches = [r for r in seen.requests[before:] if r.invocation.target.id == "x"]
        assert [said for batch in batches for said in texts_of(batch)] == ["1", "2", "3", "4"]
        assert len(batches) == 2
        *events, relayed = batches[1].invocation.invocations
        assert not any(event.HasField("caller") for event in events)
        assert (relayed.caller.type, relayed.caller.id) == ("act", "r")


def test_07_messages_delays_egress_and_state_and_then_the_next_batch(
    lab: ServiceProcess, tmp_path: Path
) -> None:
    out = (tmp_path / "out").as_uri()
    first = "1;after 0 lab/log x delayed;egress record;send lab/act a self;send lab/log x sent"
    with (
        window(lab.url) as seen,
        LocalApplication(
            module=lab_module(seen.url, file_egresses=(FileEgress("lab/out", out),)), snapshot_interval_s=0.1
        ) as app,
    ):
        gate = Gate(seen, lambda request: texts_of(request) == [first] and bool(request.invocation.state))
        app.send("lab/act", "a", first)
        app.wait_until(lambda: gate.held == 1)
        app.send("lab/act", "a", "2")
        app.wait_until(lambda: app.status()["lag"] == 0)
        gate.open()
        app.wait_until(lambda: logged(app) == ["sent", "delayed"])
        # What waited before the answer came goes first, and finds the state that the answer set.
        app.wait_until(lambda: logged(app, "a", "lab/act") == ["1", "2", "self"])
        following = next(request for request in seen.requests if texts_of(request)[0] == "2")
        [state] = following.invocation.state
        assert decode_text(state.state_value.value) == "1"
        app.wait_until(lambda: len(read_egress(out, "lab/out")) == 1)


def test_08_order_of_sender_and_receiver_also_across_restarts(lab: ServiceProcess) -> None:
    ids = [f"id{n}" for n in range(6)]
    with LocalApplication(module=lab_module(lab.url), snapshot_interval_s=0.1) as app:
        for turn in range(3):
            for number in range(turn * 30, turn * 30 + 30, 3):
                three = [f"send lab/log to-{{id}} {number + more}" for more in range(3)]
                said = ";".join(["go", *three])
                app.client.send_many(
                    {"target": "lab/act", "id": id, "type": StringType.typename, "value": said.format(id=id)}
                    for id in ids
                )
            app.kill_worker(turn % 2)
        app.restart(workers=3)
        app.crash()
        app.start()
        expected = [str(sent) for sent in range(90)]
        app.wait_until(lambda: all(len(logged(app, f"to-{id}")) >= 90 for id in ids))
        assert all(logged(app, f"to-{id}") == expected for id in ids)


def test_09_delays_and_their_tokens(lab: ServiceProcess) -> None:
    with LocalApplication(module=lab_module(lab.url)) as app:
        expected: list[str] = []

        def order(id: str, *commands: str) -> None:
            app.send("lab/act", id, ";".join(["ordered", *commands]))

        def fires(said: str) -> None:
            expected.append(said)
            app.wait_until(lambda: logged(app) == expected, what=said)

        order("a", "after 20 lab/log x first t")
        fires("first")
        order("a", "cancel t")  # too late
        order("a", "after 20 lab/log x reused t")
        fires("reused")
        order("a", "after 300 lab/log x never t")
        order("a", "cancel t")
        order("a", "after 20 lab/log x never u", "cancel u")
        order("a", "cancel v", "after 20 lab/log x despite v")
        fires("despite")
        order("a", "after 300 lab/log x foreign w")
        order("b", "cancel w")  # tokens of another id
        fires("foreign")
        done = len(logged(app, "a", "lab/act"))
        order("a", "after 400 lab/log x overdue s")
        order("a", "after 400 lab/log x gone y", "cancel y")
        app.wait_until(lambda: len(logged(app, "a", "lab/act")) == done + 2)
        app.stop()
        time.sleep(0.5)  # what passes is the time of the machine
        app.start()
        fires("overdue")
        app.snapshot()
        assert logged(app) == expected


def test_10_writes_and_calls_refresh_what_they_should_also_while_nothing_runs(lab: ServiceProcess) -> None:
    """Both states live for a second; what is waited for is the time of the machine."""
    with LocalApplication(module=lab_module(lab.url)) as app:

        def said(value: str) -> str:
            answer: str = app.ask("lab/keep", "a", value)
            return answer

        assert said("set") == "nothing nothing"
        time.sleep(0.5)
        assert said("set") == "1 1"
        began_s = time.monotonic()
        while (found := said("look")) == "1 1":
            time.sleep(0.05)
        assert found == "nothing 1"
        assert time.monotonic() - began_s > 0.9
        app.stop()
        time.sleep(1.1)
        app.start()
        assert said("look") == "nothing nothing"


def test_11_events_have_no_caller_and_delayed_messages_keep_theirs(lab: ServiceProcess) -> None:
    sent = [f"send lab/callers b {number}" for number in range(5)]
    later = [
        "after 30 lab/callers b late token",
        "after 30 lab/callers b never gone",
        "after 60 lab/callers b last",
    ]
    with LocalApplication(module=lab_module(lab.url)) as app:
        app.send("lab/callers", "b", "event")
        app.wait_until(lambda: logged(app, "b", "lab/callers") == ["event from nobody"])
        app.send("lab/act", "a", ";".join(["go", *later, "cancel gone", *sent]))
        app.wait_until(lambda: len(logged(app, "b", "lab/callers")) == 8)
        assert logged(app, "b", "lab/callers") == [
            "event from nobody",
            *(f"{said} from lab/act/a" for said in ("0", "1", "2", "3", "4", "late", "last")),
        ]


def test_12_kafka_records_arrive_as_they_are(broker: Broker) -> None:
    broker.create("conformance-in")
    values = [b"", b"\xff\x00raw", b"third"]
    broker.produce("conformance-in", [("kéy", value) for value in values])
    topic = KafkaTopic("conformance-in", "any/bytes", ("ns/one", "ns/two"))
    properties = {"bootstrap.servers": broker.address, "group.id": "conformance"}
    ingress = KafkaIngress("ns/in", (topic,), startup=StartupPosition("earliest"), properties=properties)

    async def nothing(_request: ToFunction, _body: bytes) -> Answer | None:
        return 200, {"content-type": OCTETS}, b""

    with serving(StatefulFunctions()) as service:
        service.behaviour = nothing
        with LocalApplication(module=module(service, kafka_ingresses=(ingress,))) as app:

            def came(name: str) -> list[tuple[str, str, bool, bytes]]:
                return [
                    (
                        request.invocation.target.id,
                        each.argument.typename,
                        each.argument.has_value,
                        each.argument.value,
                    )
                    for request in service.requests
                    if request.invocation.target.type == name
                    for each in request.invocation.invocations
                ]

            app.wait_until(lambda: len(came("one")) == len(came("two")) == 3)
            assert came("one") == came("two") == [("kéy", "any/bytes", True, value) for value in values]
            assert not any(e.HasField("caller") for r in service.requests for e in r.invocation.invocations)
    asyncio.run(source.test_every_record_goes_to_every_target_in_order(broker))


def test_13_records_of_another_type_are_refused_and_an_empty_key_is_none(broker: Broker) -> None:
    """StateFun's sink fails the job; here the message that asked for it becomes a dead letter."""
    broker.create("conformance-out")
    functions = StatefulFunctions()

    def publish(context: Context, message: Message) -> None:
        if text(message) == "wrong":
            context.send_egress(egress_message_builder("ns/out", "x", StringType))
        else:
            key = text(message).partition("=")[0]
            context.send_egress(kafka_egress_message("ns/out", "conformance-out", text(message), key=key))

    functions.register("ns/publish", publish)
    egress = KafkaEgress("ns/out", "at-least-once", 0, {"bootstrap.servers": broker.address})
    with (
        serving(functions) as service,
        LocalApplication(
            module=module(service, kafka_egresses=(egress,)),
            worker={"retry_deadline_ms": 200},
            snapshot_interval_s=0.1,
        ) as app,
    ):
        for said in ("k=1", "wrong", "=2"):
            app.send("ns/publish", "a", said)
        app.wait_until(lambda: app.status()["dead_letters"] == 1)
        found = [(record.key(), record.value()) for record in broker.consume("conformance-out", 2)]
        assert found == [(b"k", b"k=1"), (None, b"=2")]


ENDPOINT = "io.statefun.endpoints.v2/http"


def test_14_endpoints_of_a_module() -> None:
    def endpoint(functions: str, url: str, *more: str) -> str:
        return document(ENDPOINT, "\n".join([f"functions: {functions}", f"urlPathTemplate: {url}", *more]))

    functions = StatefulFunctions()
    for name in ("ns/exact", "ns/rest"):
        functions.register(name, lambda context, message: states.reply(context, text(message)))
    with serving(functions) as exact, serving(functions) as rest:
        described = module_of("---\n".join([endpoint("ns/*", rest.url), endpoint("ns/exact", exact.url)]))
        with LocalApplication(module=described) as app:
            assert app.ask("ns/exact", "a", "1") == "1"
            assert app.ask("ns/rest", "a", "2") == "2"
        assert [request.invocation.target.type for request in exact.requests] == ["exact"]
        assert [request.invocation.target.type for request in rest.requests] == ["rest"]
    twice = "---\n".join([endpoint("ns/a", "http://h/1"), endpoint("ns/a", "http://h/2")])
    assert "ns/a" in str(error_of(twice))
    one, warnings = warned_module(endpoint("ns/a", "http://h/1", "unheardOf: 1"))
    assert one.endpoints == (Endpoint("ns/a", "http://h/1"),)
    assert len(warnings) == 1
    kafka = document(
        "io.statefun.kafka.v1/egress", "id: ns/out\naddress: k:9092\nproperties:\n- client.id: a${B}"
    )
    try_it, _ = warned_module(kafka)
    assert try_it.kafka_egresses[0].properties["client.id"] == "a${B}"


def test_15_durations_positions_dates_and_properties() -> None:
    transport = (
        "functions: ns/a\nurlPathTemplate: http://h/\ntransport:\n"
        "  type: io.statefun.transports.v1/async\n  call: 2 min\n  connect: 1500ms\n  pool_ttl: 1h"
    )
    [endpoint] = module_of(document(ENDPOINT, transport)).endpoints
    assert endpoint.transport == AsyncTransport(call_ms=120_000, connect_ms=1_500, pool_ttl_ms=3_600_000)

    def start(position: str) -> KafkaIngress:
        spec = (
            "id: ns/in\naddress: k:9092\nconsumerGroupId: g\nproperties:\n- a.b: 1\n- c: x\n"
            "topics:\n- topic: t\n  valueType: a/b\n  targets: [ns/a]\n"
            f"startupPosition: {position}\n"
        )
        found, _ = warned_module(document("io.statefun.kafka.v1/ingress", spec))
        return found.kafka_ingresses[0]

    for kind in ("group-offsets", "earliest", "latest"):
        assert start(f"{{type: {kind}}}").startup.kind == kind
    offsets = start("{type: specific-offsets, offsets: [{t/0: 91}, {t/1: 11}]}").startup
    assert offsets == StartupPosition("specific-offsets", offsets=(("t", 0, 91), ("t", 1, 11)))
    dated = start("{type: date, date: '2020-02-29 04:15:00.000 +0000'}")
    assert dated.startup == StartupPosition("date", date_ms=1_582_949_700_000)
    assert (dated.properties["a.b"], dated.properties["c"]) == ("1", "x")
    assert dated.properties["group.id"] == "g"


def test_16_the_playground() -> None:
    playground.test_what_is_put_comes_out_again_once_and_in_order()


@pytest.mark.parametrize("interpreter", drive.INTERPRETERS)
def test_17_a_small_smoke_run(interpreter: str, tmp_path: Path) -> None:
    """Short: all of the suite's instances, 400 of its 100,000 commands and one of its kills.

    ``make smoke`` is the whole of it, with ten kills; it never has fewer than five.
    """
    egress = (tmp_path / "egress").as_uri()
    with (
        drive.service_of(interpreter, tmp_path / "service.log") as service,
        LocalApplication(
            interpreters.functions if interpreter == "embedded" else None,
            module=drive.module_of(service, egress),
            storage=tmp_path / "storage",
            log_dir=tmp_path / "log",
            snapshot_interval_s=0.2,
        ) as app,
    ):
        driver = drive.Driver(
            app, service, egress, Parameters(message_count=400), seed=3, kills=1, endpoint_restarts=1
        )
        outcome = driver.run(timeout_s=50)
    assert outcome.kills == outcome.crashes == 1
    assert outcome.endpoint_restarts == (0 if service is None else 1)
    assert outcome.increments > 400


def test_18_the_greeter(greeter: ServiceProcess) -> None:
    """On our SDK, Apache's for Python, its fork and Apache's for JavaScript; Go and Java were not at hand."""
    remote_greeter.test_the_greeter_says_what_it_always_said(greeter)


def test_19_killed_at_any_moment_everything_is_applied_once(lab: ServiceProcess) -> None:
    random = Random(19)
    with (
        window(lab.url) as seen,
        LocalApplication(module=lab_module(seen.url), snapshot_interval_s=0.05) as app,
    ):
        gate = Gate(seen, lambda request: True)
        app.send("lab/log", "x", "0")
        app.wait_until(lambda: gate.held == 1)
        app.snapshot()  # the request in flight is part of it
        app.crash()
        app.start()
        app.wait_until(lambda: gate.held == 2)
        gate.open()
        app.wait_until(lambda: logged(app) == ["0"])
        assert seen.requests[0].invocation.invocations == seen.requests[1].invocation.invocations
        for number in range(1, 61):
            app.send("lab/log", "x", str(number))
            if number % 12 == 0:
                time.sleep(random.uniform(0, 0.1))  # at any moment
                app.kill_worker(random.randrange(2))
        app.crash()
        app.start()
        app.wait_until(lambda: len(logged(app)) >= 61)
        assert logged(app) == [str(number) for number in range(61)]


WRONG: dict[str, Answer] = {
    "302": (302, {"location": "/elsewhere"}, b""),
    "html": (200, {"content-type": "text/html"}, b"<html>"),
    "garbage": (200, {"content-type": OCTETS}, b"\xff\xff\xff"),
}
"""Answers that no SDK gives, written by hand."""


def test_20_a_service_that_is_wrong_slow_or_down_has_a_budget(
    kind: str, lab: ServiceProcess, tmp_path: Path
) -> None:
    """StateFun restarts the job then; here the message becomes a dead letter and the rest goes on.

    A service that takes no connections is waited for: its messages have no budget to use up.
    """
    attempts_s: dict[str, list[float]] = {}
    brief = AsyncTransport(call_ms=200)
    down = service_of(kind, tmp_path / "down.log")

    async def misbehave(request: ToFunction, _body: bytes) -> Answer | None:
        id = request.invocation.target.id
        attempts_s.setdefault(id, []).append(time.monotonic())
        return WRONG[id]

    with serving(StatefulFunctions()) as wrong:
        wrong.behaviour = misbehave
        endpoints = (
            Endpoint("lab/*", lab.url, transport=brief),
            Endpoint("lab/log", down.url, transport=brief),
            Endpoint("lost/*", lab.url + "/nowhere", transport=brief),
            Endpoint("wrong/*", wrong.url, transport=brief),
        )
        # Of the service itself: its function raises, or takes too long, or there is nothing at that path.
        real = {"500": ("lab/echo", "fail"), "slow": ("lab/echo", "sleep"), "404": ("lost/echo", "x")}
        with LocalApplication(module=Module(endpoints=endpoints), worker={"retry_deadline_ms": 700}) as app:
            for id, (function, said) in {**real, **dict.fromkeys(WRONG, ("wrong/any", "x"))}.items():
                app.send(function, id, said)
            app.send("lab/log", "down", "x")
            for number in range(20):
                assert app.ask("lab/echo", "well", str(number)) == str(number)
            app.wait_until(lambda: app.status()["dead_letters"] >= len(real) + len(WRONG), 12)
            found = {letter["id"]: letter for letter in app.client.dead_letters()["dead_letters"]}
            assert found.keys() == {*real, *WRONG}
            assert {id: letter["attempts"] for id, letter in found.items() if letter["attempts"] < 2} == {}
            assert app.status()["generation"] == 1
            down.start()
            try:
                app.wait_until(lambda: logged(app, "down") == ["x"])
            finally:
                down.kill()
            app.snapshot()
            assert app.status()["dead_letters"] == len(found)
    for id in WRONG:
        tries = attempts_s[id]
        gaps_s = [later - earlier for earlier, later in pairwise(tries)]
        assert 3 <= len(tries) <= 12, (id, len(tries))  # a back-off that grows, within the budget
        assert sum(gaps_s) < 5
        assert max(gaps_s) > 2 * min(gaps_s), (id, gaps_s)
