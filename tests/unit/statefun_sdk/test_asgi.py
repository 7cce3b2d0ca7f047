"""The ASGI app, called as a server would."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from statefun_sdk import RequestReplyHandler
from statefun_sdk.asgi import asgi_app
from statefun_sdk.errors import UserValueError
from tests.unit.statefun_sdk.test_request_reply import functions, request

OCTETS = "application/octet-stream"


async def call(
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = "/statefun",
    content_type: str | None = OCTETS,
    pieces: int = 1,
    leaves: bool = False,
    **options: Any,
) -> tuple[int, dict[str, str], bytes]:
    size = max(1, -(-len(body) // pieces))
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": leaves or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    events.append({"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await asgi_app(functions, **options)(scope, receive, send)  # type: ignore[arg-type]
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, sent[1]["body"]


@pytest.mark.parametrize("content_type", [OCTETS, OCTETS.upper(), f"{OCTETS}; x=y", None])
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_request_is_answered(content_type: str | None, pieces: int) -> None:
    status, headers, body = await call(request("a/all", "one"), content_type=content_type, pieces=pieces)
    assert (status, headers["content-type"], headers["content-length"]) == (200, OCTETS, str(len(body)))
    assert body


@pytest.mark.parametrize(
    ("body", "named", "status", "said"),
    [
        (b"", {"method": "GET"}, 405, "POST"),
        (b"", {"content_type": "text/html"}, 415, "text/html"),
        (b"\xff", {}, 400, "ToFunction"),
        (request("a/nothing", "x"), {}, 500, "a/nothing"),
        (request("a/all", "fail"), {}, 500, "ValueError: as told"),
        (b"x" * 11, {"request_bytes_max": 10}, 413, "more than 10 bytes"),
    ],
)
async def test_what_is_no_success_says_why(
    body: bytes, named: dict[str, Any], status: int, said: str
) -> None:
    found, headers, text = await call(body, **named)
    assert found == status
    assert said in text.decode()
    assert headers.get("allow") == ("POST" if status == 405 else None)


async def test_a_failure_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        await call(request("a/all", "fail"))
    assert "as told" in caplog.text


async def test_health_and_a_client_that_goes_away() -> None:
    assert (await call(method="GET", path="/healthz"))[::2] == (200, b"ok")
    with pytest.raises(ConnectionResetError):
        await call(b"x", leaves=True)


async def test_a_server_may_start_and_stop_it() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.unknown"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await asgi_app(RequestReplyHandler(functions))({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(UserValueError, match="positive"):
        asgi_app(functions, request_bytes_max=0)
    with pytest.raises(UserValueError, match="websocket"):
        await asgi_app(functions)({"type": "websocket"}, None, None)  # type: ignore[arg-type]
