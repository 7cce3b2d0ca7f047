"""Remote functions beside what their service can do: ``python -m benchmarks remote``.

The ceiling is the service driven directly, by the same HTTP client with batches as large as those
that the runtime made, on average, and nothing else. Runtime, driver and service share the machine's
cores in both cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from statefun_ray.io.remote.codec import RequestEncoder
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.target import Target, target_of
from statefun_ray.local import LocalApplication, new_event_loop
from statefun_ray.module.model import AsyncTransport, Endpoint, Module, OkHttpTransport
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec, message_builder
from tests.parts.conftest import service_of
from tests.parts.processes import ServiceProcess

FUNCTION: Final = "lab/counter"
STRING: Final = "io.statefun.types/string"
SERVICES: Final = {
    "ours": "our SDK",
    "fork": "Python fork 3.5.0",
    "js": "JavaScript 3.3.0",
    "fork-okhttp": "Python fork 3.5.0, okhttp",
}
"""The last one is asked over the okhttp transport; all are driven directly over the async one."""

KEYS: Final = {1: 600_000, 100: 400_000, 10_000: 200_000}
"""Keys -> messages of a round: a few seconds, so that its beginning and its end count for little."""

CONNECTIONS: Final = 64
"""Of the direct drive: as many as the runtime has requests in flight at least."""

ROUNDS: Final = 5
CEILING_S: Final = 2.0
WARM_UP: Final = 20_000
"""Messages before the first round: states become known, connections open, the limit of requests is found."""

AT_ONCE: Final = 100
"""Messages made by one event."""

WINDOW: Final = 16
"""Such events on their way from the ingress: sources are held back by what waits, as with any other load."""

functions = StatefulFunctions()


@functions.bind("bench/spark")
def spark(context: Context, message: Message) -> None:
    """Send many messages on: the load is made inside, so that no ingress is measured."""
    first, count, keys = map(int, (message.as_string() or "").split())
    for number in range(first, first + count):
        context.send(message_builder(FUNCTION, f"k{number % keys}", str_value="."))


_round_trips: list[float] = []


@functions.bind("bench/asker", specs=[ValueSpec("left", IntType)])
def asker(context: Context, message: Message) -> None:
    """Ask a remote function, and when it has answered ask again."""
    _round_trips.append(time.perf_counter())
    left = context.storage.left if context.caller is not None else int(message.as_string() or "0")
    if left:
        context.storage.left = left - 1
        context.send(message_builder(FUNCTION, "k", str_value="x"))


@dataclass(frozen=True)
class Measured:
    """One service at one number of keys: medians of `ROUNDS`."""

    messages_per_s: float
    mean_batch: float
    ceiling_per_s: float
    ratio: float
    """Of the ceiling measured next to it, what was reached."""
    cpu_us: float
    """Of the process with worker, ingress and coordinator, per message: other load changes it little."""


def measure(kind: str, keys: int, messages: int) -> Measured:
    """Run messages through the runtime, and drive the service with batches as large, in turns.

    ``kind`` is one of `SERVICES`; ``ours-apart`` is ours that takes requests one by one only.
    """
    rounds = []
    with _running(kind) as (service, app):
        _send(app, WARM_UP, keys)
        # As a worker's process does when it has started: what is there by now is no garbage.
        gc.collect()
        gc.freeze()
        for _ in range(ROUNDS):
            before = _requests(app)
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            _send(app, messages, keys)
            took_s, took_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            batch = messages / max(1, _requests(app) - before)
            rate, ceiling = messages / took_s, _ceiling(service, keys, batch)
            rounds.append(Measured(rate, batch, ceiling, rate / ceiling, took_cpu_s / messages * 1e6))
        app.crash()
    return Measured(*(statistics.median(figures) for figures in zip(*map(astuple, rounds), strict=True)))


def committed_ms(kind: str, count: int = 300) -> tuple[float, float]:
    """Return p50 and p99 of one request that waits for its committed reply, nothing else going on."""
    with _running(kind) as (_, app):
        times = []
        for number in range(count):
            began_s = time.perf_counter()
            app.ask(FUNCTION, f"k{number % 10}", "x")
            times.append((time.perf_counter() - began_s) * 1e3)
    return _percentiles(times)


def round_trip_ms(kind: str, count: int = 1_000) -> tuple[float, float]:
    """Return p50 and p99 of a message to a remote function and its answer back, nothing else going on.

    As StateFun's latency is understood: the answer is processed at once, and committed with the next
    snapshot. It is measured between two calls of the embedded function that asks.
    """
    del _round_trips[:]
    with _running(kind) as (_, app):
        app.client.send_many(
            [{"target": "bench/asker", "id": "a", "type": STRING, "value": str(count)}],
        )
        app.wait_until(lambda: len(_round_trips) > count, 120, "every answer")
        app.crash()
    times = [(later - earlier) * 1e3 for earlier, later in itertools.pairwise(_round_trips)]
    return _percentiles(times[10:])


def _percentiles(times: list[float]) -> tuple[float, float]:
    times = sorted(times)
    return times[len(times) // 2], times[len(times) * 99 // 100]


@contextlib.contextmanager
def _running(kind: str) -> Iterator[tuple[ServiceProcess, LocalApplication]]:
    with tempfile.TemporaryDirectory() as folder:
        service = service_of(kind.removesuffix("-okhttp"), Path(folder) / "service.log")
        service.start()
        try:
            transport = OkHttpTransport() if kind.endswith("-okhttp") else AsyncTransport()
            module = Module(endpoints=(Endpoint("lab/*", service.url, transport=transport),))
            app = LocalApplication(functions, module=module, workers=1, worker={"feed_window": WINDOW})
            logging.disable(logging.ERROR)
            try:
                with app:
                    yield service, app
            finally:
                logging.disable(logging.NOTSET)
        finally:
            service.kill()


def _send(app: LocalApplication, messages: int, keys: int) -> None:
    before = _applied(app)
    sparks = range(0, messages, AT_ONCE)
    app.client.send_many(
        {"target": "bench/spark", "id": f"s{first}", "type": STRING, "value": f"{first} {AT_ONCE} {keys}"}
        for first in sparks
    )
    wanted = before + messages + len(sparks)
    while _applied(app) < wanted:
        time.sleep(0.005)


def _core(app: LocalApplication) -> Any:
    spawner: Any = app._spawner
    return spawner.hosts[0]._loop


def _applied(app: LocalApplication) -> int:
    return int(_core(app).core.counters.applied)


def _requests(app: LocalApplication) -> int:
    rows = _core(app)._invoker.remote.figures()
    return int(sum(value for name, _, value in rows if name == "statefun_remote_invocation_requests_total"))


def _ceiling(service: ServiceProcess, keys: int, batch: float) -> float:
    loop = new_event_loop()
    try:
        return loop.run_until_complete(_drive(service.url, keys, batch))
    finally:
        loop.close()


async def _drive(url: str, keys: int, batch: float) -> float:
    """Return messages per second of a service, driven by nothing but the client.

    ``batch`` is the mean of the batches: what lies between 2 and 3 is made of both.
    """
    endpoint = Endpoint("lab/*", url)
    target = target_of(endpoint, FUNCTION)
    client = HttpClient(AsyncTransport())
    encoder = RequestEncoder(FUNCTION)
    encoder.declare("count", "io.statefun.types/int")
    message = (FUNCTION, "k", "bench/spark", "s123400", STRING, b"\x0a\x01.")
    count = min(keys, 1_000)
    sizes = [max(1, int((n + 1) * batch) - int(n * batch)) for n in range(max(count, 100))]
    bodies = [
        (encoder.encode(f"k{n % count}", [b"\x0d\x01\0\0\0"], [message] * size), size)
        for n, size in enumerate(sizes)
    ]
    done = await asyncio.gather(
        *(_Driver(client, target, bodies, at).run(CEILING_S) for at in range(min(CONNECTIONS, keys)))
    )
    await client.close()
    return sum(done) / CEILING_S


class _Driver:
    """Sends a request when the last one is answered."""

    function_type = FUNCTION
    is_alone = False

    def __init__(self, client: HttpClient, target: Target, bodies: list[tuple[bytes, int]], at: int) -> None:
        self._client, self._bodies, self._at = client, bodies, at
        self._messages = 0
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.target = target
        self.body, self._size = bodies[at % len(bodies)]

    async def run(self, seconds: float) -> int:
        """Return how many messages were answered for."""
        self._deadline_s = time.perf_counter() + seconds
        self._client.start(self)
        return await self._ended

    def answered(self, answer: bytes) -> None:
        if time.perf_counter() >= self._deadline_s:
            self._ended.set_result(self._messages)
            return
        self._messages += self._size
        self._at += CONNECTIONS
        self.body, self._size = self._bodies[self._at % len(self._bodies)]
        self._client.start(self)

    def failed(self, error: Exception) -> None:
        self._ended.set_exception(error)
