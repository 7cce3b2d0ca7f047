from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_sdk import Context, IntType, Message, RequestReplyHandler, StatefulFunctions, ValueSpec
from statefun_sdk.asgi import asgi_app
from statefun_sdk.batches import (
    CONTENT_TYPE,
    DONE,
    FAILED,
    HEADER,
    join_answers,
    join_requests,
    split_answers,
    split_requests,
)
from statefun_sdk.protocol import FromFunction, ToFunction
from statefun_sdk.request_reply import MalformedRequestError

functions = StatefulFunctions()


@functions.bind("a/plain", specs=[ValueSpec("count", IntType)])
def plain(context: Context, message: Message) -> None:
    context.storage.count = (context.storage.count or 0) + 1
    if message.as_string() == "fail":
        raise ValueError("as told")


@functions.bind("a/waiting")
async def waiting(context: Context, message: Message) -> None:
    if message.as_string() == "fail":
        raise ValueError("as told")


@functions.bind("a/blocking", blocking=True)
def blocking(context: Context, message: Message) -> None:
    pass


def request(function: str, text: str = "x", *, with_state: bool = True) -> bytes:
    message = ToFunction()
    batch = message.invocation
    batch.target.namespace, _, batch.target.type = function.partition("/")
    batch.target.id = "1"
    if with_state and function == "a/plain":
        batch.state.add(state_name="count")
    argument = batch.invocations.add().argument
    argument.typename, argument.has_value = "io.statefun.types/string", True
    argument.value = b"\x0a" + bytes((len(text),)) + text.encode()
    return message.SerializeToString()


@given(st.lists(st.binary(max_size=300)))
def test_requests_come_apart_as_they_were_joined(items: list[bytes]) -> None:
    assert split_requests(join_requests(items)) == items


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300))))
def test_answers_come_apart_as_they_were_joined(items: list[tuple[int, bytes]]) -> None:
    assert split_answers(join_answers(items)) == items


@given(st.lists(st.binary(max_size=9)), st.binary(max_size=9), st.data())
def test_what_is_cut_off_is_told(items: list[bytes], last: bytes, data: st.DataObject) -> None:
    body = join_requests([*items, last])
    cut = data.draw(st.integers(1, 4 + len(last) - 1))
    with pytest.raises(ValueError, match=f"item {len(items)} is cut off"):
        split_requests(body[:-cut])
    answer = join_answers((DONE, item) for item in [*items, last])
    with pytest.raises(ValueError, match=f"item {len(items)} is cut off"):
        split_answers(answer[:-cut])


async def test_each_request_is_answered_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    handler = RequestReplyHandler(functions)
    requests = [
        request("a/plain"),
        request("a/plain", "fail"),
        request("a/waiting"),
        request("a/waiting", "fail"),
        request("a/blocking"),
        request("a/nothing"),
        b"\xff",
        request("a/plain", with_state=False),
    ]
    with caplog.at_level(logging.ERROR):
        answers = split_answers(await handler.handle_batch_async(join_requests(requests)))
    handler.close()
    assert [outcome for outcome, _ in answers] == [DONE, FAILED, DONE, FAILED, DONE, FAILED, FAILED, DONE]
    assert FromFunction.FromString(answers[0][1]).invocation_result.state_mutations[0].state_name == "count"
    assert answers[1][1] == b"ValueError: as told"
    assert answers[2][1] == b""
    assert b"a/nothing" in answers[5][1]
    missing = FromFunction.FromString(answers[7][1]).incomplete_invocation_context.missing_values
    assert [spec.state_name for spec in missing] == ["count"]


async def test_what_is_no_row_of_requests_is_refused() -> None:
    with pytest.raises(MalformedRequestError, match="item 0 is cut off"):
        await RequestReplyHandler(functions).handle_batch_async(b"\0\0\0\x09x")


async def call(body: bytes, content_type: str, *, offers: bool = True) -> tuple[int, dict[str, str], bytes]:
    headers = [(b"host", b"functions"), (b"content-type", content_type.encode())]
    if offers:
        headers.append((HEADER.encode(), b"1"))
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    async def send(event: dict[str, object]) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await asgi_app(functions)(scope, receive, send)  # type: ignore[arg-type]
    raw = sent[0]["headers"]
    assert isinstance(raw, list)
    answered = {name.decode(): value.decode() for name, value in raw}
    status, content = sent[0]["status"], sent[1]["body"]
    assert isinstance(status, int)
    assert isinstance(content, bytes)
    return status, answered, content


@pytest.mark.parametrize(
    ("function", "offers", "taken"),
    [
        ("a/plain", True, True),
        ("a/plain", False, False),
        ("a/waiting", True, False),
        ("a/blocking", True, False),
    ],
)
async def test_many_in_one_is_agreed_on_for_plain_functions(function: str, offers: bool, taken: bool) -> None:
    status, headers, _ = await call(request(function), "application/octet-stream", offers=offers)
    assert (status, HEADER in headers) == (200, taken)


async def test_a_row_of_requests_over_http() -> None:
    body = join_requests([request("a/plain"), request("a/plain")])
    status, headers, content = await call(body, CONTENT_TYPE)
    assert (status, headers["content-type"]) == (200, CONTENT_TYPE)
    assert [outcome for outcome, _ in split_answers(content)] == [DONE, DONE]
    assert (await call(b"\0\0\0\x09x", CONTENT_TYPE))[0] == 400
