"""HTTP endpoints and their transports: sections 3.4 to 3.7 of StateFun's behaviour."""

from __future__ import annotations

import textwrap

import pytest

from statefun_ray.io.remote.target import target_of
from statefun_ray.module.model import AsyncTransport, Endpoint, OkHttpTransport
from statefun_sdk.address import check_function_typename
from statefun_sdk.errors import UserValueError
from tests.unit.statefun_ray.module.reading import (
    document,
    error_of,
    errors_of,
    module_of,
    reading_of,
    warned_module,
)

V1 = "io.statefun.endpoints.v1/http"
V2 = "io.statefun.endpoints.v2/http"


def v2(transport: str = "", **keys: str) -> str:
    """An endpoint; ``transport`` starts in line 6."""
    keys = {"functions": "shop/*", "urlPathTemplate": "http://h:8000/{function.name}"} | keys
    lines = [f"{key}: {value}" for key, value in keys.items()]
    if transport:
        lines += ["transport:", textwrap.indent(textwrap.dedent(transport).strip("\n"), "  ")]
    return document(V2, "\n".join(lines))


def okhttp(timeouts: str) -> str:
    return v2(f"type: io.statefun.transports.v1/okhttp\ntimeouts: {timeouts}")


def the_endpoint(text: str) -> Endpoint:
    (endpoint,) = module_of(text).endpoints
    return endpoint


# --- defaults and keys --------------------------------------------------------------------------


def test_v2_uses_the_async_transport_unless_told_otherwise() -> None:
    assert the_endpoint(v2()) == Endpoint(
        functions="shop/*",
        url_template="http://h:8000/{function.name}",
        max_batch_requests=1_000,
        transport=AsyncTransport(
            call_ms=120_000,
            connect_ms=20_000,
            pool_ttl_ms=15_000,
            pool_size=1_024,
            payload_max_bytes=33_554_432,
        ),
    )


def test_v1_uses_okhttp() -> None:
    text = document(V1, "functions: a/b\nurlPathTemplate: http://h/\ntimeouts: {call: 2 min, read: 30s}")
    assert the_endpoint(text).transport == OkHttpTransport(120_000, 10_000, 30_000, 10_000)
    assert the_endpoint(
        document(V1, "functions: a/b\nurlPathTemplate: http://h/")
    ).transport == OkHttpTransport(call_ms=60_000, connect_ms=10_000, read_ms=10_000, write_ms=10_000)


def test_every_setting_of_the_async_transport_is_read() -> None:
    transport = the_endpoint(
        v2(
            """
            type: io.statefun.transports.v1/async
            call: 1day
            connect: 500
            pool_ttl: 0
            pool_size: 7
            payload_max_bytes: 1_000
            trust_cacerts: /etc/ca.pem
            client_cert: file:///etc/my%20cert.pem
            client_key: certs/key.pem
            client_key_password: /run/secrets/password
            """
        )
    ).transport
    assert transport == AsyncTransport(
        call_ms=86_400_000,
        connect_ms=500,
        pool_ttl_ms=0,
        pool_size=7,
        payload_max_bytes=1_000,
        trust_cacerts="/etc/ca.pem",
        client_cert="/etc/my cert.pem",
        client_key="certs/key.pem",
        client_key_password="/run/secrets/password",
    )


@pytest.mark.parametrize(
    ("timeouts", "call_ms", "connect_ms"),
    [("{call: 5s}", 5_000, 10_000), ("{connect: 5 s}", 60_000, 5_000), ("{}", 60_000, 10_000)],
)
def test_a_timeouts_mapping_wins_over_flat_keys_with_okhttp_s_defaults(
    timeouts: str, call_ms: int, connect_ms: int
) -> None:
    transport = the_endpoint(v2(f"call: 7s\nconnect: 7s\ntimeouts: {timeouts}")).transport
    assert isinstance(transport, AsyncTransport)
    assert (transport.call_ms, transport.connect_ms) == (call_ms, connect_ms)


@pytest.mark.parametrize(
    ("written", "limit"), [("5", 5), ("'5'", 5), ("0", 0), ("-3", 0), ("2147483647", 2_147_483_647)]
)
def test_v2_takes_a_batch_limit_as_number_or_text(written: str, limit: int) -> None:
    assert the_endpoint(v2(maxNumBatchRequests=written)).max_batch_requests == limit


