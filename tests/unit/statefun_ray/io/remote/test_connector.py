"""Hosts with several addresses, of which some swallow everything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from statefun_ray.io.remote import connector
from statefun_ray.io.remote.errors import ServiceUnavailable
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.target import Target
from statefun_ray.module.model import OkHttpTransport
from tests.unit.statefun_ray.io.remote.posting import post
from tests.unit.statefun_ray.io.remote.raw_server import ok, served, target_at


@contextmanager
def black_hole(address: str, port: int) -> Iterator[None]:
    """Listen there, and let nobody in: those who wait to be accepted fill the queue."""
    with socket.socket() as listening:
        listening.bind((address, port))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((address, port))
        yield
        for each in waiting:
            each.close()


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: infos)


def named(target: Target) -> Target:
    """Return the same, by a name."""
    return target_at(f"http://several.invalid:{target.port}/fn")


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(OkHttpTransport(call_ms=700, connect_ms=600, read_ms=700, write_ms=700))
    yield made
    await made.close()
    await asyncio.sleep(0)


async def test_an_address_that_swallows_everything_costs_less_than_the_time_to_connect(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "STAGGER_S", 0.02)
    resolves(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
    async with served(ok(b"abc")) as server:
        port = server.target.port
        with black_hole("127.0.0.2", port), black_hole("127.0.0.3", port):
            assert await post(client, named(server.target), b"x") == b"abc"
            assert await post(client, named(server.target), b"x") == b"abc"
        assert server.connections == 1


async def test_an_address_that_refuses_costs_nothing(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "STAGGER_S", 60)
    resolves(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
    async with served(ok(b"abc")) as server:
        assert await post(client, named(server.target), b"x") == b"abc"


async def test_a_slow_address_keeps_its_chance_while_the_next_one_refuses(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "STAGGER_S", 0.01)
    resolves(monkeypatch, "127.0.0.1", "127.0.0.2")
    async with served(ok(b"abc")) as server:
        assert await post(client, named(server.target), b"x") == b"abc"


@pytest.mark.slow
async def test_no_address_that_answers(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "127.0.0.2", "127.0.0.3")
    async with served(ok(b"abc")) as server:
        port = server.target.port
        with pytest.raises(ServiceUnavailable, match="Connect"):
            await post(client, named(server.target), b"x")
        with (
            black_hole("127.0.0.2", port),
            black_hole("127.0.0.3", port),
            pytest.raises(ServiceUnavailable, match="no connection within 600 ms"),
        ):
            await post(client, named(server.target), b"x")


async def test_a_name_without_addresses(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch)
    with pytest.raises(ServiceUnavailable, match=r"several\.invalid has no address"):
        await post(client, target_at("http://several.invalid/fn"), b"x")


async def test_of_two_addresses_that_both_answer_one_is_used(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "STAGGER_S", 0)
    resolves(monkeypatch, "127.0.0.1", "127.0.0.1")
    async with served(ok(b"abc")) as server:
        assert await post(client, named(server.target), b"x") == b"abc"
        while server.open > 1:
            assert await post(client, named(server.target), b"x") == b"abc"
