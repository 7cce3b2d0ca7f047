"""An HTTP load generator that costs little: prebuilt requests over keep-alive connections.

Each connection sends its next request when the last response is complete. Responses are only
searched for their status line and length: what is measured is the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from statefun_ray.local import new_event_loop


@dataclass
class Outcome:
    """What a run of the generator saw."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    finished_at_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Successful responses per second."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a latency percentile."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def gap_s(self) -> float:
        """The longest time without a successful response."""
        moments = sorted(self.finished_at_s)
        return max((after - before for before, after in pairwise(moments)), default=0.0)


def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    def __init__(
        self, next_request: Callable[[], bytes | None], outcome: Outcome, done: Callable[[], None]
    ) -> None:
        self._next_request = next_request
        self._outcome = outcome
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._done()

    def _send(self) -> None:
        assert self._transport is not None
        data = self._next_request()
        if data is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            self._buffer = buffer
            return
        head = buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = (
            int(head[at + 15 : head.find(b"\r", at) if head.find(b"\r", at) > 0 else len(head)])
            if at >= 0
            else 0
        )
        if len(buffer) < head_end + 4 + length:
            self._buffer = buffer
            return
        self._buffer = b""
        status = int(head[9:12])
        outcome, now = self._outcome, time.perf_counter()
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        outcome.latencies_ms.append((now - self._sent_at) * 1_000)
        if status < 300:
            outcome.finished_at_s.append(now)
        self._send()


def drive(host: str, port: int, *, connections: int, seconds: float, make: Callable[[int], bytes]) -> Outcome:
    """Send what ``make`` returns for 0, 1, 2, ... over ``connections`` for ``seconds``."""
    outcome = Outcome()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        number = 0
        open_connections = connections
        finished = loop.create_future()

        def next_request() -> bytes | None:
            nonlocal number
            if time.perf_counter() - started >= seconds:
                return None
            number += 1
            return make(number - 1)

        def done() -> None:
            nonlocal open_connections
            open_connections -= 1
            if not open_connections and not finished.done():
                finished.set_result(None)

        for _ in range(connections):
            await loop.create_connection(lambda: _Connection(next_request, outcome, done), host, port)
        await finished
        outcome.seconds = time.perf_counter() - started

    loop = new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return outcome
