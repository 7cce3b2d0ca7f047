"""The playground's curl commands, from the request to the record, with embedded functions."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import pytest

from statefun_ingress.config import IngressConfig
from statefun_ray.io.egress_file import read_egress
from statefun_ray.local import LocalApplication
from statefun_ray.module.model import (
    PLAYGROUND_EGRESS,
    Endpoint,
    FileEgress,
    Module,
    PlaygroundEgress,
    PlaygroundIngress,
)
from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
)
from statefun_sdk.protocol import FromFunction, ToFunction
from tests.remote.serving import Answer, result, serving

GREET = make_json_type("example/GreetRequest")
RECORD = make_json_type("io.statefun.playground/EgressRecord")

functions = StatefulFunctions()


@functions.bind("example/person", specs=[ValueSpec("visits", IntType)])
def person(context: Context, message: Message) -> None:
    name = message.as_type(GREET)["name"]
    visits = context.storage.visits = (context.storage.visits or 0) + 1
    record = {"topic": "greetings", "payload": f"Hello {name}, {visits}"}
    context.send_egress(egress_message_builder(PLAYGROUND_EGRESS, record, RECORD))


@functions.bind("example/raw")
def raw(context: Context, message: Message) -> None:
    """Send what it is given to the playground's egress, whatever that is."""
    record = json.loads(message.as_string() or "")
    context.send_egress(egress_message_builder(PLAYGROUND_EGRESS, record, RECORD))


MODULE = Module(
    playground_ingress=PlaygroundIngress(), playground_egress=PlaygroundEgress(topics=("greetings", "other"))
)


def put(app: LocalApplication, id: str, name: str) -> int:
    request = urllib.request.Request(
        f"{app.playground_url}/example/person/{id}",
        json.dumps({"name": name}).encode(),
        {"content-type": "application/vnd.example/GreetRequest"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.headers["status"])


def take(app: LocalApplication, topic: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{app.playground_egress_url}/{topic}", timeout=10) as answer:
            return int(answer.headers["status"]), answer.read().decode()
    except HTTPError as error:
        return error.code, ""


def taken(app: LocalApplication, topic: str, count: int, timeout_s: float = 20.0) -> list[str]:
    found: list[str] = []
    deadline_s = time.monotonic() + timeout_s
    while len(found) < count:
        assert time.monotonic() < deadline_s, found
        status, text = take(app, topic)
        if status == 200:
            found.append(text)
    return found


def test_what_is_put_comes_out_again_once_and_in_order() -> None:
    # Snapshots by the clock would be a minute apart: records pull them forward.
    with LocalApplication(functions, module=MODULE, snapshot_interval_s=60) as app:
        for number in range(1, 4):
            assert put(app, "Bob", "Bob") == 200
            assert taken(app, "greetings", 1) == [f"Hello Bob, {number}"]
        assert take(app, "greetings") == (404, "")
        assert take(app, "nothing") == (405, "")


def test_records_are_published_once_whatever_dies() -> None:
    with LocalApplication(functions, module=MODULE, snapshot_interval_s=0.1) as app:
        for number in range(60):
            put(app, f"id{number}", str(number))
            if number % 20 == 10:
                app.kill_worker(number // 20 % 2)
        found = taken(app, "greetings", 60, 40)
        app.snapshot()
        assert sorted(found) == sorted(f"Hello {number}, 1" for number in range(60))
        assert take(app, "greetings") == (404, "")


@pytest.mark.slow
def test_a_record_as_large_as_may_be_goes_all_the_way() -> None:
    name = "x" * (IngressConfig.body_bytes_max - 20)
    with LocalApplication(functions, module=MODULE, snapshot_interval_s=0.1) as app:
        assert put(app, "Bob", name) == 200
        [payload] = taken(app, "greetings", 1)
        assert payload == f"Hello {name}, 1"
        app.restart(workers=1)
        assert app.state("example/person", "Bob") == {"visits": 1}


def test_limits_are_those_of_the_module_and_those_of_the_start_win() -> None:
    module = replace(MODULE, http_limits={"bodyBytesMax": 100, "idBytesMax": 5})
    with LocalApplication(functions, module=module, ingress={"body_bytes_max": 200}) as app:
        assert put(app, "Bob", "x" * 150) == 200
        with pytest.raises(HTTPError, match="413"):
            put(app, "Bob", "x" * 200)
        with pytest.raises(HTTPError, match="400"):
            put(app, "Robert", "x")


@pytest.mark.parametrize("where", ["embedded", "remote"])
def test_a_bad_record_fails_its_batch_and_is_no_loss(where: str) -> None:
    bad = {
        "topic": {"topic": "nope", "payload": "x"},
        "member": {"topic": "other", "payload": "x", "more": 1},
    }
    with contextlib.ExitStack() as stack:
        embedded, module = functions, MODULE
        if where == "remote":
            service = stack.enter_context(serving(functions))
            embedded = StatefulFunctions()
            module = replace(MODULE, endpoints=(Endpoint("example/*", service.url),))
        app = stack.enter_context(
            LocalApplication(embedded, module=module, worker={"retry_deadline_ms": 150})
        )
        for id, record in bad.items():
            app.send("example/raw", id, json.dumps(record))
        app.send("example/raw", "good", json.dumps({"topic": "other", "payload": "y"}))

        app.wait_until(lambda: app.status()["dead_letters"] == len(bad))
        said = {letter["id"]: letter["error"] for letter in app.client.dead_letters()["dead_letters"]}
        assert "the playground egress has no topic 'nope'; it has greetings, other" in said["topic"]
        assert "unknown field `more`" in said["member"]
        assert taken(app, "other", 1) == ["y"]


def test_the_empty_namespace_is_one_like_others(tmp_path: Path) -> None:
    async def answer(request: ToFunction, _: bytes) -> Answer:
        target = request.invocation.target
        assert target.namespace == ""
        said = FromFunction()
        if target.type == "first":
            sent = said.invocation_result.outgoing_messages.add()
            sent.target.type, sent.target.id = "second", target.id
            sent.argument.CopyFrom(request.invocation.invocations[0].argument)
        else:
            record = said.invocation_result.outgoing_egresses.add(egress_type="out")
            record.argument.CopyFrom(request.invocation.invocations[0].argument)
        return result(said)

    with serving(StatefulFunctions()) as service:
        service.behaviour = answer
        endpoints = (Endpoint("/first", service.url), Endpoint("/*", service.url))
        out = FileEgress("/out", f"file://{tmp_path}")
        module = replace(MODULE, endpoints=endpoints, file_egresses=(out,))
        with LocalApplication(StatefulFunctions(), module=module) as app:
            request = urllib.request.Request(
                f"{app.playground_url}//first/Bob",
                b"hi",
                {"content-type": "application/vnd.example/Text"},
                method="PUT",
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.headers["status"] == "200"
            app.wait_until(lambda: bool(read_egress(out.uri, out.id)))
            assert [(row.typename, row.value) for row in read_egress(out.uri, out.id)] == [
                ("example/Text", b"hi")
            ]
