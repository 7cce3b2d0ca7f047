"""The life of an ingress, and its workers over TCP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest
import uvloop

from statefun_ingress.config import IngressConfig
from statefun_ingress.errors import CannotListen
from statefun_ingress.files import OsLogFiles
from statefun_ingress.frames import Figures
from statefun_ingress.key_groups import key_group_of
from statefun_ingress.log import IngressLog
from statefun_ingress.registry import FunctionInfo, Registry
from statefun_ingress.service import IngressService
from tests.ingress.conftest import REGISTRY, Ingress, Start, until
from tests.ingress.fake_worker import FakeWorker
from tests.ingress.faulty_files import FaultyFiles
from tests.ingress.test_http_events import problem


async def test_the_log_is_registered_before_anything_listens(start: Start) -> None:
    seen: list[str] = []

    async def register(log_id: str) -> None:
        seen.append(log_id)

    await start(register=register)

    assert seen == ["l"]


async def test_an_ingress_that_cannot_register_does_not_start() -> None:
    async def register(log_id: str) -> None:
        raise OSError("store unavailable")

    service = IngressService(
        IngressConfig(app_name="app"), IngressLog.open(FaultyFiles(), "l"), REGISTRY, register=register
    )

    with pytest.raises(OSError, match="store unavailable"):
        await service.start()
    assert service.http_address == ("", 0)
    await service.stop()  # does nothing


async def test_a_taken_port_is_said_in_a_sentence(ingress: Ingress) -> None:
    _, port = ingress.address
    config = IngressConfig(app_name="app", http_port=port)
    service = IngressService(config, IngressLog.open(FaultyFiles(), "l"), REGISTRY)

    with pytest.raises(CannotListen, match=f"port {port}: another process listens there .* --http"):
        await service.start()


async def test_stopping_finishes_what_was_sent_and_refuses_the_rest(start: Start) -> None:
    files = FaultyFiles()
    ingress = await start(files)
    waiting = asyncio.create_task(ingress.put("n/any/k", prefer="wait=10"))
    worker = await ingress.worker()
    await worker.wait(lambda worker: len(worker.events) == 1)

    ingress.service.drain()
    assert "it is stopping" in problem(await ingress.client.get("/readyz"), 503)
    assert (await ingress.client.get("/healthz")).status_code == 200
    assert problem(await ingress.put("n/any/k"), 503)
    assert ingress.service.status()["state"] == "draining"
    await ingress.service.stop()

    assert (await waiting).status_code == 202
    assert files.is_closed
    await worker.wait(lambda worker: worker.is_closed)
    with pytest.raises(httpx.ConnectError):
        await ingress.put("n/any/k")


async def test_everything_else_is_served_and_described(ingress: Ingress) -> None:
    get = ingress.client.get

    assert (await get("/healthz")).json() == {"status": "ok"}
    assert (await get("/readyz")).json() == {"status": "ready"}
    paths = (await get("/openapi.json")).json()["paths"]
    assert {
        "/v1/functions/{namespace}/{type}/{id}",
        "/v1/events",
        "/v1/state/{namespace}/{type}/{id}",
        "/healthz",
        "/readyz",
    } <= set(paths)
    assert set(paths["/v1/functions/{namespace}/{type}/{id}"]) == {"put", "post"}
    assert (await get("/docs")).status_code == 200
    assert "/docs lists what there is" in problem(await get("/v2"), 404)
    assert "not allowed" in problem(await ingress.client.post("/healthz"), 405)


async def test_status_counts_what_was_accepted_and_what_waits(ingress: Ingress) -> None:
    for i in range(5):
        await ingress.put(f"n/any/{i}", producer_id="p", producer_sequence=str(i))
    status = (await ingress.client.get("/v1/status")).json()
    assert (status["accepted"], status["lag"], status["producers"]) == (5, 5, 1)

    worker = await ingress.worker(generation=4)
    await worker.wait(lambda worker: len(worker.events) == 5)

    status = ingress.service.status()
    assert (status["accepted"], status["lag"], status["generation"]) == (5, 0, 4)
    assert (status["workers_connected"], status["workers_expected"]) == (1, 1)
    assert status["state"] == "accepting"


async def test_status_names_the_addresses_at_which_functions_fail(ingress: Ingress) -> None:
    assert ingress.service.status()["retrying"] == 0
    worker = await ingress.worker()
    worker.send(Figures([], 30, [("n/any", "k", 3, 1_000, 9_000, "no"), ("n/any", "l", 1, 2_000, 0, "no")]))
    await until(lambda: ingress.service.status()["retrying"] == 30)

    status = (await ingress.client.get("/v1/status")).json()
    failing = {"function": "n/any", "error": "no"}
    assert status["retrying_addresses"] == [
        {**failing, "id": "k", "attempts": 3, "since_ms": 1_000, "next_attempt_ms": 9_000},
        {**failing, "id": "l", "attempts": 1, "since_ms": 2_000, "next_attempt_ms": None},
    ]
    await worker.close()
    await until(lambda: ingress.service.status()["retrying"] == 0)


async def test_an_ingress_runs_in_a_thread_of_its_own_under_uvloop(tmp_path: Path) -> None:
    """As in an async actor, whose loop is not in the main thread."""
    answers: list[tuple[int, int]] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        log = IngressLog.open(OsLogFiles(str(tmp_path / "log")), "l")
        service = IngressService(IngressConfig(app_name="app"), log, Registry([FunctionInfo("n/any")]))
        await service.start()
        worker = await FakeWorker().connect(service.feed_address)
        async with httpx.AsyncClient(verify=False) as client:
            host, port = service.http_address
            response = await client.put(f"http://{host}:{port}/v1/functions/n/any/k", json=1)
        await worker.wait(lambda worker: len(worker.events) == 1)
        answers.append((response.status_code, len(worker.events)))
        await worker.close()
        await service.stop()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join, 20)

    assert failures == []
    assert answers == [(202, 1)]
    again = OsLogFiles(str(tmp_path / "log"))  # the lock is free
    assert IngressLog.open(again, "x").end_seq == 1
    again.close()


# --- workers ----------------------------------------------------------------------------


async def test_two_workers_share_the_events_and_keep_their_order(ingress: Ingress) -> None:
    lower = await ingress.worker(positions=[(0, 512, 0)], index=0, count=2, credit=7)
    upper = await ingress.worker(positions=[(512, 1024, 0)], index=1, count=2, credit=7)

    await asyncio.gather(*[ingress.put(f"n/any/{i}") for i in range(100)])

    await lower.wait(lambda _: len(lower.events) + len(upper.events) == 100, 10)
    seqs = [[event[0] for event in worker.events] for worker in (lower, upper)]
    assert sorted(seqs[0] + seqs[1]) == list(range(100))
    assert all(part == sorted(part) for part in seqs)
    assert min(len(part) for part in seqs) > 20
    await lower.wait(lambda worker: worker.position == 100)
    await upper.wait(lambda worker: worker.position == 100)


async def test_accepting_goes_on_while_no_worker_is_there(ingress: Ingress) -> None:
    first = await ingress.worker(generation=1)
    await ingress.put("n/any/1")
    await first.wait(lambda worker: len(worker.events) == 1)
    await first.close()
    assert (await ingress.put("n/any/2")).status_code == 202

    second = await ingress.worker(generation=2, positions=[(0, 1024, 0)])

    await second.wait(lambda worker: len(worker.events) == 2)
    assert [event[2] for event in second.events] == ["1", "2"]


async def test_a_newer_generation_takes_over(ingress: Ingress) -> None:
    old = await ingress.worker(generation=1)
    new = await ingress.worker(generation=2)
    late = await ingress.worker(generation=1)

    await old.wait(lambda worker: worker.is_closed)
    assert old.refused == "generation 2 has taken over from 1"
    assert late.refused == "generation 1 is over, 2 has connected"
    await ingress.put("n/any/k")
    await new.wait(lambda worker: len(worker.events) == 1)


async def test_trimmed_segments_are_removed(start: Start) -> None:
    files = FaultyFiles()
    ingress = await start(files)
    worker = await ingress.worker()
    for i in range(8):
        lines = [b'{"target":"n/any","id":"%d","value":"%d%s"}\n' % (i, n, b"x" * 900) for n in range(20)]
        await ingress.bulk(b"".join(lines))
    await worker.wait(lambda worker: len(worker.events) == 160)
    before = len(files.list())

    worker.trim(150)
    await until(lambda: len(files.list()) <= before - 3)

    again = await ingress.worker(generation=2, positions=[(0, 1024, 150)])
    await again.wait(lambda worker: len(worker.events) == 10)
    too_late = await ingress.worker(generation=3, positions=[(0, 1024, 5)])
    assert too_late.refused is not None
    assert "older than the retained ones" in too_late.refused


async def send_raw(ingress: Ingress, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*ingress.service.feed_address)
    writer.write(data)
    received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return received


async def test_strangers_on_the_feed_port_are_sent_away(ingress: Ingress) -> None:
    answers: list[Awaitable[bytes]] = [
        send_raw(ingress, b"GET / HTTP/1.1\r\n\r\n"),  # "GET " is a frame of more than 1 GB
        send_raw(ingress, b"\0\0\0\x02\xff\xff"),
        send_raw(ingress, b"\0\0\0\x08\x92\xa6credit"),
    ]
    for answer in await asyncio.gather(*answers):
        assert b"refused" in answer


async def test_a_connection_without_hello_is_closed(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statefun_ingress.feed_server.HELLO_TIMEOUT_S", 0.1)

    assert b"no hello within" in await send_raw(ingress, b"")


async def test_a_worker_that_reads_nothing_holds_back_only_itself(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statefun_ingress.feed_server.WRITE_BUFFER_BYTES", 10_000)
    stuck = FakeWorker()
    await stuck.connect(
        ingress.service.feed_address, positions=[(0, 512, 0)], index=0, count=2, credit=100_000
    )
    stuck._task.cancel()
    other = await ingress.worker(positions=[(512, 1024, 0)], index=1, count=2)
    line = b"".join(b'{"target":"n/any","id":"%d","value":"%s"}\n' % (i, b"x" * 50_000) for i in range(100))

    for _ in range(8):  # more than the buffers of two sockets hold
        assert (await ingress.bulk(line)).status_code == 202

    expected = sum(1 for i in range(100) if i in _ids_of_upper_half())
    await other.wait(lambda worker: len(worker.events) == 8 * expected)
    assert ingress.service.core.lag > 0
    stuck._writer.transport.abort()


def _ids_of_upper_half() -> set[int]:
    return {i for i in range(100) if key_group_of(str(i), 1024) >= 512}
