"""``module.yaml`` -> :class:`~statefun_ray.module.model.Module`, as StateFun 3.3 reads it.

Text in, values out: who has files uses ``statefun_ray.module.load``. A file is a stream of
documents, each with ``kind`` and ``spec``; several files merge into one application. What StateFun
refuses is refused, with all problems of all files at once; what it ignores is ignored, with a
warning. Where we differ on purpose is said in docs/module-yaml.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from statefun_ray.module import tree
from statefun_ray.module.endpoints import read_endpoint_v1, read_endpoint_v2
from statefun_ray.module.fields import Field
from statefun_ray.module.kafka import read_kafka_egress, read_kafka_ingress
from statefun_ray.module.legacy import is_legacy, read_legacy
from statefun_ray.module.model import Module
from statefun_ray.module.own_kinds import (
    read_failure_policy,
    read_file_egress,
    read_http_ingress,
    read_python_functions,
)
from statefun_ray.module.parts import Parts
from statefun_ray.module.playground import read_playground_egress, read_playground_ingress
from statefun_ray.module.problems import Place, Problem, Problems, nearest

KINDS: Final[Mapping[str, Callable[[Field, Parts], None]]] = {
    "io.statefun.endpoints.v1/http": read_endpoint_v1,
    "io.statefun.endpoints.v2/http": read_endpoint_v2,
    "io.statefun.kafka.v1/ingress": read_kafka_ingress,
    "io.statefun.kafka.v1/egress": read_kafka_egress,
    "io.statefun.playground.v1/ingress": read_playground_ingress,
    "io.statefun.playground.v1/egress": read_playground_egress,
    "io.statefun-ray.v1/python-functions": read_python_functions,
    "io.statefun-ray.v1/http-ingress": read_http_ingress,
    "io.statefun-ray.v1/file-egress": read_file_egress,
    "io.statefun-ray.v1/failure-policy": read_failure_policy,
}

UNAVAILABLE: Final[Mapping[str, str]] = {
    "io.statefun.kinesis.v1/ingress": "feed the stream's records to the HTTP ingress or to a Kafka topic, "
    "and remove this document",
    "io.statefun.kinesis.v1/egress": "send these records to a Kafka or file egress, and remove this document",
}
"""Kinds of StateFun that this runtime does not have, each with what to do instead."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came out of some files."""

    module: Module | None
    """The application; None when there is an error."""
    problems: tuple[Problem, ...]
    """By file and line."""
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)
    """``kafka ingress <id>`` or ``kafka egress <id>`` and a property of it -> where it is said, for who
    looks at properties later; with the property "" where its id is said."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What keeps the application from starting."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What does not."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")


def read(sources: Sequence[tuple[str, str]]) -> Reading:
    """Return the application that some files describe together.

    Args:
        sources: ``(name, text)`` of each file; the name is for messages.
    """
    problems, parts = Problems(), Parts()
    for name, text in sources:
        _read_file(name, text, parts, problems)
    module = None if problems.error_count else parts.module()
    if module is not None:
        _warn_of_unserved(module, parts)
    return Reading(module, problems.in_order(name for name, _ in sources), parts.places)


def _read_file(source: str, text: str, parts: Parts, problems: Problems) -> None:
    nodes, fault = tree.parse(text)
    if fault is not None:
        unchecked = "what follows in this file is not checked"
        advice = f"{fault.advice}; {unchecked}" if fault.advice else unchecked
        problems.error(Place(source, fault.line), fault.reason, "YAML", advice)
    documents = [
        Field(node, Place(source, node.line), problems)
        for node in nodes
        if not (isinstance(node, tree.Scalar) and node.is_null)
    ]
    if not documents and fault is None:
        problems.warn(
            Place(source, 0), "no document", "a module.yaml is a list of documents with kind and spec"
        )
    for document in documents:
        _warn_of_variables(document)
    if len(documents) == 1 and is_legacy(documents[0]):
        read_legacy(documents[0], lambda field, kind, spec: _read_kind(field, kind, spec, parts))
        return
    for document in documents:
        _read_document(document, parts)


def _read_document(document: Field, parts: Parts) -> None:
    section = document.section("a mapping with kind and spec", ("kind", "spec"))
    kind = section.need("kind", "the kind of this document, such as io.statefun.endpoints.v2/http")
    name = kind.typename("a kind, such as io.statefun.endpoints.v2/http")
    spec = section.need("spec", "the settings of this document")
    if name:
        _read_kind(kind, name, spec, parts)


def _read_kind(field: Field, kind: str, spec: Field, parts: Parts) -> None:
    """Read ``spec`` as one of ``kind``, which is said at ``field``."""
    if kind in KINDS:
        KINDS[kind](spec, parts)
        return
    if kind in UNAVAILABLE:
        field.error("another kind, since there is no connector for Kinesis", UNAVAILABLE[kind])
        return
    meant = nearest(kind, KINDS)
    field.error(
        "a kind that there is",
        f"did you mean {meant}?" if meant else "see docs/module-yaml.md for all of them",
    )


def _warn_of_unserved(module: Module, parts: Parts) -> None:
    """Say which targets of records no endpoint serves, unless functions in Python may well do."""
    if module.functions or not module.endpoints:
        return
    for function_type, place in parts.targets:
        if not module.serves(function_type):
            meant = nearest(function_type, (endpoint.functions for endpoint in module.endpoints))
            place.warn(
                f"{function_type!r}, which no endpoint serves",
                "unless a function in Python of that name is run beside this, no record gets there"
                + (f"; did you mean {meant}?" if meant else ""),
            )


# --- what looks like a variable -----------------------------------------------------------------

_VARIABLE: Final = re.compile(r"\$\{[^}]*\}")


def _warn_of_variables(document: Field) -> None:
    """Say that ``${NAME}`` is no placeholder, wherever it stands."""
    seen: set[int] = set()
    waiting = [document]
    while waiting:
        field = waiting.pop()
        # Several aliases may lead to one node.
        if field.node is None or id(field.node) in seen:
            continue
        seen.add(id(field.node))
        if isinstance(field.node, tree.Scalar):
            for variable in _VARIABLE.findall(field.node.text):
                field.warn(
                    repr(variable),
                    "it is passed on as it stands, since StateFun replaces no variables; "
                    "put the value in before the file is read, for example with envsubst",
                )
        elif isinstance(field.node, tree.Listing):
            waiting += field.items("")
        else:
            waiting += [field.at(name, entry.line, entry.value) for name, entry in field.node.entries.items()]
