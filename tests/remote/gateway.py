"""A service behind a gateway that treats one address otherwise than all others, byte for byte as a test says."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from statefun_sdk import RequestReplyHandler, StatefulFunctions
from statefun_sdk.protocol import ToFunction

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What is written instead of an answer; the connection is closed at its end."""


class Gateway:
    """What is listened to, and what it has seen."""

    def __init__(
        self, functions: StatefulFunctions, talk: Talk | None, id: str, pause_s: float, times: int
    ) -> None:
        self._handler = RequestReplyHandler(functions)
        self._talk = talk
        self._id = id
        self._pause_s = pause_s
        self._times = times
        self.port = 0
        self.requests: list[str] = []
        """The ids asked for, in order."""
        self.at_once: list[int] = []
        """How many requests were open when each of them came, itself included."""
        self.answered: list[int] = []
        """How many had been answered by then."""
        self._open = 0
        self._loop: asyncio.AbstractEventLoop
        self._is_over: asyncio.Event

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def listen(self, tls: ssl.SSLContext | None, is_listening: threading.Event) -> None:
        """Serve until `stop`, in a loop of its own."""
        self._loop, self._is_over = asyncio.get_running_loop(), asyncio.Event()
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = listening.sockets[0].getsockname()[1]
        is_listening.set()
        await self._is_over.wait()
        listening.close()

    def heal(self) -> None:
        """Treat everybody alike from now on. Any thread may ask."""
        self._times = 0

    def stop(self) -> None:
        """Listen no more; the end of the loop cancels what is being served. Any thread may ask."""
        self._loop.call_soon_threadsafe(self._is_over.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client may go at any time, as it does when it has waited for long enough
        except asyncio.CancelledError:
            pass  # the end of the loop; Python 3.11 complains of servers that are cancelled
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            id = ToFunction.FromString(body).invocation.target.id
            self.requests.append(id)
            if self._talk is not None and id == self._id and self._times:
                self._times -= 1
                await self._talk(writer)
                return
            self._open += 1
            self.at_once.append(self._open)
            self.answered.append(len(self.at_once) - self._open)
            await asyncio.sleep(self._pause_s)
            answer = await self._handler.handle_async(body)
            self._open -= 1
            writer.write(HEAD + b"content-length: %d\r\n\r\n%b" % (len(answer), answer))
            await writer.drain()


@contextmanager
def gateway(
    functions: StatefulFunctions,
    talk: Talk | None = None,
    *,
    id: str = "poison",
    times: int = 1_000_000,
    pause_s: float = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Gateway]:
    """Serve functions until the context ends, and ``talk`` to whoever asks for ``id``.

    Args:
        times: so often, and then no more.
        pause_s: before every answer.
        tls: to be spoken, if any.
    """
    service = Gateway(functions, talk, id, pause_s, times)
    is_listening = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(service.listen(tls, is_listening)), name="gateway", daemon=True
    )
    thread.start()
    assert is_listening.wait(10), "the gateway did not start"
    try:
        yield service
    finally:
        service.stop()
        thread.join(10)
