"""Ports that nobody chose."""

from __future__ import annotations

import socket

import pytest

from statefun_ray.io import ports
from statefun_ray.io.ports import PORTS, choose_ports, free_port
from statefun_ray.module.model import NO_MODULE, Module, PlaygroundEgress, PlaygroundIngress


def test_a_free_port_is_none_that_outgoing_connections_get() -> None:
    found = {free_port("127.0.0.1") for _ in range(20)}
    assert found <= set(PORTS)
    assert len(found) > 1


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", range(taken, taken + 1))
        monkeypatch.setattr(ports, "PORT_TRIES", 1)
        assert free_port("127.0.0.1") not in (0, taken)


def test_what_was_said_stays_and_the_rest_is_chosen_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", PORTS[:2])
    monkeypatch.setattr(ports, "PORT_TRIES", 2)
    module = Module(
        playground_ingress=PlaygroundIngress(PORTS[0]), playground_egress=PlaygroundEgress(("a",))
    )
    http_port, found = choose_ports("127.0.0.1", 0, module)
    assert found.playground_ingress == module.playground_ingress
    assert found.playground_egress is not None
    chosen = {http_port, PORTS[0], found.playground_egress.port}
    assert len(chosen) == 3
    assert 0 not in chosen
    assert choose_ports("127.0.0.1", 8080, NO_MODULE) == (8080, NO_MODULE)
