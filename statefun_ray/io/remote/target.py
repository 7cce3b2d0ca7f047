"""Where a request goes: the URL of an endpoint, taken apart and checked. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, urljoin

from statefun_ray.module.model import AsyncTransport, Endpoint
from statefun_ray.module.urls import DEFAULT_PORTS, UNIX, Url, parse_url
from statefun_ray.module.urls import BadUrl as BadUrl

_ILLEGAL: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|[^!-~]|[{}\"<>\\^`|]")


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
        BadUrl: the name makes it invalid; what can be known without one the reader of modules has refused.
    """
    url = endpoint.url_for(function_type)
    parsed = parse_url(url)
    is_async = isinstance(endpoint.transport, AsyncTransport)
    if parsed.scheme == UNIX:
        if is_async:
            raise BadUrl(url, "is of a Unix socket, which takes transport io.statefun.transports.v1/okhttp")
        # OkHttp, through which StateFun does this, takes the path for one segment: its slashes are
        # percent-encoded on the wire, and no path at all is one slash. Services are written for that.
        path = "/" + quote(parsed.path, safe="")
        return Target(url, "http", "localhost", parsed.port, path, parsed.socket)
    target = _web_target(url, parsed)
    if parsed.fragment and is_async:
        target = replace(target, path=f"{target.path}#{parsed.fragment}")  # StateFun's sends it along
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
        port = "" if target.port == DEFAULT_PORTS[target.scheme] else f":{target.port}"
        url = urljoin(f"{target.scheme}://{host}{port}{target.path}", location)
    except ValueError as error:
        raise BadUrl(location, f"is not valid: {error}") from None
    if url.partition(":")[0].lower() not in DEFAULT_PORTS:
        raise BadUrl(url, "must begin with http:// or https:// and a host")
    found = _web_target(url, parse_url(url))
    if not target.socket:
        return found
    if found.scheme != target.scheme:
        raise BadUrl(url, "asks for TLS over a Unix socket, which is not spoken here")
    return replace(found, socket=target.socket)


def _web_target(url: str, parsed: Url) -> Target:
    return Target(url, parsed.scheme, parsed.host, parsed.port, parsed.path)
