"""The example for Kubernetes as far as it goes without a cluster: its function as a service on each Python
SDK, its module through the runtime, lines from a Kafka topic; and its manifests as Kubernetes' schemas have them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ray.local import LocalApplication
from statefun_ray.module.load import load
from tests.examples.manifests import EXAMPLE, FILES, ROOT, Image, container, manifest
from tests.kafka.broker import Broker, noida
from tests.parts.environments import APACHE, python_with
from tests.parts.processes import ServiceProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SCHEMAS = (
    "kubernetes-validate==1.37.0",
    "importlib-resources==7.1.0",
    "jsonschema==4.26.0",
    "packaging==26.4",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "typing-extensions==4.16.0",
)


class Hello:
    """The service in a process of its own, and what it has said."""

    def __init__(self, process: ServiceProcess, log: Path) -> None:
        self.process = process
        self._log = log

    def lines(self) -> list[str]:
        """Return the lines of the function; the web server's own are left out."""
        return [line for line in self._log.read_text().splitlines() if re.match("Hello|.* sent a ", line)]


def hello_on(sdk: str, tmp_path: Path) -> Hello:
    """Return the service of one image, not started: its files, its changes, its command."""
    target = "functions" if sdk == "ours" else "apache-functions"
    image = Image(target)
    app = tmp_path / target
    for copied in image.values("COPY"):
        *sources, folder = copied.split()
        (app / folder).mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(ROOT / source, app / folder)
    for command in image.values("RUN"):
        if command.startswith("sed "):
            subprocess.run(command, shell=True, cwd=app, check=True)
    *words, _port = [word.replace("0.0.0.0", "127.0.0.1") for word in image.command]
    if sdk == "ours":
        program = [sys.executable, "-m", *words]
        path = ":".join(str(ROOT / folder) for folder in ("sdk", "ingress", "checkpoints", "."))
    else:
        program, path = [str(python_with(*APACHE)), *words[1:]], ""
    log = tmp_path / f"{target}.log"
    return Hello(ServiceProcess(program, log, cwd=app, env={"PYTHONPATH": path}), log)


def module_at(tmp_path: Path, service_port: int, broker: Broker) -> Path:
    """Return the example's module.yaml with addresses that are here, and nothing else changed."""
    text = (EXAMPLE / "module.yaml").read_text()
    for said, here in (
        ("hello-functions:8000", f"127.0.0.1:{service_port}"),
        ("kafka:9092", broker.address),
    ):
        assert text.count(said) == 1, said
        text = text.replace(said, here)
    path = tmp_path / "module.yaml"
    path.write_text(text)
    return path


def by_name(lines: list[str]) -> dict[str, list[str]]:
    """Return what was said of each name, in order; between two names there is none."""
    said: dict[str, list[str]] = {}
    for line in lines:
        name = re.sub(r"^Hello from ", "", line).partition(":")[0].partition(" ")[0]
        said.setdefault(name, []).append(line)
    return said


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with noida(tmp_path) as started:
        started.create("names", partitions=2)
        yield started


@pytest.fixture(params=["ours", "apache"])
def hello(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hello]:
    made = hello_on(request.param, tmp_path)
    made.process.start()
    yield made
    made.process.kill()


def test_every_line_of_the_topic_is_printed_once_with_its_key(
    hello: Hello, broker: Broker, tmp_path: Path
) -> None:
    reading = load([str(module_at(tmp_path, hello.process.port, broker))])
    assert reading.problems == ()
    assert reading.module is not None

    with LocalApplication(module=reading.module) as app:
        broker.produce("names", [("ann", b"good morning"), ("bob", b" with a blank before it")])
        broker.produce(
            "names", [("ann", "Grüße aus Köln".encode()), ("eve", b""), ("bob", b"\xff is no text")]
        )
        broker.produce("names", [("ann", b"good night")])
        wait_until(lambda: len(hello.lines()) >= 6, what="six lines")
        app.send("example/hello", "ann", "by hand")
        wait_until(lambda: len(hello.lines()) >= 7, what="the seventh line")
        app.wait_idle()
        assert app.status()["dead_letters"] == 0

    assert by_name(hello.lines()) == {
        "ann": [
            "Hello from ann: you wrote good morning!",
            "Hello from ann: you wrote Grüße aus Köln!",
            "Hello from ann: you wrote good night!",
            "ann sent a io.statefun.types/string, which nobody here reads",
        ],
        "bob": [
            "Hello from bob: you wrote  with a blank before it!",
            r"Hello from bob: you wrote \xff is no text!",
        ],
        "eve": ["Hello from eve: you wrote !"],
    }


def test_the_service_answers_the_probes_of_its_pod(hello: Hello) -> None:
    pod = container(manifest("Deployment", "hello-functions"))
    for probe in ("readinessProbe", "livenessProbe"):
        path = pod[probe]["httpGet"]["path"]
        with urllib.request.urlopen(f"http://127.0.0.1:{hello.process.port}{path}", timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"ok")


def test_nothing_but_imports_is_changed_for_the_official_sdk(tmp_path: Path) -> None:
    hello_on("apache", tmp_path)
    folder = tmp_path / "apache-functions" / "examples" / "kubernetes"
    assert sorted(path.name for path in folder.iterdir()) == ["apache_service.py", "functions.py"]
    for path in folder.iterdir():
        ours = (EXAMPLE / path.name).read_text().splitlines()
        changed = [
            (mine, theirs)
            for mine, theirs in zip(ours, path.read_text().splitlines(), strict=True)
            if mine != theirs
        ]
        assert len(changed) == 1
        assert changed[0][0].replace("statefun_sdk", "statefun") == changed[0][1]


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_the_manifests_are_what_kubernetes_takes(version: str) -> None:
    check = [str(python_with(*SCHEMAS)), "-m", "kubernetes_validate", "--strict", "-k", version]
    done = subprocess.run([*check, *map(str, FILES)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") + done.stderr.count(" passed for resource ") == 12