@pytest.mark.parametrize("written", ["many", "1.5", "2147483648", "[1]"])
def test_v2_refuses_other_batch_limits(written: str) -> None:
    key, line, text = error_of(v2(maxNumBatchRequests=written))
    assert (key, line) == ("spec.maxNumBatchRequests", 5)
    assert "expected a whole number" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (v2(maxNumBatchRequests="99999999999"), "the largest is 2147483647"),
        (v2(maxNumBatchRequests="9" * 5000), "the largest is 2147483647"),
        (v2("payload_max_bytes: 3221225472"), "the largest is 2147483647"),
        (v2("call: 9223372036854775808"), "at most 9223372036854775807 ms; it is too long"),
        (v2("call: 9223372036854775807 d"), "it is too long"),
    ],
)
def test_what_is_too_large_is_told_the_bound(text: str, words: str) -> None:
    assert words in error_of(text)[2]


def test_v1_wants_a_batch_limit_without_quotes() -> None:
    base = "functions: a/b\nurlPathTemplate: http://h/\nmaxNumBatchRequests: "
    assert the_endpoint(document(V1, base + "5")).max_batch_requests == 5
    key, _, text = error_of(document(V1, base + "'5'"))
    assert key == "spec.maxNumBatchRequests"
    assert "without quotes" in text


@pytest.mark.parametrize("key", ["functions", "urlPathTemplate"])
@pytest.mark.parametrize("kind", [V1, V2])
def test_a_required_key_that_is_missing_is_named(kind: str, key: str) -> None:
    keys = {"functions": "a/b", "urlPathTemplate": "http://h/"}
    del keys[key]
    found_key, line, text = error_of(document(kind, "\n".join(f"{k}: {v}" for k, v in keys.items())))
    assert (found_key, line) == (f"spec.{key}", 2)
    assert text.startswith("found nothing; expected")


def test_unknown_keys_are_ignored_and_the_nearest_is_suggested() -> None:
    module, warnings = warned_module(v2("cal: 5s\nbackoff: 3", maxNumBatchRequest="5"))
    assert module.endpoints[0].max_batch_requests == 1_000
    assert [warning.partition(":")[0] for warning in warnings] == [
        "spec.maxNumBatchRequest",
        "spec.transport.cal",
        "spec.transport.backoff",
    ]
    assert "did you mean 'maxNumBatchRequests'?" in warnings[0]
    assert "did you mean 'call'?" in warnings[1]
    assert "known here: type, call" in warnings[2]


def test_a_transport_in_v1_is_ignored() -> None:
    _, warnings = warned_module(
        document(V1, "functions: a/b\nurlPathTemplate: http://h/\ntransport: {call: 1s}")
    )
    assert "unknown key 'transport'" in warnings[0]


def test_keys_without_a_value_have_their_default() -> None:
    module, warnings = warned_module(v2("client_cert:\nclient_key:\ntimeouts:"))
    assert module.endpoints[0].transport == AsyncTransport()
    assert len(warnings) == 3
    assert all("without a value" in warning for warning in warnings)


# --- functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("functions", ["a/b", "a/*", "/x", "a.b-c/d.e", "/*"])
def test_a_pattern_is_a_type_or_a_namespace(functions: str) -> None:
    assert the_endpoint(v2(functions=f"'{functions}'")).functions == functions


@pytest.mark.parametrize(
    "functions", ["a", "a/", "a/b/c", "*/*", "a*/b", "a/pre*", "a/*x", "a/**", "*/b", "a/b/"]
)
def test_other_patterns_are_refused(functions: str) -> None:
    key, line, text = error_of(v2(functions=f"'{functions}'"))
    assert (key, line) == ("spec.functions", 3)
    assert repr(functions) in text


@pytest.mark.parametrize("kind", [V1, V2])
@pytest.mark.parametrize(
    "functions",
    ["~a/*", "~queue/f", "statefun-ray.reply/*", "io.statefun-ray/*", "io.statefun-ray/dead-letters"],
)
def test_namespaces_of_the_runtime_are_refused_as_the_sdk_does(kind: str, functions: str) -> None:
    key, line, text = error_of(document(kind, f"functions: '{functions}'\nurlPathTemplate: http://h/"))
    assert (key, line) == ("spec.functions", 3)
    with pytest.raises(UserValueError) as refused:
        check_function_typename(functions)
    assert text.endswith(str(refused.value).partition(": ")[2])
    assert "is reserved for the runtime; choose another" in text


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ("a/b ", "a blank at an end"),
        ("a /*", "a blank at an end"),
        ("a/b\\a", "a character that cannot be seen"),
        ("a/{function.name}", "a brace, though nothing is put in here"),
    ],
)
def test_a_name_that_is_hardly_meant_is_taken_with_a_warning(functions: str, words: str) -> None:
    module, (warning,) = warned_module(v2(functions=f'"{functions}"', urlPathTemplate="http://h/"))
    assert module.endpoints[0].functions == functions.replace("\\a", "\a")
    assert warning.startswith("spec.functions: ")
    assert words in warning


