from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from statefun_ingress.errors import FrameError
from statefun_ingress.feed import (
    Credit,
    EventsFrame,
    Figures,
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
    decode_worker_frame,
    encode_frame,
)

WORKER_FRAMES: list[tuple[WorkerFrame, list[object]]] = [
    (Hello("app", 3, 1, 2, [(0, 5, 9)], 100), ["hello", "app", 3, 1, 2, [[0, 5, 9]], 100]),
    (Credit(7), ["credit", 7]),
    (Trim(8), ["trim", 8]),
    (Reply(1, "l.1", [("4", "t/x", None)]), ["reply", 1, "l.1", [["4", "t/x", None]]]),
    (
        Figures([("n", "", 1.0)], 9, [("n/t", "i", 2, 5, 0, "no")]),
        ["figures", [["n", "", 1.0]], 9, [["n/t", "i", 2, 5, 0, "no"]]],
    ),
    (State(1, 2, 3, True, [("s", "t/x", b"v")]), ["state", 1, 2, 3, True, [["s", "t/x", b"v"]], False]),
]
INGRESS_FRAMES: list[tuple[IngressFrame, list[object]]] = [
    (Welcome("l", "l.1", 5), ["welcome", "l", "l.1", 5]),
    (
        EventsFrame(1, 5, [2], ["n/t"], ["i"], [""], [""], ["t/x"], [b"v"]),
        ["events", 1, 5, [2], ["n/t"], ["i"], [""], [""], ["t/x"], [b"v"]],
    ),
    (ReplyAck(3), ["reply_ack", 3]),
    (Query(1, "n/t", "i", False), ["query", 1, "n/t", "i", False]),
    (Refused("no"), ["refused", "no"]),
]


@pytest.mark.parametrize(("frame", "items"), WORKER_FRAMES)
def test_worker_frames_are_arrays_named_by_their_first_item(frame: WorkerFrame, items: list[object]) -> None:
    data = encode_frame(frame)

    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert msgspec.msgpack.decode(data[4:]) == items
    assert decode_worker_frame(data[4:]) == frame


@pytest.mark.parametrize(("frame", "items"), INGRESS_FRAMES)
def test_ingress_frames_are_arrays_named_by_their_first_item(
    frame: IngressFrame, items: list[object]
) -> None:
    data = encode_frame(frame)

    assert msgspec.msgpack.decode(data[4:]) == items
    assert decode_ingress_frame(data[4:]) == frame


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 9))
def test_frames_are_cut_whatever_the_reads(bodies: list[bytes], step: int) -> None:
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    splitter = FrameSplitter()

    found: list[bytes] = []
    for at in range(0, len(data), step):
        found += splitter.receive(data[at : at + step])

    assert found == bodies


def test_a_frame_too_long_is_refused_before_it_is_gathered() -> None:
    with pytest.raises(FrameError, match="at most 10"):
        FrameSplitter(10).receive(b"\0\0\0\x0b")


@given(st.binary(max_size=40))
@example(b"\x91\xa3\x00\x00\x80")
def test_garbage_is_a_frame_error_and_nothing_else(body: bytes) -> None:
    for decode in (decode_worker_frame, decode_ingress_frame):
        with contextlib.suppress(FrameError):
            decode(body)


def test_a_frame_of_the_other_side_is_refused() -> None:
    with pytest.raises(FrameError, match="from a worker"):
        decode_worker_frame(encode_frame(Refused("no"))[4:])
