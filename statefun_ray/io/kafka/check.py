"""Whether the Kafka clients of a module can be made, found out before anything starts."""

from __future__ import annotations

from statefun_ray.io.kafka.properties import client_properties
from statefun_ray.io.kafka.sink import make_producer
from statefun_ray.io.kafka.source import open_consumer
from statefun_ray.module.model import Module


def check_clients(module: Module) -> None:
    """Make every client and throw it away; nothing is waited for.

    Raises:
        UserValueError: a property that librdkafka does not take, naming ingress or egress.
    """
    for ingress in module.kafka_ingresses:
        open_consumer(ingress, lambda _error: None).close()
    for egress in module.kafka_egresses:
        where = f"kafka egress {egress.id}"
        make_producer(client_properties(egress.properties, where), where)
