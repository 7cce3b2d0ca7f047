"""Starts the product as a user does, ``statefun-ray run`` on a local Ray, and asks it things over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from statefun_ray.core.key_groups import (
    EGRESS_SHARDS_DEFAULT,
    KEY_GROUP_COUNT_DEFAULT,
    key_group_of,
    owner_table,
)
from tests.ports import free_port

CLI = [str(Path(sys.executable).parent / "statefun-ray")]


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until ``condition`` holds.

    Raises:
        TimeoutError: it did not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {what} within {timeout_s:g} s")
        time.sleep(0.01)


class Application:
    """A running application under benchmark."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port

    def post(
        self, path: str, body: bytes, headers: dict[str, str], *, timeout_s: float = 60
    ) -> tuple[int, bytes]:
        """Send one request and return status and body; the errors of HTTP are not raised."""
        url = f"http://127.0.0.1:{self.port}{path}"
        call = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(call, timeout=timeout_s) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def send(self, target: str, id: str, value: int) -> None:
        """Send one event, and again until it is accepted."""
        wait_for(lambda: self._is_accepted(target, id, value), 60, f"accepted by {self.name}")

    def _is_accepted(self, target: str, id: str, value: int) -> bool:
        try:
            status, body = self.post(f"/v1/functions/{target}/{id}", json.dumps(value).encode(), JSON)
        except OSError:
            return False
        if status in (429, 503):
            return False
        if status != 202:
            raise RuntimeError(f"{target}/{id} answered {status}: {body.decode()}")
        return True

    def send_all(self, target: str, ids: list[str], value: int, *, per_request: int = 2_000) -> None:
        """Send the same value to many ids in bulk."""
        for at in range(0, len(ids), per_request):
            body = lines(target, ids[at : at + per_request], value)
            wait_for(lambda body=body: self._bulk(body), 60, "accepted")  # type: ignore[misc]

    def _bulk(self, body: bytes) -> bool:
        status, answer = self.post("/v1/events", body, NDJSON)
        if status not in (202, 429, 503):
            raise RuntimeError(f"a bulk request answered {status}: {answer.decode()}")
        return status == 202

    def count(self, target: str, id: str) -> int:
        """Return the state ``count`` of an address."""
        try:
            url = f"http://127.0.0.1:{self.port}/v1/state/{target}/{id}"
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(json.load(response)["states"].get("count") or 0)
        except urllib.error.HTTPError as error:
            if error.code in (404, 503):
                return 0
            raise
        except OSError:
            return 0

    def status(self) -> dict[str, Any]:
        """Return ``statefun-ray status --json``."""
        output = subprocess.run([*CLI, "status", self.name, "--json"], capture_output=True, check=True).stdout
        status: dict[str, Any] = json.loads(output)
        return status

    def kill(self, role: str, index: int = 0) -> None:
        """Kill a process of the application with SIGKILL."""
        for process in self.status()["processes"]:
            if process["role"] == role and process["index"] == index:
                os.kill(process["pid"], signal.SIGKILL)
                return
        raise RuntimeError(f"no {role} {index} in the status of {self.name}")


JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(target: str, ids: list[str], value: int) -> bytes:
    """Return a bulk body."""
    return b"".join(
        json.dumps({"target": target, "id": id, "type": "io.statefun.types/int", "value": value}).encode()
        + b"\n"
        for id in ids
    )


def id_of_worker(worker: int, *, worker_count: int, prefix: str = "w") -> str:
    """Return some id that lives on ``worker``."""
    owners = owner_table(
        worker_count=worker_count, key_group_count=KEY_GROUP_COUNT_DEFAULT, shard_count=EGRESS_SHARDS_DEFAULT
    )
    number = 0
    while owners[key_group_of(f"{prefix}{number}", KEY_GROUP_COUNT_DEFAULT)] != worker:
        number += 1
    return f"{prefix}{number}"


@contextlib.contextmanager
def running(workers: int, *, interval: str = "1s") -> Iterator[Application]:
    """Run the benchmark's functions on a local Ray with ``workers`` workers until the block ends."""
    name, port = f"bench-{os.getpid()}-{workers}", free_port()
    with tempfile.TemporaryDirectory(prefix="statefun-bench-") as place:
        log = Path(place) / "run.log"
        command = [
            *CLI,
            "run",
            "benchmarks.functions:functions",
            *("--name", name),
            *("--workers", str(workers)),
            *("--http", f"127.0.0.1:{port}"),
            *("--storage", f"file://{place}/storage"),
            *("--log-dir", f"{place}/log"),
            *("--snapshot-interval", interval),
            "--attached",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        application = Application(name, port)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the application ended with {process.returncode}:\n{log.read_text()}")
            try:
                url = f"http://127.0.0.1:{port}/readyz"
                with urllib.request.urlopen(url, timeout=5) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        try:
            wait_for(is_ready, 90, "ready")
            yield application
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
