"""The ways to serve functions that the guide shows answer the runtime."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from statefun_sdk.protocol import Address, FromFunction, ToFunction
from tests.docs.test_code_blocks import BLOCK, ROOT

GUIDE = ROOT / "docs" / "guide" / "remote-functions.md"
OCTETS = "application/octet-stream"

Post = Callable[[Any, bytes], Awaitable[tuple[int, str, bytes]]]


async def post_mounted(app: Any, body: bytes) -> tuple[int, str, bytes]:
    return await _post_asgi(app, "/statefun/", body)


async def post_routed(app: Any, body: bytes) -> tuple[int, str, bytes]:
    return await _post_asgi(app, "/statefun", body)


async def _post_asgi(app: Any, path: str, body: bytes) -> tuple[int, str, bytes]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service", verify=False) as client:
        answer = await client.post(path, content=body, headers={"content-type": OCTETS})
        return answer.status_code, answer.headers["content-type"], answer.content


async def post_aiohttp(app: web.Application, body: bytes) -> tuple[int, str, bytes]:
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/statefun", data=io.BytesIO(body), headers={"content-type": OCTETS})
        return answer.status, answer.headers["content-type"], await answer.read()


def served() -> list[Any]:
    """Return every block that serves functions at a path, and how to call it."""
    found = []
    for code in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if '"/statefun"' in code:
            post = (
                post_aiohttp if "aiohttp" in code else post_mounted if "app.mount(" in code else post_routed
            )
            found.append(pytest.param(code, post, id=post.__name__))
    return found


def application(code: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "block"}
    exec(compile(code, "block", "exec"), namespace)
    return namespace["app"]


def request(type: str, value: bytes = b"") -> bytes:
    asked = ToFunction()
    asked.invocation.target.CopyFrom(Address(namespace="example", type=type, id="ada"))
    asked.invocation.state.add().state_name = "visits"
    argument = asked.invocation.invocations.add().argument
    argument.typename, argument.has_value, argument.value = "io.statefun.types/string", True, value
    data: bytes = asked.SerializeToString()
    return data


def test_the_guide_shows_three_ways() -> None:
    assert [each.id for each in served()] == ["post_mounted", "post_routed", "post_aiohttp"]


@pytest.mark.parametrize(("code", "post"), served())
async def test_a_way_of_the_guide_answers_a_request_of_two_megabytes(code: str, post: Post) -> None:
    text = b"\x0a\x80\x80\x80\x01" + b"x" * (2 << 20)

    status, content_type, body = await post(application(code), request("greeter", text))

    assert (status, content_type) == (200, OCTETS)
    [change] = FromFunction.FromString(body).invocation_result.state_mutations
    assert (change.state_name, change.state_value.value) == ("visits", b"\x0d\x01\0\0\0")


@pytest.mark.parametrize(("code", "post"), served())
async def test_an_error_becomes_a_status_500_and_no_result(code: str, post: Post) -> None:
    status, content_type, _ = await post(application(code), request("nobody"))

    assert status == 500
    assert content_type.startswith("text/plain")
