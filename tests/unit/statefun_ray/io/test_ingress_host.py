from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.store import MemoryStore
from statefun_ingress.errors import CannotListen, LogLocked
from statefun_ray.io.client import HttpClient
from statefun_ray.io.ingress_host import IngressHost, IngressHostConfig, function_infos
from statefun_sdk import Context, IntType, Message, StatefulFunctions, StringType, ValueSpec, make_json_type
from tests.waiting import until

functions = StatefulFunctions()


@functions.bind(
    "shop/cart",
    specs=[ValueSpec("count", IntType), ValueSpec("items", make_json_type("shop/items"))],
    accepts=[StringType, make_json_type("shop/order")],
)
def cart(context: Context, message: Message) -> None:
    """Never called here."""


def ingress(
    directory: Path,
    store: MemoryStore,
    port: int = 0,
    *,
    waits: bool = False,
    may_begin: Callable[[], Awaitable[object]] | None = None,
) -> IngressHost:
    config = IngressHostConfig(
        app="shop", log_dir=str(directory / "log"), http_port=port, node="node-a", waits_to_listen=waits
    )
    return IngressHost(config, functions, store, may_begin=may_begin)


def test_functions_are_described_with_what_they_accept_and_keep() -> None:
    [info] = function_infos(functions)

    assert info.typename == "shop/cart"
    assert info.accepts == [("io.statefun.types/string", False), ("shop/order", True)]
    assert info.states == {"count": ("io.statefun.types/int", False), "items": ("shop/items", True)}


async def test_the_log_is_registered_before_anything_is_accepted(tmp_path: Path) -> None:
    store = MemoryStore()
    host = ingress(tmp_path, store)

    await host.start()

    registration = json.loads(store.objects[f"ingress/{host.log_id}.json"])
    assert registration["directory"] == str(tmp_path / "log")
    assert registration["node"] == "node-a"
    assert host.url.startswith("http://127.0.0.1:")
    assert host.feed_address[1] > 0
    assert host.counts() == {"log_id": host.log_id, "accepted": 0, "lag": 0, "pending_replies": 0}
    await host.close()
    await host.close()


async def test_the_same_directory_is_the_same_log(tmp_path: Path) -> None:
    store = MemoryStore()
    first = ingress(tmp_path, store)
    await first.start()
    log_id = first.log_id
    await first.close()

    second = ingress(tmp_path, store)
    await second.start()

    assert second.log_id == log_id
    assert len(store.objects) == 1
    await second.close()


async def test_a_new_log_is_registered_when_the_start_goes_on_for_good(tmp_path: Path) -> None:
    store, begun = MemoryStore(), asyncio.Event()
    asked: list[bool] = []

    async def may_begin() -> None:
        asked.append(True)
        await begun.wait()

    refused = ingress(tmp_path / "refused", store, may_begin=may_begin)
    starting = asyncio.create_task(refused.start())
    await until(lambda: bool(asked))
    starting.cancel()
    await asyncio.wait([starting])
    assert store.objects == {}

    host = ingress(tmp_path / "refused", store, may_begin=may_begin)
    begun.set()
    await host.start()
    assert f"ingress/{host.log_id}.json" in store.objects
    await host.close()


async def test_a_log_that_is_registered_already_waits_for_nobody(tmp_path: Path) -> None:
    store = MemoryStore()
    first = ingress(tmp_path, store)
    await first.start()
    await asyncio.to_thread(send_one, first.url)
    await first.close()

    async def may_begin() -> None:
        raise AssertionError("a log that may have unread events has been adopted")

    again = ingress(tmp_path, store, may_begin=may_begin)
    await again.start()
    await again.close()


async def test_a_closed_log_stays_registered_while_an_event_is_in_no_snapshot(tmp_path: Path) -> None:
    store = MemoryStore()
    for read_to, is_kept in [(None, True), (1, True), (2, False)]:
        host = ingress(tmp_path, store)
        await host.start()
        if read_to is None:
            await asyncio.to_thread(send_one, host.url)
            await asyncio.to_thread(send_one, host.url)
        log_id = host.log_id
        await host.close({"another": 9} if read_to is None else {log_id: read_to})
        assert (f"ingress/{log_id}.json" in store.objects) is is_kept, read_to


def send_one(url: str) -> None:
    client = HttpClient(url)
    try:
        client.send("shop/cart", "ann", "an apple")
    finally:
        client.close()


class SilentStore(MemoryStore):
    def put(self, path: str, data: bytes) -> None:
        raise StoreUnavailable(path, "put", "no route")


async def test_a_log_that_can_not_be_registered_is_not_served_and_not_locked(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await ingress(tmp_path, SilentStore()).start()

    host = ingress(tmp_path, MemoryStore())
    await host.start()
    await host.close()


async def test_a_taken_port_and_a_taken_directory_are_named(tmp_path: Path) -> None:
    host = ingress(tmp_path, MemoryStore())
    await host.start()

    with pytest.raises(LogLocked):
        await ingress(tmp_path, MemoryStore()).start()
    with pytest.raises(CannotListen, match="another process listens there already"):
        await ingress(tmp_path / "other", MemoryStore(), port=host.http_address[1]).start()
    await host.close()


async def test_an_ingress_that_comes_back_waits_for_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("statefun_ray.io.ingress_host.LISTEN_AGAIN_S", 0.01)
    other = ingress(tmp_path / "other", MemoryStore())
    await other.start()
    address = other.http_address
    host = ingress(tmp_path, MemoryStore(), port=address[1], waits=True)

    starting = asyncio.create_task(host.start())
    await until(lambda: "another process listens there already" in caplog.text)
    assert not starting.done()
    await other.close()
    await starting

    assert host.http_address == address
    assert caplog.text.count("the ingress waits") == 1
    await host.close()
