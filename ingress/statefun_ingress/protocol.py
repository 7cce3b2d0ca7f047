"""uvicorn's HTTP protocol with the limits it lacks: size and time of headers, time of bodies.

ASGI sees a request only when its headers are complete, so a client that sends them one byte
at a time is invisible to the application. Deadlines are kept as plain numbers that one
sweep compares (``expire``): a timer per request would cost more than the request.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from statefun_ingress.config import IngressConfig
from statefun_ingress.errors import RequestRefused
from statefun_ingress.problems import raw_problem

_NEVER = math.inf
_IDLE, _HEADERS, _BODY = range(3)


class _Cork:
    """A transport that joins the first two writes of one turn of the loop.

    uvicorn writes the head and the body of an answer apart, and each write is a system
    call: a fifth of what a small request costs.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection; subclassed with the limits by ``bounded_protocol``."""

    limits: IngressConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = _NEVER  # on the loop's clock
        self._phase = _IDLE
        self._header_bytes = 0  # received since the read in which the headers began
        self._refused: RequestRefused | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.limits.header_timeout_s
        if len(self.connections) > self.limits.connections_max:
            transport.write(
                raw_problem(
                    RequestRefused(
                        503,
                        "Too many connections",
                        f"{self.limits.connections_max} connections are open, which is the limit; retry later",
                        1,
                    )
                )
            )
            transport.close()

    def data_received(self, data: bytes) -> None:
        began_in_headers = self._phase == _HEADERS
        super().data_received(data)
        if began_in_headers and self._phase == _HEADERS:
            # The parser hands a header on once it is complete; one that never ends would
            # gather inside it unseen.
            self._header_bytes += len(data)
            if self._header_bytes > self.limits.header_bytes_max:
                self._give_up(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _HEADERS
        self._deadline = self.loop.time() + self.limits.header_timeout_s

    def on_headers_complete(self) -> None:
        self._phase = _BODY
        self._header_bytes = 0
        self._deadline = self.loop.time() + self.limits.body_timeout_s
        size = len(self.url)
        framings = 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name in (b"transfer-encoding", b"content-length"):
                framings += 1
        if size > self.limits.header_bytes_max:
            self._refuse(self._too_large())
        if framings > 1:
            # Two ways to tell where the body ends: a proxy may have picked the other one.
            self._refuse(
                RequestRefused(
                    400,
                    "The end of the body is ambiguous",
                    "more than one Content-Length or Transfer-Encoding header; send exactly one",
                )
            )
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = cast("asyncio.Transport", _Cork(self.transport, self.loop))
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._deadline = _NEVER
        self._phase = _IDLE
        super().on_message_complete()

    def _refuse(self, refused: RequestRefused) -> None:
        """Leave the parser; ``send_400_response`` is called for it then."""
        self._refused = refused
        raise ValueError(refused.detail)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser, or one of our limits, did not take."""
        refused = self._refused or RequestRefused(
            400,
            "The request is not HTTP",
            "it cannot be parsed as HTTP/1.1; check the client or the proxy before us",
        )
        self._give_up(refused)

    def expire(self, now: float) -> None:
        """Close the connection if its deadline has passed."""
        if now < self._deadline:
            return
        if self._phase != _BODY:
            found = f"the headers were not complete after {self.limits.header_timeout_s:g} s"
        else:
            found = f"the body was not complete {self.limits.body_timeout_s:g} s after the headers"
        self._give_up(RequestRefused(408, "The request took too long", f"{found}; send it again"))

    def _too_large(self) -> RequestRefused:
        return RequestRefused(
            431,
            "The headers are too large",
            f"the request line and headers take more than {self.limits.header_bytes_max} bytes",
        )

    def _give_up(self, refused: RequestRefused) -> None:
        self._deadline = _NEVER
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(raw_problem(refused))
        self.transport.close()


def bounded_protocol(limits: IngressConfig) -> type[BoundedProtocol]:
    """Return the protocol class for uvicorn, with the limits of one ingress."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
