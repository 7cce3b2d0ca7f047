from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from statefun_ray.cluster import launch
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.errors import AddressUnusable, PortTaken
from statefun_ray.cluster.planning import plan_deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    target = "examples.greeter.main:functions"
    return plan_deployment(target, http="127.0.0.1:0", storage=str(tmp_path), log_dir=str(tmp_path))


def test_a_free_port_is_none_that_outgoing_connections_get(deployment: Deployment) -> None:
    ports = {launch._with_free_port(deployment).http_port for _ in range(20)}
    assert ports <= set(launch.PORTS)
    assert len(ports) > 1


def test_a_port_that_is_taken_is_passed_over_and_refused_when_it_was_asked_for(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(launch, "PORTS", range(taken, taken + 1))
        monkeypatch.setattr(launch, "PORT_TRIES", 1)
        assert launch._with_free_port(deployment).http_port not in (0, taken)
        with pytest.raises(PortTaken):
            launch._with_free_port(replace(deployment, http_port=taken))


def test_an_address_of_another_machine_is_refused(deployment: Deployment) -> None:
    with pytest.raises(AddressUnusable):
        launch._with_free_port(replace(deployment, http_host="192.0.2.1"))
