"""Refusals as HTTP answers: ``application/problem+json`` (RFC 9457) with a text for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from statefun_ingress.errors import (
    LogFailed,
    ProducerError,
    RequestRefused,
    SequenceReused,
    SequenceTooFarAhead,
    TooManyPendingReplies,
)

PROBLEM_TYPE: Final = b"application/problem+json"

Headers = list[tuple[bytes, bytes]]


def problem_body(refused: RequestRefused) -> bytes:
    """Return the body of a refusal."""
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": refused.title,
            "status": refused.status,
            "detail": refused.detail,
        }
    )


def problem_headers(refused: RequestRefused, body: bytes) -> Headers:
    """Return the headers that go with ``problem_body``."""
    headers = [(b"content-type", PROBLEM_TYPE), (b"content-length", b"%d" % len(body))]
    if refused.retry_after_s:
        headers.append((b"retry-after", b"%d" % refused.retry_after_s))
    if refused.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"PUT, POST"))
    return headers


def status_header(status: int) -> tuple[bytes, bytes]:
    """Return the header in which the playground says what became of a request."""
    return b"status", b"%d" % status


def raw_problem(refused: RequestRefused, *further_headers: tuple[bytes, bytes]) -> bytes:
    """Return a whole HTTP/1.1 answer that closes the connection, for refusals below ASGI."""
    body = problem_body(refused)
    lines = [b"HTTP/1.1 %d %s" % (refused.status, HTTPStatus(refused.status).phrase.encode())]
    lines += [name + b": " + value for name, value in [*problem_headers(refused, body), *further_headers]]
    lines += [b"connection: close", b"", body]
    return b"\r\n".join(lines)


def refusal_of(error: LogFailed | ProducerError | TooManyPendingReplies) -> RequestRefused:
    """Return what a client is told when the core does not take its request."""
    if isinstance(error, LogFailed):
        return RequestRefused(503, "The ingress log is not writable", str(error), 5)
    if isinstance(error, SequenceTooFarAhead):
        return RequestRefused(409, "The producer sequence is too far ahead", str(error))
    if isinstance(error, SequenceReused):
        return RequestRefused(422, "The producer sequence was used for another request", str(error))
    if isinstance(error, TooManyPendingReplies):
        return RequestRefused(503, "Too many requests wait for a reply", str(error), 1)
    return RequestRefused(429, "There are too many producers", str(error), 60)
