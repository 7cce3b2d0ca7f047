"""A listener for tests of connections: welcomes worker 0 of generation 7, and keeps what arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from statefun_ray.io.handshake import Hello, refusal_of
from statefun_ray.io.transport import FrameConnection, FrameServer, OnClose, OnFrame

HELLO = Hello(app="shop", generation=7, role="channel", source=0, target=1)


@dataclass
class Inbox:
    """What arrived at one end, with a way to wait for it."""

    frames: list[bytes] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_frame(self, connection: FrameConnection, frame: bytes) -> None:
        self.frames.append(frame)
        self.changed.set()

    def on_close(self, connection: FrameConnection, reason: str) -> None:
        self.reasons.append(reason)
        self.changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Listener:
    server: FrameServer
    inbox: Inbox
    accepted: list[FrameConnection]
    opened: asyncio.Event

    async def connection(self) -> FrameConnection:
        async with asyncio.timeout(5):
            await self.opened.wait()
        return self.accepted[0]


@asynccontextmanager
async def listening(
    *, secret: bytes | None = None, handshake_timeout_s: float = 5.0
) -> AsyncIterator[Listener]:
    inbox, accepted, opened = Inbox(), list[FrameConnection](), asyncio.Event()

    def on_open(connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        accepted.append(connection)
        opened.set()
        return inbox.on_frame, inbox.on_close

    server = FrameServer(
        admit=lambda hello: refusal_of(hello, app="shop", generation=7, roles=("channel",), target=1),
        on_open=on_open,
        secret=secret,
        handshake_timeout_s=handshake_timeout_s,
    )
    await server.listen()
    try:
        yield Listener(server, inbox, accepted, opened)
    finally:
        server.close()
        await asyncio.sleep(0)
