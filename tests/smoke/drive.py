"""One run of the smoke suite: commands in, failures at random, counters checked out.

The driver numbers its requests and repeats what was not answered, as any producer may. It is
stricter than StateFun's: when every counter was right once, everything is checked once more.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from statefun_ray.io.client import HttpClient, RequestFailed
from statefun_ray.io.egress_file import read_egress
from statefun_ray.module.model import Endpoint, FileEgress, Module
from tests.parts.environments import (
    APACHE,
    JS,
    go_with,
    java_with,
    node_with,
    python_with,
    source_checkout,
)
from tests.parts.processes import ServiceProcess
from tests.smoke.commands import (
    DISCARD_EGRESS,
    FUNCTION,
    NAMESPACE,
    RESULTS_EGRESS,
    SOURCE_COMMAND,
    Command,
    Generator,
    Parameters,
)

SERVICES: Final = Path(__file__).parent / "services"
INTERPRETERS: Final = (
    "embedded",
    "ours",
    "official",
    "js",
    *(("java", "go") if source_checkout() else ()),
)
CHUNK: Final = 100
REPEATED_SHARE: Final = 0.1
"""Of requests that are sent twice with the same number, though they were answered."""


class SmokeFailed(AssertionError):
    """A counter is wrong for good."""


class Application(Protocol):
    """What the driver does to the application under test."""

    @property
    def client(self) -> HttpClient:
        """Of its ingress, wherever that is now."""

    def kill_worker(self, worker: int) -> None:
        """End one worker as a crash would."""

    def crash(self) -> None:
        """End everything as a crash would."""

    def start(self) -> Any:
        """Start again after `crash`."""

    def status(self) -> dict[str, Any]:
        """Say which generation runs."""

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30.0, what: str = "") -> None:
        """Poll until ``condition`` is true."""


@dataclass
class Outcome:
    """What happened in a run."""

    commands: int = 0
    increments: int = 0
    kills: int = 0
    crashes: int = 0
    endpoint_restarts: int = 0
    repeated_requests: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.commands:,} commands, {self.increments:,} increments, {self.kills} workers killed, {self.crashes} "
            f"crashes of everything, {self.endpoint_restarts} endpoint restarts, {self.repeated_requests} requests "
            f"repeated: lost 0, over-counted 0 in {self.seconds:.0f} s"
        )


@contextmanager
def service_of(interpreter: str, log: Path) -> Iterator[ServiceProcess | None]:
    """Run the service of an interpreter; None for the one that is embedded."""
    if interpreter == "embedded":
        yield None
        return
    if interpreter == "js":
        node, folder = node_with(JS)
        env = {"NODE_PATH": str(folder / "node_modules")}
        service = ServiceProcess([str(node), str(SERVICES / "interpreter.js")], log, env=env)
    elif interpreter == "java":
        service = ServiceProcess(java_with(SERVICES / "java" / "Interpreter.java"), log)
    elif interpreter == "go":
        service = ServiceProcess(go_with(SERVICES / "go" / "interpreter.go"), log)
    elif interpreter == "official":
        service = ServiceProcess([str(python_with(*APACHE)), str(SERVICES / "official.py")], log)
    else:
        service = ServiceProcess([sys.executable, str(SERVICES / "ours.py")], log)
    service.start()
    try:
        yield service
    finally:
        service.kill()


def module_of(service: ServiceProcess | None, egress: str) -> Module:
    """Return the module of a run; results go to files under ``egress``."""
    endpoints = () if service is None else (Endpoint(f"{NAMESPACE}/*", service.url, 10_000),)
    sinks = (FileEgress(RESULTS_EGRESS, egress), FileEgress(DISCARD_EGRESS, egress))
    return Module(endpoints=endpoints, file_egresses=sinks)


class Driver:
    """Sends, breaks and checks."""

    def __init__(
        self,
        app: Application,
        service: ServiceProcess | None,
        egress: str,
        parameters: Parameters,
        *,
        seed: int,
        kills: int = 5,
        crashes: int = 1,
        endpoint_restarts: int = 2,
        workers: int = 2,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._app, self._service, self._egress = app, service, egress
        self._random = Random(seed)
        self._generator = Generator(Random(seed + 1), parameters)
        self._messages, self._instances = parameters.message_count, parameters.number_of_function_instances
        self._workers = workers
        self._say = say
        self._sequence = 0
        self._round = 0
        self.outcome = Outcome()
        restarts = endpoint_restarts if service is not None else 0
        faults: list[Callable[[], None]] = [
            *[self._kill] * kills,
            *[self._crash] * crashes,
            *[self._restart_endpoint] * restarts,
        ]
        # In a chunk that is sent: a fault after the last one would not happen, and not be missed.
        count = -(-self._messages // CHUNK)
        chunks = range(min(1, count - 1), count)
        self._faults: dict[int, list[Callable[[], None]]] = {}
        for fault in faults:
            self._faults.setdefault(self._random.choice(chunks), []).append(fault)

    def run(self, timeout_s: float) -> Outcome:
        """Send everything, then check until every counter is right, twice.

        Raises:
            SmokeFailed: a counter is too large, or still too small at the end.
        """
        began_s = time.monotonic()
        deadline_s = began_s + timeout_s
        for chunk in range(0, self._messages, CHUNK):
            for fault in self._faults.get(chunk // CHUNK, []):
                fault()
            count = min(CHUNK, self._messages - chunk)
            self._send([_event(*self._generator.next()) for _ in range(count)])
        self.outcome.commands = self._messages
        self.outcome.increments = sum(self._generator.expected)
        self._say(f"sent {self._messages:,} commands in {time.monotonic() - began_s:.0f} s, checking")
        for _ in range(2):  # the second time, everything has been right once
            self._verify(deadline_s)
        self.outcome.seconds = time.monotonic() - began_s
        return self.outcome

    # --- checking -------------------------------------------------------------------------

    def _verify(self, deadline_s: float) -> None:
        wrong = dict.fromkeys(range(self._instances), -1)
        while wrong:
            self._round += 1
            expected = dict(enumerate(self._generator.expected))
            self._send(
                [
                    _event(target, [{"verify": {"round": self._round, "expected": count}}])
                    for target, count in expected.items()
                ]
            )
            actual = self._results(deadline_s)
            wrong = {target: count for target, count in actual.items() if count != expected[target]}
            over = {target: count for target, count in wrong.items() if count > expected[target]}
            if over:
                raise SmokeFailed(f"counted twice: {self._shown(over)}")
            if wrong and time.monotonic() > deadline_s:
                raise SmokeFailed(f"lost, or not done in time: {self._shown(wrong)}")

    def _results(self, deadline_s: float) -> dict[int, int]:
        """Return the answers of this round."""
        while True:
            found: dict[int, int] = {}
            for row in read_egress(self._egress, RESULTS_EGRESS):
                result = json.loads(row.value or b"null")
                if result["round"] == self._round:
                    if result["id"] in found:
                        raise SmokeFailed(f"instance {result['id']} answered round {self._round} twice")
                    found[result["id"]] = result["actual"]
            if len(found) == self._instances:
                return found
            if time.monotonic() > deadline_s:
                missing = sorted(set(range(self._instances)) - found.keys())
                raise SmokeFailed(f"no answer from instances {missing[:10]} in round {self._round}")
            time.sleep(0.2)

    def _shown(self, wrong: dict[int, int]) -> str:
        return ", ".join(
            f"instance {target}: {found}, expected {self._generator.expected[target]}"
            for target, found in sorted(wrong.items())[:10]
        )

    # --- sending --------------------------------------------------------------------------

    def _send(self, events: list[dict[str, Any]]) -> None:
        self._sequence += 1
        deadline_s = time.monotonic() + 60
        while True:
            try:
                self._app.client.send_many(events, producer=("smoke", self._sequence))
                if self._random.random() < REPEATED_SHARE:
                    # As a producer does whose answer got lost.
                    self._app.client.send_many(events, producer=("smoke", self._sequence))
                    self.outcome.repeated_requests += 1
            except (OSError, RequestFailed) as error:
                is_final = isinstance(error, RequestFailed) and error.status not in (429, 503)
                if is_final or time.monotonic() > deadline_s:
                    raise
                self.outcome.repeated_requests += 1
                time.sleep(0.1)
            else:
                return

    # --- breaking -------------------------------------------------------------------------

    def _kill(self) -> None:
        # A worker that is not there could not be killed, and would be counted all the same.
        self._app.wait_until(lambda: self._app.status()["phase"] == "running", 60, "running")
        generation = self._app.status()["generation"]
        self._app.kill_worker(self._random.randrange(self._workers))
        self._app.wait_until(lambda: self._app.status()["generation"] > generation, 60, "a new generation")
        self.outcome.kills += 1
        self._say(f"killed a worker, {self.outcome.kills} so far")

    def _crash(self) -> None:
        self._app.crash()
        self._app.start()
        self.outcome.crashes += 1
        self._say("crashed everything and started again")

    def _restart_endpoint(self) -> None:
        assert self._service is not None
        self._service.restart()
        self.outcome.endpoint_restarts += 1
        self._say("restarted the endpoint")


def _event(target: int, commands: list[Command]) -> dict[str, Any]:
    # Base64, as the ingress does not know the type to be JSON.
    value = base64.b64encode(json.dumps({"target": target, "commands": commands}).encode()).decode()
    return {"target": FUNCTION, "id": str(target), "type": SOURCE_COMMAND, "value": value}
