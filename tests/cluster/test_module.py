"""Applications of a module.yaml on a real Ray cluster: services, the playground, Kafka; kill -9."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ray.module.model import Endpoint, Module, PlaygroundEgress, PlaygroundIngress
from tests.cluster.application import ClusterApplication
from tests.kafka.broker import Broker, noida
from tests.kafka.test_end_to_end import Topics, differences
from tests.parts.processes import ServiceProcess
from tests.parts.test_remote_greeter import EXAMPLE, heard, visit

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def greeter(tmp_path: Path) -> Iterator[ServiceProcess]:
    service = ServiceProcess([sys.executable, str(EXAMPLE / "functions.py")], tmp_path / "service.log")
    service.start()
    yield service
    service.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with noida(tmp_path) as started:
        yield started


def test_the_playground_speaks_to_a_service_while_processes_are_killed(
    tmp_path: Path, greeter: ServiceProcess
) -> None:
    module = Module(
        endpoints=(Endpoint("example/*", greeter.url),),
        playground_ingress=PlaygroundIngress(),
        playground_egress=PlaygroundEgress(("greetings",)),
    )
    with ClusterApplication(None, tmp_path, module=module, probe="example/person") as app:
        urls = app.status()["playground"]
        said = []
        for turn in range(4):
            if turn == 3:
                wait_replaced(app, app.kill("ingress"))
            visit(urls["ingress"], "Bob")
            if turn == 1:
                app.kill("worker", 0)
            if turn == 2:
                greeter.restart()
            said.append(heard(urls["egress"], 60))
        assert said == [
            "Welcome Bob",
            "Nice to see you again Bob",
            "Third time is a charm Bob",
            "Nice to see you at the 4-nth time Bob!",
        ]
        assert app.state("example/person", "Bob") == {"visits": 4}


def wait_replaced(app: ClusterApplication, pid: int) -> None:
    app.wait_until(lambda: app.pid("ingress") != pid, what="the ingress is back")


def test_kafka_in_and_out_exactly_once_while_workers_are_killed(tmp_path: Path, broker: Broker) -> None:
    topics = Topics(broker, "exactly-once")
    target = "tests.kafka.test_end_to_end:functions"
    with ClusterApplication(
        target, tmp_path, module=topics.module, name=topics.name, probe="shop/order"
    ) as app:
        for turn in range(3):
            topics.produce(1_000)
            app.wait_until(lambda: app.status()["processed"] > 200, what="some were processed")
            app.kill("worker", turn % 2)
        topics.produce(500)
        assert differences(topics.consumed(3_500, 90), topics.expected()) == {}
        app.restart(workers=3)
        topics.produce(500)
        assert differences(topics.consumed(4_000, 60), topics.expected()) == {}
