"""In what the transports of StateFun differ, as values: the client is the same for both. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from statefun_ray.io.remote.target import Target
from statefun_ray.module.model import AsyncTransport, Transport
from statefun_sdk import batches

ANSWER_BYTES_MAX: Final = 33_554_432
"""Of a response over okhttp; in StateFun that transport has no limit of its own."""

OKHTTP_CONNECTIONS: Final = 1_024
OKHTTP_IDLE_MS: Final = 60_000
"""What StateFun sets for its OkHttp client."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How requests are made over a transport. Durations of 0 have no bound."""

    call_ms: int
    """For the answer to one request; with `is_call_whole` also for its connection, and all redirects."""
    is_call_whole: bool
    connect_ms: int
    read_ms: int
    """Of silence, from the end of a request on and between two pieces of its answer."""
    write_ms: int
    """In which the service takes nothing of a request that is being sent."""
    age_ms_max: int
    """Of a connection that is used again."""
    idle_ms_max: int
    """Since it was last used."""
    connections_max: int
    answer_bytes_max: int
    """What it holds, if it is compressed."""
    is_case_sensitive: bool
    """Whether the content type of an answer counts as it is written."""
    follows_redirects: bool
    accept_encoding: str
    """What is asked for; gzip is taken from everybody."""

    def head(self, method: str, target: Target, content_type: str) -> bytes:
        """Return the head of a request, with a body up to where its length follows."""
        lines = [
            f"{method} {target.path} HTTP/1.1",
            f"Host: {target.authority}",
            f"Accept: {content_type}",
            f"{batches.HEADER}: {batches.VERSION}",
            "User-Agent: statefun",
            "Connection: keep-alive",
        ]
        if self.accept_encoding:
            lines.append(f"Accept-Encoding: {self.accept_encoding}")
        lines += ["", ""] if method == "GET" else [f"Content-Type: {content_type}", "Content-Length: "]
        return "\r\n".join(lines).encode("latin-1")


def manners_of(transport: Transport) -> Manners:
    """Return those of a transport."""
    if isinstance(transport, AsyncTransport):
        return Manners(
            call_ms=transport.call_ms,
            is_call_whole=False,
            connect_ms=transport.connect_ms,
            read_ms=0,
            write_ms=0,
            age_ms_max=transport.pool_ttl_ms,
            idle_ms_max=0,
            connections_max=transport.pool_size,
            answer_bytes_max=transport.payload_max_bytes,
            is_case_sensitive=False,
            follows_redirects=False,
            accept_encoding="",
        )
    return Manners(
        call_ms=transport.call_ms,
        is_call_whole=True,
        connect_ms=transport.connect_ms,
        read_ms=transport.read_ms,
        write_ms=transport.write_ms,
        age_ms_max=0,
        idle_ms_max=OKHTTP_IDLE_MS,
        connections_max=OKHTTP_CONNECTIONS,
        answer_bytes_max=ANSWER_BYTES_MAX,
        is_case_sensitive=True,
        follows_redirects=True,
        accept_encoding="gzip",
    )
