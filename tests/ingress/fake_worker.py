"""A worker as the ingress sees it: speaks the feed protocol over TCP, remembers what it got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from statefun_ingress.feed import (
    Credit,
    EgressAck,
    EventsFrame,
    FrameSplitter,
    Hello,
    IngressFrame,
    Query,
    Refused,
    Reply,
    ReplyAck,
    State,
    Trim,
    Welcome,
    WorkerFrame,
    decode_ingress_frame,
    encode_frame,
)

Event = tuple[int, str, str, str, str, str, bytes | None]
"""Sequence, target type, id, caller type, caller id, value type, value."""


class FakeWorker:
    """One connection.

    Attributes:
        events: what it was fed.
        position: where the frames so far end.
        reply: makes the reply to an event that wants one; None leaves it without.
        state: answers a query; None leaves it without an answer.
        refused: why the ingress sent it away.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.position = 0
        self.welcome: Welcome | None = None
        self.refused: str | None = None
        self.acked: list[int] = []
        self.egress_acks: list[int] = []
        self.reply: Callable[[Event], tuple[str, bytes | None] | None] = lambda event: None
        self.state: Callable[[Query], State | None] = lambda query: None
        self.is_closed = False
        self._changed = asyncio.Event()
        self._granted = 0
        self._acks = 0

    async def connect(
        self,
        address: tuple[str, int],
        *,
        generation: int = 1,
        index: int = 0,
        count: int = 1,
        positions: list[tuple[int, int, int]] | None = None,
        credit: int = 1_000,
        app_name: str = "app",
    ) -> FakeWorker:
        """Connect and say hello."""
        reader, self._writer = await asyncio.open_connection(*address)
        self._granted = credit
        self.send(Hello(app_name, generation, index, count, positions or [(0, 1024, 0)], credit))
        self._task = asyncio.create_task(self._run(reader))
        return self

    def send(self, *frames: WorkerFrame) -> None:
        """Send frames, and nothing else may be sent in between."""
        self._writer.write(b"".join(encode_frame(frame) for frame in frames))

    def send_bytes(self, data: bytes) -> None:
        """Send whatever."""
        self._writer.write(data)

    def trim(self, next_seq: int) -> None:
        """Let go of everything below."""
        self.send(Trim(next_seq))

    async def wait(self, condition: Callable[[FakeWorker], bool], timeout_s: float = 10.0) -> None:
        """Wait until ``condition`` holds for this worker."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._task

    async def _run(self, reader: asyncio.StreamReader) -> None:
        splitter = FrameSplitter()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for body in splitter.receive(data):
                    self._receive(decode_ingress_frame(body))
                self._changed.set()
        self.is_closed = True
        self._writer.close()
        self._changed.set()

    def _receive(self, frame: IngressFrame) -> None:
        if isinstance(frame, Welcome):
            self.welcome = frame
        elif isinstance(frame, EventsFrame):
            assert not self.position or frame.from_seq == self.position, "frames are contiguous"
            self.position = frame.to_seq
            self._take(frame)
        elif isinstance(frame, ReplyAck):
            self.acked.append(frame.ack_id)
        elif isinstance(frame, EgressAck):
            self.egress_acks.append(frame.ack_id)
        elif isinstance(frame, Query):
            answer = self.state(frame)
            if answer is not None:
                self.send(answer)
        elif isinstance(frame, Refused):
            self.refused = frame.text

    def _take(self, frame: EventsFrame) -> None:
        events = list(
            zip(
                frame.seqs,
                frame.target_types,
                frame.ids,
                frame.caller_types,
                frame.caller_ids,
                frame.value_types,
                frame.values,
                strict=True,
            )
        )
        self.events += events
        self._granted += len(events)
        self.send(Credit(self._granted))
        for event in events:
            reply = self.reply(event) if event[3] else None
            if reply is not None:
                self._acks += 1
                incarnation = event[3].removeprefix("statefun-ray.reply/")
                self.send(Reply(self._acks, incarnation, [(event[4], *reply)]))
