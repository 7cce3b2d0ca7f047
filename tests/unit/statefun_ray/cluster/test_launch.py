from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from statefun_ray.cluster import launch
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.errors import AddressUnusable, PortTaken
from statefun_ray.cluster.planning import plan_deployment
from statefun_ray.io.ports import PORTS
from statefun_ray.module.model import Module, PlaygroundEgress, PlaygroundIngress


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    target = "examples.greeter.main:functions"
    return plan_deployment(target, http="127.0.0.1:0", storage=str(tmp_path), log_dir=str(tmp_path))


def test_ports_are_chosen_before_anything_is_started(deployment: Deployment) -> None:
    module = Module(playground_ingress=PlaygroundIngress(), playground_egress=PlaygroundEgress(("a",), 8091))
    found = launch._with_ports(replace(deployment, module=module))
    assert found.http_port in PORTS
    chosen = found.module.playground_ingress
    assert chosen is not None
    assert chosen.port in PORTS
    assert found.playground == {
        "ingress": f"http://127.0.0.1:{chosen.port}",
        "egress": "http://127.0.0.1:8091",
    }


def test_a_port_that_is_taken_is_refused_when_it_was_asked_for(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortTaken):
        launch._with_ports(replace(deployment, http_port=other.getsockname()[1]))


def test_an_address_of_another_machine_is_refused(deployment: Deployment) -> None:
    with pytest.raises(AddressUnusable):
        launch._with_ports(replace(deployment, http_host="192.0.2.1"))
