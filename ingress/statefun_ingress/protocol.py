"""uvicorn's HTTP protocol with the limits it lacks: size and time of headers, time of bodies.

ASGI sees a request only when its headers are complete, so a client that sends them one byte
at a time is invisible to the application. Deadlines are kept as plain numbers that one
sweep compares (``expire``): a timer per request would cost more than the request.

ASGI itself costs more than taking an event: a task, an event, a scope and two sends per
request. So a request for one event that is as simple as most are goes to ``HotRoutes.take``
directly; whatever is unusual about it sends it on the way of all others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from httptools import HttpParserInvalidMethodError
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from statefun_ingress.asgi import FUNCTIONS_PREFIX, HotRoutes
from statefun_ingress.config import HEADER, IngressConfig, how_to_raise
from statefun_ingress.errors import RequestRefused
from statefun_ingress.problems import Headers, raw_problem, status_header

logger = logging.getLogger(__name__)

URL_BYTES_MAX: Final = 65_535
"""The parser of URLs refuses longer ones as none."""

_NEVER = math.inf
_IDLE, _HEADERS, _BODY, _KEPT = range(4)

_DIRECT_PREFIX: Final = FUNCTIONS_PREFIX.encode()
_NOT_DIRECT: Final = frozenset((b"prefer", b"expect", b"upgrade", b"transfer-encoding"))
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


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


class _DirectCycle:
    """Stands where uvicorn keeps the request under way, for one that ASGI does not see.

    uvicorn gathers the body in it, queues pipelined requests until ``response_complete``, and
    takes ``keep_alive`` away when it shuts down.
    """

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "raw_path",
        "response_complete",
        "response_started",
    )
    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self, raw_path: bytes, headers: dict[bytes, bytes]) -> None:
        self.raw_path = raw_path
        self.headers = headers
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection; subclassed with the limits by ``bounded_protocol``."""

    limits: IngressConfig
    says_status = False
    """Whether refusals have the playground's header of that name, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = _NEVER  # on the loop's clock
        self._phase = _IDLE
        self._header_bytes = 0  # received since the read in which the headers began
        self._refused: RequestRefused | None = None
        self._direct: HotRoutes | None = getattr(self.app, "direct", None)
        self._direct_bytes_max = min(HIGH_WATER_LIMIT, self.limits.body_bytes_max)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.limits.header_timeout_s
        if len(self.connections) > self.limits.connections_max:
            transport.write(
                self._problem(
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
        if len(self.url) > URL_BYTES_MAX:
            self._refuse(
                RequestRefused(
                    414,
                    "The URL is too long",
                    f"it has {len(self.url)} bytes, at most {URL_BYTES_MAX} can be parsed; send an event with a long id "
                    "as a line of POST /v1/events",
                )
            )
        if framings > 1:
            # Two ways to tell where the body ends: a proxy may have picked the other one.
            self._refuse(
                RequestRefused(
                    400,
                    "The end of the body is ambiguous",
                    "more than one Content-Length or Transfer-Encoding header; send exactly one",
                )
            )
        cycle = self._direct_cycle()
        if cycle is not None:
            self.cycle = cast("RequestResponseCycle", cycle)
        else:
            super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = cast("asyncio.Transport", _Cork(self.transport, self.loop))
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._deadline = _NEVER
        self._phase = _IDLE
        cycle: object = self.cycle
        if isinstance(cycle, _DirectCycle):
            self._take(cycle)
        else:
            super().on_message_complete()

    # --- one event, past ASGI ----------------------------------------------------------

    def _direct_cycle(self) -> _DirectCycle | None:
        """Return the cycle of a request for ``HotRoutes.take``, once its headers are complete."""
        url = self.url
        if self._direct is None or not url.startswith(_DIRECT_PREFIX):
            return None
        under_way: RequestResponseCycle | None = self.cycle
        if under_way is not None and not under_way.response_complete:
            return None  # pipelined: it waits for its turn
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        parser = self.parser
        if (
            headers.keys().isdisjoint(_NOT_DIRECT)
            and 0 < len(length) < 10
            and int(length) <= self._direct_bytes_max
            and parser.get_method() in (b"PUT", b"POST")
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and url.isascii()
            and b"?" not in url
            and b"#" not in url
            and not self.flow.write_paused
        ):
            return _DirectCycle(url, headers)
        return None

    def _take(self, cycle: _DirectCycle) -> None:
        assert self._direct is not None
        cycle.more_body = False
        try:
            self._direct.take(cycle.raw_path, cycle.headers, cycle.body, partial(self._respond, cycle))
        except Exception:
            # As uvicorn does with what an application raises.
            logger.exception("request failed path=%s", cycle.raw_path)
            if not cycle.response_started:
                cycle.keep_alive = False
                self._respond(cycle, 500, [(b"content-length", b"0")], b"")

    def _respond(self, cycle: _DirectCycle, status: int, headers: Headers, body: bytes) -> None:
        cycle.response_started = cycle.response_complete = True
        transport = self.transport
        if transport.is_closing():
            return
        parts = [_STATUS_LINES[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        transport.write(b"".join(parts))
        if not cycle.keep_alive:
            transport.close()
        elif self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            if self._phase == _IDLE:
                self._phase = _KEPT
                self._deadline = self.loop.time() + self.limits.keep_alive_s

    # --- refusing ----------------------------------------------------------------------

    def _refuse(self, refused: RequestRefused) -> None:
        """Leave the parser; ``send_400_response`` is called for it then."""
        self._refused = refused
        raise ValueError(refused.detail)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser, or one of our limits, did not take."""
        self._give_up(self._refused or _unparsable(sys.exception()))

    def expire(self, now: float) -> None:
        """Close the connection if its deadline has passed."""
        if now < self._deadline:
            return
        if self._phase == _KEPT:
            self._deadline = _NEVER
            self.transport.close()
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
            f"the request line and headers take more than {self.limits.header_bytes_max} bytes; send an event with a "
            f"long id as a line of POST /v1/events, or {how_to_raise(HEADER)}",
        )

    def _give_up(self, refused: RequestRefused) -> None:
        self._deadline = _NEVER
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(self._problem(refused))
        self.transport.close()

    def _problem(self, refused: RequestRefused) -> bytes:
        return raw_problem(refused, *([status_header(refused.status)] if self.says_status else []))


def _unparsable(error: BaseException | None) -> RequestRefused:
    if isinstance(error, HttpParserInvalidMethodError):
        # All the parser says is that it does not know the first word: that of another protocol, or a
        # method that somebody has made up, which is HTTP and cannot be taken all the same.
        return RequestRefused(
            400,
            "The request cannot be read",
            "it cannot be parsed as HTTP/1.1: it does not begin with a method that is known here, such as GET, PUT or "
            "POST; use one of these, or check the client or the proxy before us",
        )
    return RequestRefused(
        400,
        "The request is not HTTP",
        "it cannot be parsed as HTTP/1.1; check the client or the proxy before us",
    )


def bounded_protocol(limits: IngressConfig, *, says_status: bool = False) -> type[BoundedProtocol]:
    """Return the protocol class for uvicorn, with the limits of one ingress."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits, "says_status": says_status})
