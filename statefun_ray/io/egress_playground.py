"""The playground's egress: rows go to the ingress process, which hands them out over HTTP.

They travel over the feed's connection, which every worker has, and are acknowledged there. The
ingress knows a row by shard and sequence, so a repetition changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final

from statefun_ingress import frames
from statefun_ingress.topics import PublishedRow
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress import SinkUnavailable

FRAME_BYTES_SOFT: Final = 16 << 20
"""A frame is closed once its rows are about this large: the ingress refuses frames four times as large."""

ANSWER_S: Final = 5.0
"""For an acknowledgement: the ingress may be starting again."""


class PlaygroundSink:
    """Publishes through the feed. `publish` blocks in a thread; the rest belongs to the loop."""

    joins_shards = True

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """Args:
        send: sends a frame to the ingress, in the loop; false when it is not connected.
        """
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._ack_ids = itertools.count(1)
        self._waiting: dict[int, Future[None]] = {}

    def open(self) -> None:
        """The ingress serves the newest generation only."""

    def publish(self, batch: Sequence[tuple[int, list[EgressRow]]]) -> None:
        """Hand rows to the ingress and wait until it has them.

        Raises:
            SinkUnavailable: it is not connected, or does not acknowledge.
        """
        waits = []
        for shard, rows in batch:
            for plain in _framed(rows):
                ack_id = next(self._ack_ids)
                acknowledged: Future[None] = Future()
                self._waiting[ack_id] = acknowledged
                waits.append((ack_id, acknowledged))
                frame = frames.encode_frame(frames.EgressRows(ack_id, shard, plain))
                self._loop.call_soon_threadsafe(self._send_or_fail, frame, acknowledged)
        try:
            for _, acknowledged in waits:
                acknowledged.result(ANSWER_S)
        except TimeoutError:
            raise SinkUnavailable(f"the ingress did not acknowledge within {ANSWER_S:g} s") from None
        finally:
            for ack_id, _ in waits:
                self._waiting.pop(ack_id, None)

    def acknowledged(self, ack_id: int) -> None:
        """The ingress has taken the rows of this frame."""
        waiting = self._waiting.pop(ack_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def flush(self, timeout_s: float) -> None:
        """What is published was acknowledged."""

    def close(self) -> None:
        """Let a blocked `publish` end."""
        for waiting in list(self._waiting.values()):
            _fail(waiting, "the worker ends")

    def _send_or_fail(self, frame: bytes, acknowledged: Future[None]) -> None:
        if not self._send(frame):
            _fail(acknowledged, "the ingress is not connected")


def _framed(rows: Sequence[EgressRow]) -> Iterator[list[PublishedRow]]:
    """Yield rows in frames that are not too large; their order is that of the connection."""
    plain: list[PublishedRow] = []
    size_bytes = 0
    for sequence, _, typename, value in rows:
        if plain and size_bytes + len(value or b"") > FRAME_BYTES_SOFT:
            yield plain
            plain, size_bytes = [], 0
        plain.append((sequence, typename, value))
        size_bytes += len(value or b"")
    if plain:
        yield plain


def _fail(waiting: Future[None], why: str) -> None:
    if not waiting.done():
        waiting.set_exception(SinkUnavailable(why))
