"""Where a request goes: the URL of an endpoint, taken apart and checked. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from statefun_ray.module.model import AsyncTransport, Endpoint

_ILLEGAL: Final = re.compile(r"[^!-~]|[{}\"<>\\^`|]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class BadUrl(Exception):
    """The URL of an endpoint, with a function's name put in, is none."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return f"endpoint URL {self.url!r} {self.problem}"


@dataclass(frozen=True, slots=True)
class Target:
    """One URL of a service."""

    url: str
    """As in the module, with the function's name; for people."""
    scheme: str
    """http or https."""
    host: str
    """Without brackets; ``localhost`` for a Unix socket."""
    port: int
    path: str
    """As it stands in the request line, with the query."""
    socket: str = ""
    """Path of a Unix socket, if it is reached by one."""
    peer: tuple[str, str, int, str] = field(init=False, compare=False, repr=False)
    """Scheme, host and port, or the socket: requests to one peer share connections."""

    def __post_init__(self) -> None:
        peer = ("", "", 0, self.socket) if self.socket else (self.scheme, self.host, self.port, "")
        object.__setattr__(self, "peer", peer)  # made once, as each request asks for it

    @property
    def authority(self) -> str:
        """Value of the Host header: the port is left out if it is 80 or 443, as StateFun does."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port in (80, 443) else f"{host}:{self.port}"


def target_of(endpoint: Endpoint, function_type: str) -> Target:
    """Return where requests for a function go.

    Raises:
        BadUrl: the name makes it invalid, or its transport does not know the scheme.
    """
    url = endpoint.url_for(function_type)
    illegal = _ILLEGAL.search(url)
    if illegal is not None:
        raise BadUrl(url, f"holds {illegal[0]!r}, which no URL may")
    scheme, _, _ = url.partition("://")
    if scheme == "https+unix":
        raise BadUrl(url, "asks for TLS over a Unix socket, which is not spoken here; write http+unix://")
    if scheme == "http+unix":
        if isinstance(endpoint.transport, AsyncTransport):
            raise BadUrl(url, "is of a Unix socket, which takes transport io.statefun.transports.v1/okhttp")
        return _unix_target(url)
    target, fragment = _web_target(url)
    if fragment and isinstance(endpoint.transport, AsyncTransport):
        target = replace(target, path=f"{target.path}#{fragment}")  # StateFun's sends it along
    return target


def redirected(target: Target, location: str) -> Target:
    """Return where a redirect leads; from a Unix socket nowhere but to the same one.

    Args:
        target: what was asked.
        location: value of the header, which may be relative.

    Raises:
        BadUrl: it leads to no place that is spoken to here.
    """
    # As browsers do, and OkHttp: what no URL may hold is encoded. It came as bytes, one a character.
    location = _ILLEGAL.sub(lambda illegal: f"%{ord(illegal[0]):02X}", location.strip())
    try:
        host = f"[{target.host}]" if ":" in target.host else target.host
        port = "" if target.port == _DEFAULT_PORTS[target.scheme] else f":{target.port}"
        url = urljoin(f"{target.scheme}://{host}{port}{target.path}", location)
    except ValueError as error:
        raise BadUrl(location, f"is not valid: {error}") from None
    found, _ = _web_target(url)
    if not target.socket:
        return found
    if found.scheme != target.scheme:
        raise BadUrl(url, "asks for TLS over a Unix socket, which is not spoken here")
    return replace(found, socket=target.socket)


def _web_target(url: str) -> tuple[Target, str]:
    """Return the target of a URL of http or https, without its fragment, and that."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(url, f"is not valid: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadUrl(url, "must begin with http:// or https:// and a host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = port or _DEFAULT_PORTS[parts.scheme]
    return Target(url, parts.scheme, parts.hostname, port, path), parts.fragment


def _unix_target(url: str) -> Target:
    file, found, path = url.partition("://")[2].partition(".sock")
    if not found or (path and not path.startswith("/")):
        raise BadUrl(url, "must hold the path of a socket that ends in .sock, and perhaps a path after it")
    # OkHttp, through which StateFun does this, takes the path for one segment: its slashes are
    # percent-encoded on the wire, and no path at all is one slash. Services are written for that.
    path = "/" + quote(path or "/", safe="")
    return Target(url, "http", "localhost", _DEFAULT_PORTS["http"], path, file + ".sock")
