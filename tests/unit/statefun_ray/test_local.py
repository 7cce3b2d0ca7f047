"""The facade itself; what applications do under it is in tests/scenarios."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from statefun_checkpoints.store import MemoryStore
from statefun_ray import testing
from statefun_ray.local import ApplicationFailed, LocalApplication
from statefun_ray.module.model import Module, PlaygroundEgress, PlaygroundIngress
from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    message_builder,
)

pytestmark = pytest.mark.slow

functions = StatefulFunctions()


@functions.bind("t/count", specs=[ValueSpec("n", IntType)])
def count(context: Context, message: Message) -> None:
    context.storage.n = (context.storage.n or 0) + message.as_int()
    context.send_egress(egress_message_builder("t/out", context.storage.n, IntType))
    if context.caller is not None:
        context.send(message_builder(context.caller.typename, context.caller.id, int_value=context.storage.n))


def test_the_harness_of_the_testing_package_is_this_one() -> None:
    assert testing.LocalApplication is LocalApplication
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing


def test_an_application_runs_in_temporary_places_and_leaves_nothing() -> None:
    with LocalApplication(functions, workers=1) as app:
        app.send("t/count", "a", 2)
        reply = app.ask_raw("t/count", "a", 3)
        assert reply.data == 5
        assert reply.headers["preference-applied"].startswith("wait")
        assert app.state("t/count", "a") == {"n": 5}
        place = Path(str(app._log_dir))
        assert place.exists()

    assert not place.exists()


def test_what_was_stored_is_there_after_a_new_start(tmp_path: Path) -> None:
    store, sink = MemoryStore(), tmp_path / "sink"
    for total in (1, 2):
        with LocalApplication(
            functions, storage=store, log_dir=tmp_path / "log", workers=total, sinks={"t/out": str(sink)}
        ) as app:
            assert app.ask("t/count", "a", 1) == total

    rows = LocalApplication(functions, storage=store, log_dir=tmp_path / "log", sinks={"t/out": str(sink)})
    assert [row.data for row in rows.egress("t/out")] == [1, 2]
    assert not any(name.startswith("egress/") for name in store.objects)
    rows.close()


def test_the_ingress_may_die_by_itself(tmp_path: Path) -> None:
    with LocalApplication(functions, storage=MemoryStore(), log_dir=tmp_path / "log", workers=2) as app:
        app.send("t/count", "a", 1)
        app.kill_ingress()

        assert app.ask("t/count", "a", 1) == 2
        assert app.status()["generation"] == 1


def test_an_ingress_that_is_opened_again_listens_where_it_did() -> None:
    module = Module(playground_ingress=PlaygroundIngress(), playground_egress=PlaygroundEgress(("a",)))
    with LocalApplication(functions, module=module) as app:
        urls = app.url, app.playground_url, app.playground_egress_url
        app.kill_ingress()
        assert (app.url, app.playground_url, app.playground_egress_url) == urls
        assert len(set(urls)) == 3


def test_an_application_that_can_not_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="500 workers asked for"), LocalApplication(functions, workers=500):
        pass

    store = MemoryStore()
    store.put("job.json", b"not json")
    with (
        pytest.raises(ApplicationFailed, match=r"the application has stopped: job\.json is corrupt"),
        LocalApplication(functions, storage=store, log_dir=tmp_path / "log"),
    ):
        pass


def test_a_failing_function_is_seen_in_every_status_while_it_is_tried_again() -> None:
    failing = StatefulFunctions()

    @failing.bind("t/fails")
    def fail(context: Context, message: Message) -> None:
        raise KeyError("sku")

    with LocalApplication(failing, workers=2) as app:
        for id in ("a", "b"):
            app.send("t/fails", id, "x")
        app.wait_until(lambda: app.status()["retrying"] == 2, what="two failures")
        app.wait_until(lambda: http_status(app)["retrying"] == 2, what="two failures at the ingress")
        for status in (app.status(), http_status(app)):
            assert {each["id"] for each in status["retrying_addresses"]} == {"a", "b"}
            [one, _] = status["retrying_addresses"]
            assert (one["function"], one["error"]) == ("t/fails", "KeyError: 'sku'")
            assert one["attempts"] >= 1
            assert one["next_attempt_ms"] is None or one["next_attempt_ms"] > one["since_ms"]
        with urllib.request.urlopen(f"{app.url}/metrics", timeout=10) as answer:
            figures = answer.read().decode()
        assert (
            sum(map(int, re.findall(r"^statefun_worker_retrying_addresses{.*} (\d+)$", figures, re.M))) == 2
        )
        assert app.status()["parked"] == 0


def http_status(app: LocalApplication) -> Any:
    with urllib.request.urlopen(f"{app.url}/v1/status", timeout=10) as answer:
        return json.load(answer)
