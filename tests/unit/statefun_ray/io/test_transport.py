from __future__ import annotations

import asyncio
import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.io.handshake import HandshakeRefused, Hello
from statefun_ray.io.transport import (
    FRAME_BYTES_MAX,
    FrameConnection,
    FrameParser,
    FrameServer,
    FrameTooLarge,
    OnClose,
    OnFrame,
    connect,
    connect_plain,
)
from statefun_sdk.context import MESSAGE_BYTES_MAX
from tests.unit.statefun_ray.io.listening import HELLO, Inbox, listening


def stream_of(frames: list[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[low:high] for low, high in pairwise(at)]


# --- the parser ---------------------------------------------------------------------------------


@given(
    frames=st.lists(st.binary(max_size=200), max_size=20), cuts=st.lists(st.integers(0, 4000), max_size=40)
)
def test_frames_survive_any_splitting_and_merging(frames: list[bytes], cuts: list[int]) -> None:
    parser = FrameParser()

    received = [frame for piece in split(stream_of(frames), cuts) for frame in parser.feed(piece)]

    assert received == frames
    assert parser.pending_bytes == 0


@given(data=st.lists(st.binary(max_size=64), max_size=30))
def test_any_bytes_give_frames_or_a_clear_refusal(data: list[bytes]) -> None:
    parser = FrameParser(frame_bytes_max=50)
    received: list[bytes] = []

    try:
        for piece in data:
            received.extend(parser.feed(piece))
    except FrameTooLarge:
        pass  # the text is the subject of another test
    else:
        assert stream_of(received) == b"".join(data)[: sum(len(frame) + 4 for frame in received)]
        assert parser.pending_bytes == sum(map(len, data)) - sum(len(frame) + 4 for frame in received)
    assert all(len(frame) <= 50 for frame in received)


def test_the_limit_may_change_between_two_frames_of_one_piece() -> None:
    parser = FrameParser(frame_bytes_max=4)
    frames = parser.feed(stream_of([b"hi", b"a longer frame"]))

    assert next(frames) == b"hi"
    parser.frame_bytes_max = 100
    assert next(frames) == b"a longer frame"


def test_an_announced_giant_is_refused_before_it_arrives() -> None:
    with pytest.raises(FrameTooLarge, match=r"2,147,483,648 bytes exceeds the limit"):
        list(FrameParser().feed((2**31).to_bytes(4, "big")))


def test_frame_too_large_survives_pickling() -> None:
    error = FrameTooLarge(10, 5)

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


# --- connections --------------------------------------------------------------------------------


async def test_frames_arrive_whole_and_in_order_in_both_directions() -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close
        )
        sent = [bytes([index % 256]) * (index * 37) for index in range(200)]

        for frame in sent:
            connection.send(frame)
        await listener.inbox.wait(lambda: len(listener.inbox.frames) == len(sent))
        (await listener.connection()).send(b"answer")
        await mine.wait(lambda: mine.frames == [b"answer"])

        assert listener.inbox.frames == sent
        hello = (await listener.connection()).hello
        assert hello is not None
        assert hello.source == 0
        connection.close()


async def test_a_frame_sent_by_the_listener_while_opening_is_not_lost() -> None:
    mine = Inbox()

    def on_open(connection: FrameConnection) -> tuple[OnFrame, OnClose]:
        asyncio.get_running_loop().call_soon(connection.send, b"x" * 10_000)
        return mine.on_frame, mine.on_close

    server = FrameServer(admit=lambda hello: "", on_open=on_open)
    await server.listen()
    connection = await connect(*server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close)

    await mine.wait(lambda: mine.frames == [b"x" * 10_000])

    connection.close()
    server.close()


async def test_sending_never_waits_and_the_unsent_bytes_are_visible() -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close
        )

        for _ in range(64):
            connection.send(b"x" * 1_000_000)

        assert connection.unsent_bytes >= 64_000_000
        await listener.inbox.wait(lambda: len(listener.inbox.frames) == 64)
        assert connection.unsent_bytes == 0
        connection.close()


