"""Producers that send every flight, and the same request again until it is answered.

A producer numbers its requests. When a request is not answered (the ingress was killed, the
connection broke, the answer came too late) it cannot know whether the events were accepted,
so it sends the very same body with the very same number. The ingress accepts a number once
and repeats its answer. That is all a client has to do for exactly-once.

One producer has one request under way at a time, and all flights of one aircraft go through
the same producer, so the events of an aircraft are accepted in the order they happened.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import aiohttp

from examples.flights.data import FlightEvent
from examples.flights.functions import AIRCRAFT, FLIGHT

BATCH_EVENTS = 500
ANSWER_TIMEOUT_S = 10.0
RETRY_DELAY_S = 0.1
# A killed ingress is back in seconds; this long without one answer means it never will be.
GIVE_UP_AFTER_S = 120.0


@dataclass
class Tally:
    """What the producers have done so far, together."""

    accepted_events: int = 0
    accepted_requests: int = 0
    resent_requests: int = 0
    refused: dict[int, int] = field(default_factory=dict)  # HTTP status -> answers "later"


class NotAccepted(Exception):
    """The ingress refused a request for good, or did not answer for too long."""

    def __init__(self, producer_id: str, sequence: int, why: str) -> None:
        super().__init__(producer_id, sequence, why)
        self.producer_id, self.sequence, self.why = producer_id, sequence, why

    def __str__(self) -> str:
        return f"request {self.sequence} of {self.producer_id} was not accepted: {self.why}"


class Producer:
    """Sends its share of the events, in order, one bulk request at a time."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        producer_id: str,
        events: list[FlightEvent],
        tally: Tally,
        on_accepted: Callable[[int], None],
        before_request: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._url = f"{base_url}/v1/events"
        self._producer_id = producer_id
        self._events = events
        self._tally = tally
        self._on_accepted = on_accepted
        self._before_request = before_request

    async def run(self) -> None:
        """Send everything; returns when every request has been answered with 'accepted'.

        Raises:
            NotAccepted: a request was refused for good.
        """
        for sequence, batch in enumerate(batches(self._events), start=1):
            await self._before_request()
            await self._send_until_accepted(sequence, ndjson(batch))
            self._tally.accepted_events += len(batch)
            self._tally.accepted_requests += 1
            self._on_accepted(len(batch))

    async def _send_until_accepted(self, sequence: int, body: bytes) -> None:
        headers = {
            "Content-Type": "application/x-ndjson",
            "Producer-Id": self._producer_id,
            "Producer-Sequence": str(sequence),
        }
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + GIVE_UP_AFTER_S
        attempt = 0
        while clock() < give_up_at:
            if attempt:
                self._tally.resent_requests += 1
            attempt += 1
            try:
                async with self._session.post(self._url, data=body, headers=headers) as response:
                    if response.status == 202:
                        return
                    text = await response.text()
                    if response.status not in (429, 503):
                        raise NotAccepted(self._producer_id, sequence, f"{response.status} {text}")
                    self._tally.refused[response.status] = self._tally.refused.get(response.status, 0) + 1
                    await asyncio.sleep(float(response.headers.get("Retry-After", RETRY_DELAY_S)))
            except (aiohttp.ClientError, TimeoutError):
                # Accepted or not, nobody can know. Ask again with the same number.
                await asyncio.sleep(RETRY_DELAY_S)
        raise NotAccepted(self._producer_id, sequence, f"no answer for {GIVE_UP_AFTER_S:.0f} seconds")


class Pacing:
    """How far the producers are, and how far they may go for now.

    On a fast machine everything would be accepted before the second kill, and a killed ingress
    that nobody talks to proves little. So the last flights wait for it.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._accepted = 0
        self._may_reach = total
        self._changed = asyncio.Event()

    def accepted(self, events: int) -> None:
        """Count accepted events."""
        self._accepted += events
        self._notify()

    def hold_at(self, share: float) -> None:
        """From now on let no request begin once this share is accepted."""
        self._may_reach = int(self._total * share)
        self._notify()

    async def may_send(self) -> None:
        """Wait until another request may begin."""
        await self._until(lambda: self._accepted < self._may_reach)

    async def reached(self, share: float) -> None:
        """Wait until this share of the total is accepted."""
        await self._until(lambda: self._accepted >= int(self._total * share))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        # Wakes everybody who waits now; who waits next waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()


async def send_all(
    base_url: str,
    events: list[FlightEvent],
    *,
    producers: int,
    tally: Tally,
    on_accepted: Callable[[int], None],
    before_request: Callable[[], Awaitable[None]],
) -> None:
    """Send every event through several producers side by side.

    Args:
        producers: how many; each has a share of the aircraft.
        tally: kept up to date on the way.
        on_accepted: called with the number of events of each accepted request.
        before_request: awaited before each request, to hold producers back.

    Raises:
        NotAccepted: one of them was refused; the others are stopped.
    """
    shares: list[list[FlightEvent]] = [[] for _ in range(producers)]
    for event in events:
        shares[zlib.crc32(event.tail_number.encode()) % producers].append(event)
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        tasks = [
            asyncio.create_task(
                Producer(
                    session, base_url, f"flights-{index}", share, tally, on_accepted, before_request
                ).run()
            )
            for index, share in enumerate(shares)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def batches(events: list[FlightEvent]) -> Iterator[list[FlightEvent]]:
    """Consecutive slices of the events."""
    for start in range(0, len(events), BATCH_EVENTS):
        yield events[start : start + BATCH_EVENTS]


def ndjson(events: list[FlightEvent]) -> bytes:
    """The body of one bulk request: a line of JSON for each event."""
    lines = (
        json.dumps(
            {
                "target": AIRCRAFT,
                "id": event.tail_number,
                "type": FLIGHT.typename,
                "value": event.flight,
            },
            separators=(",", ":"),
        )
        for event in events
    )
    return "\n".join(lines).encode() + b"\n"
