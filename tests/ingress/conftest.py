from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from statefun_ingress.config import IngressConfig
from statefun_ingress.log import IngressLog
from statefun_ingress.log_files import LogFiles
from statefun_ingress.producers import Producers
from statefun_ingress.registry import FunctionInfo, Registry
from statefun_ingress.service import IngressService, Register
from statefun_ingress.values import INT, STRING
from tests.ingress.fake_worker import FakeWorker
from tests.ingress.faulty_files import FaultyFiles

REGISTRY = Registry(
    [
        FunctionInfo("n/any", states={"seen": (INT, False), "last": ("t/j", True), "raw": ("t/x", False)}),
        FunctionInfo("n/int", [(INT, False)]),
        FunctionInfo("n/text", [(STRING, False)]),
        FunctionInfo("n/json", [("t/j", True), ("t/x", False)]),
        FunctionInfo("n/two", [("t/j", True), ("t/k", True)]),
    ]
)


class Ingress:
    """A running service with a client."""

    def __init__(self, service: IngressService, client: httpx.AsyncClient) -> None:
        self.service = service
        self.client = client
        self.workers: list[FakeWorker] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where HTTP listens."""
        return self.service.http_address

    async def worker(self, worker: FakeWorker | None = None, **hello: Any) -> FakeWorker:
        """Connect a worker and wait until it is welcomed or sent away."""
        worker = worker or FakeWorker()
        await worker.connect(self.service.feed_address, **hello)
        self.workers.append(worker)
        await worker.wait(lambda worker: worker.welcome is not None or worker.is_closed)
        return worker

    async def put(
        self, path: str, body: Any = b"1", content_type: str | None = "application/json", **headers: str
    ) -> httpx.Response:
        """PUT one event; header names are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            sent["content-type"] = content_type
        return await self.client.put(f"/v1/functions/{path}", content=body, headers=sent)

    async def bulk(self, body: Any, **headers: str) -> httpx.Response:
        """POST a bulk body."""
        sent = {"content-type": "application/x-ndjson"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/v1/events", content=body, headers=sent)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that tells nobody when it happens."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


Start = Callable[..., Awaitable[Ingress]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start services with ``start(files=..., register=..., **settings)``; all are stopped at the end."""
    started: list[Ingress] = []

    async def start_one(
        files: LogFiles | None = None,
        registry: Registry = REGISTRY,
        register: Register | None = None,
        producers: Producers | None = None,
        **settings: Any,
    ) -> Ingress:
        log = IngressLog.open(files or FaultyFiles(), "l", segment_bytes=20_000, producers=producers)
        config = replace(IngressConfig(app_name="app", drain_timeout_s=2.0), **settings)
        service = IngressService(config, log, registry, register=register)
        await service.start()
        host, port = service.http_address
        client = httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=20, verify=False)
        ingress = Ingress(service, client)
        started.append(ingress)
        return ingress

    yield start_one
    for ingress in started:
        await ingress.client.aclose()
        for worker in ingress.workers:
            await worker.close()
        await ingress.service.stop()


@pytest.fixture
async def ingress(start: Start) -> Ingress:
    """A running ingress with the default settings."""
    return await start()
