"""A channel hands over what was sent, in order, or says that it cannot."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statefun_checkpoints.participant import ProtocolViolation
from statefun_ray.core import channel
from statefun_ray.core.channel import FRAME_MESSAGES_MAX, InChannel, OutChannel
from statefun_ray.core.message import Message
from tests.unit.statefun_ray.core.staging import message
from tests.unit.statefun_ray.core.test_message import MESSAGES

Marker = tuple[int, str, int]
STEPS = st.lists(
    st.lists(MESSAGES, max_size=5)
    | st.tuples(st.integers(1, 99), st.sampled_from(["periodic", "reply"]), st.integers(0, 99))
)


@settings(max_examples=50)
@given(STEPS)
def test_what_goes_in_comes_out_in_order(steps: list[list[Message] | Marker]) -> None:
    out, into = OutChannel(), InChannel(1)
    received: list[Message | Marker] = []

    for step in steps:
        if isinstance(step, tuple):
            frames = out.marker(*step)
        else:
            out.buffer.extend(step)
            frames = out.flush()
        for frame in frames:
            arrived = into.receive(frame)
            received.extend(arrived if isinstance(arrived, list) else [arrived])

    assert received == [item for step in steps for item in ([step] if isinstance(step, tuple) else step)]


def test_a_marker_stays_behind_what_was_buffered() -> None:
    out, into = OutChannel(), InChannel(1)
    out.buffer.append(message("a/b", "1", "x"))

    data, marker = out.marker(7, "reply", 6)

    assert into.receive(data) == [message("a/b", "1", "x")]
    assert into.receive(marker) == (7, "reply", 6)
    assert out.flush() == [], "nothing is sent twice"


def test_a_lost_frame_is_noticed() -> None:
    out, into = OutChannel(), InChannel(3)
    out.marker(1, "periodic", 0)
    [second] = out.marker(2, "periodic", 0)

    with pytest.raises(ProtocolViolation, match="worker 3: frame 2 after 0; frames were lost or repeated"):
        into.receive(second)


def test_a_repeated_frame_is_noticed() -> None:
    out, into = OutChannel(), InChannel(3)
    [frame] = out.marker(1, "periodic", 0)
    into.receive(frame)

    with pytest.raises(ProtocolViolation, match="frame 1 after 1"):
        into.receive(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(3),
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([1, ["a/b"], [0], [0], [0], ["1"], [""]]),
        msgspec.msgpack.encode([1, [], [0], [0], [0], ["1"], [""], [None]]),
        msgspec.msgpack.encode([1, ["a/b"], [0], [0], [0], ["1", "2"], [""], [None]]),
    ],
)
def test_what_is_not_a_frame_ends_the_generation(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="channel from worker 1"):
        InChannel(1).receive(frame)


def test_typenames_travel_once() -> None:
    out = OutChannel()
    sizes = []
    for _ in range(2):
        out.buffer.extend([message("shop/a-rather-long-function-name", "1", "x")] * 10)
        sizes += [len(frame) for frame in out.flush()]

    assert sizes[0] - sizes[1] > len("shop/a-rather-long-function-name")


def test_many_messages_are_several_frames() -> None:
    out, into = OutChannel(), InChannel(1)
    sent = [message("a/b", str(number), "x") for number in range(FRAME_MESSAGES_MAX + 1)]
    out.buffer.extend(sent)

    frames = out.flush()

    assert len(frames) == 2
    assert [item for frame in frames for item in into.receive(frame)] == sent


def test_large_messages_are_several_frames_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "FRAME_BYTES_MAX", 1_000)
    out, into = OutChannel(), InChannel(1)
    sent = [message("a/b", str(number), "x" * 300) for number in range(9)]
    sent.append(message("a/c", "large", "x" * 3_000))
    out.buffer.extend(sent)

    frames = out.flush()

    assert [item for frame in frames for item in into.receive(frame)] == sent
    assert sorted(len(frame) > 1_000 for frame in frames)[-2:] == [False, True], "one message is never split"
