"""StateFun's playground over HTTP: events in by path, records out by topic.

Both sides answer as the original does, which always says 200 in the status line and the truth in
a header named ``Status``. Where the original would lose the event or stop the application we say
so in the status line as well: an event that no function takes is refused, an accepted one is in
the ingress log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from statefun_ingress.asgi import (
    Disconnected,
    Host,
    HotRoutes,
    Receive,
    RequestBody,
    Scope,
    Send,
    UnreadBodies,
    refuse,
    unquote_part,
)
from statefun_ingress.bulk import check_id
from statefun_ingress.errors import LogFailed, RequestRefused
from statefun_ingress.problems import Headers, refusal_of, status_header
from statefun_ingress.record import NO_PRODUCER, Events, encode_chunk
from statefun_ingress.topics import PlaygroundTopics
from statefun_ingress.values import STRING

_VENDOR: Final = "application/vnd."


class PlaygroundIngressApp:
    """ASGI: ``/<namespace>/<name>/<id>``, any method, the body is the value as it is."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._routes = HotRoutes(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = RequestBody(receive, self._host.unread)
        headers = dict(scope["headers"])
        try:
            value = await body.read(headers.get(b"content-length"), self._host.config.body_bytes_max)
            self._host.admit()
            target, id = self._address(scope["raw_path"])
            event = Events.of_one(target, id, "", "", _typename(scope["headers"]), value)
            await self._routes.accept([(event, encode_chunk(event))], "", NO_PRODUCER)
        except Disconnected:
            return
        except RequestRefused as refused:
            await refuse(refused, body, send, status_header(refused.status))
        except LogFailed as error:
            told = refusal_of(error)
            await refuse(told, body, send, status_header(told.status))
        else:
            await _answer(send, 200, 200, b"")
        finally:
            body.release()

    def _address(self, raw_path: bytes) -> tuple[str, str]:
        parts = raw_path.removeprefix(b"/").removesuffix(b"/").split(b"/")
        if len(parts) != 3 or not all(parts[1:]):  # the namespace may be empty, as in StateFun
            raise RequestRefused(
                404,
                "There is no such path",
                f"expected /<namespace>/<function name>/<id>, found {raw_path.decode('latin-1')[:200]!r}",
            )
        namespace, name, id = (unquote_part(part, "path") for part in parts)
        check_id(id, self._host.config.id_bytes_max)
        return self._host.registry.target(f"{namespace}/{name}").typename, id


class PlaygroundEgressApp:
    """ASGI: ``/<topic>``, any method; takes one record away, except HEAD, which only says that there is one."""

    def __init__(self, topics: PlaygroundTopics, unread: UnreadBodies) -> None:
        self._topics = topics
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            topic = unquote_part(scope["raw_path"], "path").removeprefix("/").removesuffix("/")
        except RequestRefused as refused:
            await refuse(refused, RequestBody(receive, self._unread), send, status_header(refused.status))
            return
        if topic not in self._topics.topics:
            await _answer(send, 200, 405, b"")
            return
        # A HEAD request carries no record away, so it may not take one.
        payload = self._topics.peek(topic) if scope["method"] == "HEAD" else self._topics.take(topic)
        await _answer(send, 200, 404 if payload is None else 200, (payload or "").encode())


def _typename(headers: Iterable[tuple[bytes, bytes]]) -> str:
    # All that follows the prefix is the name, parameters included: the original does not parse it.
    for name, raw in headers:
        if name == b"content-type":
            text = raw.decode("latin-1")
            if text.startswith(_VENDOR):
                return text[len(_VENDOR) :]
    return STRING


async def _answer(send: Send, status: int, said: int, body: bytes) -> None:
    headers: Headers = [status_header(said), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
