"""``make demo``: all flights of 2013 through a local cluster, two kills, every row checked.

The story, in order: start the application with the same command a user would, send every
flight through several producers, SIGKILL a worker and then the ingress while work is under way
and a snapshot is open, wait until everything is processed, stop, and compare the tables of the
last snapshot with an independent group-by over the same file. Anything lost or doubled, or a
kill that interrupted nothing, ends the demo with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from examples.flights import chaos, expected
from examples.flights.data import FlightEvent, flight_events
from examples.flights.functions import AIRCRAFT, AIRPORT
from examples.flights.producers import NotAccepted, Pacing, Tally, send_all
from statefun_ray import open_checkpoint

NAME = "flights-demo"
TARGET = "examples.flights.main:functions"
ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "statefun_ray.cli"]

START_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
VERIFY_TIMEOUT_S = 60.0

QUERY = f"""
SELECT id AS airport, departures, cancelled,
       round(departure_delay_minutes / departures, 1) AS mean_delay_minutes
FROM "{AIRPORT}" WHERE departures IS NOT NULL ORDER BY departures DESC
""".strip()

console = Console(soft_wrap=True)


class Act(NamedTuple):
    """When a process is killed, in shares of the flights accepted."""

    role: str
    share: float  # not before
    hold_at: float  # producers go no further until it has happened


KILLS = (Act("worker", share=0.2, hold_at=0.6), Act("ingress", share=0.5, hold_at=0.9))


class DemoFailed(Exception):
    """Something the demo promises did not happen."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return self.what


@dataclass
class Run:
    """What one run of the demo has seen."""

    events: list[FlightEvent]
    workers: int
    producers: int
    folder: Path
    tally: Tally = field(default_factory=Tally)
    kills: list[tuple[chaos.Kill, chaos.Recovery]] = field(default_factory=list)
    sending_s: float = 0.0
    processing_s: float = 0.0

    @property
    def storage(self) -> str:
        """Where the snapshots go."""
        return (self.folder / "snapshots").as_uri()


def main() -> int:
    """Run the demo and return the exit code of the process."""
    arguments = parse_arguments()
    started = time.monotonic()
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        say("Reading the flights that left New York in 2013 …")
        run = Run(flight_events(arguments.limit), arguments.workers, arguments.producers, folder)
        asyncio.run(play(run))
        differences = check(run, arguments.limit)
        summarise(run, differences, time.monotonic() - started)
        return 1 if differences else 0
    except (DemoFailed, chaos.NoMoment, chaos.NotRecovered, chaos.StatusEnded, NotAccepted) as failure:
        console.print(f"[bold red]The demo failed:[/] {failure}")
        console.print(f"What the application printed is in {folder / 'application.log'}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped.")
        return 130


def parse_arguments() -> argparse.Namespace:
    """The options; without any it is the whole demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--workers", type=int, default=3, help="worker processes (default: 3)")
    parser.add_argument("--producers", type=int, default=4, help="HTTP clients (default: 4)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many flights")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".demo", help="emptied, then holds log and snapshots"
    )
    return parser.parse_args()


# -- the run ----------------------------------------------------------------------------


async def play(run: Run) -> None:
    """Everything that happens while the application runs."""
    async with application(run) as url, chaos.watching(COMMAND, NAME) as watch:
        await watch.next()
        started = time.monotonic()
        await stream_and_kill(run, url, watch)
        await until_processed(watch)
        run.processing_s = time.monotonic() - started
        say("Everything is processed. Stopping with a final snapshot …")
        await stop_application()


@asynccontextmanager
async def application(run: Run) -> AsyncIterator[str]:
    """The running application; yields the URL it listens on, and leaves nothing behind."""
    say(f"Starting a local Ray and {run.workers} workers: statefun-ray run {TARGET} …")
    log_file = run.folder / "application.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("run", TARGET, "--name", NAME, "--workers", str(run.workers)),
            *("--http", "127.0.0.1:0", "--storage", run.storage),
            *("--log-dir", str(run.folder / "log"), "--snapshot-interval", "1s"),
            *("--address", "local", "--attached"),  # a Ray of its own, whatever else runs here
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches us first, we pass it on
        )
        try:
            yield await until_ready(log_file, process)
        finally:
            await end(process)


async def until_ready(log: Path, process: asyncio.subprocess.Process) -> str:
    """Wait until the application says that it is ready, and at which URL."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        if process.returncode is not None:
            raise DemoFailed(f"the application ended with exit code {process.returncode} before it was ready")
        said = await asyncio.to_thread(log.read_text, errors="replace")
        if match := re.search(rf"{NAME} is ready: (http://\S+)", said):
            return match[1]
        await asyncio.sleep(0.1)
    raise DemoFailed(f"the application was not ready after {START_TIMEOUT_S:.0f} s")


