"""The hot routes as bare ASGI: one event, and events in bulk.

FastAPI's own routing, validation and response classes would cost three quarters of the
throughput here, so these two routes take the request as uvicorn hands it over. Everything
a client can do wrong ends in one ``RequestRefused``, answered as problem+json.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from statefun_ingress.bulk import BulkParser, check_id
from statefun_ingress.config import BODY, BULK, IngressConfig, how_to_raise
from statefun_ingress.core import IngressCore
from statefun_ingress.errors import LogFailed, ProducerError, RequestRefused, TooManyPendingReplies
from statefun_ingress.pending import ReplyValue
from statefun_ingress.problems import Headers, problem_body, problem_headers, refusal_of
from statefun_ingress.producers import Answer
from statefun_ingress.record import NO_PRODUCER, Events, encode_chunk
from statefun_ingress.registry import Registry, Target
from statefun_ingress.values import BUILT_INS, STRING, encode_string, json_text, to_json

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Respond = Callable[[int, Headers, bytes], None]

FUNCTIONS_PREFIX: Final = "/v1/functions/"
EVENTS_PATH: Final = "/v1/events"
PRODUCER_ID_CHARS_MAX: Final = 128

_PREFIX_BYTES: Final = len(FUNCTIONS_PREFIX)
_VENDOR: Final = b"application/vnd."
_NDJSON: Final = frozenset((b"application/x-ndjson", b"application/ndjson", b"application/jsonl"))
_WANTED: Final = frozenset(
    (b"content-type", b"content-length", b"prefer", b"producer-id", b"producer-sequence")
)
_JSON_TYPE: Final = (b"content-type", b"application/json")
_LINGER_S: Final = 2.0  # how long a refused client may go on sending what nobody reads
_CONTENT_TYPES_MAX: Final = 256
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")

_NO_REPLY: Final = "a reply is a message to context.caller; status names functions that fail"
_STOPPED: Final = "the ingress stopped before a reply came"
_REPEATED: Final = (
    "the request was accepted before under this Producer-Sequence, and its reply is not awaited any more"
)

_KIND_JSON, _KIND_TEXT, _KIND_RAW = "json", "text", "raw"


class Host(Protocol):
    """What the routes need of the service around them."""

    config: IngressConfig
    core: IngressCore
    registry: Registry
    unread: UnreadBodies

    def admit(self) -> None:
        """Raise RequestRefused (429 or 503) if nothing may be accepted now."""
        ...

    def appended(self) -> None:
        """Note that something was appended and wants to become durable."""
        ...

    def now_ms(self) -> int:
        """Return milliseconds on a steady clock, for deadlines."""
        ...

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, for people."""
        ...


class UnreadBodies:
    """The bodies of all requests that have begun to arrive and are not answered; they share their memory.

    Args:
        bytes_max: of all together.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count what has arrived, to be subtracted from `size_bytes` again; or refuse it (429)."""
        self.size_bytes += size_bytes
        if self.size_bytes > self._bytes_max:
            raise RequestRefused(
                429,
                "Too many large requests at once",
                f"{self.size_bytes} bytes of bodies are being read or wait, at most {self._bytes_max} may; "
                "retry, or send smaller ones",
                1,
            )