def test_the_exact_endpoint_beats_that_of_the_namespace_in_any_order() -> None:
    texts = [v2(functions="shop/*"), v2(functions="shop/cart", urlPathTemplate="http://cart/")]
    for order in (texts, texts[::-1]):
        module = module_of("---\n".join(order))
        cart, stock = module.endpoint_of("shop/cart"), module.endpoint_of("shop/stock")
        assert cart is not None
        assert stock is not None
        assert cart.url_for("shop/cart") == "http://cart/"
        assert stock.url_for("shop/stock") == "http://h:8000/stock"
        assert module.endpoint_of("shop.eu/cart") is None


# --- the URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h:443/a/{function.name}/b/{function.name}?x=1#y",
        "http://{function.name}.svc.local:8000/",
        "HTTP://[::1]:9000/x",
        "http://user:word@h/x",
        "http://h/%7Bx%7D",
        "http://h/grüße",
    ],
)
def test_these_urls_are_fine(url: str) -> None:
    assert the_endpoint(v2(urlPathTemplate=f"'{url}'")).url_template == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("h:8000/x", "URL of scheme http or https"),
        ("ftp://h/x", "URL of scheme"),
        ("/x", "URL of scheme"),
        ("http:///x", "http://HOST"),
        ("http://h:0/x", "port of 1 to 65535"),
        ("http://h:99999/x", "URL of scheme"),
        ("http://h:port/x", "URL of scheme"),
        ("http://[::1/x", "URL of scheme"),
        ("http://h/{namespace}", "only placeholder"),
        ("http://h/{function.name", "only placeholder"),
        ("http://h/a b", "it holds ' ', which no URL may; write it as %20"),
        ("http://h/%zz", "it holds '%' without two hexadecimal digits behind it; write it as %25"),
        ("http://h/a\u2003b", "write it as %E2%80%83"),
        ("http://h..x/", "the host 'h..x', which is no name"),
        ("http://größe..x/", "the host 'größe..x', which is no name"),
        ("http+unix:///f.sock/x", "transport.type: io.statefun.transports.v1/okhttp"),
    ],
)
def test_other_urls_are_refused_before_any_message_comes(url: str, words: str) -> None:
    key, line, text = error_of(v2(urlPathTemplate=f"'{url}'"))
    assert (key, line) == ("spec.urlPathTemplate", 4)
    assert words in text


@pytest.mark.parametrize(("name", "held"), [("my cart", "' '"), ("cart%g", "'%' without")])
def test_a_name_that_makes_no_url_is_refused(name: str, held: str) -> None:
    key, _, text = error_of(v2(functions=f"'shop/{name}'"))
    assert key == "spec.urlPathTemplate"
    assert f"with {name!r} for {{function.name}} it holds {held}" in text
    the_endpoint(v2(functions="'shop/my cart'", urlPathTemplate="http://h/"))


@pytest.mark.parametrize(
    "url",
    [
        "http://h/é/{function.name}?q=ü#ß",
        "http://hübsch.de/x",
        "http+unix:///run/my.sockets/f.sock/x",
        "http+unix:/a/b.sock/x",
        "HTTP+UNIX:///a%20b.sock",
        "http+unix:///b.sock?x=1",
    ],
)
@pytest.mark.parametrize("functions", ["shop/größe", "shop/*"])
def test_what_is_accepted_can_be_asked_for_every_name(url: str, functions: str) -> None:
    reading = reading_of(document(V1, f"functions: '{functions}'\nurlPathTemplate: '{url}'"))
    assert reading.module is not None
    for name in ("größe", "name", "b%20c", "%C3%A9", "x.sock"):
        target_of(reading.module.endpoints[0], f"shop/{name}")


def test_what_stands_behind_the_path_of_a_unix_socket_is_said_to_go_nowhere() -> None:
    _, (warning,) = warned_module(
        document(V1, "functions: a/b\nurlPathTemplate: 'http+unix:///b.sock/x?y=1#z'")
    )
    assert warning.startswith("spec.urlPathTemplate: found '?y=1#z' behind the path of a Unix socket")


def test_a_variable_in_the_url_is_refused_with_a_word_about_variables() -> None:
    key, _, text = error_of(v2(urlPathTemplate="http://${HOST}/x"))
    assert key == "spec.urlPathTemplate"
    assert "no environment variables" in text


@pytest.mark.parametrize("host", ["my_service", "größe.de"])
def test_a_host_that_the_async_transport_of_statefun_refuses_works_with_a_warning(host: str) -> None:
    _, (warning,) = warned_module(v2(urlPathTemplate=f"http://{host}:8000/"))
    assert repr(host) in warning
    module_of(document(V1, f"functions: a/b\nurlPathTemplate: http://{host}:8000/"))


@pytest.mark.parametrize("url", ["http+unix:///var/run/f.sock", "http+unix:///f.sock/path/{function.name}"])
def test_okhttp_knows_unix_sockets(url: str) -> None:
    assert the_endpoint(document(V1, f"functions: a/b\nurlPathTemplate: '{url}'")).url_template == url


