"""Client properties: a module.yaml names those of Kafka's Java clients, librdkafka has its own.

Most names are the same. Some are called otherwise, some mean nothing outside a JVM and are left
out, some hold what only a JVM can read and are refused with what to say instead. A name that
nobody knows is left out with a warning, as Java's clients do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException

from statefun_ray.io.kafka.names import NAMES
from statefun_ray.module.problems import nearest
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

_ALIASES: Final = {
    "acks": "request.required.acks",
    "bootstrap.servers": "metadata.broker.list",
    "compression.type": "compression.codec",
    "delivery.timeout.ms": "message.timeout.ms",
    "linger.ms": "queue.buffering.max.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "retries": "message.send.max.retries",
    "sasl.mechanism": "sasl.mechanisms",
}
"""Names that librdkafka takes, and calls otherwise when it complains."""

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

ON_LOST_REGISTERS: Final = "statefun-ray.on-lost-registers"
"""Ours; the sink reads it. What becomes of records of which nobody knows whether they are written."""

_WITHOUT_TRACE: Final = _JVM_ONLY - {"partitioner.class"}
"""Nothing comes out differently without these."""

_NAMED_BY_CLIENT: Final = re.compile(r'property:? "([^"]+)"|`([a-z._]+)`')

Client = TypeVar("Client")


@dataclass(frozen=True)
class Finding:
    """Something about a property that its author should know."""

    where: str
    """The ingress or egress."""
    name: str
    """Of the property, as in the file; empty when the client does not say which it is."""
    found: str
    advice: str
    is_error: bool = False
    """Whether no client can be made with it; else it is left out."""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}; {self.advice}"


_LOGIN = re.compile(r'(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')


def client_properties(
    properties: Mapping[str, str], where: str, found: Callable[[Finding], None] | None = None
) -> dict[str, Any]:
    """Return what is to be said to librdkafka for the properties of a module.yaml.

    Args:
        where: names the ingress or egress in errors.
        found: told what is left out or cannot be used.

    Raises:
        UserValueError: a property holds what only a JVM can read, and ``found`` is not given.
    """
    found = _raise_or_log if found is None else found
    result: dict[str, Any] = {}
    for name, value in properties.items():
        if name in _REFUSED:
            found(Finding(where, name, f"the property {name} cannot be used here", _REFUSED[name], True))
        elif name == "sasl.jaas.config":
            login = dict(_LOGIN.findall(value))
            if set(login) == {"username", "password"}:
                result.update({f"sasl.{part}": text.replace('\\"', '"') for part, text in login.items()})
            else:
                found(Finding(where, name, _LOGIN_FOUND, _LOGIN_ADVICE, True))
        elif name == ON_LOST_REGISTERS:
            if value not in _LOST_CHOICES:
                wrong = f"{value!r} for the property {name}"
                found(Finding(where, name, wrong, f"it is one of {', '.join(_LOST_CHOICES)}", True))
        elif name == "partitioner.class":
            found(
                Finding(
                    where, name, f"the property {name}, which names a class of a JVM", _PARTITIONER_ADVICE
                )
            )
        elif name == "ssl.endpoint.identification.algorithm":
            result[name] = value or "none"
        elif name in _WITHOUT_TRACE:
            logger.info("property of a JVM left out where=%s name=%s", where, name)
        elif name != _DISCOVERY:
            result[_RENAMED.get(name, name)] = value
    return result


_PARTITIONER_ADVICE: Final = (
    "it is left out, and keys have the partitions of Java's default; partitioner names one of librdkafka's"
)
_LOST_CHOICES: Final = ("publish", "skip")
_LOGIN_FOUND: Final = (
    'a sasl.jaas.config without username="…" and password="…", which is all that is understood of it'
)
_LOGIN_ADVICE: Final = "say sasl.username and sasl.password, or what else the mechanism needs, as properties"


def make_client(
    make: Callable[[dict[str, Any]], Client],
    given: Mapping[str, str],
    where: str,
    ours: Mapping[str, Any] | None = None,
    found: Callable[[Finding], None] | None = None,
) -> tuple[Client | None, dict[str, Any]]:
    """Return a client, and the properties of the file that it took.

    Args:
        make: takes properties of librdkafka; raises `KafkaException` for those that cannot be.
        given: properties of a module.yaml.
        where: names the ingress or egress.
        ours: properties that win.
        found: told what is left out or cannot be used; then there may be no client.

    Raises:
        UserValueError: there is no client, and ``found`` is not given.
    """
    found = _raise_or_log if found is None else found
    taken = client_properties(given, where, found)
    while True:
        try:
            return make({**taken, **(ours or {})}), taken
        except KafkaException as error:
            finding = _said_by_client(error, where, given, taken)
            found(finding)
            name = _RENAMED.get(finding.name, finding.name)
            if name not in taken:
                return None, taken
            del taken[name]  # and what is wrong besides?


def _said_by_client(
    error: KafkaException, where: str, given: Mapping[str, str], taken: Mapping[str, Any]
) -> Finding:
    cause = error.args[0]
    text = (cause.str() if hasattr(cause, "str") else str(cause)).strip()
    named = _NAMED_BY_CLIENT.search(text)
    name = "" if named is None else named[1] or named[2]
    others = [java for java, own in (*_RENAMED.items(), *_ALIASES.items()) if own == name]
    name = next((java for java in others if java in given), name)
    if "No such configuration property" in text and name in taken:
        meant = nearest(name, NAMES | _RENAMED.keys())
        hint = (
            f"did you mean {meant}?"
            if meant
            else "the names are those of Kafka's Java clients or of librdkafka"
        )
        return Finding(
            where, name, f"the property {name}, which its client does not know", f"it is left out; {hint}"
        )
    what = f"the property {name}," if name else "properties"
    return Finding(
        where, name, f"{what} with which no Kafka client can be made: {text}", "correct or remove it", True
    )


def raise_errors(finding: Finding) -> None:
    """Be told of a finding, and raise it if it is an error.

    Raises:
        UserValueError: it is.
    """
    if finding.is_error:
        raise UserValueError(str(finding))


def _raise_or_log(finding: Finding) -> None:
    raise_errors(finding)
    logger.warning("%s", finding)


def discovery_s(properties: Mapping[str, str], default_s: float) -> float:
    """Return how often to look for new partitions; 0 for never again."""
    try:
        interval_ms = int(properties.get(_DISCOVERY, str(int(default_s * 1000))))
    except ValueError:
        return default_s
    return max(0.0, interval_ms / 1000)
