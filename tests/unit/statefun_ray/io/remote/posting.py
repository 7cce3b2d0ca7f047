"""A request that a test waits for."""

from __future__ import annotations

import asyncio

from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.target import Target


class Posted:
    """A request that can be awaited."""

    is_alone = False

    def __init__(self, target: Target, body: bytes, function_type: str = "") -> None:
        self.target, self.body, self.function_type = target, body, function_type
        self._done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def answered(self, answer: bytes) -> None:
        """See `Request`."""
        if not self._done.done():
            self._done.set_result(answer)

    def failed(self, error: Exception) -> None:
        """See `Request`."""
        if not self._done.done():
            self._done.set_exception(error)

    async def answer(self) -> bytes:
        """Return the answer, or raise what `Request.failed` was told."""
        return await self._done


async def post(client: HttpClient, target: Target, body: bytes, function_type: str = "") -> bytes:
    """Make one request and wait for its answer."""
    posted = Posted(target, body, function_type)
    client.start(posted)
    return await posted.answer()
