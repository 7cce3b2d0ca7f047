from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from statefun_checkpoints.commit_log import CommitLog
from statefun_checkpoints.errors import JobMismatch
from statefun_checkpoints.layout import ingress_path
from statefun_checkpoints.model import Job
from statefun_checkpoints.store import open_store, run_store
from statefun_ingress.files import OsLogFiles
from statefun_ingress.log import IngressLog
from statefun_ray.cluster import launch
from statefun_ray.cluster.deployment import Deployment
from statefun_ray.cluster.errors import AddressUnusable, LogInUse, PortTaken
from statefun_ray.cluster.planning import plan_deployment
from statefun_ray.io.adoption import LogsMissing, adopt
from statefun_ray.io.ports import PORTS
from statefun_ray.module.model import Module, PlaygroundEgress, PlaygroundIngress


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    target = "examples.greeter.main:functions"
    return plan_deployment(
        target, http="127.0.0.1:0", storage=str(tmp_path / "storage"), log_dir=str(tmp_path / "log")
    )


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


def test_a_start_waits_for_processes_that_were_left_behind(deployment: Deployment) -> None:
    held = OsLogFiles(deployment.log_dir)
    IngressLog.open(held, "log").close()
    held = OsLogFiles(deployment.log_dir)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        held.close()

    adoption, has_waited = launch._adopt(deployment, open_store(deployment.storage), say)

    assert has_waited
    assert adoption.newest is None
    assert "waiting up to 5 s" in said[0]


def test_a_log_that_stays_in_use_is_refused(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ORPHANS_GONE_S", 0.2)
    IngressLog.open(OsLogFiles(deployment.log_dir), "log").close()
    held = OsLogFiles(deployment.log_dir)

    with pytest.raises(LogInUse):
        launch._adopt(deployment, open_store(deployment.storage), lambda _line: None)
    held.close()


def test_a_port_that_becomes_free_in_time_is_taken(deployment: Deployment) -> None:
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    timer = threading.Timer(0.1, other.close)
    timer.start()

    assert launch._with_ports(replace(deployment, http_port=port), 10.0).http_port == port
    timer.join()


def test_a_refused_start_leaves_no_trace(deployment: Deployment, tmp_path: Path) -> None:
    store = open_store(deployment.storage)
    store.put(ingress_path("gone"), b"{}")
    refused = replace(deployment, log_dir=str(tmp_path / "other"))

    with pytest.raises(LogsMissing, match="find a folder that is not known"):
        launch.start(refused, say=lambda _line: None)

    assert store.list("") == [ingress_path("gone")]
    assert not (tmp_path / "other").exists()


def test_a_storage_of_another_application_is_refused(deployment: Deployment) -> None:
    log = CommitLog(Job(name="another"))
    run_store(open_store(deployment.storage), log.open())

    with pytest.raises(JobMismatch):
        launch.start(deployment, say=lambda _line: None)


def test_a_start_says_whose_state_it_goes_on_with(deployment: Deployment) -> None:
    store, said = open_store(deployment.storage), list[str]()
    first = replace(
        deployment, name="shop", named_after="the folder of the module", origin="/a/shop/module.yaml"
    )
    second = replace(first, origin="/b/shop/module.yaml")

    for starting in (first, first, second, replace(first, named_after="")):
        launch._say_what_goes_on(starting, store, adopt(store, deployment.log_dir, "shop"), said.append)
        launch._note_origin(store, starting.origin)

    new = f"name shop (from the folder of the module), new in {deployment.storage}"
    assert said[:3] == [new, new, new]
    assert "was last used by /a/shop/module.yaml; /b/shop/module.yaml goes on with its state" in said[3]
    assert said[4:] == [f"name shop, new in {deployment.storage}"], "a chosen name is meant"
