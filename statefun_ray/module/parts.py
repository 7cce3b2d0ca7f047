"""The parts of an application as they come in, and who was first with a name."""

from __future__ import annotations

from statefun_ray.module.fields import Field
from statefun_ray.module.model import (
    Endpoint,
    FailurePolicy,
    FileEgress,
    KafkaEgress,
    KafkaIngress,
    Module,
    PlaygroundEgress,
    PlaygroundIngress,
)
from statefun_ray.module.problems import Place


class Parts:
    """Collects what all documents of all files bind."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.endpoints: list[Endpoint] = []
        self.kafka_ingresses: list[KafkaIngress] = []
        self.kafka_egresses: list[KafkaEgress] = []
        self.file_egresses: list[FileEgress] = []
        self.playground_ingress: PlaygroundIngress | None = None
        self.playground_egress: PlaygroundEgress | None = None
        self.http_ingress = ""
        self.http_limits: dict[str, int] = {}
        self.failure_policy = FailurePolicy()
        self.places: dict[tuple[str, str], Place] = {}
        """Who has clients, and a property of theirs -> where it is said; the id for the property ""."""
        self.targets: list[tuple[str, Field]] = []
        """Function types that records are for, each with where it is said."""
        self._claims: dict[tuple[str, str], Place] = {}

    def claim(self, what: str, name: str, field: Field) -> None:
        """Bind ``name``; an error names both places when something else did so before.

        Args:
            what: kind of name, such as ``"egress"``; names of different kinds do not clash.
            name: empty after a problem that is noted already, or for what there is only one of.
            field: where it is said.
        """
        if not name and field.node is None:
            return
        first = self._claims.setdefault((what, name), field.place)
        if first is not field.place:
            field.error(
                f"one, and the first is at {first}",
                "remove one of the two",
                found=f"a second {what} {name}".strip(),
            )

    def module(self) -> Module:
        """Return the application."""
        return Module(
            functions=tuple(self.functions),
            endpoints=tuple(self.endpoints),
            kafka_ingresses=tuple(self.kafka_ingresses),
            playground_ingress=self.playground_ingress,
            http_ingress=self.http_ingress,
            http_limits=self.http_limits,
            kafka_egresses=tuple(self.kafka_egresses),
            playground_egress=self.playground_egress,
            file_egresses=tuple(self.file_egresses),
            failure_policy=self.failure_policy,
        )
