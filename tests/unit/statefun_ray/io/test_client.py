from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from statefun_ray.io.client import HttpClient, Reply, RequestFailed, encode_value
from statefun_sdk import IntType, codecs
from statefun_sdk.types import JSON_TYPENAME


class Desk(HTTPServer):
    """Answers what it is told to, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, str, bytes] = (202, "application/json", b"{}")
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        desk = self.server
        assert isinstance(desk, Desk)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): text for name, text in self.headers.items()}
        desk.requests.append((self.command, self.path, headers, body))
        status, kind, content = desk.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = handle_request  # noqa: N815 - names of http.server

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(desk: Desk) -> Iterator[HttpClient]:
    made = HttpClient(desk.url)
    yield made
    made.close()


def test_an_event_names_its_type_and_its_producer(desk: Desk, client: HttpClient) -> None:
    client.send("shop/cart", "a b/c", 7, producer=("me", 3))

    [(method, path, headers, body)] = desk.requests
    assert (method, path) == ("PUT", "/v1/functions/shop/cart/a%20b%2Fc")
    assert headers["content-type"] == "application/vnd.io.statefun.types/int"
    assert (headers["producer-id"], headers["producer-sequence"]) == ("me", "3")
    assert body == codecs.encode_int(7)


def test_a_question_returns_the_reply_as_python_sees_it(desk: Desk, client: HttpClient) -> None:
    desk.answer = (200, "application/json", b'{"total": 3}')

    assert client.ask("shop/cart", "a", {"x": 1}, wait_s=2.5).data == {"total": 3}

    assert desk.requests[0][2]["prefer"] == "wait=2.5"
    assert json.loads(desk.requests[0][3]) == {"x": 1}


def test_no_reply_in_time_is_a_timeout(client: HttpClient) -> None:
    with pytest.raises(TimeoutError, match=r"shop/cart/a has not replied within 1 s; the event is accepted"):
        client.ask("shop/cart", "a", 1, wait_s=1)


def test_a_refusal_carries_the_ingresss_own_text(desk: Desk, client: HttpClient) -> None:
    problem = {"title": "There is no such function", "detail": "did you mean shop/cart?"}
    desk.answer = (404, "application/problem+json", json.dumps(problem).encode())

    with pytest.raises(RequestFailed, match="HTTP 404: There is no such function: did you mean shop/cart"):
        client.send("shop/card", "a", 1)

    desk.answer = (502, "text/html", b"<html>proxy</html>")
    with pytest.raises(RequestFailed, match="HTTP 502: no problem details: <html>proxy"):
        client.send("shop/cart", "a", 1)


def test_bulk_is_one_line_per_event(desk: Desk, client: HttpClient) -> None:
    events = [{"target": "a/b", "id": "x", "value": 1}, {"target": "a/b", "id": "y", "value": 2}]

    client.send_many(events)

    assert [json.loads(line) for line in desk.requests[0][3].splitlines()] == events


def test_states_that_are_not_set_are_left_out(desk: Desk, client: HttpClient) -> None:
    desk.answer = (200, "application/json", b'{"states": {"count": 3, "name": null}}')

    assert client.state("shop/cart", "a", committed=True) == {"count": 3}
    assert desk.requests[0][1] == "/v1/state/shop/cart/a?committed=true"


def test_a_closed_client_connects_again(desk: Desk, client: HttpClient) -> None:
    client.send("a/b", "x", 1)
    client.close()
    client.send("a/b", "x", 1)

    assert len(desk.requests) == 2


@pytest.mark.parametrize(
    ("value", "typename"),
    [
        (True, codecs.BOOL),
        (5, codecs.INT),
        (2**31, codecs.LONG),
        (0.5, codecs.DOUBLE),
        ("x", codecs.STRING),
        ({"a": 1}, JSON_TYPENAME),
        (None, JSON_TYPENAME),
    ],
)
def test_the_type_of_a_value_follows_from_python(value: Any, typename: str) -> None:
    assert encode_value(value, None)[0] == typename


def test_a_given_type_is_used() -> None:
    assert encode_value(5, IntType) == (codecs.INT, codecs.encode_int(5))


@pytest.mark.parametrize(
    ("kind", "content", "data"),
    [("text/plain; charset=utf-8", "hé".encode(), "hé"), ("application/vnd.a/b", b"\0", b"\0")],
)
def test_other_replies_are_text_or_bytes(kind: str, content: bytes, data: Any) -> None:
    assert Reply(200, {"content-type": kind}, content).data == data


def test_a_failure_survives_pickling() -> None:
    error = RequestFailed(404, "title", "detail")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
