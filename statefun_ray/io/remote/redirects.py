"""Redirects, followed as OkHttp follows them. No I/O.

After most of them the request is a GET without a body, as browsers do; after 307 and 308 it is the
same request once more. The time of the request goes on, so a chain of them takes no longer than one
request may. None leads to a Unix socket, and one that comes from there stays there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from statefun_ray.io.remote.errors import BadAnswer
from statefun_ray.io.remote.http_connection import Exchange
from statefun_ray.io.remote.manners import Manners
from statefun_ray.io.remote.target import BadUrl, redirected

REPEATED: Final = frozenset({307, 308})
"""Statuses after which the same request is made again."""

REDIRECTS: Final = frozenset({300, 301, 302, 303}) | REPEATED

REDIRECTS_MAX: Final = 20
"""In a row; OkHttp's figure."""


class Redirected:
    """An exchange that goes on elsewhere."""

    __slots__ = (
        "_before",
        "_first",
        "body",
        "content_type",
        "head",
        "redirects",
        "sent_s",
        "target",
        "until_s",
        "wait_s",
    )
    sent_s: float

    def __init__(self, before: Exchange, status: int, location: str, manners: Manners) -> None:
        """Args:
        before: the exchange that was answered with a redirect.
        status: of that answer.
        location: value of its header.
        manners: of the transport.

        Raises:
            BadAnswer: it leads nowhere.
        """
        url = before.target.url
        self._before = before
        self._first: str = before._first if isinstance(before, Redirected) else url
        self.redirects = before.redirects + 1
        if self.redirects > REDIRECTS_MAX:
            raise BadAnswer(f"{url} redirects once more, and {REDIRECTS_MAX} times in a row are enough")
        try:
            target = redirected(before.target, location)
        except BadUrl as error:
            text = f"{url} answered {status}, and where it redirects to, {error.url!r}, {error.problem}"
            raise BadAnswer(text, True) from None
        self.body = before.body if status in REPEATED else None
        method = "GET" if self.body is None else "POST"
        self.target = replace(target, url=f"{target.url} ({method}, redirected from {self._first})")
        self.content_type = before.content_type
        self.head = manners.head(method, target, self.content_type)
        self.wait_s, self.until_s = before.wait_s, before.until_s

    def answered(self, body: bytes, offers_batches: bool) -> None:
        """See `http_connection.Exchange`."""
        self._before.answered(body, offers_batches)

    def failed(self, error: Exception) -> None:
        """See `http_connection.Exchange`."""
        self._before.failed(error)
