"""Figures for Prometheus: what a page of them says after known work."""

from __future__ import annotations

import re
import urllib.request

import pytest

from statefun_ray.local import LocalApplication
from statefun_sdk import StatefulFunctions
from statefun_sdk.protocol import ToFunction
from tests.remote.serving import OCTETS, Answer, serving
from tests.remote.test_end_to_end import functions, module


def page(app: LocalApplication) -> dict[str, float]:
    """Return the values by name and labels, those of all workers added."""
    with urllib.request.urlopen(f"{app.url}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    result: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = re.sub(r'worker="\d+",?', "", name).replace("{}", "")
            result[name] = result.get(name, 0) + float(value)
    return result


def test_the_page_counts_what_was_done() -> None:
    with serving(functions) as service, LocalApplication(module=module(service.url)) as app:
        for number in range(10):
            app.send("shop/counter", f"id{number}", f"tell other{number}")
        counter = 'function="shop/counter"'
        app.wait_until(lambda: page(app).get(f"statefun_function_in_total{{{counter}}}") == 20)
        found = page(app)
        sent = [f"statefun_function_out_{way}_total{{{counter}}}" for way in ("local", "remote")]
        assert sum(found[name] for name in sent) == 10
        assert found["statefun_ingress_accepted_total"] == 10
        assert found["statefun_worker_backlog"] == 0
        service_label = 'endpoint="shop/*"'
        requests = found[f"statefun_remote_invocation_requests_total{{{service_label}}}"]
        assert requests >= 20
        assert found[f'statefun_remote_invocation_latency_ms_bucket{{{service_label},le="+Inf"}}'] == requests
        assert found[f"statefun_remote_invocation_failures_total{{{service_label}}}"] == 0
        per_function = "statefun_function_remote_invocation"
        assert found[f"{per_function}_requests_total{{{counter}}}"] == requests
        assert found[f"{per_function}_failures_total{{{counter}}}"] == 0
        assert found[f'{per_function}_latency_ms_bucket{{{counter},le="+Inf"}}'] == requests
        assert found[f"{per_function}_latency_ms_count{{{counter}}}"] == requests
        assert found["statefun_worker_dead_letters_total"] == 0


def requests_of(label: str, found: dict[str, float]) -> list[float]:
    return [value for name, value in found.items() if f"remote_invocation_requests_total{{{label}=" in name]


@pytest.mark.parametrize("endpoint_count", [1, 20])
def test_functions_that_nobody_has_named_do_not_make_the_page_long(
    monkeypatch: pytest.MonkeyPatch, endpoint_count: int
) -> None:
    monkeypatch.setattr("statefun_ray.core.metrics.FUNCTIONS_APART_MAX", 5)
    monkeypatch.setattr("statefun_ray.io.remote.invoker.FUNCTIONS_APART_MAX", 5)
    several = StatefulFunctions()
    for number in range(1, 21):
        several.register(f"shop/{number}", lambda _context, _message: None)
    with serving(several) as service:
        # With the function in the host each is an endpoint of its own; nobody listens at most of them.
        host = "127.0.0.1" if endpoint_count == 1 else "127.0.0.{function.name}"
        with LocalApplication(module=module(f"http://{host}:{service.port}"), workers=1) as app:
            for number in range(1, 21):
                app.send(f"shop/{number}", "1", "x")
            app.wait_until(lambda: sum(requests_of("function", page(app))) >= 20)
            found = page(app)
    assert len(requests_of("function", found)) == 6
    assert len(requests_of("endpoint", found)) == min(endpoint_count, 6)
    assert sum(requests_of("endpoint", found)) == sum(requests_of("function", found))
    assert sum(key.startswith("statefun_function_in_total{") for key in found) == 6
    assert sum(key.startswith("statefun_lane_limit{") for key in found) <= 6


def test_the_functions_of_one_endpoint_have_their_own_figures() -> None:
    several = StatefulFunctions()
    several.register("shop/well", lambda _context, _message: None)
    several.register("shop/ill", lambda _context, _message: None)

    async def fail_some(request: ToFunction, _body: bytes) -> Answer | None:
        is_ill = request.invocation.target.type == "ill"
        return (500, {"content-type": OCTETS}, b"") if is_ill else None

    with (
        serving(several) as service,
        LocalApplication(module=module(service.url), worker={"retry_deadline_ms": 100}) as app,
    ):
        service.behaviour = fail_some
        app.send("shop/well", "1", "x")
        app.send("shop/ill", "1", "x")
        app.wait_until(lambda: page(app).get("statefun_worker_dead_letters_total") == 1)
        found = page(app)
        failures = {
            name: found[f'statefun_function_remote_invocation_failures_total{{function="shop/{name}"}}']
            for name in ("well", "ill")
        }
        assert failures["well"] == 0
        assert failures["ill"] == found['statefun_remote_invocation_failures_total{endpoint="shop/*"}'] > 0
        assert found['statefun_function_remote_invocation_latency_ms_count{function="shop/ill"}'] > 0
        assert found['statefun_function_num_backlog{function="shop/ill"}'] == 0
