"""What the head of a response says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from statefun_ray.io.remote.answers import EXCERPT_CHARS_MAX, check_head, retry_after_ms
from statefun_ray.io.remote.errors import BadAnswer, ServiceUnavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OCTETS = "application/octet-stream"


def check(status: int, content_type: str = OCTETS, retry_after: str = "", *, strict: bool = False) -> None:
    check_head("http://a/b", status, content_type, retry_after, is_case_sensitive=strict, now=NOW)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_successes(status: int) -> None:
    check(status)
    check(status, "Application/Octet-Stream")
    check(status, f"text/plain, {OCTETS}")


@pytest.mark.parametrize("content_type", ["", "text/plain", f"{OCTETS}; charset=utf-8"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_success_without_the_right_content_type_is_none(content_type: str, strict: bool) -> None:
    with pytest.raises(BadAnswer, match="content type"):
        check(200, content_type, strict=strict)


def test_case_counts_for_okhttp() -> None:
    with pytest.raises(BadAnswer):
        check(200, "Application/Octet-Stream", strict=True)


@pytest.mark.parametrize("status", [100, 301, 400, 404, 408, 500, 501])
def test_other_statuses_are_answers(status: int) -> None:
    with pytest.raises(BadAnswer, match=f"http://a/b answered {status}"):
        check(status)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_statuses_of_the_service_itself(status: int) -> None:
    with pytest.raises(ServiceUnavailable) as unavailable:
        check(status, retry_after="3")
    assert unavailable.value.answered
    assert unavailable.value.retry_after_ms == 3_000


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (
            b"ValueError: price of item q\n  must not be negative\n",
            ": ValueError: price of item q must not be negative",
        ),
        ("zu groß".encode(), ": zu groß"),
        (b"\x0a\x03\x08\x96\x01", ""),
        (b"\xff\xfe", ""),
        (b"a" * EXCERPT_CHARS_MAX, ": " + "a" * EXCERPT_CHARS_MAX),
        (b"a" * 1_000_000, ": " + "a" * EXCERPT_CHARS_MAX + "…"),
        (("ß" * 1_000_001).encode()[:-1], ": " + "ß" * EXCERPT_CHARS_MAX + "…"),
    ],
)
def test_what_a_service_says_about_a_failure_is_told(body: bytes, said: str) -> None:
    for status, content_type in ((500, ""), (503, "text/plain"), (200, "text/html")):
        with pytest.raises((BadAnswer, ServiceUnavailable)) as refused:
            check_head("http://a/b", status, content_type, "", is_case_sensitive=False, now=NOW, body=body)
        assert str(refused.value).endswith(said or str(status) if status != 200 else said or OCTETS)


@pytest.mark.parametrize(
    ("header", "ms"),
    [
        ("", None),
        ("0", 0),
        (" 12 ", 12_000),
        ("-1", None),
        ("soon", None),
        ("Thu, 01 Jan 2026 00:00:02 GMT", 2_000),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("9" * 40, 999_999_999_000),
        ("\u0663", None),
    ],
)
def test_retry_after(header: str, ms: int | None) -> None:
    assert retry_after_ms(header, NOW) == ms