def test_tls_over_a_unix_socket_is_refused_and_not_left_out_silently() -> None:
    key, line, text = error_of(
        document(V1, "functions: a/b\nurlPathTemplate: https+unix:///var/run/f.sock/x")
    )
    assert (key, line) == ("spec.urlPathTemplate", 4)
    assert "it asks for TLS over a Unix socket, which is not spoken here; write http+unix://" in text


@pytest.mark.parametrize(
    "url", ["http+unix:///var/run/f", "http+unix://f.sock/x", "http+unix:///sock/x.socket"]
)
def test_a_unix_socket_ends_in_sock(url: str) -> None:
    _, _, text = error_of(document(V1, f"functions: a/b\nurlPathTemplate: '{url}'"))
    assert ".sock" in text


# --- transports ---------------------------------------------------------------------------------


def test_an_unknown_transport_is_refused_alone() -> None:
    key, line, text = error_of(v2("type: io.statefun.transports.v1/okhtp\ntimeouts: {read: 1s}"))
    assert (key, line) == ("spec.transport.type", 6)
    assert "did you mean io.statefun.transports.v1/okhttp?" in text


@pytest.mark.parametrize("transport", ["fast", "[a]", "''"])
def test_a_transport_is_a_mapping(transport: str) -> None:
    key, _, text = error_of(v2(transport=transport))
    assert key == "spec.transport"
    assert "expected a mapping" in text


@pytest.mark.parametrize("key", ["call", "connect", "read", "write"])
@pytest.mark.parametrize("value", ["0", "0 s", "-1s", "1.5 s", "soon"])
def test_okhttp_wants_timeouts_above_zero(key: str, value: str) -> None:
    found_key, _, _ = error_of(okhttp(f"{{{key}: {value}}}"))
    assert found_key == f"spec.transport.timeouts.{key}"


@pytest.mark.parametrize("key", ["call", "connect"])
def test_async_wants_them_above_zero_as_well(key: str) -> None:
    assert error_of(v2(f"{key}: 0"))[0] == f"spec.transport.{key}"
    assert error_of(v2(f"timeouts: {{{key}: 0}}"))[0] == f"spec.transport.timeouts.{key}"


def test_a_call_below_the_default_parts_alone_fails_and_says_why() -> None:
    key, _, text = error_of(okhttp("{call: 9999}"))
    assert key == "spec.transport.timeouts.call"
    assert "set connect, read, write as well" in text
    module_of(okhttp("{call: 10s}"))
    module_of(okhttp("{call: 5s, connect: 5s, read: 1s, write: 1s}"))
    # Only what exceeds it is named.
    assert "set write as well" in error_of(okhttp("{call: 5s, connect: 1s, read: 1s}"))[2]


def test_parts_above_the_call_are_named_each() -> None:
    errors = errors_of(okhttp("{call: 20s, connect: 21s, read: 22s, write: 20s}"))
    assert [key for key, _, _ in errors] == [
        "spec.transport.timeouts.connect",
        "spec.transport.timeouts.read",
    ]
    assert all("at most the 20000 ms of call" in text for _, _, text in errors)


def test_async_has_no_rule_between_call_and_connect() -> None:
    module_of(v2("call: 1s"))
    module_of(v2("timeouts: {call: 1s}"))


@pytest.mark.parametrize(("given", "missing"), [("client_cert", "client_key"), ("client_key", "client_cert")])
def test_a_certificate_and_its_key_go_together(given: str, missing: str) -> None:
    key, line, text = error_of(v2(f"{given}: x.pem"))
    assert (key, line) == (f"spec.transport.{given}", 6)
    assert f"found {given} alone; expected {missing} beside it" in text


@pytest.mark.parametrize(
    ("location", "words"), [("classpath:ca.pem", "class path"), ("https://h/ca.pem", "network")]
)
def test_locations_are_files(location: str, words: str) -> None:
    key, _, text = error_of(v2(f"trust_cacerts: {location}"))
    assert key == "spec.transport.trust_cacerts"
    assert words in text


def test_a_tilde_is_not_expanded() -> None:
    module, (warning,) = warned_module(v2("trust_cacerts: ~/ca.pem"))
    transport = module.endpoints[0].transport
    assert isinstance(transport, AsyncTransport)
    assert transport.trust_cacerts == "~/ca.pem"
    assert "not expanded" in warning


@pytest.mark.parametrize("setting", ["pool_size: 0", "pool_size: x", "payload_max_bytes: 0", "pool_ttl: -1"])
def test_other_settings_have_limits(setting: str) -> None:
    assert error_of(v2(setting))[0] == f"spec.transport.{setting.partition(':')[0]}"