class HotRoutes:
    """``/v1/functions/{namespace}/{type}/{id}`` and ``/v1/events``.

    Args:
        host: the service.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._core = host.core
        self._targets = {name.encode(): target for name, target in host.registry.targets.items()}
        self._content_types: dict[bytes, tuple[str, str]] = {}
        self._log_id = host.core.log.log_id.encode()
        self._body_bytes_max = host.config.body_bytes_max
        self._id_bytes_max = host.config.id_bytes_max

    @staticmethod
    def matches(path: str) -> bool:
        """Return whether a path is one of ours."""
        return path.startswith(FUNCTIONS_PREFIX) or path == EVENTS_PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = RequestBody(receive, self._host.unread)
        try:
            method = scope["method"]
            if method not in ("PUT", "POST"):
                raise RequestRefused(405, "The method is not allowed", f"{method} is not, use POST (or PUT)")
            headers = {name: value for name, value in scope["headers"] if name in _WANTED}
            if scope["path"] == EVENTS_PATH:
                status, answer_headers, answer = await self._take_bulk(headers, body)
            else:
                status, answer_headers, answer = await self._take_one(scope, headers, body)
        except Disconnected:
            return
        except RequestRefused as refused:
            await refuse(refused, body, send)
            return
        except (LogFailed, ProducerError, TooManyPendingReplies) as error:
            await refuse(refusal_of(error), body, send)
            return
        finally:
            body.release()
        answer_headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": status, "headers": answer_headers})
        await send({"type": "http.response.body", "body": answer})

    # --- one event ---------------------------------------------------------------------

    async def _take_one(
        self, scope: Scope, headers: dict[bytes, bytes], body: RequestBody
    ) -> tuple[int, Headers, bytes]:
        data = await body.read(headers.get(b"content-length"), self._body_bytes_max)
        target, id, value_type, value, producer_id, sequence = self._read(scope["raw_path"], headers, data)
        prefer = headers.get(b"prefer")
        wait_s = min(_wait_of(prefer), self._host.config.wait_s_max) if prefer is not None else 0.0
        if wait_s > 0:
            return await self._ask(target, id, value_type, value, producer_id, sequence, wait_s)
        events = Events.of_one(target.typename, id, "", "", value_type, value)
        answer = await self.accept([(events, encode_chunk(events))], producer_id, sequence)
        return 202, [_JSON_TYPE], self._accepted(answer)

    async def accept(
        self,
        parts: list[tuple[Events, bytes]],
        producer_id: str,
        sequence: int,
        request_id: str = "",
    ) -> Answer:
        """Append one request's events, and return when the record is durable.

        Raises:
            RequestRefused: 503, the log failed before it could be told.
            LogFailed: the log takes nothing more.
            ProducerError: the sequence cannot be taken.
        """
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        answer = self._core.accept(
            parts,
            partial(_settle, future),
            received_at_ms=self._host.wall_ms(),
            producer_id=producer_id,
            producer_sequence=sequence,
            request_id=request_id,
        )
        if answer is None:
            self._host.appended()
            answer = await future
        if answer is None:
            raise self._unknown_fate()
        return answer

    def take(self, raw_path: bytes, headers: dict[bytes, bytes], data: bytes, respond: Respond) -> None:
        """Take one event of a complete request that asks for no reply, without a task or ASGI.

        Args:
            raw_path: of the URL, still percent-encoded, below ``FUNCTIONS_PREFIX``.
            headers: names in lower case.
            data: the whole body, at most ``body_bytes_max``.
            respond: called once, with status, headers and body: when the event is durable, or
                before this returns.
        """
        try:
            target, id, value_type, value, producer_id, sequence = self._read(raw_path, headers, data)
            events = Events.of_one(target.typename, id, "", "", value_type, value)
            answer = self._core.accept(
                [(events, encode_chunk(events))],
                partial(self._respond, respond),
                received_at_ms=self._host.wall_ms(),
                producer_id=producer_id,
                producer_sequence=sequence,
            )
        except RequestRefused as refused:
            _respond_refused(respond, refused)
        except (LogFailed, ProducerError) as error:
            _respond_refused(respond, refusal_of(error))
        else:
            if answer is None:
                self._host.appended()
            else:
                self._respond(respond, answer)

    def _respond(self, respond: Respond, answer: Answer | None) -> None:
        if answer is None:
            _respond_refused(respond, self._unknown_fate())
        else:
            body = self._accepted(answer)
            respond(202, [_JSON_TYPE, (b"content-length", b"%d" % len(body))], body)

    def _unknown_fate(self) -> RequestRefused:
        return RequestRefused(
            503,
            "The event may or may not have been accepted",
            f"{self._core.log.failure}; repeat the request with the same Producer-Id and Producer-Sequence",
            5,
        )

    async def _ask(
        self,
        target: Target,
        id: str,
        value_type: str,
        value: bytes,
        producer_id: str,
        sequence: int,
        wait_s: float,
    ) -> tuple[int, Headers, bytes]:
        """Append an event with a reply address, and wait for the committed reply."""
        future: asyncio.Future[ReplyValue | None] = asyncio.get_running_loop().create_future()
        settle = partial(_settle, future)
        pending = self._core.pending
        deadline_ms = self._host.now_ms() + int(wait_s * 1000)
        request_id = pending.open(settle, deadline_ms)
        try:
            events = Events.of_one(target.typename, id, pending.caller_type, request_id, value_type, value)
            answer = await self.accept([(events, encode_chunk(events))], producer_id, sequence, request_id)
            applied = (b"preference-applied", b"wait=%g" % wait_s)
            if answer.request_id != request_id:
                # A repeated request: its original's reply is its reply, if still awaited.
                pending.discard(request_id)
                if not pending.join(answer.request_id, settle, deadline_ms):
                    return 202, [_JSON_TYPE, applied], self._unanswered(answer, _REPEATED)
            reply = await future
        finally:
            pending.discard(request_id)
        if reply is None:
            # Waiters are given up at their deadline, or all at once when the ingress stops.
            is_over = self._host.now_ms() >= deadline_ms
            why = f"no reply came within {wait_s:g} s ({_NO_REPLY})" if is_over else _STOPPED
            return 202, [_JSON_TYPE, applied], self._unanswered(answer, why)
        content_type, content = self._reply_content(reply)
        return 200, [(b"content-type", content_type), applied], content

    def _accepted(self, answer: Answer) -> bytes:
        sequence = b"%d" % answer.first_seq if answer.first_seq >= 0 else b"null"
        return b'{"accepted":%d,"log":"%s","sequence":%s}' % (answer.event_count, self._log_id, sequence)

    def _unanswered(self, answer: Answer, why: str) -> bytes:
        """Return what a request that waits is told when there is no reply for it."""
        detail = f"{why}; the event is durable and will be applied exactly once: do not send it again"
        return self._accepted(answer)[:-1] + b',"reply":null,"detail":%s}' % msgspec.json.encode(detail)

    def _reply_content(self, reply: ReplyValue) -> tuple[bytes, bytes]:
        typename, value = reply
        if value is not None:
            is_json = self._host.registry.is_json_type(typename)
            if typename == STRING:
                text = to_json(typename, value, is_json=False)
                if text is not None:
                    # The payload is what follows the tag and the length.
                    return b"text/plain; charset=utf-8", _string_payload(value)
            elif is_json or typename in BUILT_INS:
                text = to_json(typename, value, is_json=is_json)
                if text is not None:
                    return b"application/json", text
        if not (typename.isascii() and typename.isprintable()):
            return b"application/octet-stream", value or b""
        return _VENDOR + typename.encode(), value or b""

    # --- what a request says -----------------------------------------------------------

    def _read(
        self, raw_path: bytes, headers: dict[bytes, bytes], data: bytes
    ) -> tuple[Target, str, str, bytes, str, int]:
        """Return target, id, typename and value of the event, producer and its sequence; or refuse."""
        self._host.admit()
        target, id = self._address(raw_path)
        value_type, value = self._value(target, headers.get(b"content-type"), data)
        producer_id, sequence = _producer(headers) if b"producer-id" in headers else _no_producer(headers)
        return target, id, value_type, value, producer_id, sequence

    def _address(self, raw_path: bytes) -> tuple[Target, str]:
        name, _, raw_id = raw_path[_PREFIX_BYTES:].rpartition(b"/")
        target = self._targets.get(name)
        if target is None:
            parts = raw_path[_PREFIX_BYTES:].split(b"/")
            if len(parts) != 3:
                raise RequestRefused(
                    404,
                    "There is no such path",
                    f"expected {FUNCTIONS_PREFIX}{{namespace}}/{{type}}/{{id}}, found {len(parts)} parts after the "
                    "prefix; write a slash inside the id as %2F",
                )
            namespace, type = (unquote_part(part, "function name") for part in parts[:2])
            target = self._host.registry.target(f"{namespace}/{type}")
        id = unquote_part(raw_id, "id")
        if not id or len(id) > 256:
            check_id(id, self._id_bytes_max)
        return target, id

    def _value(self, target: Target, content_type: bytes | None, data: bytes) -> tuple[str, bytes]:
        known = self._content_types.get(content_type or b"")
        if known is None:
            known = _content_type(content_type, target)
            if len(self._content_types) < _CONTENT_TYPES_MAX:
                self._content_types[content_type or b""] = known
        kind, typename = known
        if kind == _KIND_JSON:
            typename, convert = target.from_json(None)
            return typename, convert(data)
        target.check_accepts(typename)
        if kind == _KIND_TEXT:
            try:
                data.decode()
            except UnicodeDecodeError as error:
                raise RequestRefused(400, "The text is not UTF-8", f"{error}; send text as UTF-8") from error
            return typename, encode_string(data)
        return typename, json_text(data) if target.is_json(typename) else data

    # --- bulk --------------------------------------------------------------------------

    async def _take_bulk(self, headers: dict[bytes, bytes], body: RequestBody) -> tuple[int, Headers, bytes]:
        host = self._host
        config = host.config
        host.admit()
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type not in _NDJSON:
            raise RequestRefused(
                415,
                "The content type is not NDJSON",
                f"found {content_type.decode('latin-1') or 'none'!r}, send application/x-ndjson: one JSON object a line",
            )
        producer_id, sequence = _producer(headers) if b"producer-id" in headers else _no_producer(headers)
        body.check_length(headers.get(b"content-length"), config.bulk_bytes_max, BULK)
        parser = BulkParser(host.registry, config.body_bytes_max, config.id_bytes_max)
        async for data in body.chunks(config.bulk_bytes_max, BULK):
            parser.receive(data)
        parts = parser.finish()
        host.admit()
        answer = await self.accept(parts, producer_id, sequence)
        return 202, [_JSON_TYPE], self._accepted(answer)


def _respond_refused(respond: Respond, refused: RequestRefused) -> None:
    body = problem_body(refused)
    respond(refused.status, problem_headers(refused, body), body)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():  # the request may have been cancelled meanwhile
        future.set_result(result)


class Disconnected(Exception):
    """The client went away before its request was complete."""


class RequestBody:
    """The body of one request, bounded while it arrives.

    Args:
        receive: of ASGI.
        unread: what it shares with all others, until `release`.
    """

    __slots__ = ("_receive", "_unread", "_unread_bytes", "is_complete")

    def __init__(self, receive: Receive, unread: UnreadBodies) -> None:
        self._receive = receive
        self._unread = unread
        self._unread_bytes = 0
        self.is_complete = False

    def release(self) -> None:
        """The request is answered, and nobody has its body any more."""
        self._unread.size_bytes -= self._unread_bytes
        self._unread_bytes = 0

    async def next(self) -> bytes:
        """Return what has arrived since; sets ``is_complete`` with the last."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise Disconnected
        if not message.get("more_body", False):
            self.is_complete = True
        data: bytes = message.get("body", b"")
        return data

    async def read(self, length: bytes | None, bytes_max: int, limit: str = BODY) -> bytes:
        """Return the whole body, or refuse it (413) as soon as it is known to be too long.

        Args:
            length: as announced, if it was.
            bytes_max: how long it may be.
            limit: the name of that limit.
        """
        if length is not None:
            self.check_length(length, bytes_max, limit)
        message = await self._receive()  # as `next`, without its cost: mostly this is all
        if message["type"] != "http.request":
            raise Disconnected
        data: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self.is_complete = True
            if len(data) <= bytes_max:
                return data
        self._count(data)
        return b"".join([data, *[chunk async for chunk in self.chunks(bytes_max, limit, len(data))]])

    async def chunks(self, bytes_max: int, limit: str, size: int = 0) -> Any:
        """Yield the body as it arrives, bounded in total; ``size`` has been read before."""
        while True:
            if size > bytes_max:
                raise _too_large(bytes_max, limit)
            if self.is_complete:
                return
            data = await self.next()
            size += len(data)
            if size <= bytes_max:
                self._count(data)
                yield data

    def _count(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        self._unread.add(len(data))

    def check_length(self, length: bytes | None, bytes_max: int, limit: str) -> None:
        """Refuse (413) a body that announces to be too long."""
        if length is not None and len(length) < 20 and length.isdigit() and int(length) > bytes_max:
            raise _too_large(bytes_max, limit, int(length))


def _too_large(bytes_max: int, limit: str, length: int | None = None) -> RequestRefused:
    found = f"the body has {length} bytes" if length is not None else "the body is longer"
    return RequestRefused(
        413,
        "The body is too large",
        f"{found}, at most {bytes_max} are taken; send less at a time, or {how_to_raise(limit)}",
    )


async def refuse(
    refused: RequestRefused, body: RequestBody, send: Send, *further_headers: tuple[bytes, bytes]
) -> None:
    """Answer a request that was not taken, as problem+json, whether or not its body has arrived."""
    data = problem_body(refused)
    headers = [*problem_headers(refused, data), *further_headers]
    if body.is_complete:
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": data})
        return
    # The client is still sending. Closing now would reset the connection and could take
    # the answer with it, so read on for a little while before.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": True})
    try:
        async with asyncio.timeout(_LINGER_S):
            while not body.is_complete:
                await body.next()
    except (Disconnected, TimeoutError):
        pass
    await send({"type": "http.response.body", "body": b""})


def unquote_part(raw: bytes, what: str) -> str:
    """Return a percent-encoded part of a path as text, or refuse it (400)."""
    if b"%" in raw:
        broken = _NO_ESCAPE.search(raw)
        if broken is not None:
            found = raw[broken.start() : broken.start() + 3].decode("latin-1")
            raise RequestRefused(
                400,
                f"The {what} is not percent-encoded",
                f"{found!r} at byte {broken.start()} of it is no escape; a percent sign itself is written %25",
            )
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(
            400, f"The {what} is not UTF-8", f"{error}; percent-encode the UTF-8 bytes of the {what}"
        ) from error


def _content_type(content_type: bytes | None, target: Target) -> tuple[str, str]:
    """Return how to read the body, and the typename if the header tells."""
    media, _, parameters = (content_type or b"").partition(b";")
    media = media.strip()
    lowered = media.lower()
    if lowered == b"application/json":
        return _KIND_JSON, ""
    if lowered == b"text/plain":
        charset = parameters.strip().lower()
        if charset in (b"", b"charset=utf-8", b'charset="utf-8"', b"charset=us-ascii"):
            return _KIND_TEXT, STRING
    elif lowered.startswith(_VENDOR) and len(media) > len(_VENDOR):
        try:
            return _KIND_RAW, media[len(_VENDOR) :].decode("ascii")
        except UnicodeDecodeError:
            pass  # refused below, typenames are ASCII
    raise RequestRefused(
        415,
        "The content type is not supported",
        f"found {(content_type or b'').decode('latin-1') or 'none'!r}; send application/json, text/plain (UTF-8) for "
        f"the string type, or application/vnd.<typename> with the value's bytes; {target.typename} accepts "
        f"{', '.join(name for name, _ in target.info.accepts) or 'any type'}",
    )


def _no_producer(headers: dict[bytes, bytes]) -> tuple[str, int]:
    if b"producer-sequence" in headers:
        raise RequestRefused(400, "The producer is not named", "Producer-Sequence needs a Producer-Id header")
    return "", NO_PRODUCER


def _producer(headers: dict[bytes, bytes]) -> tuple[str, int]:
    producer_id = headers[b"producer-id"].decode("latin-1")
    if not producer_id or len(producer_id) > PRODUCER_ID_CHARS_MAX or not producer_id.isascii():
        raise RequestRefused(
            400,
            "The Producer-Id cannot be used",
            f"it has {len(producer_id)} characters; use 1 to {PRODUCER_ID_CHARS_MAX} ASCII characters",
        )
    text = headers.get(b"producer-sequence")
    if text is None or not text.isdigit() or len(text) > 18:
        found = "none" if text is None else repr(text.decode("latin-1")[:40])
        raise RequestRefused(
            400,
            "The Producer-Sequence cannot be used",
            f"found {found}, expected a number: 0 or 1 for the producer's first request, one more for each after it, "
            "the same when a request is repeated",
        )
    return producer_id, int(text)


def _wait_of(prefer: bytes) -> float:
    """Return the seconds of ``wait=SECONDS``; 0 if the preference is not there."""
    for preference in prefer.lower().split(b","):
        name, _, value = preference.partition(b";")[0].partition(b"=")
        if name.strip() == b"wait":
            text = value.strip().strip(b'"')
            try:
                wait_s = float(text)
            except ValueError:
                wait_s = -1.0
            if not 0 <= wait_s < 1e6:
                raise RequestRefused(
                    400,
                    "The preference cannot be understood",
                    f"Prefer: wait={text.decode('latin-1')[:40]!r}, expected seconds, as in 'Prefer: wait=5'",
                )
            return wait_s
    return 0.0


def _string_payload(value: bytes) -> bytes:
    at = 1
    while at < len(value) and value[at] & 0x80:
        at += 1
    return value[at + 1 :]
