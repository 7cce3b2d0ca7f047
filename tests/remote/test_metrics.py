"""Figures for Prometheus: what a page of them says after known work."""

from __future__ import annotations

import re
import urllib.request

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
