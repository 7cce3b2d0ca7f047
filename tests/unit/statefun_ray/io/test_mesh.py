from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from statefun_ray.io import mesh
from statefun_ray.io.handshake import HandshakeRefused
from statefun_ray.io.mesh import Mesh


class Member:
    """One worker's mesh, with what came over it."""

    def __init__(self, worker: int, *, generation: int = 7, secret: bytes | None = None) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.reasons: list[str] = []
        self.mesh = Mesh(
            app="shop",
            generation=generation,
            worker=worker,
            secret=secret,
            on_frame=lambda peer, frame: self.frames.append((peer, frame)),
            on_broken=self.reasons.append,
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what changes has no event
            await asyncio.sleep(0.002)


@asynccontextmanager
async def connected(*members: Member) -> AsyncIterator[list[Member]]:
    addresses = [await member.mesh.listen("127.0.0.1") for member in members]
    try:
        await asyncio.gather(*(member.mesh.connect(addresses, 5) for member in members))
        yield list(members)
    finally:
        for member in members:
            member.mesh.abort()
        await asyncio.sleep(0)


async def test_every_worker_reaches_every_other_and_frames_keep_their_order() -> None:
    async with connected(*(Member(worker, secret=b"s") for worker in range(3))) as members:
        for number in range(5):
            for source, member in enumerate(members):
                for target in {0, 1, 2} - {source}:
                    member.mesh.send(target, b"%d to %d: %d" % (source, target, number))
        for member in members:
            member.mesh.flush()

        await until(lambda: all(len(member.frames) == 10 for member in members))

        for target, member in enumerate(members):
            for source in {0, 1, 2} - {target}:
                came = [frame for peer, frame in member.frames if peer == source]
                assert came == [b"%d to %d: %d" % (source, target, number) for number in range(5)]


async def test_nothing_leaves_before_it_is_flushed_and_all_of_it_is_seen_as_unsent() -> None:
    async with connected(Member(0), Member(1)) as (one, two):
        one.mesh.send(1, b"x" * 100)
        assert one.mesh.unsent_bytes == 104

        one.mesh.flush()
        await until(lambda: two.frames == [(0, b"x" * 100)])

        assert one.mesh.unsent_bytes == 0


async def test_a_lost_channel_is_reported_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "CHANNEL_GRACE_S", 0.01)
    async with connected(Member(0), Member(1)) as (one, two):
        two.mesh.abort()

        await until(lambda: len(one.reasons) == 2)

        assert any("the channel to worker 1 broke" in reason for reason in one.reasons)
        assert any("the channel from worker 1 broke" in reason for reason in one.reasons)
        assert two.reasons == []


async def test_a_peer_that_leaves_in_order_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "CHANNEL_GRACE_S", 0.02)
    async with connected(Member(0), Member(1)) as (one, two):
        two.mesh.close()
        await until(lambda: len(one.mesh._grace_handles) == 2)

        one.mesh.expect_leaving()
        await asyncio.sleep(0.03)

        assert one.reasons == []


async def test_a_worker_of_another_generation_gets_no_channel() -> None:
    current, zombie = Member(0), Member(1, generation=6)
    addresses = [await member.mesh.listen("127.0.0.1") for member in (current, zombie)]

    with pytest.raises(HandshakeRefused, match="this is generation 7, the caller belongs to generation 6"):
        await zombie.mesh.connect(addresses, 5)

    current.mesh.close()
    zombie.mesh.close()


async def test_a_second_channel_of_the_same_worker_is_refused() -> None:
    async with connected(Member(0), Member(1)) as (one, _):
        twin = Member(1)
        address = one.mesh._server.address

        with pytest.raises(HandshakeRefused, match="worker 1 is connected already"):
            await twin.mesh.connect([address, ("", 0)], 5)
        twin.mesh.close()


async def test_a_peer_that_never_connects_is_a_timeout() -> None:
    alone, silent = Member(0), Member(1)
    addresses = [await member.mesh.listen("127.0.0.1") for member in (alone, silent)]

    with pytest.raises(TimeoutError):
        await alone.mesh.connect(addresses, 0.05)

    alone.mesh.close()
    silent.mesh.close()