async def test_two_ends_that_both_send_far_more_than_the_kernel_buffers_make_progress() -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close
        )
        other = await listener.connection()

        for _ in range(32):
            connection.send(b"x" * 1_000_000)
            other.send(b"y" * 1_000_000)

        await listener.inbox.wait(lambda: len(listener.inbox.frames) == 32)
        await mine.wait(lambda: len(mine.frames) == 32)
        connection.close()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_the_end_of_a_connection_is_reported_once_to_the_other_side_only(end: str) -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close
        )
        await listener.connection()

        getattr(connection, end)()
        await listener.inbox.wait(lambda: bool(listener.inbox.reasons))

        assert len(listener.inbox.reasons) == 1
        assert mine.reasons == []
        connection.send(b"dropped")


async def test_what_was_sent_before_closing_still_arrives() -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close
        )

        connection.send(b"last words")
        connection.close()

        await listener.inbox.wait(lambda: bool(listener.inbox.reasons))
        assert listener.inbox.frames == [b"last words"]


async def test_a_caller_of_another_generation_hears_why_it_is_refused() -> None:
    async with listening() as listener:
        mine = Inbox()
        stale = Hello(app="shop", generation=6, role="channel", source=0, target=1)

        with pytest.raises(
            HandshakeRefused, match="this is generation 7, the caller belongs to generation 6"
        ):
            await connect(*listener.server.address, stale, on_frame=mine.on_frame, on_close=mine.on_close)

        assert listener.accepted == []


async def test_a_secret_is_proven_over_the_wire_and_a_wrong_one_refused() -> None:
    async with listening(secret=b"right") as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close, secret=b"right"
        )
        connection.send(b"hello")
        await listener.inbox.wait(lambda: listener.inbox.frames == [b"hello"])
        connection.close()

        with pytest.raises(HandshakeRefused, match="secret"):
            await connect(
                *listener.server.address,
                HELLO,
                on_frame=mine.on_frame,
                on_close=mine.on_close,
                secret=b"wrong",
            )


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x03abc", b"\xff" * 64])
async def test_a_stranger_is_dropped_before_it_gets_anywhere(noise: bytes) -> None:
    async with listening() as listener:
        mine = Inbox()
        stranger = await connect_plain(
            *listener.server.address, on_frame=mine.on_frame, on_close=mine.on_close
        )
        assert stranger._transport is not None

        stranger._transport.write(noise)

        await mine.wait(lambda: bool(mine.reasons))
        assert listener.accepted == []
        assert listener.server.connections == set()


async def test_a_silent_caller_is_dropped_after_the_handshake_timeout() -> None:
    async with listening(handshake_timeout_s=0.02) as listener:
        mine = Inbox()
        await connect_plain(*listener.server.address, on_frame=mine.on_frame, on_close=mine.on_close)

        await mine.wait(lambda: bool(mine.reasons))

        assert listener.server.connections == set()


async def test_nobody_listening_is_an_os_error() -> None:
    async with listening() as listener:
        address = listener.server.address
    mine = Inbox()

    with pytest.raises(OSError, match="Connect call failed"):
        await connect(*address, HELLO, on_frame=mine.on_frame, on_close=mine.on_close)


async def test_a_listener_that_hangs_up_during_the_handshake_is_named() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    mine = Inbox()

    with pytest.raises(ConnectionResetError, match="hung up during the handshake"):
        await connect(host, port, HELLO, on_frame=mine.on_frame, on_close=mine.on_close)
    server.close()


async def test_a_failing_frame_handler_breaks_the_connection_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mine = Inbox()

    def on_frame(connection: FrameConnection, frame: bytes) -> None:
        raise LookupError("no such channel")

    async with listening() as listener:
        connection = await connect(*listener.server.address, HELLO, on_frame=on_frame, on_close=mine.on_close)
        (await listener.connection()).send(b"boom")

        await mine.wait(lambda: bool(mine.reasons))

        assert mine.reasons == ["handling a frame failed: LookupError: no such channel"]
        assert not connection.is_open
        assert "frame handler failed" in caplog.text


async def test_a_frame_beyond_the_limit_is_refused_where_it_is_sent() -> None:
    async with listening() as listener:
        mine = Inbox()
        connection = await connect(
            *listener.server.address,
            HELLO,
            on_frame=mine.on_frame,
            on_close=mine.on_close,
            frame_bytes_max=5000,
        )

        with pytest.raises(FrameTooLarge):
            connection.send(b"x" * 5001)
        connection.close()


def test_the_largest_message_that_is_sent_fits_into_a_frame() -> None:
    assert MESSAGE_BYTES_MAX <= FRAME_BYTES_MAX // 4
