"""The parts of an application that are configured and not programmed, as plain values.

Whoever starts processes passes a :class:`Module` on; nothing in it is open or connected. Names of
keys in the file, defaults and rules are those of StateFun 3.3; the reader checks them, so values
here are sound. All durations are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

FUNCTION_NAME: Final = "{function.name}"
"""The one placeholder of a URL template."""

MAX_BATCH_REQUESTS: Final = 1_000
"""Of an endpoint that does not say."""

PLAYGROUND_EGRESS: Final = "io.statefun.playground/egress"
PLAYGROUND_INGRESS: Final = "io.statefun.playground/ingress"


# --- functions that live elsewhere --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AsyncTransport:
    """``io.statefun.transports.v1/async``, StateFun's default."""

    call_ms: int = 120_000
    """For one request with all its attempts and the waits between them."""
    connect_ms: int = 20_000
    pool_ttl_ms: int = 15_000
    """Life of a pooled connection; 0 for ever."""
    pool_size: int = 1_024
    """Connections per function type and worker."""
    payload_max_bytes: int = 33_554_432
    """Of a response."""
    trust_cacerts: str = ""
    """Location of a PEM file; the system's certificates unless given."""
    client_cert: str = ""
    client_key: str = ""
    client_key_password: str = ""
    """Location of a file that holds the password."""


@dataclass(frozen=True, slots=True)
class OkHttpTransport:
    """``io.statefun.transports.v1/okhttp``, and every v1 endpoint. Knows Unix sockets."""

    call_ms: int = 60_000
    connect_ms: int = 10_000
    read_ms: int = 10_000
    write_ms: int = 10_000


Transport: TypeAlias = AsyncTransport | OkHttpTransport


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service that runs functions."""

    functions: str
    """``namespace/name``, or ``namespace/*`` for every other function of a namespace."""
    url_template: str
    """With ``{function.name}`` for the name half of the type."""
    max_batch_requests: int = MAX_BATCH_REQUESTS
    """Waiting messages of one address above which sources are held back; 0 for no limit."""
    transport: Transport = AsyncTransport()

    @property
    def namespace(self) -> str:
        """Of its functions."""
        return self.functions.partition("/")[0]

    @property
    def is_pattern(self) -> bool:
        """Whether it serves a whole namespace."""
        return self.functions.endswith("/*")

    def url_for(self, function_type: str) -> str:
        """Return where requests for ``function_type`` go."""
        return self.url_template.replace(FUNCTION_NAME, function_type.partition("/")[2])


# --- sources ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KafkaTopic:
    """Every record of ``topic`` becomes one message per target, its key the id."""

    topic: str
    value_type: str
    targets: tuple[str, ...]
    """Function types, in the order of the file."""
    deliver: Literal["value", "record"] = "value"
    """A key of ours: what a target is given, the bytes of the value or the record with all it has."""


@dataclass(frozen=True, slots=True)
class StartupPosition:
    """Where a partition is read from that no snapshot knows."""

    kind: Literal["group-offsets", "earliest", "latest", "specific-offsets", "date"] = "latest"
    offsets: tuple[tuple[str, int, int], ...] = ()
    """``(topic, partition, offset)`` of ``specific-offsets``."""
    date_ms: int = 0
    """Since 1970, UTC, of ``date``."""


@dataclass(frozen=True, slots=True)
class KafkaIngress:
    """``io.statefun.kafka.v1/ingress``."""

    id: str
    topics: tuple[KafkaTopic, ...]
    startup: StartupPosition = StartupPosition()
    reset: Literal["earliest", "latest"] = "latest"
    """Where to go when an offset does not exist (any more)."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Of the consumer, with ``bootstrap.servers`` and ``group.id`` filled in."""


@dataclass(frozen=True, slots=True)
class PlaygroundIngress:
    """``io.statefun.playground.v1/ingress``: the playground's HTTP API."""

    port: int = 0


# --- sinks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KafkaEgress:
    """``io.statefun.kafka.v1/egress``."""

    id: str
    semantic: Literal["none", "at-least-once", "exactly-once"] = "at-least-once"
    transaction_timeout_ms: int = 0
    """Of exactly-once."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Of the producer, with ``bootstrap.servers`` filled in."""


@dataclass(frozen=True, slots=True)
class PlaygroundEgress:
    """``io.statefun.playground.v1/egress``: topics that are read over HTTP."""

    topics: tuple[str, ...]
    port: int = 0


@dataclass(frozen=True, slots=True)
class FileEgress:
    """``io.statefun-ray.v1/file-egress``, a kind of ours: rows as NDJSON objects in a store."""

    id: str
    uri: str


# --- what StateFun does not have ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """``io.statefun-ray.v1/failure-policy``, a kind of ours: what follows a message that fails."""

    retry_ms: int = 3_600_000
    """An address is tried again for so long before ``then``."""
    then: Literal["dead-letter", "park", "fail"] = "dead-letter"
    """``fail`` is StateFun's own behaviour: the application rolls back and tries again, for ever."""
    strict: bool = False
    """Treat what StateFun answers with a restart of the whole application as it does, at once."""


@dataclass(frozen=True, slots=True)
class Module:
    """One application, as configured. Several files merge into one."""

    functions: tuple[str, ...] = ()
    """``io.statefun-ray.v1/python-functions``, a kind of ours: ``module:variable`` of embedded functions."""
    endpoints: tuple[Endpoint, ...] = ()
    kafka_ingresses: tuple[KafkaIngress, ...] = ()
    playground_ingress: PlaygroundIngress | None = None
    http_ingress: str = ""
    """``io.statefun-ray.v1/http-ingress``, a kind of ours: ``HOST:PORT``; the command line wins."""
    http_limits: Mapping[str, int] = field(default_factory=dict)
    """Of that kind: those of ``statefun_ingress.config.LIMITS`` that are set; the command line wins."""
    kafka_egresses: tuple[KafkaEgress, ...] = ()
    playground_egress: PlaygroundEgress | None = None
    file_egresses: tuple[FileEgress, ...] = ()
    failure_policy: FailurePolicy = FailurePolicy()

    def endpoint_of(self, function_type: str) -> Endpoint | None:
        """Return who serves a function type: an exact endpoint, else that of its namespace, else None."""
        namespace_wide = None
        pattern = function_type.partition("/")[0] + "/*"
        for endpoint in self.endpoints:
            if endpoint.functions == function_type:
                return endpoint
            if endpoint.functions == pattern:
                namespace_wide = endpoint
        return namespace_wide

    def serves(self, function_type: str) -> bool:
        """Whether some endpoint runs a function type."""
        return self.endpoint_of(function_type) is not None

    @property
    def eager_egresses(self) -> frozenset[str]:
        """Those with somebody at the other end, for whom a periodic snapshot would be long to wait for."""
        ids = {egress.id for egress in self.kafka_egresses}
        if self.playground_egress is not None:
            ids.add(PLAYGROUND_EGRESS)
        return frozenset(ids)

    @property
    def egress_ids(self) -> frozenset[str]:
        """Every egress that is configured."""
        configured: list[KafkaEgress | FileEgress] = [*self.kafka_egresses, *self.file_egresses]
        ids = {egress.id for egress in configured}
        if self.playground_egress is not None:
            ids.add(PLAYGROUND_EGRESS)
        return frozenset(ids)


NO_MODULE: Final = Module()
"""Of an application that is only its Python functions."""
