"""Services of functions for tests: real HTTP servers on threads of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from statefun_sdk import RequestReplyHandler, StatefulFunctions, batches
from statefun_sdk.asgi import AsgiApp, asgi_app
from statefun_sdk.protocol import FromFunction, ToFunction
from tests.ports import free_port

OCTETS = "application/octet-stream"

Answer = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[ToFunction, bytes], Awaitable[Answer | None]]
"""What to answer to a request, decoded and as it came; None for what the functions say."""


class Service:
    """One service; it can be stopped and started again at the same port."""

    def __init__(
        self,
        functions: StatefulFunctions,
        *,
        speaks_batches: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._certificate = certificate
        """Files with a certificate and its key, if it speaks TLS."""
        self.handler = RequestReplyHandler(functions)
        self.requests: list[ToFunction] = []
        self.headers: list[dict[str, str]] = []
        self.behaviour: Behaviour | None = None
        self.speaks_batches = speaks_batches
        """Whether it takes many requests in one; older services, and those of other SDKs, do not."""
        self.upstream = ""
        """The URL of a service that answers instead of the functions. What comes and goes is passed on as it
        is, so this is a window on a service of another SDK, in which requests can be seen and held up."""
        self.joined: list[str] = []
        """The ids of requests that came in one with others."""
        self.batch_answer: bytes | None = None
        """What it answers to many requests in one, instead of what the functions say."""
        self._plain: AsgiApp = asgi_app(self.handler)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def deploy(self, functions: StatefulFunctions) -> None:
        """Let these functions answer from now on, as after an upgrade."""
        self.handler = RequestReplyHandler(functions)
        self._plain = asgi_app(self.handler)

    def start(self) -> None:
        """Listen, and return when it does."""
        certificate, key = self._certificate or (None, None)
        config = uvicorn.Config(
            self._app,
            host="127.0.0.1",
            port=self.port,
            log_level="error",
            lifespan="off",
            interface="asgi3",
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        self._thread.start()
        started = threading.Event()
        while not server.started:
            assert self._thread.is_alive(), "the service did not start"
            started.wait(0.005)

    def stop(self) -> None:
        """Stop listening and cut what is open."""
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.headers.append(headers)
        if headers["content-type"] == batches.CONTENT_TYPE:
            await self._take_batch(scope, body, send)
            return
        if not self.speaks_batches:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != batches.HEADER.encode()]
        request = ToFunction.FromString(body)
        self.requests.append(request)
        answer = await self.behaviour(request, body) if self.behaviour is not None else None
        if answer is None and self.upstream:
            answer = await forwarded(self.upstream, body)
        if answer is None:
            await self._plain(scope, _replay(body), send)
        else:
            await _answer(send, *answer)

    async def _take_batch(self, scope: Any, body: bytes, send: Any) -> None:
        if not self.speaks_batches:
            await _answer(send, 415, {"content-type": "text/plain"}, b"what is this?")
            return
        if self.batch_answer is not None:
            await _answer(send, 200, {"content-type": batches.CONTENT_TYPE}, self.batch_answer)
            return
        for each in batches.split_requests(body):
            request = ToFunction.FromString(each)
            self.requests.append(request)
            self.joined.append(request.invocation.target.id)
            if self.behaviour is not None:
                await self.behaviour(
                    request, each
                )  # it may take its time; what it answers is for single ones
        await self._plain(scope, _replay(body), send)


async def forwarded(url: str, body: bytes) -> Answer:
    """Return what the service at ``url`` answers to a request."""
    async with aiohttp.request("POST", url, data=body, headers={"content-type": OCTETS}) as answer:
        headers = {"content-type": answer.headers["content-type"]} if "content-type" in answer.headers else {}
        return answer.status, headers, await answer.read()


def _replay(body: bytes) -> Callable[[], Awaitable[Any]]:
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return events.pop() if events else {"type": "http.disconnect"}

    return receive


async def _answer(send: Any, status: int, headers: dict[str, str], content: bytes) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def window(url: str) -> Iterator[Service]:
    """Run a service whose answers are those of the service at ``url``, until the context ends."""
    with serving(StatefulFunctions()) as service:
        service.upstream = url
        yield service


@contextmanager
def serving(
    functions: StatefulFunctions,
    *,
    speaks_batches: bool = False,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Service]:
    """Run a service until the context ends."""
    service = Service(functions, speaks_batches=speaks_batches, certificate=certificate)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def result(answer: FromFunction) -> Answer:
    """Return an answer as a service sends it."""
    return 200, {"content-type": OCTETS}, answer.SerializeToString()
