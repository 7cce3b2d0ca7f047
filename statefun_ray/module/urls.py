"""The URL of a service: what it may be, and what a request needs of it.

Whoever checks a ``module.yaml`` and whoever sends requests take URLs apart here, so that what the one
accepts the other can reach. What java.net.URI lets through beside ASCII is allowed; on the wire it
is percent-encoded, and a host is written as IDNA has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
PORT_MAX: Final = 65_535
UNIX: Final = "http+unix"

# Neither RFC 3986 nor, beyond ASCII, java.net.URI has these.
_ILLEGAL: Final = re.compile(
    r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%\x80-\U0010ffff]|[\x80-\x9f\s\ud800-\udfff]"
)
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


class BadUrl(Exception):
    """The URL of a service, with a function's name put in, is none."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return f"endpoint URL {self.url!r} {self.problem}"


@dataclass(frozen=True, slots=True)
class Url:
    """What a URL says, as it goes over the wire."""

    scheme: str
    """http, https or http+unix."""
    host: str
    """Without brackets, in ASCII; empty for a Unix socket."""
    port: int
    path: str
    """With the query; at least a slash. Of a Unix socket not encoded, and without a query."""
    written_host: str = ""
    """As it is in the text, in lower case."""
    fragment: str = ""
    socket: str = ""
    """Path of the file of a Unix socket."""
    left_out: str = ""
    """What is said and goes nowhere, as in StateFun: query and fragment of a Unix socket's."""


def parse_url(url: str) -> Url:
    """Take a URL apart.

    Raises:
        BadUrl: it is none, or of nothing that is spoken to here.
    """
    illegal = _ILLEGAL.search(url)
    if illegal is not None:
        raise BadUrl(url, _why_illegal(illegal[0]))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(url, f"is not valid: {error}") from None
    if parts.scheme == UNIX:
        return _unix(url, parts)
    if parts.scheme == "https+unix":
        raise BadUrl(url, f"asks for TLS over a Unix socket, which is not spoken here; write {UNIX}://")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise BadUrl(url, "must begin with http://HOST or https://HOST")
    if port == 0:
        raise BadUrl(url, f"must have a port of 1 to {PORT_MAX}, or none")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(
        scheme=parts.scheme,
        host=_host(url, parts.hostname),
        port=port or DEFAULT_PORTS[parts.scheme],
        path=_encoded(path),
        written_host=parts.hostname,
        fragment=_encoded(parts.fragment),
    )


def _why_illegal(text: str) -> str:
    encoded = quote(text, safe="", errors="replace")
    if text == "%":
        return f"holds '%' without two hexadecimal digits behind it; write it as {encoded}"
    return f"holds {text!r}, which no URL may; write it as {encoded}"


def _host(url: str, host: str) -> str:
    if ":" in host:
        return host
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise BadUrl(url, f"has the host {host!r}, which is no name: {error}") from None


def _encoded(text: str) -> str:
    return _BEYOND_ASCII.sub(lambda beyond: quote(beyond[0]), text)


def _unix(url: str, parts: SplitResult) -> Url:
    # As StateFun does it: escapes are resolved, and the names of the path counted, before anything else.
    names = [name for name in unquote(parts.path).split("/") if name]
    count = next((i for i, name in enumerate(names, 1) if name.endswith(".sock")), 0)
    socket = "/" + "/".join(names[:count])
    if parts.netloc or not parts.path.startswith("/") or not count or "\0" in socket:
        raise BadUrl(
            url,
            f"must be {UNIX}:// + the path of a socket that ends in .sock + the path of the URL, "
            f"such as {UNIX}:///var/run/functions.sock/statefun",
        )
    left_out = (parts.query and f"?{parts.query}") + (parts.fragment and f"#{parts.fragment}")
    return Url(
        scheme=UNIX,
        host="",
        port=DEFAULT_PORTS["http"],
        path="/" + "/".join(names[count:]),
        socket=socket,
        left_out=left_out,
    )
