from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from statefun_ray.io.feed_client import FeedClient


class Feed:
    """A listener that remembers its connections."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []
        self.address = ("", 0)
        self._server: asyncio.Server | None = None

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        host, port = self._server.sockets[0].getsockname()
        self.address = (host, port)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.readers.append(reader)
        self.writers.append(writer)

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()


class Worker:
    """What a feed client reports, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.changed = asyncio.Event()

    def note(self, kind: str, what: object) -> None:
        self.events.append((kind, what))
        self.changed.set()

    def connect(self, feed: Feed) -> FeedClient:
        return FeedClient(
            "log",
            feed.address,
            on_open=lambda log_id: self.note("open", log_id),
            on_frame=lambda _log_id, frame: self.note("frame", frame),
            on_close=lambda log_id: self.note("close", log_id),
        )

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def wait_events(self, *kinds: str) -> None:
        await self.wait(lambda: [kind for kind, _ in self.events] == list(kinds))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Feed, Worker, FeedClient]]:
    feed, worker = Feed(), Worker()
    await feed.listen()
    client = worker.connect(feed)
    await worker.wait_events("open")
    try:
        yield feed, worker, client
    finally:
        client.close()
        feed.close()
        await asyncio.sleep(0)


async def test_frames_go_both_ways_and_ours_carry_their_length_already() -> None:
    async with connected() as (feed, worker, client):
        client.send(b"\0\0\0\2hi")
        assert await feed.readers[0].readexactly(6) == b"\0\0\0\2hi"

        feed.writers[0].write(b"\0\0\0\5hello")
        await worker.wait_events("open", "frame")

        assert worker.events[-1] == ("frame", b"hello")
        assert client.is_open


async def test_a_lost_feed_is_connected_again() -> None:
    async with connected() as (feed, worker, client):
        feed.writers[0].transport.abort()

        await worker.wait_events("open", "close", "open")

        assert client.is_open


async def test_a_feed_that_comes_back_late_is_found() -> None:
    feed, worker = Feed(), Worker()
    await feed.listen()
    _, port = feed.address
    feed.close()
    client = worker.connect(feed)
    await asyncio.sleep(0.03)
    assert worker.events == []

    await feed.listen(port)
    await worker.wait_events("open")

    client.close()
    feed.close()


async def test_a_feed_that_has_moved_is_followed() -> None:
    async with connected() as (_, worker, client):
        elsewhere = Feed()
        await elsewhere.listen()

        client.move(elsewhere.address)
        await worker.wait_events("open", "close", "open")

        client.send(b"\0\0\0\0")
        assert await elsewhere.readers[0].readexactly(4) == b"\0\0\0\0"
        elsewhere.close()


async def test_leaving_writes_what_was_sent_and_reports_nothing() -> None:
    async with connected() as (feed, worker, client):
        client.send(b"\0\0\0\3bye")
        client.leave()

        assert await feed.readers[0].read() == b"\0\0\0\3bye"
        assert [kind for kind, _ in worker.events] == ["open"]
        client.send(b"dropped")
