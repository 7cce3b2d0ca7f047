from __future__ import annotations

import asyncio

import pytest

from statefun_ingress import frames
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io import egress_playground
from statefun_ray.io.egress import SinkUnavailable
from statefun_ray.io.egress_playground import PlaygroundSink
from tests.waiting import until

ROWS: list[EgressRow] = [(3, "io.statefun.playground/egress", "a/b", b"x"), (5, "e/e", "a/b", None)]


class Wire:
    """A feed: keeps frames, and acknowledges them when told to."""

    def __init__(self, *, is_open: bool = True, acknowledges: bool = True) -> None:
        self.is_open = is_open
        self.acknowledges = acknowledges
        self.sent: list[frames.EgressRows] = []
        self.sink = PlaygroundSink(self.send)

    def send(self, frame: bytes) -> bool:
        if self.is_open:
            [body] = frames.FrameSplitter().receive(frame)
            decoded = frames.decode_worker_frame(body)
            assert isinstance(decoded, frames.EgressRows)
            self.sent.append(decoded)
            if self.acknowledges:
                self.sink.acknowledged(decoded.ack_id)
        return self.is_open


async def test_rows_are_published_when_each_frame_is_acknowledged() -> None:
    wire = Wire()
    await asyncio.to_thread(wire.sink.publish, [(1, ROWS), (2, ROWS[:1])])
    plain = [(3, "a/b", b"x"), (5, "a/b", None)]
    assert [(frame.shard, frame.rows) for frame in wire.sent] == [(1, plain), (2, plain[:1])]
    assert len({frame.ack_id for frame in wire.sent}) == 2


async def test_rows_are_framed_before_a_frame_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_playground, "FRAME_BYTES_SOFT", 10)
    rows: list[EgressRow] = [
        (seq, "e/e", "a/b", b"x" * size) for seq, size in enumerate((4, 4, 4, 30, 1, 9, 1))
    ]
    wire = Wire()
    await asyncio.to_thread(wire.sink.publish, [(1, rows)])
    assert [[row[0] for row in frame.rows] for frame in wire.sent] == [[0, 1], [2], [3], [4, 5], [6]]


async def test_an_ingress_that_is_not_there_is_tried_again() -> None:
    wire = Wire(is_open=False)
    with pytest.raises(SinkUnavailable, match="not connected"):
        await asyncio.to_thread(wire.sink.publish, [(1, ROWS)])


async def test_an_ingress_that_does_not_acknowledge_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_playground, "ANSWER_S", 0.01)
    wire = Wire(acknowledges=False)
    with pytest.raises(SinkUnavailable, match="did not acknowledge"):
        await asyncio.to_thread(wire.sink.publish, [(1, ROWS)])
    wire.sink.acknowledged(wire.sent[0].ack_id)  # too late, and nobody minds


async def test_closing_ends_a_wait() -> None:
    wire = Wire(acknowledges=False)
    publishing = asyncio.create_task(asyncio.to_thread(wire.sink.publish, [(1, ROWS)]))
    await until(lambda: bool(wire.sent))
    wire.sink.close()
    with pytest.raises(SinkUnavailable, match="the worker ends"):
        await publishing
