"""Looks up host names for one client, each in one thread at a time.

A look-up cannot be given up, only no longer be waited for. So those who ask for a name while it is
being looked up wait for the same answer: a name whose look-up hangs keeps one thread busy, and not
one for every attempt until others have none left.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

THREADS_MAX: Final = 16
"""Names of one endpoint whose look-ups may hang before others wait: mostly it has just one."""


class Resolver:
    """Host names to addresses."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS_MAX, "names")
        self._running: dict[str, asyncio.Future[list[Any]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """Return the addresses of a host, in the order in which to try them.

        Raises:
            OSError: there is no such name, or nobody to ask.
            UnicodeError: it can be no name.
        """
        if _is_numeric(host):
            return [host]
        return [_numeric(address) for *_, address in await asyncio.shield(self._look_up(host))]

    def _look_up(self, host: str) -> asyncio.Future[list[Any]]:
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = asyncio.get_running_loop().run_in_executor(
                self._threads, partial(socket.getaddrinfo, host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM)
            )
            running.add_done_callback(lambda done: self._ended(host, done))
        return running

    def _ended(self, host: str, done: asyncio.Future[list[Any]]) -> None:
        del self._running[host]
        if not done.cancelled():
            done.exception()  # perhaps nobody waits for it any more

    def close(self) -> None:
        """Look up nothing more; what hangs is left alone."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _numeric(address: tuple[Any, ...]) -> str:
    """Return the host of a socket's address; a link-local one of IPv6 is nothing without its interface."""
    host = str(address[0])
    scope = address[3] if len(address) > 3 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
