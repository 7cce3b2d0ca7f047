"""``statefun-ray run | status | stop`` as a person types them, on the session's cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from statefun_ray.api import open_checkpoint
from statefun_ray.cli import main
from statefun_ray.cluster import launch, registry
from statefun_ray.io.client import HttpClient
from tests.cluster.application import leftovers
from tests.cluster.head import Head
from tests.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

COMMAND = (sys.executable, "-m", "statefun_ray.cli")
APP = """
from statefun_ray import Context, IntType, Message, StatefulFunctions, ValueSpec, message_builder

functions = StatefulFunctions()

@functions.bind("example/greeter", specs=[ValueSpec("visits", IntType)])
def greet(context: Context, message: Message) -> None:
    visits = (context.storage.visits or 0) + 1
    context.storage.visits = visits
    if context.caller is not None:
        reply_to = context.caller
        context.send(message_builder(reply_to.typename, reply_to.id, str_value=f"visit {visits}"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an application, as a user would have it; the working directory."""
    (tmp_path / "my_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=timeout_s, check=False)


def commands(*each: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands that do not depend on each other, beside each other."""
    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(lambda words: command(*words), each))


def ask(url: str, target: str, id: str, value: str) -> Any:
    with closing(HttpClient(url)) as client:
        return client.ask(target, id, value).data


def send(url: str, target: str, id: str, value: str) -> None:
    with closing(HttpClient(url)) as client:
        client.send(target, id, value)


class Running:
    """A ``statefun-ray run`` and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        while (match := re.search(pattern, self.said)) is None:
            ended = self.process.poll()
            assert ended is None, f"exit code {ended}: {self.said}"
            assert time.monotonic() < deadline, f"{pattern!r} is not in: {self.said}"
            time.sleep(0.05)
        return match

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send a signal to the whole group, as a terminal does; return the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(60)


@contextmanager
def running(*words: str, address: str) -> Iterator[Running]:
    output = Path("output.txt")
    with output.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, "run", *words, "--http", "127.0.0.1:0", "--storage", "storage", "--log-dir", "log"],
            stdout=file,
            stderr=file,
            text=True,
            start_new_session=True,
            env={**os.environ, "RAY_ADDRESS": address},
        )
        try:
            yield Running(process, output)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.mark.usefixtures("folder")
def test_run_status_stop_and_run_again(head: Head) -> None:
    target = "my_app:functions"
    with running(target, "--worker-cpus", "0.4", address=head.address) as run:
        url = run.wait_for(r"my-app is ready: (http://127.0.0.1:\d+)")[1]
        assert ask(url, "example/greeter", "ada", "hi") == "visit 1"

        shown, plain, again, other, listed = commands(
            ("status", "my-app", "--json"),
            ("status", "my-app"),
            ("run", target, "--http", "127.0.0.1:0", "--address", head.address),
            ("status", "no-app", "--address", head.address),
            ("status",),
        )
        status: dict[str, Any] = json.loads(shown.stdout)
        assert status["phase"] == "running"
        assert status["url"] == url
        assert {"id", "age_ms", "bytes"} <= set(status["last_snapshot"])
        assert {"generation", "accepted", "processed", "lag", "parked", "snapshot_open"} <= set(status)
        processes = [(process["role"], process["index"], process["state"]) for process in status["processes"]]
        assert processes == [
            ("coordinator", 0, "running"),
            ("ingress", 0, "running"),
            ("worker", 0, "running"),
            ("worker", 1, "running"),
        ]
        assert all(process["pid"] and process["node"] for process in status["processes"])
        assert "my-app at http://" in plain.stdout
        assert again.returncode == 1
        assert "runs already" in again.stderr
        assert other.returncode == 1
        assert "running: my-app" in other.stderr
        assert listed.stdout.startswith(f"my-app at {url}: running, generation 1")

        stopped = command("stop", "my-app")
        assert stopped.returncode == 0
        assert "has ended with snapshot" in stopped.stdout
        assert run.process.wait(30) == 0
        assert "has ended with snapshot" in run.said
        assert leftovers() == []
    assert command("status", "my-app", "--address", head.address).returncode == 1
    with running(target, "--worker-cpus", "0.4", "--workers", "3", address=head.address) as run:
        url = run.wait_for(r"my-app is ready: (http://127.0.0.1:\d+)")[1]
        assert ask(url, "example/greeter", "ada", "hi") == "visit 2"
        assert run.interrupt() == 0
        assert "goes on running" in run.said
        assert ask(url, "example/greeter", "ada", "hi") == "visit 3"
        assert command("stop", "my-app", "--address", head.address).returncode == 0


@pytest.mark.usefixtures("folder")
def test_attached_ends_with_its_program(head: Head) -> None:
    with running("my_app:functions", "--attached", address=head.address) as run:
        url = run.wait_for(r"is ready: (http://127.0.0.1:\d+)")[1]
        send(url, "example/greeter", "ada", "hi")
        assert run.interrupt(signal.SIGTERM) == 0
    assert leftovers() == []
    assert open_checkpoint("storage").entry.rhythm == "final"
    assert open_checkpoint("storage").table("example/greeter").to_pylist() == [{"id": "ada", "visits": 1}]


@pytest.mark.usefixtures("folder")
def test_a_local_ray_ends_with_the_application_on_ctrl_c() -> None:
    with running("my_app:functions", address="local") as run:
        url = run.wait_for(r"is ready: (http://127.0.0.1:\d+)")[1]
        send(url, "example/greeter", "ada", "hi")
        assert json.loads(command("status", "my-app", "--json").stdout)["url"] == url
        assert run.interrupt() == 0
        assert "ending my-app with a final snapshot" in run.said
    assert not list(Path("storage").glob("ingress/*")), "everything was read, so no log is needed"
    assert open_checkpoint("storage").table("example/greeter").to_pylist() == [{"id": "ada", "visits": 1}]


@pytest.mark.usefixtures("folder")
def test_a_signal_that_takes_the_local_ray_along_holds_nothing_up() -> None:
    # What systemd and timeout(1) do: every process gets it, Ray's head too.
    with running("my_app:functions", address="local") as run:
        run.wait_for(r"is ready")
        began_s = time.monotonic()
        run.interrupt(signal.SIGTERM)
        assert time.monotonic() - began_s < 30  # without its head, Ray gives up after 60
        assert "Traceback" not in run.said


def test_too_few_cpus_says_have_and_need(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "CPUS_FREE_S", 0.5)
    code = main(
        [
            *("run", "examples.greeter.main:functions", "--workers", "9", "--http", "127.0.0.1:0"),
            *("--address", head.address),
            *("--storage", str(tmp_path / "storage"), "--log-dir", str(tmp_path / "log")),
        ]
    )
    said = capsys.readouterr().err
    assert code == 1
    assert (
        "need 4.85 (9 workers x 0.25 + 9 standbys x 0.25 + ingress 0.25 + coordinator 0.1), have 4 free of 4"
        in said
    )
    assert "say --standbys 5 or --workers 7" in said
    assert "Traceback" not in said
    assert leftovers() == []


def test_functions_that_lost_a_state_are_refused_with_the_difference(head: Head, folder: Path) -> None:
    with running("my_app:functions", "--attached", address=head.address) as run:
        url = run.wait_for(r"is ready: (http://127.0.0.1:\d+)")[1]
        send(url, "example/greeter", "ada", "hi")
        assert run.interrupt() == 0
    (folder / "my_app.py").write_text(APP.replace("visits", "calls"))
    with running("my_app:functions", address=head.address) as run:
        assert run.process.wait(60) == 1
        assert "my-app did not start: the functions differ" in run.said
        assert "state 'visits' of example/greeter is gone" in run.said.rpartition("did not start")[2]
        assert "trying again" not in run.said
        for noise in ("Traceback", "Deprecat", "did not answer to counts", "\x1b"):
            assert noise not in run.said
    assert leftovers() == []


WAITS = """
kind: io.statefun.kafka.v1/egress
spec:
  id: example/out
  address: 127.0.0.1:{port}
  deliverySemantic: {{type: exactly-once, transactionTimeout: 1min}}
"""


@pytest.mark.parametrize("how", ["stop", signal.SIGTERM, signal.SIGINT])
def test_a_start_that_waits_for_a_broker_is_seen_and_can_be_stopped(
    head: Head, folder: Path, how: str | signal.Signals
) -> None:
    (folder / "waits.yaml").write_text(WAITS.format(port=free_port()))
    with running("my_app:functions", "--module", "waits.yaml", address=head.address) as run:
        run.wait_for("generation 1 takes")
        if isinstance(how, str):
            shown = command("status", "my-app")
            assert "generation 1, no snapshot yet" in shown.stdout, shown
            assert command(how, "my-app").stdout == "my-app has ended without a final snapshot\n"
            assert run.process.wait(30) == 0
        else:
            assert run.interrupt(how) == 0
        assert "stopped while starting; nothing was lost, the next start goes on" in run.said
        for noise in ("Traceback", "***", "%3|"):
            assert noise not in run.said
    assert leftovers() == []


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("moment", ["starting a local Ray", "generation 1 begins"])
def test_a_signal_to_a_local_ray_that_starts_ends_all_of_it(moment: str) -> None:
    with running("my_app:functions", address="local") as run:
        run.wait_for(moment)
        assert run.interrupt(signal.SIGTERM) == 0
        assert "stopped while starting" in run.said
        assert "Traceback" not in run.said


def test_a_note_on_an_application_that_has_ended_elsewhere_is_forgotten(head: Head) -> None:
    registry.write_note(registry.Note("gone", head.address, 1, False, "http://127.0.0.1:1", "file:///x"))
    said = command("status", "gone").stderr
    assert "no application named 'gone' runs" in said
    assert "running: none" in said
    assert registry.read_note("gone") is None
