"""Kills processes of a running application, at the worst moment it can find.

The moment matters: a kill between two snapshots of an idle application proves nothing. Here
a kill waits until events are accepted but not processed, *and* a snapshot is open, and it
reports both.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

LAG_EVENTS_MIN = 1_000
WATCH_INTERVAL = "5ms"
# Snapshots open every second; a minute without a chance means that something is wrong.
PATIENCE_S = 60.0
RECOVERY_S_MAX = 60.0


@dataclass(frozen=True)
class Kill:
    """One kill and what it interrupted."""

    role: str
    index: int
    pid: int
    lag_events: int
    snapshot_open: int
    generation: int
    accepted: int
    processed: int
    at: float  # event loop time, seconds


@dataclass(frozen=True)
class Recovery:
    """How the application came back.

    Attributes:
        seconds: from the kill until it worked again.
        rolled_back_to: snapshot it went on from, 0 for none; None if nothing was rolled back.
    """

    seconds: float
    rolled_back_to: int | None

    def shows_that_it_was_open(self, kill: Kill) -> bool:
        """Whether the snapshot that was open at the kill was really lost by it."""
        return self.rolled_back_to is None or self.rolled_back_to < kill.snapshot_open


class NotRecovered(Exception):
    """The application did not come back after a kill."""

    def __init__(self, role: str, seconds: float, last: str) -> None:
        super().__init__(role, seconds, last)
        self.role, self.seconds, self.last = role, seconds, last

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s after the kill of the {self.role} the application did not work again; "
            f"the last status was {self.last}"
        )


class NoMoment(Exception):
    """No moment worth killing in came."""

    def __init__(self, role: str, seconds: float, last: str) -> None:
        super().__init__(role, seconds, last)
        self.role, self.seconds, self.last = role, seconds, last

    def __str__(self) -> str:
        return (
            f"for {self.seconds:.0f} s there was no moment with at least {LAG_EVENTS_MIN:,} unprocessed "
            f"events and an open snapshot to kill the {self.role} in; the last status was {self.last}"
        )


class StatusEnded(Exception):
    """``statefun-ray status --watch`` ended although the application should be running."""

    def __init__(self, exit_code: int | None, said: str) -> None:
        super().__init__(exit_code, said)
        self.exit_code, self.said = exit_code, said

    def __str__(self) -> str:
        return f"statefun-ray status ended with exit code {self.exit_code}: {self.said}"


class Watch:
    """The newest status of an application, and a way to wait for the next one."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self._changed = asyncio.Condition()
        self._ended: StatusEnded | None = None

    async def next(self) -> dict[str, Any]:
        """Wait for the next status.

        Raises:
            StatusEnded: there will be none.
        """
        async with self._changed:
            if self._ended is None:
                await self._changed.wait()
            if self._ended is not None:
                raise self._ended
            return self.latest

    async def _put(self, status: dict[str, Any]) -> None:
        async with self._changed:
            self.latest = status
            self._changed.notify_all()

    async def _end(self, error: StatusEnded) -> None:
        async with self._changed:
            self._ended = error
            self._changed.notify_all()


@asynccontextmanager
async def watching(command: list[str], name: str) -> AsyncIterator[Watch]:
    """Follow ``statefun-ray status NAME --json --watch`` for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        "status",
        name,
        "--json",
        "--watch",
        WATCH_INTERVAL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    watch = Watch()
    reader = asyncio.create_task(_read(process, watch))
    try:
        yield watch
    finally:
        reader.cancel()
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _read(process: asyncio.subprocess.Process, watch: Watch) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    async for line in process.stdout:
        await watch._put(json.loads(line))
    said = (await process.stderr.read()).decode(errors="replace").strip()
    await watch._end(StatusEnded(await process.wait(), said))


async def kill_one(watch: Watch, role: str) -> Kill:
    """SIGKILL the first running process of a role, at a moment that hurts.

    Raises:
        NoMoment: none came.
        StatusEnded: the application is gone.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + PATIENCE_S
    while loop.time() < give_up_at:
        status = await watch.next()
        if status["lag"] < LAG_EVENTS_MIN or status["snapshot_open"] is None:
            continue
        for process in status["processes"]:
            if process["role"] == role and process["state"] == "running":
                os.kill(process["pid"], signal.SIGKILL)
                return Kill(
                    role=role,
                    index=process["index"],
                    pid=process["pid"],
                    lag_events=status["lag"],
                    snapshot_open=status["snapshot_open"],
                    generation=status["generation"],
                    accepted=status["accepted"],
                    processed=status["processed"],
                    at=loop.time(),
                )
    raise NoMoment(role, PATIENCE_S, json.dumps(watch.latest))


async def recovery(watch: Watch, kill: Kill) -> Recovery:
    """Wait until the application works again.

    After the death of a worker: a newer generation has processed something. After the death
    of an ingress: another process has accepted something.

    Raises:
        NotRecovered: it did not, in good time.
        StatusEnded: the application is gone.
    """
    loop = asyncio.get_running_loop()
    processed_at_first: int | None = None
    rolled_back_to = None
    while loop.time() < kill.at + RECOVERY_S_MAX:
        status = await watch.next()
        if kill.role == "worker":
            if status["generation"] == kill.generation or status["phase"] != "running":
                continue
            if processed_at_first is None:
                processed_at_first = status["processed"]
                rolled_back_to = (status["last_snapshot"] or {"id": 0})["id"]
            if status["processed"] > processed_at_first:
                return Recovery(loop.time() - kill.at, rolled_back_to)
        else:
            pids = {process["pid"] for process in status["processes"] if process["role"] == kill.role}
            if kill.pid not in pids and status["accepted"] > kill.accepted:
                return Recovery(loop.time() - kill.at, None)
    raise NotRecovered(kill.role, RECOVERY_S_MAX, json.dumps(watch.latest))
