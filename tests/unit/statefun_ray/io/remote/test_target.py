"""URLs of endpoints, taken apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from statefun_ray.io.remote.target import BadUrl, redirected, target_of
from statefun_ray.module.model import AsyncTransport, Endpoint, OkHttpTransport


def endpoint(url: str, *, okhttp: bool = False) -> Endpoint:
    return Endpoint("ns/*", url, transport=OkHttpTransport() if okhttp else AsyncTransport())


@pytest.mark.parametrize(
    ("template", "peer", "path", "authority"),
    [
        ("http://h:8000/statefun", ("http", "h", 8000, ""), "/statefun", "h:8000"),
        ("http://h", ("http", "h", 80, ""), "/", "h"),
        ("https://h/a?b=c#d", ("https", "h", 443, ""), "/a?b=c#d", "h"),
        ("http://{function.name}.svc:81/{function.name}", ("http", "f.svc", 81, ""), "/f", "f.svc:81"),
        ("http://[::1]:9/x", ("http", "::1", 9, ""), "/x", "[::1]:9"),
        (
            "http://Hübsch.de:81/é?q=ü#ß",
            ("http", "xn--hbsch-kva.de", 81, ""),
            "/%C3%A9?q=%C3%BC#%C3%9F",
            "xn--hbsch-kva.de:81",
        ),
    ],
)
def test_urls(template: str, peer: tuple[str, str, int, str], path: str, authority: str) -> None:
    target = target_of(endpoint(template), "ns/f")
    assert (target.peer, target.path, target.authority) == (peer, path, authority)


def test_okhttp_does_not_send_what_stands_behind_the_path_for_readers_only() -> None:
    assert target_of(endpoint("https://h/a?b=c#d", okhttp=True), "ns/f").path == "/a?b=c"


@pytest.mark.parametrize(
    ("template", "socket", "path"),
    [
        ("http+unix:///run/f.sock/path/of/url", "/run/f.sock", "/%2Fpath%2Fof%2Furl"),
        ("http+unix:///run/f.sock", "/run/f.sock", "/%2F"),
        ("http+unix:///run/my.sockets/f.sock/x", "/run/my.sockets/f.sock", "/%2Fx"),
        ("http+unix:///a.sock/b.sock/c", "/a.sock", "/%2Fb.sock%2Fc"),
        ("http+unix:/run/f.sock/x", "/run/f.sock", "/%2Fx"),
        ("HTTP+UNIX:///run/f.sock?q=1", "/run/f.sock", "/%2F"),
        ("http+unix:///a%20b.sock/x%20y/é", "/a b.sock", "/%2Fx%20y%2F%C3%A9"),
        ("http+unix:///run/{function.name}.sock", "/run/f.sock", "/%2F"),
    ],
)
def test_unix_sockets_have_their_slashes_encoded(template: str, socket: str, path: str) -> None:
    target = target_of(endpoint(template, okhttp=True), "ns/f")
    assert (target.socket, target.path) == (socket, path)
    assert target.peer == ("", "", 0, socket)


@pytest.mark.parametrize(
    ("template", "okhttp", "problem"),
    [
        ("http+unix:///run/f.sock", False, "okhttp"),
        ("https+unix:///run/f.sock", True, "asks for TLS over a Unix socket"),
        ("http+unix:///run/f.socket", True, "ends in .sock"),
        ("http+unix:///a%00/f.sock", True, "ends in .sock"),
        ("http+unix:///run/f", True, "ends in .sock"),
        ("ftp://h/x", False, "must begin with http"),
        ("http:///x", False, "must begin with http"),
        ("http://h:99999/x", False, "not valid"),
        ("http://h/{other}", False, "'{'"),
    ],
)
def test_what_is_no_url(template: str, okhttp: bool, problem: str) -> None:
    with pytest.raises(BadUrl, match=problem):
        target_of(endpoint(template, okhttp=okhttp), "ns/f")


def test_a_name_beyond_ascii_is_percent_encoded_and_escapes_in_it_stay() -> None:
    assert target_of(endpoint("http://h/{function.name}"), "ns/grün%20x").path == "/gr%C3%BCn%20x"
    assert target_of(endpoint("http://{function.name}.de/"), "ns/grün").host == "xn--grn-ioa.de"


@pytest.mark.parametrize(
    ("name", "held"), [("my cart", "' '"), ("f%g", "'%' without two hexadecimal digits"), ("a{b", "'{'")]
)
def test_a_function_whose_name_no_url_can_hold(name: str, held: str) -> None:
    with pytest.raises(BadUrl, match=held):
        target_of(endpoint("http://h/{function.name}"), f"ns/{name}")


@pytest.mark.parametrize(
    ("url", "location", "to"),
    [
        ("http://h:8000/a/b", "c", "http://h:8000/a/c"),
        ("http://h:443/a", "/b", "http://h:443/b"),
        ("https://h/a?b", "?c", "https://h/a?c"),
        ("http://[::1]:9/x", " y ", "http://[::1]:9/y"),
        ("http://h/a", "HTTPS://user:word@Other/", "https://user:word@Other/"),
        ("http://h/a", "//other:81", "http://other:81"),
        ("http://h/a", "/100%/\u00e9", "http://h/100%25/%E9"),
        ("http://h/a", "/\\other/{x}", "http://h/%5Cother/%7Bx%7D"),
    ],
)
def test_where_a_redirect_leads(url: str, location: str, to: str) -> None:
    target = redirected(target_of(endpoint(url), "ns/f"), location)
    assert target == replace(target_of(endpoint(to), "ns/f"), url=target.url)
