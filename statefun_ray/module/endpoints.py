"""``io.statefun.endpoints.v1/http`` and ``io.statefun.endpoints.v2/http``: services with functions.

StateFun looks at the properties of a transport when the first message of a function type arrives
and then fails the job; here they are checked with everything else.
"""

from __future__ import annotations

from typing import Final

from statefun_ray.module.fields import Field, Section
from statefun_ray.module.locations import path_of
from statefun_ray.module.model import (
    FUNCTION_NAME,
    MAX_BATCH_REQUESTS,
    AsyncTransport,
    Endpoint,
    OkHttpTransport,
    Transport,
)
from statefun_ray.module.parts import Parts
from statefun_ray.module.urls import UNIX, BadUrl, parse_url

ASYNC: Final = "io.statefun.transports.v1/async"
OKHTTP: Final = "io.statefun.transports.v1/okhttp"

_PATTERN: Final = "namespace/name for one function type, or namespace/* for a namespace"
_BATCHES: Final = "a whole number; 0 or less for no limit"
_SPEC: Final = "a mapping with functions and urlPathTemplate"


def read_endpoint_v2(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.endpoints.v2/http``."""
    section = spec.section(_SPEC, ("functions", "urlPathTemplate", "maxNumBatchRequests", "transport"))
    transport = section.get("transport")
    _read(
        section, parts, AsyncTransport() if transport is None else _transport(transport), batches_as_text=True
    )


def read_endpoint_v1(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.endpoints.v1/http``; its transport is okhttp."""
    section = spec.section(_SPEC, ("functions", "urlPathTemplate", "maxNumBatchRequests", "timeouts"))
    _read(section, parts, _okhttp_timeouts(section), batches_as_text=False)


def _read(section: Section, parts: Parts, transport: Transport, *, batches_as_text: bool) -> None:
    functions = _functions(section.need("functions", _PATTERN), parts)
    url_template = _url_template(
        section.need(
            "urlPathTemplate", f"the URL of the service, with {FUNCTION_NAME} for the function's name"
        ),
        functions,
        transport,
    )
    batches = section.get("maxNumBatchRequests")
    parts.endpoints.append(
        Endpoint(
            functions=functions,
            url_template=url_template,
            max_batch_requests=MAX_BATCH_REQUESTS
            if batches is None
            else batches.integer(_BATCHES, least=0, text_too=batches_as_text, below_is=0),
            transport=transport,
        )
    )


def _functions(field: Field, parts: Parts) -> str:
    functions = field.function_type(_PATTERN)
    namespace, _, name = functions.partition("/")
    if "*" in namespace or ("*" in name and name != "*"):
        field.error(_PATTERN, "a star stands for all names of a namespace and for nothing else")
        return ""
    if functions:
        parts.claim("endpoint for", functions, field)
    return functions


# --- the URL ------------------------------------------------------------------------------------


def _url_template(field: Field, functions: str, transport: Transport) -> str:
    template = field.text("a URL")
    if not template:
        return ""
    has_sockets = isinstance(transport, OkHttpTransport)
    schemes = ("http", "https", UNIX) if has_sockets else ("http", "https")
    expected = f"a URL of scheme {' or '.join(schemes)}"
    # Any name will do for a namespace; what is wrong then is wrong for every name.
    name = functions.partition("/")[2].replace("*", "name") or "name"
    filled = template.replace(FUNCTION_NAME, name)
    if "{" in filled or "}" in filled:
        advice = f"{FUNCTION_NAME} is the only placeholder there is"
        if "${" in filled:
            advice += "; StateFun replaces no environment variables, put the value in before the file is read"
        field.error(expected, advice)
        return template
    try:
        url = parse_url(filled)
    except BadUrl as error:
        subject = "it" if filled == template else f"with {name!r} for {FUNCTION_NAME} it"
        field.error(expected, f"{subject} {error.problem}")
        return template
    if url.scheme not in schemes:
        field.error(expected, f"Unix sockets need transport.type: {OKHTTP}")
    elif url.left_out:
        field.warn(
            f"{url.left_out!r} behind the path of a Unix socket", "it is not sent, as in StateFun; remove it"
        )
    elif not has_sockets and ("_" in url.host or not url.written_host.isascii()):
        field.warn(
            f"the underscore in the host {url.host!r}"
            if "_" in url.host
            else f"a letter beyond ASCII in the host {url.written_host!r}",
            "it works here, but StateFun's async transport refuses such a host",
        )
    return template


# --- transports ---------------------------------------------------------------------------------


def _transport(field: Field) -> Transport:
    expected = f"a mapping with type: {ASYNC} or {OKHTTP} and the settings of that transport"
    kind = field.entries(expected).get("type")
    chosen = ASYNC if kind is None else kind.choice((ASYNC, OKHTTP))
    if not chosen:
        return AsyncTransport()  # its keys may be right for what was meant
    if chosen == OKHTTP:
        return _okhttp_timeouts(field.section(expected, ("type", "timeouts")))
    return _async(field.section(expected, ("type", *_ASYNC_KEYS)))


_ASYNC_KEYS: Final = (
    "call",
    "connect",
    "pool_ttl",
    "pool_size",
    "payload_max_bytes",
    "trust_cacerts",
    "client_cert",
    "client_key",
    "client_key_password",
    "timeouts",
)


def _async(section: Section) -> AsyncTransport:
    default = AsyncTransport()
    call_ms = section.duration_ms("call", default.call_ms)
    connect_ms = section.duration_ms("connect", default.connect_ms)
    timeouts = section.get("timeouts")
    if timeouts is not None:
        # Written for okhttp: such a mapping wins over the flat keys and brings okhttp's defaults.
        nested = timeouts.section("a mapping with call and connect", ("call", "connect"))
        call_ms = nested.duration_ms("call", OkHttpTransport().call_ms)
        connect_ms = nested.duration_ms("connect", OkHttpTransport().connect_ms)
    client_cert, client_key = _location(section, "client_cert"), _location(section, "client_key")
    for given, missing in (("client_cert", "client_key"), ("client_key", "client_cert")):
        if section.get(given) is not None and section.get(missing) is None:
            section.need(given, "").error(
                f"{missing} beside it", "give both or neither", found=f"{given} alone"
            )
    return AsyncTransport(
        call_ms=call_ms,
        connect_ms=connect_ms,
        pool_ttl_ms=section.duration_ms("pool_ttl", default.pool_ttl_ms, least=0),
        pool_size=section.integer("pool_size", default.pool_size, "1 or more connections", least=1),
        payload_max_bytes=section.integer(
            "payload_max_bytes", default.payload_max_bytes, "a number of bytes of 1 or more", least=1
        ),
        trust_cacerts=_location(section, "trust_cacerts"),
        client_cert=client_cert,
        client_key=client_key,
        client_key_password=_location(section, "client_key_password"),
    )


def _location(section: Section, name: str) -> str:
    """Return the path of a file that is read when the endpoint is opened."""
    field = section.get(name)
    if field is None:
        return ""
    expected = "the path of a file on the workers' machines"
    text = field.text(expected)
    try:
        path = path_of(text)
    except ValueError as error:
        field.error(expected, str(error))
        return ""
    if path.startswith("~"):
        field.warn("a path that starts with '~'", "it is not expanded; write the path in full")
    return path


def _okhttp_timeouts(section: Section) -> OkHttpTransport:
    default = OkHttpTransport()
    field = section.get("timeouts")
    if field is None:
        return default
    errors_before = field.problems.error_count
    timeouts = field.section(
        "a mapping with call, connect, read and write", ("call", "connect", "read", "write")
    )
    transport = OkHttpTransport(
        call_ms=timeouts.duration_ms("call", default.call_ms),
        connect_ms=timeouts.duration_ms("connect", default.connect_ms),
        read_ms=timeouts.duration_ms("read", default.read_ms),
        write_ms=timeouts.duration_ms("write", default.write_ms),
    )
    if field.problems.error_count > errors_before:
        return transport  # a comparison with a placeholder would say nothing
    too_long = []
    parts = (("connect", transport.connect_ms), ("read", transport.read_ms), ("write", transport.write_ms))
    for name, ms in parts:
        part = timeouts.get(name)
        if ms <= transport.call_ms:
            continue
        if part is None:
            too_long.append(name)
        else:
            part.error(f"at most the {transport.call_ms} ms of call")
    if too_long:
        (timeouts.get("call") or field).error(
            f"{', '.join(too_long)} of at most that; they are {default.read_ms} ms unless given",
            f"set {', '.join(too_long)} as well",
            found=f"call of {transport.call_ms} ms",
        )
    return transport
