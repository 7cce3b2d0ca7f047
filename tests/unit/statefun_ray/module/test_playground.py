"""The playground's kinds: section 3.13 of StateFun's behaviour."""

from __future__ import annotations

import pytest

from statefun_ray.module.model import PlaygroundEgress, PlaygroundIngress
from tests.unit.statefun_ray.module.reading import document, error_of, module_of

INGRESS = "io.statefun.playground.v1/ingress"
EGRESS = "io.statefun.playground.v1/egress"


def test_ports_are_random_unless_given() -> None:
    module = module_of(document(INGRESS, "{}") + "---\n" + document(EGRESS, "topics: [b, a, b]"))
    assert module.playground_ingress == PlaygroundIngress(port=0)
    assert module.playground_egress == PlaygroundEgress(topics=("b", "a"), port=0)
    assert module.egress_ids == {"io.statefun.playground/egress"}


def test_each_has_a_port_of_its_own() -> None:
    module = module_of(document(INGRESS, "port: 8090") + "---\n" + document(EGRESS, "topics: []\nport: 8091"))
    assert module.playground_ingress == PlaygroundIngress(8090)
    assert module.playground_egress == PlaygroundEgress((), 8091)
    key, line, text = error_of(document(INGRESS, "port: 8090"), document(EGRESS, "topics: []\nport: 8090"))
    assert (key, line) == ("spec.port", 4)
    assert "'8090'; expected a port of its own" in text


@pytest.mark.parametrize("port", ["-1", "65536", "http", "[1]"])
@pytest.mark.parametrize(("kind", "more"), [(INGRESS, ""), (EGRESS, "\ntopics: [a]")])
def test_a_port_is_one(kind: str, more: str, port: str) -> None:
    assert error_of(document(kind, f"port: {port}{more}"))[0] == "spec.port"


@pytest.mark.parametrize("topics", ["", "topics: a", "topics: {a: b}", "topics:"])
def test_topics_are_a_list(topics: str) -> None:
    assert error_of(document(EGRESS, f"port: 1\n{topics}"))[0] == "spec.topics"


@pytest.mark.parametrize(("kind", "spec"), [(INGRESS, "port: 1"), (EGRESS, "topics: [a]")])
def test_each_is_there_once(kind: str, spec: str) -> None:
    key, line, text = error_of(document(kind, spec), document(kind, spec))
    assert (key, line) == ("spec", 2)
    assert "the first is at a.yaml:2" in text


def test_their_ids_are_taken() -> None:
    kafka = document("io.statefun.kafka.v1/egress", "id: io.statefun.playground/egress\naddress: k")
    assert "a second egress" in error_of(kafka + "---\n" + document(EGRESS, "topics: [a]"))[2]
