"""Servers that answer byte for byte what a story says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from statefun_ray.io.remote.target import Target, target_of
from statefun_ray.module.model import Endpoint, OkHttpTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"


def ok(body: bytes, headers: bytes = b"") -> bytes:
    """Return a success with this body."""
    return OK + headers + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def target_at(url: str) -> Target:
    """Return where requests to a URL go, whatever transport it takes."""
    return target_of(Endpoint("ns/*", url, transport=OkHttpTransport()), "ns/f")


class Server:
    """What is listened to, and what it has heard."""

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self.url = ""
        self.target: Target

    async def hear(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the next request, None when there is none any more."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            request = head + await reader.readexactly(int(length or 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.requests.append(request)
        return request

    @property
    def lines(self) -> list[str]:
        """The first lines of the requests, without the version."""
        return [request.partition(b" HTTP/1.1")[0].decode() for request in self.requests]


@asynccontextmanager
async def served(
    *answers: bytes,
    then_close: bool = False,
    pause_s: float = 0,
    wait_s: float = 0,
    tls: ssl.SSLContext | None = None,
    socket: Path | None = None,
) -> AsyncIterator[Server]:
    """Answer the requests of all connections with ``answers``, the last one again and again.

    Args:
        answers: byte for byte.
        then_close: after one of them.
        pause_s: between pieces of seven bytes.
        wait_s: before each answer.
        tls: to be spoken.
        socket: path of one to listen to, instead of a port.
    """
    server = Server()
    left = list(answers)
    writers: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.open += 1
        writers.add(writer)
        while await server.hear(reader) is not None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            await asyncio.sleep(wait_s)
            for piece in [answer[at : at + 7] for at in range(0, len(answer), 7)] if pause_s else [answer]:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            if then_close:
                break
        server.open -= 1
        writer.close()

    listening: asyncio.Server
    if socket is not None:
        listening = await asyncio.start_unix_server(talk, socket)
        server.url = f"http+unix://{socket}"
    else:
        listening = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    server.target = target_at(f"{server.url}/fn?x=1")
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)
