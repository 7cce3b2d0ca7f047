"""The pod of the runtime in examples/kubernetes, without Kubernetes: the command line and the environment of its
container on a real local Ray, with an S3 server and a broker; the kubelet's questions, and its SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.cluster.test_command_line import COMMAND, Running, command
from tests.examples.manifests import container, manifest
from tests.kafka.broker import Broker, noida
from tests.parts.test_kubernetes import by_name, hello_on, module_at
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("head"),
]

POD = container(manifest("StatefulSet", "hello"))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with noida(tmp_path) as started:
        started.create("names")
        yield started


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """What the Secret says, its address that of a server here; the Job has made the bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    settings = dict(manifest("Secret", "hello-storage")["stringData"])
    settings["AWS_ENDPOINT_URL"] = settings["AWS_ENDPOINT_URL"].replace("storage:8333", f"{host}:{port}")
    found = {**os.environ, **settings, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1"}
    found.pop("RAY_ADDRESS", None)
    make = container(manifest("Job", "hello-bucket"))["command"]
    for _ in range(2):  # a Job may run more than once
        subprocess.run([sys.executable, *make[1:]], env=found, timeout=60, check=True)
    yield found
    server.stop()


class Pod:
    """The container's command, at places that are here."""

    def __init__(self, folder: Path, port: int, environment: dict[str, str]) -> None:
        self.port = port
        self._environment = environment
        self._output = folder / "output.txt"
        self._words = []
        for word in POD["args"]:
            for said, here in (
                ("/etc/statefun-ray", str(folder)),
                ("/var/lib/statefun-ray", str(folder)),
                ("0.0.0.0:8080", f"127.0.0.1:{port}"),
            ):
                word = word.replace(said, here)
            self._words.append(word)

    def start(self) -> Running:
        with self._output.open("w") as output:
            process = subprocess.Popen(
                [*COMMAND, *self._words],
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
                env=self._environment,
            )
        return Running(process, self._output)

    def answers(self, probe: str) -> bool:
        """Ask what the kubelet asks."""
        path = POD[probe]["httpGet"]["path"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def end_at_once(running: Running) -> None:
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(10)


def test_the_pod_goes_on_where_its_predecessor_was_told_to_end(
    tmp_path: Path, broker: Broker, environment: dict[str, str]
) -> None:
    hello = hello_on("ours", tmp_path)
    module_at(tmp_path, hello.process.port, broker)
    pod = Pod(tmp_path, free_port(), environment)
    hello.process.start()
    expected = []
    try:
        for turn, text in enumerate(("good morning", "good night")):
            running = pod.start()
            try:
                running.wait_for("hello is ready")
                assert all(
                    pod.answers(probe) for probe in ("startupProbe", "readinessProbe", "livenessProbe")
                )
                broker.produce("names", [("ann", text.encode()), ("bob", text.encode())])
                expected.append(text)
                wait_until(lambda: len(hello.lines()) >= 2 * len(expected), 60, what="a line for each record")
                status = json.loads(command("status", "hello", "--json").stdout)
                assert (status["phase"], status["generation"]) == ("running", turn + 1)
                # To the first process alone, as the kubelet does.
                running.process.send_signal(signal.SIGTERM)
                grace_s = manifest("StatefulSet", "hello")["spec"]["template"]["spec"][
                    "terminationGracePeriodSeconds"
                ]
                assert running.process.wait(grace_s) == 0
                assert "hello has ended with snapshot" in running.said
            finally:
                end_at_once(running)
    finally:
        hello.process.kill()
    assert by_name(hello.lines()) == {
        name: [f"Hello from {name}: you wrote {text}!" for text in expected] for name in ("ann", "bob")
    }
