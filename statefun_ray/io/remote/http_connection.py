"""One HTTP/1.1 connection: a request, its answer, and again.

Parsing is httptools'; of its callbacks the connection has those it needs. An answer whose head is
the same, byte for byte, as that of an earlier one with its whole body behind it, is not parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, cast

import httptools

from statefun_ray.io.remote.manners import Manners
from statefun_ray.io.remote.target import Target
from statefun_sdk import batches

HEAD_BYTES_MAX: Final = 65_536
"""Of an answer; the parser itself would take any number."""

_BATCH_HEADER: Final = batches.HEADER.encode()


class Head(NamedTuple):
    """What the head of an answer says."""

    status: int
    content_type: str
    retry_after: str
    encoding: str
    location: str
    offers_batches: bool
    length: int
    """Of the body; -1 if the head does not say."""


class Exchange(Protocol):
    """One HTTP request, and who wants to know its end."""

    target: Target
    content_type: str
    """Of the request, and of a success."""
    head: bytes
    """Of the request, up to where the length of its body follows."""
    wait_s: float
    """For its answer; 0 for as long as the transport says."""
    sent_s: float
    """When it was sent, by the clock of the loop."""
    until_s: float
    """When its time is over, whatever it waits for then; infinite until something says so."""
    redirects: int
    """That it has followed."""

    @property
    def body(self) -> bytes | None:
        """Of the request; None for one without, whose head is all of it."""

    def answered(self, body: bytes, offers_batches: bool) -> None:
        """The service has answered with a success."""

    def failed(self, error: Exception) -> None:
        """See `request.Request.failed`."""


class Owner(Protocol):
    """What a connection tells, and to whom it owes what it knows of heads."""

    def complete(self, connection: Connection, exchange: Exchange, head: Head, body: bytes) -> None:
        """The answer is there; the connection is free, if `Connection.is_reusable`."""

    def broke(self, exchange: Exchange, reason: str, *, was_kept: bool) -> None:
        """The connection ended before an answer began; whether it had answered before."""

    def failed(self, exchange: Exchange, reason: str) -> None:
        """What came is no answer, or not all of one."""

    def too_large(self, exchange: Exchange) -> None:
        """The answer has more bytes than it may."""

    def timed_out(self, exchange: Exchange, reason: str) -> None:
        """One of the clocks of the transport has run out."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""

    def known(self, head: bytes) -> Head | None:
        """Return what an answer with this head says, if one had it before."""

    def remember(self, head: bytes, meaning: Head) -> None:
        """An answer with this head, and nothing but its body behind it, was understood."""


