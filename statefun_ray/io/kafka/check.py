"""Whether the Kafka clients of a module can be made, found out before anything starts."""

from __future__ import annotations

from collections.abc import Callable

from statefun_ray.io.kafka.log import client_logger
from statefun_ray.io.kafka.properties import Finding, make_client
from statefun_ray.io.kafka.sink import make_producer
from statefun_ray.io.kafka.source import open_consumer
from statefun_ray.module.model import Module


def check_clients(module: Module, found: Callable[[Finding], None] | None = None) -> None:
    """Make every client and throw it away; nothing is waited for.

    Args:
        module: says which there are.
        found: told all that is wrong, or perhaps not meant, with a property.

    Raises:
        UserValueError: a property that librdkafka does not take, naming ingress or egress, and
            ``found`` is not given.
    """
    # Whether their brokers answer is not asked here, and nobody configured the log of this program.
    client_logger.disabled = True
    try:
        for ingress in module.kafka_ingresses:
            consumer = open_consumer(ingress, lambda _error: None, found)
            if consumer is not None:
                consumer.close()
        for egress in module.kafka_egresses:
            make_client(make_producer, egress.properties, f"kafka egress {egress.id}", found=found)
    finally:
        client_logger.disabled = False
