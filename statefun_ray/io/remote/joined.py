"""Requests that travel as one, where the service has said that it takes them so (decision 13)."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol

from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut
from statefun_ray.io.remote.http_connection import Exchange
from statefun_ray.io.remote.request import Request
from statefun_ray.io.remote.target import Target
from statefun_sdk import batches

JOINED_MAX: Final = 128
"""Requests that travel as one: enough that the request itself costs little."""

JOINED_S_MIN: Final = 1.0
JOINED_FACTOR: Final = 10
"""Joined requests are waited for as long as ten times what so many usually take, and at least a second: no
pause of a service that is well takes longer. Then they are asked one by one, as one of them may hang
for as long as a request may take. It may have been run all the same, which does no harm: effects come
with answers alone."""

ALONE_S: Final = 60.0
"""After a time-out of joined requests."""

JOINED_BYTES_MAX: Final = 4 << 20


class Sender(Protocol):
    """What sends them."""

    def begin(self, exchange: Exchange) -> None:
        """Make an HTTP request."""

    def begin_alone(self, request: Request) -> None:
        """Make a request of its own."""

    def head_of(self, target: Target, content_type: str) -> bytes:
        """Return the head of a request, up to where its length follows."""


class Joiner:
    """What is known of who takes many requests in one, and requests that wait to leave together."""

    def __init__(self, sender: Sender, call_s: float) -> None:
        """``call_s``: how long a request may take."""
        self._sender = sender
        self._call_s = call_s
        self.agreed: set[tuple[str, str]] = set()
        """``(url, function type)`` whose service takes many requests in one."""
        self._alone_until_s: dict[str, float] = {}
        """By url: until when requests are not joined, after one that was not answered in time."""
        self._usual_s: dict[str, float] = {}
        """By url: what one of many requests takes, as an average; at first, what a single one took."""
        self._gathered: dict[str, list[Request]] = {}

    def add(self, request: Request) -> None:
        """Send a request together with what else begins in this turn of the loop."""
        waiting = self._gathered.get(request.target.url)
        if waiting is None:
            waiting = self._gathered[request.target.url] = []
            asyncio.get_running_loop().call_soon(self._send_gathered, request.target)
        waiting.append(request)

    def _send_gathered(self, target: Target) -> None:
        waiting = self._gathered.pop(target.url)
        while waiting:
            count, size = 0, 0
            for request in waiting[:JOINED_MAX]:
                size += len(request.body)
                if count and size > JOINED_BYTES_MAX:
                    break
                count += 1
            self._sender.begin(_Joined(self, self._sender, target, waiting[:count]))
            waiting = waiting[count:]

    def offered(self, request: Request, sent_s: float) -> None:
        """The service takes requests for this function many in one, too; it was asked at ``sent_s``."""
        url, now_s = request.target.url, asyncio.get_running_loop().time()
        self._usual_s.setdefault(url, now_s - sent_s)
        if now_s >= self._alone_until_s.get(url, 0.0):
            self.agreed.add((url, request.function_type))

    def wait_s(self, url: str, count: int) -> float:
        """Return how long so many requests in one may take."""
        return min(self._call_s, max(JOINED_S_MIN, JOINED_FACTOR * count * self._usual_s.get(url, 0.0)))

    def took(self, url: str, each_s: float) -> None:
        """Joined requests took so long, divided by their number."""
        usual_s = self._usual_s.get(url, each_s)
        self._usual_s[url] = usual_s + (each_s - usual_s) / 4

    def part(self, requests: list[Request]) -> None:
        """Ask for these functions one by one again."""
        self.agreed.difference_update((request.target.url, request.function_type) for request in requests)

    def leave_alone(self, target: Target) -> None:
        """Join nothing for a while."""
        self._alone_until_s[target.url] = asyncio.get_running_loop().time() + ALONE_S


class _Joined:
    """An exchange for many requests: each gets its own answer, or what went wrong with all."""

    __slots__ = ("_joiner", "_requests", "_sender", "body", "head", "sent_s", "target", "until_s", "wait_s")
    content_type = batches.CONTENT_TYPE
    redirects = 0
    sent_s: float

    def __init__(self, joiner: Joiner, sender: Sender, target: Target, requests: list[Request]) -> None:
        self._joiner = joiner
        self._sender = sender
        self._requests = requests
        self.target = target
        self.head = sender.head_of(target, batches.CONTENT_TYPE)
        self.body = batches.join_requests(request.body for request in requests)
        self.wait_s = joiner.wait_s(target.url, len(requests))
        self.until_s = math.inf

    def answered(self, body: bytes, offers_batches: bool) -> None:
        url, requests = self.target.url, self._requests
        try:
            answers = batches.split_answers(body)
        except ValueError as error:
            self.failed(BadAnswer(f"{url}: {error}"))
            return
        if len(answers) != len(requests):
            self.failed(BadAnswer(f"{url} answered {len(answers)} of {len(requests)} requests"))
            return
        took_s = asyncio.get_running_loop().time() - self.sent_s
        self._joiner.took(url, took_s / len(requests))
        for request, (outcome, data) in zip(requests, answers, strict=True):
            if outcome == batches.DONE:
                request.answered(data)
            else:
                request.failed(BadAnswer(f"{url}: {data.decode(errors='replace')}"))

    def failed(self, error: Exception) -> None:
        if isinstance(error, BadAnswer):
            # An older version of the service, perhaps: one at a time is what everybody knows. Or one of
            # them hangs: alone, each is answered for itself; and for a while, or the one would hold up
            # others again as soon as any has succeeded.
            self._joiner.part(self._requests)
            if isinstance(error, CallTimedOut):
                self._joiner.leave_alone(self.target)
            for request in self._requests:
                self._sender.begin_alone(request)
            return
        for request in self._requests:
            request.failed(error)