async def end(process: asyncio.subprocess.Process) -> None:
    """End the application's process, politely first."""
    for attempt in (signal.SIGINT, signal.SIGKILL):
        if process.returncode is None:
            process.send_signal(attempt)
            try:
                await asyncio.wait_for(process.wait(), 30.0)
            except TimeoutError:
                continue


async def stream_and_kill(run: Run, url: str, watch: chaos.Watch) -> None:
    """Send every flight; on the way kill a worker and then the ingress."""
    total = len(run.events)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("flights accepted", total=total)
        pacing = Pacing(total)

        def on_accepted(events: int) -> None:
            progress.advance(bar, events)
            pacing.accepted(events)

        sending = send_all(
            url,
            run.events,
            producers=run.producers,
            tally=run.tally,
            on_accepted=on_accepted,
            before_request=pacing.may_send,
        )
        await both(sending, kill_on_the_way(run, watch, pacing))
        run.sending_s = time.monotonic() - started


async def both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Run two things side by side; the first trouble ends both and is what is raised."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def kill_on_the_way(run: Run, watch: chaos.Watch, pacing: Pacing) -> None:
    """One worker, then the ingress, each once its share of the flights is accepted."""
    for act in KILLS:
        pacing.hold_at(act.hold_at)
        await pacing.reached(act.share)
        while not await kill_and_recover(run, watch, act.role, pacing):
            say("that snapshot was committed just before the kill; once more")


async def kill_and_recover(run: Run, watch: chaos.Watch, role: str, pacing: Pacing) -> bool:
    """One kill; returns whether it is proven to have hit an open snapshot."""
    kill = await chaos.kill_one(watch, role)
    if role == KILLS[-1].role:
        pacing.hold_at(1.0)  # the last flights are what shows that events are taken again
    say(
        f"[bold red]kill -9[/] {role} {kill.index} (pid {kill.pid}): {kill.lag_events:,} accepted events "
        f"unprocessed, snapshot {kill.snapshot_open} of generation {kill.generation} open"
    )
    recovery = await chaos.recovery(watch, kill)
    if recovery.rolled_back_to is None:
        say(f"[bold green]accepting again[/] after {recovery.seconds:.1f} s")
    else:
        say(
            f"[bold green]working again[/] after {recovery.seconds:.1f} s, "
            f"from snapshot {recovery.rolled_back_to}"
        )
    if not recovery.shows_that_it_was_open(kill):
        return False
    run.kills.append((kill, recovery))
    return True


async def until_processed(watch: chaos.Watch) -> None:
    """Wait until nothing accepted is unprocessed."""
    say("All flights are accepted; waiting until they are processed …")
    give_up_at = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < give_up_at:
        status = await watch.next()
        if status["lag"] == 0 and status["accepted"]:
            return
    raise DemoFailed(f"{watch.latest['lag']:,} events were still unprocessed after {DRAIN_TIMEOUT_S:.0f} s")


async def stop_application() -> None:
    """``statefun-ray stop``: a final snapshot, then the end."""
    code, said = await command("stop", NAME, timeout_s=STOP_TIMEOUT_S)
    if code:
        raise DemoFailed(f"'statefun-ray stop {NAME}' failed with exit code {code}: {said}")