class Connection(asyncio.Protocol):
    """One connection; of httptools' callbacks it has those it needs."""

    def __init__(self, owner: Owner, manners: Manners) -> None:
        self._owner = owner
        self._manners = manners
        self._bytes_max = manners.answer_bytes_max
        self._read_s, self._write_s = manners.read_ms / 1000, manners.write_ms / 1000
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self._until_s = self._deadline_s = 0.0
        self._unsent = 0
        """Bytes of a large request that the service had not taken when that was last looked at."""
        self.fresh_until_s = 0.0
        self.is_open = False
        self.is_reusable = False
        self._was_used = False
        self._reset()

    def _reset(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._has_begun = self._has_head = self._has_end = self._is_complete = self._has_excess = False
        self._is_too_large = self._keeps_alive = False
        self._head_size = 0
        self._status = 0
        self._length = -1
        self._content_type = self._retry_after = self._encoding = self._location = ""
        self._offers_batches = False

    # --- what the client does -------------------------------------------------------------

    def send(self, exchange: Exchange, now_s: float, until_s: float) -> None:
        """Send a request that has to be answered at ``until_s``; the client is told of its end."""
        transport, body = self._transport, exchange.body
        assert transport is not None, "the client has connected"
        self.exchange, self._until_s = exchange, until_s
        self._deadline_s = min(until_s, now_s + self._read_s) if self._read_s else until_s
        if body is None:
            transport.write(exchange.head)
        elif len(body) < 65_536:
            transport.write(b"%b%d\r\n\r\n%b" % (exchange.head, len(body), body))
        else:
            transport.write(b"%b%d\r\n\r\n" % (exchange.head, len(body)))
            transport.write(body)
            self._expect(now_s, len(body))

    def _expect(self, now_s: float, unsent: int) -> None:
        """Begin to wait anew: for so much of a request to be taken, or for the next piece of its answer."""
        self._unsent = unsent
        wait_s = self._write_s if unsent else self._read_s
        if wait_s:
            self._deadline_s = min(self._until_s, now_s + wait_s)

    def check_time(self, now_s: float) -> None:
        """Give up if what is waited for takes too long."""
        if self._unsent:
            assert self._transport is not None, "something was sent"
            unsent = self._transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._expect(now_s, unsent)
        if now_s < self._deadline_s:
            return
        manners = self._manners
        if self._deadline_s == self._until_s:
            reason = f"did not answer within {manners.call_ms} ms"
        elif self._unsent:
            reason = (
                f"took nothing of a request for {manners.write_ms} ms, the write time-out of its transport"
            )
        else:
            reason = f"sent nothing for {manners.read_ms} ms, the read time-out of its transport"
        self._end(lambda exchange: self._owner.timed_out(exchange, reason))

    def abort(self) -> None:
        """Close at once; whoever waits for an answer is not told."""
        self.is_open = self.is_reusable = False
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    def _end(self, tell: Callable[[Exchange], None]) -> None:
        """Close, and tell why the exchange failed."""
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            tell(exchange)

    # --- asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes, only behave as they do.
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.abort()  # nobody has asked
            return
        end = -1
        if not self._has_begun:
            end = data.find(b"\r\n\r\n")
            known = self._owner.known(data[:end])
            if known is not None and len(data) == end + 4 + known.length:
                self._finish(exchange, known, data[end + 4 :])
                return
        if self._read_s:
            self._expect(asyncio.get_running_loop().time(), self._unsent)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            reason = f"no answer that is HTTP: {error}"
            self._end(lambda exchange: self._owner.failed(exchange, reason))
            return
        if self._is_too_large:
            self._end(self._owner.too_large)
        elif self._is_complete:
            head = self._head()
            is_reusable = self._keeps_alive and not self._has_excess
            if is_reusable and len(data) == end + 4 + self._length and head.length <= self._bytes_max:
                self._owner.remember(data[:end], head)
            self._finish(exchange, head, self._body(), is_reusable=is_reusable)
        elif not self._has_head:
            self._head_size += len(data)
            if self._head_size > HEAD_BYTES_MAX:
                reason = f"the head of its answer is longer than {HEAD_BYTES_MAX} bytes"
                self._end(lambda exchange: self._owner.failed(exchange, reason))

    def _finish(self, exchange: Exchange, head: Head, body: bytes, *, is_reusable: bool = True) -> None:
        self.exchange = None
        self.is_reusable = is_reusable and self.is_open
        self._was_used = True
        if self._has_begun:
            self._reset()
        self._owner.complete(self, exchange, head, body)

    def _head(self) -> Head:
        return Head(
            self._status,
            self._content_type,
            self._retry_after,
            self._encoding,
            self._location,
            self._offers_batches,
            self._length,
        )

    def _body(self) -> bytes:
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def eof_received(self) -> None:
        # Without a length or chunks, the end of the connection is the end of the answer.
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = self.is_reusable = False
        self._owner.closed(self)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if not self._has_begun:
            reason = str(error) if error else "it was closed"
            self._owner.broke(exchange, reason, was_kept=self._was_used)
        elif not self._status or self._has_end:
            self._owner.failed(exchange, f"the answer broke off after {self._size} bytes of its body")
        else:
            self._owner.complete(self, exchange, self._head(), self._body())

    # --- httptools: what comes behind the answer is excess, and changes nothing of it ---------

    def on_message_begin(self) -> None:
        if self._has_begun:
            # Behind an interim answer, or more than was asked for.
            self._has_excess = self._is_complete
            return
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_excess:
            return
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.decode("latin-1")
        elif name == b"retry-after":
            self._retry_after = value.decode("latin-1")
        elif name == _BATCH_HEADER:
            self._offers_batches = value == batches.VERSION.encode()
        elif name == b"content-encoding":
            self._encoding = value.decode("latin-1")
        elif name == b"content-length":
            self._has_end = True  # told by the answer itself, not by the end of the connection
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._has_end = True
        elif name == b"location":
            self._location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self._has_excess:
            self._has_head = True
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._has_excess:
            return
        self._size += len(body)
        self._is_too_large = self._is_too_large or self._size > self._bytes_max
        if not self._is_too_large:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        # An interim answer, such as 100, is followed by the real one.
        if self._status >= 200 and not self._is_complete:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive()
