"""``io.statefun.playground.v1/ingress`` and ``/egress``: the playground's HTTP API.

Their ids are fixed, so an application has one of each at most.
"""

from __future__ import annotations

from typing import Final

from statefun_ray.module.fields import Field, Section
from statefun_ray.module.model import (
    PLAYGROUND_EGRESS,
    PLAYGROUND_INGRESS,
    PlaygroundEgress,
    PlaygroundIngress,
)
from statefun_ray.module.parts import Parts

_PORT: Final = "a port of 0 to 65535; 0 for any free one"
_PORT_MAX: Final = 65_535
_TOPICS: Final = "a list of names of topics"


def read_playground_ingress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.playground.v1/ingress``."""
    section = spec.section("a mapping with port", ("port",))
    parts.claim("ingress", PLAYGROUND_INGRESS, spec)
    parts.playground_ingress = PlaygroundIngress(_port(section, parts.playground_egress))


def read_playground_egress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.playground.v1/egress``."""
    section = spec.section("a mapping with topics and port", ("port", "topics"))
    parts.claim("egress", PLAYGROUND_EGRESS, spec)
    topics = [topic.text("the name of a topic") for topic in section.need("topics", _TOPICS).items(_TOPICS)]
    parts.playground_egress = PlaygroundEgress(
        topics=tuple(dict.fromkeys(topics)),
        port=_port(section, parts.playground_ingress),
    )


def _port(section: Section, other: PlaygroundIngress | PlaygroundEgress | None) -> int:
    port = section.integer("port", 0, _PORT, least=0, most=_PORT_MAX)
    if port and other is not None and other.port == port:
        section.need("port", _PORT).error("a port of its own; the other side of the playground has this one")
    return port
