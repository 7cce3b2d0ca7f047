"""A small blocking HTTP client of the ingress: for tests, tools and examples.

It is *not* needed to use an application; any HTTP client is as good. It knows how Python values
become request bodies, and repeats nothing by itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from statefun_sdk import BoolType, DoubleType, IntType, LongType, StringType, Type
from statefun_sdk.types import JSON_TYPENAME

TIMEOUT_S: Final = 60.0
"""Longer than the longest wait that an ingress grants."""

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


class RequestFailed(Exception):
    """The ingress answered something else than success; the text is its own."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(status, title, detail)
        self.status, self.title, self.detail = status, title, detail

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.title}: {self.detail}"


@dataclass(frozen=True)
class Reply:
    """An answer of the ingress.

    Attributes:
        status: 200 with a reply, 202 accepted without one (yet).
        headers: with names in lower case.
        content: the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def data(self) -> Any:
        """The body as Python sees it: parsed JSON, text, or the bytes of another type."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/json"):
            return json.loads(self.content)
        return self.content.decode() if kind.startswith("text/plain") else self.content


class ToldLetters(NamedTuple):
    """What became of telling something to dead letters."""

    told: int
    """How many were told, which is durable."""
    has_more: bool
    """There are more of that kind, to be told in the same way once these are gone."""
    without_address: int = 0
    """Letters that were to be redriven and stay: they never were messages."""


class HttpClient:
    """One connection per thread, kept open."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._connections: list[HTTPConnection] = []

    def send(
        self,
        target: str,
        id: str,
        value: Any,
        *,
        type: Type[Any] | None = None,
        producer: tuple[str, int] | None = None,
    ) -> Reply:
        """Send one event and return when it is durable.

        Args:
            target: function typename, ``namespace/name``.
            id: of the instance.
            value: of ``type``; without one a bool, int, float or str becomes the built-in type and
                anything else JSON.
            type: of the value.
            producer: ``(Producer-Id, Producer-Sequence)``; repeating both changes nothing.

        Raises:
            RequestFailed: it was not accepted.
            OSError: no answer; whether it was accepted is unknown.
        """
        return self._put(target, id, value, type, {}, producer)

    def ask(
        self, target: str, id: str, value: Any, *, type: Type[Any] | None = None, wait_s: float = 30.0
    ) -> Reply:
        """Send one event and return the function's committed reply.

        Raises:
            TimeoutError: accepted, but no reply within ``wait_s``.
            RequestFailed, OSError: as `send`.
        """
        reply = self._put(target, id, value, type, {"prefer": f"wait={wait_s:g}"}, None)
        if reply.status != 200:
            raise TimeoutError(f"{target}/{id} has not replied within {wait_s:g} s; the event is accepted")
        return reply

    def send_many(
        self, events: Iterable[Mapping[str, Any]], *, producer: tuple[str, int] | None = None
    ) -> Reply:
        """Send events as one request, all or nothing: each ``{"target", "id", "type"?, "value"}``.

        Raises:
            RequestFailed, OSError: as `send`.
        """
        body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        return self._request("POST", "/v1/events", body, {"content-type": "application/x-ndjson"}, producer)

    def state(self, target: str, id: str, *, committed: bool = False) -> dict[str, Any]:
        """Return the states of an address that are set, by name.

        Raises:
            RequestFailed, OSError: as `send`; 503 while its worker recovers.
        """
        query = "?committed=true" if committed else ""
        reply = self._request("GET", f"/v1/state/{quote(target)}/{quote(id, safe='')}{query}", b"", {}, None)
        states: dict[str, Any] = reply.data["states"]
        return {name: value for name, value in states.items() if value is not None}

    def get(self, path: str) -> Reply:
        """Return what is at a path."""
        return self._request("GET", path, b"", {}, None)

    def close(self) -> None:
        """Close the connections of all threads; the next request opens one again."""
        for connection in self._connections:
            connection.close()

    def _put(
        self,
        target: str,
        id: str,
        value: Any,
        type: Type[Any] | None,
        headers: dict[str, str],
        producer: tuple[str, int] | None,
    ) -> Reply:
        typename, data = encode_value(value, type)
        headers["content-type"] = (
            "application/json" if typename == JSON_TYPENAME else f"application/vnd.{typename}"
        )
        return self._request(
            "PUT", f"/v1/functions/{quote(target)}/{quote(id, safe='')}", data, headers, producer
        )

    def dead_letters(self, *, function: str = "", id: str | None = None, limit: int = 100) -> dict[str, Any]:
        """Return ``{"dead_letters": [...], "count": …, "more": …}``, oldest first.

        ``more`` is true when a worker may have more than it says at once: then ``count`` is too low.

        Args:
            function: those to one function; to all for "".
            id: those of one id, which may be empty or very long; of all for None.
            limit: how many.
        """
        wanted = json.dumps({"function": function, "id": id, "limit": limit}).encode()
        headers = {"content-type": "application/json"}
        found: dict[str, Any] = self._request("POST", "/v1/dead-letters/list", wanted, headers, None).data
        return found

    def tell_dead_letters(self, action: str, choice: Mapping[str, Any]) -> ToldLetters:
        """``redrive`` or ``drop`` letters.

        Args:
            action: what they are told.
            choice: ``{"letters": [{"id": …, "letter": …}]}``, ``{"function": …}`` or ``{"all": True}``.
        """
        headers = {"content-type": "application/json"}
        reply = self._request(
            "POST", f"/v1/dead-letters/{action}", json.dumps(choice).encode(), headers, None
        )
        data = reply.data
        return ToldLetters(int(data["told"]), bool(data["more"]), int(data["without_address"]))

    def _request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], producer: tuple[str, int] | None
    ) -> Reply:
        if producer is not None:
            headers["producer-id"], headers["producer-sequence"] = producer[0], str(producer[1])
        connection = self._connection()
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            if isinstance(error, OSError):
                raise
            raise ConnectionError(f"no answer from {self.url}: {error!r}") from error
        reply = Reply(response.status, {name.lower(): text for name, text in response.getheaders()}, content)
        if not 200 <= response.status < 300:
            raise _failure(reply)
        return reply

    def _connection(self) -> HTTPConnection:
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            parts = urlsplit(self.url)
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=self._timeout_s)
            self._local.connection = connection
            self._connections.append(connection)
        return connection


def encode_value(value: Any, type: Type[Any] | None) -> tuple[str, bytes]:
    """Return the typename and bytes of a value."""
    if type is None:
        type = _built_in(value)
    if type is None:
        return JSON_TYPENAME, json.dumps(value, ensure_ascii=False).encode()
    return type.typename, type.serializer().serialize(value)


def _built_in(value: Any) -> Type[Any] | None:
    if isinstance(value, bool):
        return BoolType
    if isinstance(value, int):
        return IntType if _INT_MIN <= value <= _INT_MAX else LongType
    if isinstance(value, float):
        return DoubleType
    return StringType if isinstance(value, str) else None


def _failure(reply: Reply) -> RequestFailed:
    try:
        problem = json.loads(reply.content)
        return RequestFailed(reply.status, str(problem["title"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return RequestFailed(
            reply.status, "no problem details", reply.content[:200].decode("utf-8", "replace")
        )
