"""The kinds that StateFun does not have: ``io.statefun-ray.v1/…``."""

from __future__ import annotations

import re
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from statefun_ingress.config import LIMITS
from statefun_ray.module.fields import Field
from statefun_ray.module.model import FailurePolicy, FileEgress
from statefun_ray.module.parts import Parts

_TARGET: Final = (
    "module:variable, such as my_app:functions for 'functions = StatefulFunctions()' in my_app.py"
)
_LISTEN: Final = "HOST:PORT with a port of 0 to 65535, such as 127.0.0.1:8080; port 0 is any free one"
_URI: Final = "file:///folder or s3://bucket/prefix"
_PORT_MAX: Final = 65_535

_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def read_python_functions(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun-ray.v1/python-functions``."""
    functions = spec.section("a mapping with functions", ("functions",)).need("functions", _TARGET)
    target = functions.text(_TARGET)
    module, _, variable = target.partition(":")
    if target and not (_is_dotted_name(module) and _is_dotted_name(variable)):
        advice = ""
        if module.endswith(".py"):
            advice = "name the module, not its file"
        functions.error(_TARGET, advice)
        return
    parts.claim("python-functions", target, functions)
    parts.functions.append(target)


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def read_http_ingress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun-ray.v1/http-ingress``."""
    section = spec.section("a mapping with listen and limits", ("listen", *LIMITS))
    parts.claim("http-ingress", "", spec)
    for name, (_, most) in LIMITS.items():
        limit = section.get(name)
        if limit is not None:
            parts.http_limits[name] = limit.integer(f"a number of bytes, 1 to {most}", least=1, most=most)
    if section.get("listen") is None and parts.http_limits:
        return
    listen = section.need("listen", _LISTEN)
    text = listen.text(_LISTEN)
    match = _ADDRESS.fullmatch(text)
    if text and (match is None or int(match[1]) > _PORT_MAX):
        listen.error(_LISTEN)
    parts.http_ingress = text


def read_file_egress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun-ray.v1/file-egress``."""
    section = spec.section("a mapping with id and uri", ("id", "uri"))
    id = section.need("id", "the id of this egress, namespace/name")
    id_text = id.typename()
    parts.claim("egress", id_text, id)
    uri = section.need("uri", _URI)
    uri_text = uri.text(_URI)
    split = urlsplit(uri_text) if uri_text.isprintable() and "[" not in uri_text else urlsplit("")
    if uri_text and split.scheme not in ("file", "s3"):
        uri.error(_URI)
    elif split.scheme == "file" and (split.netloc or not split.path.startswith("/")):
        uri.error(_URI, "a path of its own has three slashes in front")
    elif split.scheme == "s3" and not split.netloc:
        uri.error(_URI, "name the bucket")
    parts.file_egresses.append(FileEgress(id_text, uri_text))


def read_failure_policy(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun-ray.v1/failure-policy``."""
    section = spec.section("a mapping with retryFor, then and strict", ("retryFor", "then", "strict"))
    parts.claim("failure-policy", "", spec)
    default = FailurePolicy()
    then, strict = section.get("then"), section.get("strict")
    parts.failure_policy = FailurePolicy(
        retry_ms=section.duration_ms("retryFor", default.retry_ms, least=0),
        then=default.then
        if then is None
        else cast(Literal["dead-letter", "park", "fail"], then.choice(("dead-letter", "park", "fail"))),
        strict=default.strict if strict is None else strict.boolean(),
    )
