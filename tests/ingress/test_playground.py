"""The playground's HTTP API over real sockets."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from statefun_ingress.config import IngressConfig
from statefun_ingress.frames import EgressRows
from statefun_ingress.registry import FunctionInfo, Registry
from statefun_ingress.topics import EGRESS_RECORD
from tests.ingress.conftest import Ingress, Start


@pytest.fixture
async def playground(start: Start) -> Ingress:
    registry = Registry([FunctionInfo("example/person")], namespaces=["any"])
    return await start(
        registry=registry, playground_port=0, playground_egress_port=0, playground_topics=("greetings", "b")
    )


def url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


async def exchange(address: tuple[str, int], data: bytes) -> tuple[str, str]:
    """Send what no client would; return the head and the body of the answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length: "))
    body = (await reader.readexactly(int(length.partition(": ")[2]))).decode()
    writer.close()
    return head, body


@pytest.mark.parametrize("path", ["/example/person/Bob", "/example/person/Bob/", "/any/thing/Bob?q=1"])
@pytest.mark.parametrize("method", ["PUT", "POST", "GET"])
async def test_an_event_is_accepted_by_path(playground: Ingress, path: str, method: str) -> None:
    async with httpx.AsyncClient(base_url=url(playground.service.playground_address)) as client:
        answer = await client.request(
            method, path, content=b"{}", headers={"content-type": "application/vnd.example/GreetRequest"}
        )
    assert (answer.status_code, answer.headers["status"], answer.content) == (200, "200", b"")
    worker = await playground.worker()
    await worker.wait(lambda worker: len(worker.events) == 1)
    _, target, *event = worker.events[0]
    assert target in ("example/person", "any/thing")
    assert event == ["Bob", "", "", "example/GreetRequest", b"{}"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_without_a_vendor_type_the_body_is_called_a_string_and_left_alone(
    playground: Ingress, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with httpx.AsyncClient(base_url=url(playground.service.playground_address)) as client:
        answer = await client.put("/example/person/Bob", content=b"", headers=headers)
    assert answer.headers["status"] == "200"
    worker = await playground.worker()
    await worker.wait(lambda worker: len(worker.events) == 1)
    assert worker.events[0][5:] == ("io.statefun.types/string", b"")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "expected /<namespace>/<function name>/<id>"),
        ("/example/person", "expected /<namespace>/<function name>/<id>"),
        ("/example/person/", "expected /<namespace>/<function name>/<id>"),
        ("//Bob", "expected /<namespace>/<function name>/<id>"),
        ("/example//Bob", "expected /<namespace>/<function name>/<id>"),
        ("/example/person/a/b", "expected /<namespace>/<function name>/<id>"),
        ("/example/persons/Bob", "did you mean example/person"),
    ],
)
async def test_what_no_function_would_get_is_refused(playground: Ingress, path: str, said: str) -> None:
    async with httpx.AsyncClient(base_url=url(playground.service.playground_address)) as client:
        answer = await client.put(path, content=b"x")
    assert (answer.status_code, answer.headers["status"]) == (404, "404")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("id", ["x%zz", "x%", "%1", "%%41"])
async def test_a_broken_escape_is_refused(playground: Ingress, id: str) -> None:
    for address, path in (
        (playground.service.playground_address, f"/example/person/{id}"),
        (playground.service.playground_egress_address, f"/{id}"),
    ):
        head, body = await exchange(address, f"PUT {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
        assert head.startswith("HTTP/1.1 400 ")
        assert "\r\nstatus: 400" in head
        assert "a percent sign itself is written %25" in body
    assert playground.service.core.log.end_seq == 0


@pytest.mark.parametrize(
    ("request_line", "status", "said"),
    [
        ("FOO /example/person/Bob", 400, "does not begin with a method that is known here"),
        (f"PUT /example/person/{'x' * IngressConfig.header_bytes_max}", 431, "headers take more than"),
    ],
)
async def test_what_does_not_get_as_far_as_the_playground_has_its_header_too(
    playground: Ingress, request_line: str, status: int, said: str
) -> None:
    for address in (playground.service.playground_address, playground.service.playground_egress_address):
        head, body = await exchange(address, f"{request_line} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert f"\r\nstatus: {status}" in head
        assert said in body
        assert "not HTTP" not in body


async def test_a_body_that_is_too_large_is_refused(playground: Ingress) -> None:
    async with httpx.AsyncClient(base_url=url(playground.service.playground_address)) as client:
        answer = await client.put("/example/person/Bob", content=b"x" * (IngressConfig.body_bytes_max + 1))
    assert (answer.status_code, answer.headers["status"]) == (413, "413")
    assert "--http-limit bodyBytesMax=BYTES" in answer.json()["detail"]


async def test_a_head_request_says_that_there_is_a_record_and_leaves_it(playground: Ingress) -> None:
    worker = await playground.worker()
    record = json.dumps({"topic": "greetings", "payload": "Wëlcome"}).encode()
    worker.send(EgressRows(1, 7, [(0, EGRESS_RECORD, record)]))
    await worker.wait(lambda worker: worker.egress_acks == [1])
    async with httpx.AsyncClient(base_url=url(playground.service.playground_egress_address)) as client:
        heads = [await client.head(path) for path in ("/greetings", "/greetings", "/b", "/nothing")]
        taken = await client.get("/greetings")
    assert [answer.headers["status"] for answer in heads] == ["200", "200", "404", "405"]
    assert [answer.headers["content-length"] for answer in heads] == ["8", "8", "0", "0"]
    assert taken.text == "Wëlcome"


async def test_records_are_taken_one_by_one(playground: Ingress) -> None:
    worker = await playground.worker()
    rows: list[tuple[int, str, bytes | None]] = [
        (n, EGRESS_RECORD, json.dumps({"topic": "greetings", "payload": f"Wëlcome {n}"}).encode())
        for n in range(2)
    ]
    for ack_id in (1, 2):  # the second time they are known
        worker.send(EgressRows(ack_id, 7, rows))
    await worker.wait(lambda worker: worker.egress_acks == [1, 2])
    async with httpx.AsyncClient(base_url=url(playground.service.playground_egress_address)) as client:
        answers = [await client.get("/greetings") for _ in range(3)]
        empty = await client.get("/b")
        unknown = await client.get("/nothing")
    assert [answer.text for answer in answers] == ["Wëlcome 0", "Wëlcome 1", ""]
    assert [answer.status_code for answer in [*answers, empty, unknown]] == [200] * 5
    assert [answer.headers["status"] for answer in [*answers, empty, unknown]] == [
        "200",
        "200",
        "404",
        "404",
        "405",
    ]