async def command(*arguments: str, timeout_s: float) -> tuple[int, str]:
    """Run ``statefun-ray`` and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        said, _ = await process.communicate()
        return 124, f"no end after {timeout_s:.0f} s; {said.decode(errors='replace')}"
    return process.returncode or 0, said.decode(errors="replace").strip()


# -- the check --------------------------------------------------------------------------


def check(run: Run, limit: int | None) -> list[str]:
    """Compare the last snapshot with the group-by; returns every difference as a sentence."""
    say("Comparing every row of the last snapshot with a group-by over the file …")
    flights = expected.read_flights(limit)
    checkpoint = open_checkpoint(run.storage)
    differences: list[str] = []
    for function_type, wanted in (
        (AIRCRAFT, expected.expected_aircraft(flights)),
        (AIRPORT, expected.expected_airports(flights)),
    ):
        rows = checkpoint.table(function_type).to_pylist()
        found = {row.pop("id"): row for row in rows}
        different = expected.differences(wanted, found)
        print_comparison(function_type, wanted, found, different)
        differences += [f"{function_type} {difference}" for difference in different]
    code, said = asyncio.run(command("verify", run.storage, timeout_s=VERIFY_TIMEOUT_S))
    say(f"statefun-ray verify: {said}")
    if code:
        differences.append("the snapshots do not verify")
    say("And a question to the last snapshot, with nothing running:")
    code, said = asyncio.run(command("sql", run.storage, QUERY, timeout_s=VERIFY_TIMEOUT_S))
    console.print(QUERY, style="dim", highlight=False)
    console.print(said, highlight=False)
    if code:
        raise DemoFailed(f"'statefun-ray sql' failed with exit code {code}")
    if not all(kill.lag_events and kill.snapshot_open for kill, _ in run.kills) or len(run.kills) < 2:
        differences.append("a kill interrupted nothing")
    return differences


def print_comparison(
    function_type: str, wanted: expected.Table, found: expected.Table, different: list[str]
) -> None:
    """A line for each table: rows, totals, and whether they agree."""
    count = "flights" if function_type == AIRCRAFT else "departures"
    table = RichTable(title=function_type, title_justify="left")
    for header in ("", "rows", count, "delay at departure, minutes", "rows that differ"):
        table.add_column(header, justify="right" if header else "left")
    for label, rows, verdict in (
        ("expected", wanted, ""),
        ("in the snapshot", found, "[green]0[/]" if not different else f"[red]{len(different)}[/]"),
    ):
        table.add_row(
            label,
            f"{len(rows):,}",
            f"{total(rows, count):,}",
            f"{total(rows, 'departure_delay_minutes'):,}",
            verdict,
        )
    console.print(table)


def total(rows: expected.Table, column: str) -> int:
    """The sum of one column, nulls left out."""
    return sum(row.get(column) or 0 for row in rows.values())


def lost_and_doubled(run: Run) -> tuple[int, int]:
    """Events that are missing from, or too many in, the aircraft's own counts."""
    flights_of: dict[str, int] = {}
    for event in run.events:
        flights_of[event.tail_number] = flights_of.get(event.tail_number, 0) + 1
    rows = open_checkpoint(run.storage).table(AIRCRAFT).to_pylist()
    counted = {row["id"]: row["flights"] or 0 for row in rows}
    surplus = [counted.get(tail, 0) - flights_of.get(tail, 0) for tail in counted.keys() | flights_of.keys()]
    return sum(-n for n in surplus if n < 0), sum(n for n in surplus if n > 0)


def summarise(run: Run, differences: list[str], seconds: float) -> None:
    """What happened, in plain words."""
    lost, doubled = lost_and_doubled(run)
    console.rule()
    console.print(
        f"{run.tally.accepted_events:,} flights were accepted over HTTP in {run.sending_s:.0f} s "
        f"({run.tally.accepted_requests:,} requests, {run.tally.resent_requests:,} sent again) and processed "
        f"in {run.processing_s:.0f} s by {run.workers} workers."
    )
    for kill, recovery in run.kills:
        console.print(
            f"{'A worker' if kill.role == 'worker' else 'The ingress'} was killed with {kill.lag_events:,} accepted events unprocessed and snapshot "
            f"{kill.snapshot_open} open; work went on after {recovery.seconds:.1f} s."
        )
    console.print(f"Lost: {lost:,}. Doubled: {doubled:,}. The whole demo took {seconds:.0f} s.")
    for difference in differences:
        console.print(f"[red]{difference}[/]")
    if not differences:
        console.print("[bold green]Every row is exactly right.[/]")


# -- small helpers ----------------------------------------------------------------------


def say(text: str) -> None:
    """One line of the story."""
    console.print(text, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
