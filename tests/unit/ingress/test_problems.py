from __future__ import annotations

import json

import pytest

from statefun_ingress.errors import (
    LogFailed,
    ProducerError,
    RequestRefused,
    SequenceReused,
    SequenceTooFarAhead,
    TooManyPendingReplies,
    TooManyProducers,
)
from statefun_ingress.problems import problem_body, problem_headers, raw_problem, refusal_of


def test_a_problem_says_what_it_is() -> None:
    refused = RequestRefused(429, "Slow down", "found this", 3)
    body = problem_body(refused)

    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Slow down",
        "status": 429,
        "detail": "found this",
    }
    assert (b"retry-after", b"3") in problem_headers(refused, body)
    assert (b"content-type", b"application/problem+json") in problem_headers(refused, body)


def test_a_problem_below_asgi_is_a_whole_answer() -> None:
    head, _, body = raw_problem(RequestRefused(408, "Too slow", "after 5 s")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in head
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body)["detail"] == "after 5 s"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LogFailed("l", "disk"), 503),
        (SequenceTooFarAhead("p", 9, 1, 4), 409),
        (SequenceReused("p", 7, 100), 422),
        (TooManyProducers("p", 4), 429),
        (TooManyPendingReplies(4), 503),
    ],
)
def test_what_the_core_refuses_has_a_status(
    error: LogFailed | ProducerError | TooManyPendingReplies, status: int
) -> None:
    refused = refusal_of(error)

    assert refused.status == status
    assert refused.detail == str(error)
    assert (refused.retry_after_s > 0) == (status in (429, 503))
