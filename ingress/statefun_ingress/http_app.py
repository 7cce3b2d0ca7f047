"""The HTTP application: FastAPI for everything except the hot routes of ``asgi.py``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from statefun_ingress.asgi import Host, HotRoutes, RequestBody, refuse, unquote_part
from statefun_ingress.bulk import check_id
from statefun_ingress.config import BULK
from statefun_ingress.dead_letters import (
    LISTED_DEFAULT,
    LISTED_MAX,
    Wanted,
    chosen,
    commands,
    is_cut,
    letters_of,
    read_choice,
    read_wanted,
    refusal,
    without_address,
)
from statefun_ingress.errors import RequestRefused
from statefun_ingress.feed import State
from statefun_ingress.metrics import CONTENT_TYPE
from statefun_ingress.openapi import HOT_PATHS, SCHEMAS
from statefun_ingress.problems import problem_body
from statefun_ingress.record import Events
from statefun_ingress.registry import Target
from statefun_ingress.values import to_base64_json, to_json


class AppHost(Host, Protocol):
    """What the application needs of the service around it."""

    async def query_state(self, function_type: str, id: str, *, wait_commit: bool) -> State:
        """Return the state of an address, or raise RequestRefused (503)."""
        ...

    def unreadiness(self) -> str | None:
        """Return why no events should be sent here, or None."""
        ...

    def status(self) -> dict[str, Any]:
        """Return figures for people and tools."""
        ...

    def metrics(self) -> str:
        """Return figures for Prometheus."""
        ...

    async def query_letters(self, id: str | None = None, function: str = "") -> list[State]:
        """Return what every worker says of its dead letters, or raise RequestRefused (503)."""
        ...

    async def append(self, events: list[Events]) -> None:
        """Make events of our own durable, or raise RequestRefused."""
        ...


class IngressApp(FastAPI):
    """A FastAPI application that lets the hot routes past its machinery."""

    def __init__(self, host: AppHost) -> None:
        super().__init__(
            title="statefun-ray ingress",
            description="Durable events for stateful functions: sent once, applied exactly once.",
            version="1",
            # Text of FastAPI's own; ours are problem+json.
            default_response_class=JSONResponse,
        )
        self._host = host
        self._hot = HotRoutes(host)
        self.direct = self._hot
        """Of which ``BoundedProtocol`` takes the most frequent requests past ASGI."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hot.matches(scope["path"]):
            await self._hot(scope, receive, send)
            return
        if scope["type"] == "http":
            try:
                # The machinery takes a broken escape for the characters it is made of.
                unquote_part(scope["raw_path"], "path")
                unquote_part(scope["query_string"], "query")
            except RequestRefused as refused:
                await refuse(refused, RequestBody(receive, self._host.unread), send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the description of all routes, the hot ones included."""
        if self.openapi_schema is None:
            schema = super().openapi()
            schema["paths"] = {**HOT_PATHS, **schema["paths"]}
            schema.setdefault("components", {}).setdefault("schemas", {}).update(SCHEMAS)
        return self.openapi_schema or {}


def create_app(host: AppHost) -> IngressApp:
    """Return the application of one ingress.

    Args:
        host: the service it speaks for.
    """
    app = IngressApp(host)
    app.add_exception_handler(RequestRefused, _answer_refused)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid)

    @app.get("/healthz", tags=["health"], summary="Is the process working?")
    async def healthz() -> Response:
        if host.core.log.failure is not None:
            raise RequestRefused(503, "The ingress log is not writable", str(host.core.log.failure))
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["health"], summary="Should events be sent here?")
    async def readyz() -> Response:
        unready = host.unreadiness()
        if unready is not None:
            raise RequestRefused(503, "The ingress is not ready", unready, 1)
        return JSONResponse({"status": "ready"})

    @app.get("/v1/dead-letters", tags=["dead letters"], summary="Messages that nobody could process")
    async def dead_letters(
        limit: int = Query(default=LISTED_DEFAULT, ge=1, le=LISTED_MAX),
        function: str = Query(default=""),
        id: str | None = Query(default=None, description="May be empty; of all ids if it is not there."),
    ) -> Response:
        return await listed(Wanted(id, function, limit))

    @app.post(
        "/v1/dead-letters/list",
        tags=["dead letters"],
        summary="The same, with id, function and limit in a body: for an id that is too long for a URL",
    )
    async def list_letters(request: Request) -> Response:
        return await listed(read_wanted(await body_of(request)))

    async def listed(wanted: Wanted) -> Response:
        answers = await host.query_letters(wanted.id, wanted.function)
        letters = letters_of(answers, host.registry)
        found = {"dead_letters": letters[: wanted.limit], "count": len(letters), "more": is_cut(answers)}
        return JSONResponse(found)

    async def body_of(request: Request) -> bytes:
        length = request.headers.get("content-length", "").encode("latin-1")
        body = RequestBody(request.receive, host.unread)
        try:
            return await body.read(length, host.config.bulk_bytes_max, BULK)
        finally:
            body.release()

    async def tell(action: str, request: Request) -> Response:
        choice = read_choice(await body_of(request))
        by_name = choice.letters is not None
        ids = {letter.id for letter in choice.letters or ()}
        answers = await host.query_letters(ids.pop() if len(ids) == 1 else None, choice.function or "")
        found = letters_of(answers, host.registry)
        # Ids are what they are, empty or very long: letters are of messages that other functions sent.
        letters = chosen(choice, found, are_all=not is_cut(answers))
        kept = without_address(letters, found) if action == "redrive" else []
        if kept and (by_name or len(kept) == len(letters)):
            raise refusal(kept)
        letters = [letter for letter in letters if letter not in kept]
        await host.append(commands(action, letters))
        answer = {"told": len(letters), "more": not by_name and is_cut(answers), "without_address": len(kept)}
        return JSONResponse(answer, 202)

    @app.post("/v1/dead-letters/redrive", tags=["dead letters"], summary="Deliver letters once more")
    async def redrive(request: Request) -> Response:
        return await tell("redrive", request)

    @app.post("/v1/dead-letters/drop", tags=["dead letters"], summary="Throw letters away")
    async def drop(request: Request) -> Response:
        return await tell("drop", request)

    @app.get("/metrics", tags=["health"], summary="Figures for Prometheus, of this ingress and its workers")
    async def metrics() -> Response:
        return Response(host.metrics(), media_type=CONTENT_TYPE)

    @app.get("/v1/status", tags=["health"], summary="Figures of this ingress")
    async def status() -> Response:
        return JSONResponse(host.status())

    @app.get(
        "/v1/state/{namespace}/{type}/{id:path}",
        tags=["state"],
        summary="The state of one function instance",
        description="Uncommitted, as its worker has it, with the generation and the snapshot it builds on in "
        "headers; or with committed=true after the next commit.",
    )
    async def state(
        namespace: str,
        type: str,
        id: str,
        committed: bool = Query(default=False),
        names: list[str] = Query(  # noqa: B008 - how FastAPI declares a parameter
            default=[], alias="state", description="Only these; may be repeated."
        ),
    ) -> Response:
        check_id(id, host.config.id_bytes_max)
        target = host.registry.target(f"{namespace}/{type}")
        found = await host.query_state(target.typename, id, wait_commit=committed)
        headers = {
            "statefun-generation": str(found.generation),
            "statefun-snapshot-id": str(found.snapshot_id),
        }
        return Response(_states_json(target, found, names), headers=headers, media_type="application/json")

    return app


def _states_json(target: Target, found: State, names: list[str]) -> bytes:
    """Return ``{"states": {name: value}, "types": {name: typename}}``; null is a state that is not set.

    Args:
        names: of the states asked for; empty for all.

    Raises:
        RequestRefused: 404, one of the names is not that of a state.
    """
    declared: Mapping[str, tuple[str, bool]] = target.info.states
    values: dict[str, bytes] = dict.fromkeys(declared, b"null")
    types = {name: typename for name, (typename, _) in declared.items()}
    for name, typename, value in found.states:
        types[name] = typename
        if value is None:
            values[name] = b"null"
            continue
        is_json = declared.get(name, (typename, False))[1]
        values[name] = to_json(typename, value, is_json=is_json) or to_base64_json(value)
    for name in names:
        if name not in types:
            raise _no_such_state(target.typename, name, types)
    if names:
        values = {name: values[name] for name in names}
        types = {name: types[name] for name in names}
    parts = [b'{"states":{']
    parts.append(b",".join(_json_string(name) + b":" + value for name, value in values.items()))
    parts.append(b'},"types":{')
    parts.append(b",".join(_json_string(name) + b":" + _json_string(text) for name, text in types.items()))
    parts.append(b"}}")
    return b"".join(parts)


def _no_such_state(function_type: str, name: str, known: Mapping[str, str]) -> RequestRefused:
    near = get_close_matches(name[:200], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return RequestRefused(
        404,
        "There is no such state",
        f"{function_type} has no state {name[:200]!r}; {hint}it has {', '.join(sorted(known)) or 'none that is known'}",
    )


def _json_string(text: str) -> bytes:
    return msgspec.json.encode(text)


def _problem_response(refused: RequestRefused) -> Response:
    headers = {"retry-after": str(refused.retry_after_s)} if refused.retry_after_s else None
    return Response(
        problem_body(refused), refused.status, headers=headers, media_type="application/problem+json"
    )


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return _problem_response(error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"nothing is at {request.url.path[:200]}; /docs lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not allowed at {request.url.path[:200]}; /docs lists what is"
    else:
        detail = str(error.detail)
    title = HTTPStatus(error.status_code).phrase
    response = _problem_response(RequestRefused(error.status_code, title, detail))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
    return _problem_response(RequestRefused(400, "The request cannot be understood", found))
