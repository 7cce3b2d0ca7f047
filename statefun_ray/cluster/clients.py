"""What the clients of a module say about their properties, each with its line in the file.

Imports a client library only for a module that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from statefun_ray.module.model import Module
from statefun_ray.module.problems import Place, Problem, in_order
from statefun_ray.module.read import Reading

NOT_INSTALLED = "confluent-kafka is not installed"
INSTALL = "pip install 'statefun-ray[kafka]' here and on every node"


def client_problems(reading: Reading) -> tuple[Problem, ...]:
    """Return what is wrong, or perhaps not meant, in the properties of a module; () without a module.

    Without the client library nothing can be said about them, and a warning says that.
    """
    module = reading.module
    if module is None or not needs_kafka(module):
        return ()
    try:
        from statefun_ray.io.kafka.check import check_clients
        from statefun_ray.io.kafka.properties import Finding
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        place = next(iter(reading.places.values()))
        return (Problem("warning", place, NOT_INSTALLED, "", f"properties were not checked; {INSTALL}"),)
    problems: list[Problem] = []

    def found(finding: Finding) -> None:
        problems.append(
            Problem(
                "error" if finding.is_error else "warning",
                _place(reading, finding.where, finding.name),
                finding.found,
                "",
                finding.advice,
            )
        )

    check_clients(module, found)
    return tuple(problems)


def all_problems(reading: Reading, files: Sequence[str]) -> tuple[Problem, ...]:
    """Return what was found when ``files`` were read, with what their clients say, by file and line."""
    said = client_problems(reading)
    return in_order([*reading.problems, *said], files) if said else reading.problems


def needs_kafka(module: Module) -> bool:
    """Whether a module has something to do with Kafka."""
    return bool(module.kafka_ingresses or module.kafka_egresses)


def _place(reading: Reading, where: str, name: str) -> Place:
    place = reading.places.get((where, name)) or reading.places.get((where, ""))
    return Place("", 0) if place is None else place
