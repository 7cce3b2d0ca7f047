"""What an HTTP response says about a request to a remote function, and what it holds. No I/O."""

from __future__ import annotations

import codecs
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from statefun_ray.io.remote.codec import CONTENT_TYPE
from statefun_ray.io.remote.errors import BadAnswer, ServiceUnavailable

UNAVAILABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses that say something of the service and nothing of the batch."""

REPEATED: Final = frozenset({408, 409, 420, 429, 499})
"""Those below 500 after which StateFun's okhttp transport tries again."""


EXCERPT_CHARS_MAX: Final = 300
"""Of what a service says about a failure: the sentence that names it, not the page around it."""


def check_head(
    url: str,
    status: int,
    content_type: str,
    retry_after: str,
    *,
    is_case_sensitive: bool,
    now: datetime,
    body: bytes = b"",
) -> None:
    """Refuse a response that is no result.

    The content type is checked although the status says success: services written in Java after
    StateFun's examples answer a failed batch with status 200, no body and no content type.

    Args:
        url: for the texts of errors.
        content_type: value of the header, empty without one. It has no parameters in a success;
            one element of a comma list is enough, unless case counts.
        retry_after: value of the header, empty without one.
        is_case_sensitive: whether it must be written in lower case, as for StateFun's okhttp.
        now: to take a date in ``retry_after`` relative to.
        body: for the texts of errors: a service often says there what is wrong.

    Raises:
        ServiceUnavailable: the service cannot answer now.
        BadAnswer: it has answered something else.
    """
    if not 200 <= status <= 299:
        text = f"{url} answered {status}{excerpt(body)}"
        if status in UNAVAILABLE:
            raise ServiceUnavailable(text, True, retry_after_ms(retry_after, now))
        raise BadAnswer(text, status < 500 and status not in REPEATED)
    if is_case_sensitive:
        is_right = content_type.strip() == CONTENT_TYPE
    else:
        is_right = CONTENT_TYPE in [each.strip().lower() for each in content_type.split(",")]
    if not is_right:
        found = f"content type {content_type!r}" if content_type else "no content type"
        text = f"{url} answered {status} with {found}; a result has {CONTENT_TYPE}{excerpt(body)}"
        raise BadAnswer(text, True)


def excerpt(body: bytes) -> str:
    """Return what a body says, in one line behind a colon; nothing if it is no text."""
    try:
        # A character that is cut off at the end is none that is wrong.
        text = codecs.getincrementaldecoder("utf-8")().decode(body[: 8 * EXCERPT_CHARS_MAX])
    except UnicodeDecodeError:
        return ""
    text = " ".join(text.split())
    if not text or not text.isprintable():
        return ""
    return f": {text}" if len(text) <= EXCERPT_CHARS_MAX else f": {text[:EXCERPT_CHARS_MAX]}…"


def retry_after_ms(header: str, now: datetime) -> int | None:
    """Return how long a Retry-After header asks to wait; None without one, or with one that says nothing."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return int(header[:9]) * 1_000
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0, int((at - now).total_seconds() * 1_000))


def decoded(url: str, encoding: str, body: bytes, bytes_max: int) -> bytes:
    """Return what a body holds; no more than ``bytes_max`` of it is ever unpacked.

    Args:
        url: for the texts of errors.
        encoding: value of the header, empty without one.
        body: as it came.
        bytes_max: of the result.

    Raises:
        BadAnswer: it is not of that encoding, breaks off, or holds too much; or only gzip is known here.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise BadAnswer(f"{url} answered with content encoding {encoding!r}, unasked")
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        result = unpacking.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise BadAnswer(f"{url} answered what is no gzip: {error}") from None
    if len(result) > bytes_max:
        raise too_large(url, bytes_max)
    if not unpacking.eof:
        raise BadAnswer(f"{url}: the answer broke off within its gzip, after {len(body)} bytes")
    if unpacking.unused_data:
        raise BadAnswer(f"{url} answered {len(unpacking.unused_data)} bytes behind the end of its gzip")
    return result


def too_large(url: str, bytes_max: int) -> BadAnswer:
    """Return what is said of an answer that is larger than the transport allows."""
    return BadAnswer(
        f"{url} answered more than {bytes_max} bytes; answer less, or raise payload_max_bytes of the async transport"
    )
