"""Client properties: a module.yaml names those of Kafka's Java clients, librdkafka has its own.

Most names are the same. Some are called otherwise, some mean nothing outside a JVM and are left
out, some hold what only a JVM can read and are refused with what to say instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException

from statefun_sdk.errors import UserValueError

logger = logging.getLogger(__name__)

_RENAMED: Final = {
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
    "send.buffer.bytes": "socket.send.buffer.bytes",
    "max.request.size": "message.max.bytes",
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}

_JVM_ONLY: Final = frozenset(
    {
        "auto.include.jmx.reporter",
        "buffer.memory",
        "default.api.timeout.ms",
        "enable.metrics.push",
        "exclude.internal.topics",
        "flink.disable-metrics",
        "flink.poll-timeout",
        "interceptor.classes",
        "key.deserializer",
        "key.serializer",
        "max.block.ms",
        "max.poll.records",
        "metadata.max.idle.ms",
        "metric.reporters",
        "metrics.num.samples",
        "metrics.recording.level",
        "metrics.sample.window.ms",
        "partition.assignment.strategy",
        "partitioner.class",
        "security.providers",
        "ssl.keymanager.algorithm",
        "ssl.protocol",
        "ssl.secure.random.implementation",
        "ssl.trustmanager.algorithm",
        "value.deserializer",
        "value.serializer",
    }
)

_REFUSED: Final = {
    "ssl.truststore.location": "give the certificates as PEM: ssl.ca.location: /path/ca.pem",
    "ssl.truststore.password": "a PEM file of certificates needs none; drop it",
    "ssl.truststore.type": "give the certificates as PEM: ssl.ca.location: /path/ca.pem",
    "ssl.keystore.type": "give a PKCS#12 keystore, or PEM: ssl.certificate.location and ssl.key.location",
}

_DISCOVERY: Final = "flink.partition-discovery.interval-millis"
"""Flink's own; the source reads it."""

_LOGIN = re.compile(r'(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')


def client_properties(properties: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return what librdkafka takes for the properties of a module.yaml.

    Args:
        where: names the ingress or egress in errors.

    Raises:
        UserValueError: a property holds what only a JVM can read.
    """
    result: dict[str, Any] = {}
    for name, value in properties.items():
        if name in _REFUSED:
            raise UserValueError(f"{where}: the property {name} cannot be used here; {_REFUSED[name]}")
        if name == _DISCOVERY or name in _JVM_ONLY:
            if name in _JVM_ONLY:
                logger.info("property of a JVM left out where=%s name=%s", where, name)
            continue
        if name == "sasl.jaas.config":
            result.update(_login(value, where))
            continue
        result[_RENAMED.get(name, name)] = value
    return result


def _login(jaas: str, where: str) -> dict[str, str]:
    found = dict(_LOGIN.findall(jaas))
    if set(found) != {"username", "password"}:
        raise UserValueError(
            f'{where}: sasl.jaas.config is understood with username="…" and password="…" only; '
            "say sasl.username and sasl.password, or what else the mechanism needs, as properties"
        )
    return {f"sasl.{name}": value.replace('\\"', '"') for name, value in found.items()}


def discovery_s(properties: Mapping[str, str], default_s: float) -> float:
    """Return how often to look for new partitions; 0 for never again."""
    try:
        interval_ms = int(properties.get(_DISCOVERY, str(int(default_s * 1000))))
    except ValueError:
        return default_s
    return max(0.0, interval_ms / 1000)


def refused_by_client(error: KafkaException, where: str) -> UserValueError:
    """Return what to say when librdkafka does not take its properties."""
    cause = error.args[0]
    text = cause.str() if hasattr(cause, "str") else str(cause)
    return UserValueError(f"{where}: its Kafka client cannot be made: {text}; check the properties")
