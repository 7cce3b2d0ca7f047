"""Connects to services: names, certificates, Unix sockets, and hosts with several addresses.

A host's addresses are raced as in RFC 8305: the next one is tried when the one before it has failed,
or says nothing for a quarter of a second, and the first that takes a connection has it. One that
swallows everything costs that quarter of a second, and not all the time there is to connect.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeAlias

from statefun_ray.io.remote.http_connection import Connection
from statefun_ray.io.remote.resolver import Resolver
from statefun_ray.io.remote.target import Target

STAGGER_S: Final = 0.25

_Attempt: TypeAlias = Callable[[], Coroutine[Any, Any, Connection]]


class Connector:
    """Makes the connections of one client."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        """``tls``: how to speak it; None for the usual way."""
        self._tls = tls
        self._resolver = Resolver()

    async def connect(self, target: Target, make: Callable[[], Connection]) -> Connection:
        """Return a new connection, to the first address of the host that takes one.

        Raises:
            OSError: none does, or it has none.
            UnicodeError: its name is none.
        """
        loop = asyncio.get_running_loop()
        if target.socket:
            _, connection = await loop.create_unix_connection(make, target.socket)
            return connection
        tls: dict[str, Any] = {}
        if target.scheme == "https":
            if self._tls is None:
                # A hundredth of a second of reading, in which the loop can do something else.
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            tls = {"ssl": self._tls, "server_hostname": target.host}

        def attempt(address: str) -> _Attempt:
            async def connected() -> Connection:
                return (await loop.create_connection(make, address, target.port, **tls))[1]

            return connected

        addresses = await self._resolver.resolve(target.host)
        if not addresses:
            raise OSError(f"{target.host} has no address")
        if len(addresses) == 1:
            return await attempt(addresses[0])()
        return await _first(attempt(address) for address in addresses)

    def close(self) -> None:
        """Look up no more names."""
        self._resolver.close()


async def _first(attempts: Iterable[_Attempt]) -> Connection:
    """Return what the first of the attempts that succeeds has made; raise what the last one raised."""
    left = deque(attempts)
    running: set[asyncio.Task[Connection | OSError]] = set()
    first: Connection | None = None
    problem = OSError()
    try:
        while first is None and (left or running):
            if left:
                running.add(asyncio.get_running_loop().create_task(_outcome(left.popleft())))
            done, running = await asyncio.wait(
                running, timeout=STAGGER_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                outcome = task.result()
                if isinstance(outcome, OSError):
                    problem = outcome
                elif first is None:
                    first = outcome
                else:
                    outcome.abort()
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_abort)
    if first is None:
        raise problem
    return first


async def _outcome(attempt: _Attempt) -> Connection | OSError:
    try:
        return await attempt()
    except OSError as error:
        return error


def _abort(task: asyncio.Task[Connection | OSError]) -> None:
    """Close a connection that was made after all, when nobody wanted it any more."""
    if not task.cancelled() and isinstance(outcome := task.result(), Connection):
        outcome.abort()
