"""Settings of one ingress: every one with a unit, a default and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from statefun_ingress.key_groups import KEY_GROUP_COUNT_DEFAULT

MB: Final = 1 << 20

BODY, BULK, HEADER, ID = "bodyBytesMax", "bulkBytesMax", "headerBytesMax", "idBytesMax"
"""Names of limits that whoever starts an application may set."""

LIMITS: Final = {
    # A frame to a worker holds 64 MB: the event, and up to 1 MB of others.
    BODY: ("body_bytes_max", 48 * MB),
    # More than the bodies of all requests together would always be refused.
    BULK: ("bulk_bytes_max", 256 * MB),
    HEADER: ("header_bytes_max", 1 * MB),
    ID: ("id_bytes_max", 1 * MB),
}
"""By that name: the setting of `IngressConfig`, and the most that it may be; the least is 1."""


def how_to_raise(limit: str) -> str:
    """Return what a person does who runs into a limit."""
    return (
        f"raise {limit}, with --http-limit {limit}=BYTES of 'statefun-ray run' or as a key of "
        "io.statefun-ray.v1/http-ingress in module.yaml"
    )


@dataclass(frozen=True, kw_only=True)
class IngressConfig:
    """How one ingress listens and what it bounds.

    Attributes:
        app_name: of the application; workers of another are refused.
        key_group_count: of the application.
        http_host: loopback unless told otherwise, since there is no authentication.
        http_port: 0 takes a free port.
        feed_host: where workers connect; the node's own address on a cluster.
        feed_port: 0 takes a free port.
        body_bytes_max: of one event, also of one bulk line. Larger things belong in an
            object store, with their address in the event.
        bulk_bytes_max: of a bulk body, which is one record: all or nothing.
        header_bytes_max: of a request line and headers; every connection may hold as much.
        id_bytes_max: of the id of an address, a key that is hashed, stored and sent again and again.
        header_timeout_s: from the first wait for a request to its last header; a client
            that is slower holds a connection for nothing.
        body_timeout_s: from the last header to the last byte of the body.
        keep_alive_s: how long an idle connection is kept. Longer than usual proxies', so
            that the proxy closes first and never sends into a closing connection.
        connections_max: open connections; more are answered 503.
        wait_s_max: upper bound of ``Prefer: wait``.
        query_timeout_s: how long a state query waits for its worker.
        lag_events_max: accepted and not yet handed to workers; beyond it 429, as a longer
            queue only turns into later answers.
        unsynced_bytes_max: appended and not yet durable; beyond it 429, since the disk is
            the bottleneck then.
        unread_bytes_max: of bodies that did not come in one piece, from their first byte until
            they are answered, all together; bounds their memory.
        playground_port: of the playground's ingress; None serves none, 0 takes a free port.
        playground_egress_port: of the playground's egress, likewise.
        playground_topics: of that egress.
        drain_timeout_s: how long ``stop`` waits for requests under way.
    """

    app_name: str
    key_group_count: int = KEY_GROUP_COUNT_DEFAULT
    http_host: str = "127.0.0.1"
    http_port: int = 0
    feed_host: str = "127.0.0.1"
    feed_port: int = 0
    body_bytes_max: int = 16 * MB
    bulk_bytes_max: int = 16 * MB
    header_bytes_max: int = 64 * 1024
    id_bytes_max: int = 64 * 1024
    header_timeout_s: float = 5.0
    body_timeout_s: float = 30.0
    keep_alive_s: int = 75
    connections_max: int = 10_000
    wait_s_max: float = 60.0
    query_timeout_s: float = 5.0
    lag_events_max: int = 10_000_000
    unsynced_bytes_max: int = 64 * MB
    unread_bytes_max: int = 256 * MB
    pending_replies_max: int = 10_000
    playground_port: int | None = None
    playground_egress_port: int | None = None
    playground_topics: tuple[str, ...] = ()
    drain_timeout_s: float = 10.0
