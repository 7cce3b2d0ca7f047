"""The greeter example as its README says: module.yaml, service and curl, on each SDK."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from statefun_ray.local import LocalApplication
from statefun_ray.module.load import load
from statefun_ray.module.model import PlaygroundEgress, PlaygroundIngress
from tests.parts.environments import APACHE, FORK, JS, node_with, python_with
from tests.parts.processes import ServiceProcess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "remote_greeter"


def copied(name: str, folder: Path, **changes: str) -> str:
    """Copy a file of the example, with changes that it takes once each; return its new path."""
    text = (EXAMPLE / name).read_text()
    # The greeter thinks for a second, which adds nothing but time.
    for said, instead in {"SECONDS_TO_THINK = 1.0": "SECONDS_TO_THINK = 0.1", **changes}.items():
        assert text.count(said) == 1, said
        text = text.replace(said, instead)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture(params=["ours", "apache", "fork", "js"])
def greeter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceProcess]:
    log = tmp_path / "service.log"
    if request.param == "js":
        node, folder = node_with(JS)
        packages = {"NODE_PATH": str(folder / "node_modules")}
        service = ServiceProcess([str(node), copied("functions.js", tmp_path)], log, env=packages)
    elif request.param == "ours":
        service = ServiceProcess([sys.executable, copied("functions.py", tmp_path)], log)
    else:
        python = python_with(*(APACHE if request.param == "apache" else FORK))
        official = {"from statefun_sdk import": "from statefun import"}
        service = ServiceProcess([str(python), copied("functions.py", tmp_path, **official)], log)
    service.start()
    yield service
    service.kill()


def visit(url: str, name: str) -> None:
    request = urllib.request.Request(
        f"{url}/example/person/{name}",
        json.dumps({"name": name}).encode(),
        {"content-type": "application/vnd.example/GreetRequest"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["status"] == "200"


def heard(url: str, timeout_s: float = 20.0) -> str:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with urllib.request.urlopen(f"{url}/greetings", timeout=10) as answer:
            if answer.headers["status"] == "200":
                text: str = answer.read().decode()
                return text
        assert time.monotonic() < deadline_s, "no greeting"
        time.sleep(0.02)


def test_the_greeter_says_what_it_always_said(greeter: ServiceProcess) -> None:
    reading = load([str(EXAMPLE / "module.yaml")])
    assert reading.problems == ()
    assert reading.module is not None
    [endpoint] = reading.module.endpoints
    module = replace(
        reading.module,
        endpoints=(replace(endpoint, url_template=greeter.url),),
        playground_ingress=PlaygroundIngress(),  # ports of our own: others may run as well
        playground_egress=PlaygroundEgress(reading.module.playground_egress.topics),  # type: ignore[union-attr]
    )
    with LocalApplication(module=module, snapshot_interval_s=0.1) as app:
        said = []
        for _ in range(5):
            visit(app.playground_url, "Bob")
            said.append(heard(app.playground_egress_url))
    assert said == [
        "Welcome Bob",
        "Nice to see you again Bob",
        "Third time is a charm Bob",
        "Nice to see you at the 4-nth time Bob!",
        "Nice to see you at the 5-nth time Bob!",
    ]
