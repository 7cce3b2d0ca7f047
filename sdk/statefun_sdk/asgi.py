"""Functions as a web service: a bare ASGI application, for any server that speaks ASGI.

    app = asgi_app(functions)          # uvicorn my_module:app --port 8000

Every path is served, because it is the runtime's module.yaml that chooses one. Answers are those
that StateFun's own services give: 200 with the effects, 500 when a function raised, so that the
runtime tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from statefun_sdk import batches
from statefun_sdk.errors import UnknownFunctionError, UserValueError
from statefun_sdk.functions import StatefulFunctions
from statefun_sdk.request_reply import MalformedRequestError, RequestReplyHandler

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Answer = tuple[int, list[Header], bytes]

CONTENT_TYPE: Final = b"application/octet-stream"
_BATCH: Final = batches.CONTENT_TYPE.encode()
_BATCH_HEADER: Final = batches.HEADER.encode()
_TAKES_BATCHES: Final = (_BATCH_HEADER, batches.VERSION.encode())
_ALLOWED: Final = (b"allow", b"POST")
HEALTH_PATH: Final = "/healthz"

REQUEST_BYTES_MAX_DEFAULT: Final = 64 << 20
"""A batch of the runtime is 8 MB at most, with all states of its address on top."""


def asgi_app(
    functions: StatefulFunctions | RequestReplyHandler,
    *,
    request_bytes_max: int = REQUEST_BYTES_MAX_DEFAULT,
) -> AsgiApp:
    """Return an ASGI application that serves functions.

    Args:
        functions: to serve, or a handler of them.
        request_bytes_max: a longer request is refused (413).

    Raises:
        UserValueError: no functions are given, or the limit is not positive.
    """
    if request_bytes_max <= 0:
        raise UserValueError(f"request_bytes_max must be positive, not {request_bytes_max}")
    handler = functions if isinstance(functions, RequestReplyHandler) else RequestReplyHandler(functions)
    return _App(handler, request_bytes_max)


class _App:
    def __init__(self, handler: RequestReplyHandler, request_bytes_max: int) -> None:
        self._handler = handler
        self._request_bytes_max = request_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise UserValueError(f"functions are served over HTTP, not over {scope['type']}")
        status, headers, body = await self._answer(scope, receive)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event == "lifespan.shutdown":
                self._handler.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method = scope["method"]
        if method != "POST":
            if scope["path"] == HEALTH_PATH and method in ("GET", "HEAD"):
                return _text(200, "ok")
            return _text(405, f"{method} is not allowed, a batch of invocations is sent by POST", _ALLOWED)
        content_type, offers_batches = b"", False
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = content_type or value
            elif name == _BATCH_HEADER:
                offers_batches = True
        media_type = content_type
        if media_type != CONTENT_TYPE:
            media_type = media_type.partition(b";")[0].strip().lower()
        if media_type not in (CONTENT_TYPE, _BATCH, b""):
            return _text(
                415, f"content type {content_type.decode('latin-1')!r} is not {CONTENT_TYPE.decode()}"
            )
        request = await self._read(receive)
        if request is None:
            return _text(413, f"the request has more than {self._request_bytes_max} bytes")
        try:
            if media_type == _BATCH:
                return 200, [(b"content-type", _BATCH)], await self._handler.handle_batch_async(request)
            answer, may_join = await self._handler.handle_and_tell_async(request)
            if may_join and offers_batches:
                return 200, [(b"content-type", CONTENT_TYPE), _TAKES_BATCHES], answer
            return 200, [(b"content-type", CONTENT_TYPE)], answer
        except MalformedRequestError as error:
            return _text(400, str(error))
        except UnknownFunctionError as error:
            # Not 404: the runtime may ask an older instance during an upgrade, and is to try again.
            return _text(500, str(error))
        except Exception as error:
            logger.exception("a batch failed and has no effects; the runtime tries it again")
            return _text(500, f"{type(error).__name__}: {error}")

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None if it is too long. A client that is gone ends the request."""
        chunks: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ConnectionResetError("the client has gone before its request was complete")
            body: bytes = event.get("body", b"")
            size += len(body)
            if size > self._request_bytes_max:
                return None
            chunks.append(body)
            if not event.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _text(status: int, text: str, *further: Header) -> Answer:
    return status, [(b"content-type", b"text/plain; charset=utf-8"), *further], text.encode()
