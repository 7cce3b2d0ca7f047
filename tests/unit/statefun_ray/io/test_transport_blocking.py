from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from statefun_ray.io.handshake import HandshakeRefused, Hello
from statefun_ray.io.transport_blocking import BlockingConnection
from tests.unit.statefun_ray.io.listening import HELLO, listening


async def in_thread(work: Callable[[], object]) -> object:
    async with asyncio.timeout(5):
        waiting: Awaitable[object] = asyncio.to_thread(work)
        return await waiting


async def test_a_blocking_connection_speaks_the_same_protocol() -> None:
    async with listening(secret=b"s") as listener:

        def talk() -> bytes | None:
            connection = BlockingConnection.open(*listener.server.address, HELLO, secret=b"s", timeout_s=5)
            connection.send(b"from a thread")
            nothing = connection.receive(0.01)
            assert nothing is None
            connection.send(b"now")
            answer = connection.receive(5)
            connection.close()
            return answer

        async def answer_when_asked() -> None:
            await listener.inbox.wait(lambda: listener.inbox.frames == [b"from a thread", b"now"])
            (await listener.connection()).send(b"answer")

        answered, _ = await asyncio.gather(in_thread(talk), answer_when_asked())

        assert answered == b"answer"


async def test_a_blocking_connection_reports_refusal_and_loss() -> None:
    async with listening() as listener:
        address = listener.server.address
        stale = Hello(app="shop", generation=8, role="channel", source=0, target=1)
        with pytest.raises(HandshakeRefused, match="generation 7"):
            await in_thread(lambda: BlockingConnection.open(*address, stale, timeout_s=5))

        connection = await asyncio.to_thread(lambda: BlockingConnection.open(*address, HELLO, timeout_s=5))
        (await listener.connection()).abort()
        with pytest.raises(ConnectionResetError):
            await in_thread(lambda: connection.receive(5))
        connection.close()
