"""Requests against a handler as strict as that of the Go SDK, which was not at hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from statefun_ray.local import LocalApplication
from statefun_sdk import RequestReplyHandler
from tests.remote.test_end_to_end import counted, functions, module

REFUSED: list[str] = []


class Strict(BaseHTTPRequestHandler):
    """POST only, this content type or none, a length that is not zero, keep-alive."""

    protocol_version = "HTTP/1.1"
    handler = RequestReplyHandler(functions)

    def do_POST(self) -> None:
        if self.headers.get("Content-Type", "") not in ("", "application/octet-stream"):
            self._refuse(415)
        elif not int(self.headers.get("Content-Length", "0")):
            self._refuse(400)
        else:
            body = self.handler.handle_sync(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _refuse(self, status: int) -> None:
        REFUSED.append(f"{status}: {dict(self.headers)}")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self._refuse(405)

    do_PUT = do_HEAD = do_GET  # noqa: N815 - named by http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Say nothing."""


@pytest.fixture
def strict() -> Iterator[str]:
    REFUSED.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_handler_as_strict_as_that_of_go_takes_every_request(strict: str) -> None:
    with LocalApplication(module=module(strict)) as app:
        for number in range(30):
            app.send("shop/counter", f"id{number % 5}", f"tell id{(number + 1) % 5}")
        app.wait_until(lambda: sum(counted(app, f"id{n}") for n in range(5)) == 60)
    assert REFUSED == []
