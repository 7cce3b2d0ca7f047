"""The demo's own machinery: producers that repeat themselves, kills that wait for their moment."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from examples.flights import chaos
from examples.flights.data import Flight, FlightEvent
from examples.flights.producers import BATCH_EVENTS, NotAccepted, Pacing, Tally, send_all

FLIGHT = Flight(
    carrier="UA",
    number=1,
    origin="EWR",
    destination="IAH",
    scheduled_at=1,
    departure_delay=0,
    arrival_delay=0,
    air_minutes=1,
    distance_miles=1,
)


class ForgetfulIngress:
    """Accepts a producer's sequence once, and loses answers on purpose."""

    def __init__(self, misbehave: list[str]) -> None:
        self.misbehave = misbehave
        self.accepted: dict[tuple[str, int], bytes] = {}
        self.order: list[str] = []

    async def events(self, request: web.Request) -> web.Response:
        body = await request.read()
        key = (request.headers["Producer-Id"], int(request.headers["Producer-Sequence"]))
        trouble = self.misbehave.pop(0) if self.misbehave else ""
        if trouble == "busy":
            return web.Response(status=503, headers={"Retry-After": "0"})
        if trouble == "refuse":
            return web.Response(status=400, text="that is not a flight")
        if key not in self.accepted:
            self.accepted[key] = body
            self.order += [json.loads(line)["id"] for line in body.splitlines()]
        if trouble == "die after accepting":
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=202)


@asynccontextmanager
async def serving(ingress: ForgetfulIngress) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/events", ingress.events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def send(ingress: ForgetfulIngress, events: list[FlightEvent], producers: int = 2) -> Tally:
    tally = Tally()
    async with serving(ingress) as url:
        await send_all(
            url,
            events,
            producers=producers,
            tally=tally,
            on_accepted=lambda count: None,
            before_request=at_once,
        )
    return tally


async def at_once() -> None:
    """Holds no producer back."""


def events(count: int, aircraft: int = 7) -> list[FlightEvent]:
    return [FlightEvent(f"N{number % aircraft}", FLIGHT) for number in range(count)]


async def test_an_unanswered_request_is_sent_again_under_the_same_number() -> None:
    ingress = ForgetfulIngress(["die after accepting", "busy", "die after accepting"])

    tally = await send(ingress, events(2_000))

    assert len(ingress.order) == tally.accepted_events == 2_000
    assert tally.resent_requests == 3
    assert tally.refused == {503: 1}


async def test_events_of_one_aircraft_arrive_in_order() -> None:
    numbered = [
        FlightEvent(f"N{number % 3}", Flight(**(FLIGHT | {"number": number})))
        for number in range(3 * BATCH_EVENTS)
    ]
    ingress = ForgetfulIngress(["die after accepting", "busy"])

    await send(ingress, numbered)

    for tail in ("N0", "N1", "N2"):
        seen = [
            value["value"]["number"]
            for _, body in sorted(ingress.accepted.items())
            for value in map(json.loads, body.splitlines())
            if value["id"] == tail
        ]
        assert seen == sorted(seen)
        assert len(seen) == BATCH_EVENTS


async def test_a_request_refused_for_good_ends_everything_and_says_why() -> None:
    with pytest.raises(NotAccepted, match="that is not a flight"):
        await send(ForgetfulIngress(["refuse"]), events(10))


async def test_producers_are_held_back_until_the_kill_has_happened() -> None:
    pacing = Pacing(1_000)
    pacing.hold_at(0.5)
    pacing.accepted(499)
    await pacing.may_send()

    pacing.accepted(1)
    held = asyncio.create_task(pacing.may_send())
    reached = asyncio.create_task(pacing.reached(0.5))
    await reached
    assert not held.done()

    pacing.hold_at(1.0)
    await held


def status_script(folder: Path, statuses: list[dict[str, Any]]) -> list[str]:
    """A stand-in for the command line that prints these statuses, again and again at the end."""
    script = folder / "status.py"
    script.write_text(
        "import json, sys, time\n"
        f"statuses = json.loads({json.dumps(json.dumps(statuses))})\n"
        "while True:\n"
        "    print(json.dumps(statuses[0]), flush=True)\n"
        "    statuses = statuses[1:] or statuses\n"
        "    time.sleep(0.005)\n"
    )
    return [sys.executable, str(script)]


async def test_a_kill_waits_for_unprocessed_events_and_an_open_snapshot(tmp_path: Path) -> None:
    victim = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    quiet = {
        "phase": "running",
        "lag": 10,
        "snapshot_open": None,
        "last_snapshot": {"id": 7},
        "generation": 1,
        "accepted": 5_000,
        "processed": 4_990,
        "processes": [{"role": "worker", "index": 2, "pid": victim.pid, "state": "running"}],
    }
    statuses = [
        quiet,
        quiet | {"lag": 5_000},
        quiet | {"snapshot_open": 7},
        quiet | {"lag": 2_000, "snapshot_open": 8},
        quiet | {"generation": 2, "phase": "loading", "processed": 4_990},
        quiet | {"generation": 2, "processed": 0},
        quiet | {"generation": 2, "processed": 1},
    ]

    async with chaos.watching(status_script(tmp_path, statuses), "flights") as watch:
        kill = await chaos.kill_one(watch, "worker")
        recovery = await chaos.recovery(watch, kill)

    assert (kill.lag_events, kill.snapshot_open, kill.index) == (2_000, 8, 2)
    assert await victim.wait() == -9
    assert recovery.rolled_back_to == 7
    assert recovery.shows_that_it_was_open(kill)


def test_a_kill_that_came_after_the_commit_is_not_counted() -> None:
    kill = chaos.Kill(
        role="worker",
        index=0,
        pid=1,
        lag_events=2_000,
        snapshot_open=8,
        generation=1,
        accepted=5_000,
        processed=3_000,
        at=0.0,
    )

    assert not chaos.Recovery(1.0, rolled_back_to=8).shows_that_it_was_open(kill)


async def test_an_application_that_is_gone_is_reported_with_its_last_words() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no application named flights')"]

    async with chaos.watching(command, "flights") as watch:
        with pytest.raises(chaos.StatusEnded, match="exit code 1: no application named flights"):
            await watch.next()
