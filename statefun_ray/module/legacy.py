"""The layout of StateFun 3.0: one document under ``version`` and ``module``.

Its endpoints, ingresses and egresses are those of the current layout under other names, with the
id beside the settings instead of among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from statefun_ray.module.fields import Field, Section
from statefun_ray.module.tree import Entry, Scalar
from statefun_ray.module.tree import Mapping as MappingNode

_VERSION: Final = "3.0"
_TOO_OLD: Final = ("1.0", "2.0")

_KINDS: Final[Mapping[str, str]] = {
    "http": "io.statefun.endpoints.v1/http",
    "io.statefun.kafka/ingress": "io.statefun.kafka.v1/ingress",
    "io.statefun.kafka/egress": "io.statefun.kafka.v1/egress",
    "io.statefun.kinesis/ingress": "io.statefun.kinesis.v1/ingress",
    "io.statefun.kinesis/egress": "io.statefun.kinesis.v1/egress",
}

Read = Callable[[Field, str, Field], None]
"""Takes where a kind is said, the kind in today's words, and the settings."""


def is_legacy(document: Field) -> bool:
    """Whether the only document of a file is of the old layout."""
    return isinstance(document.node, MappingNode) and "version" in document.node.entries


def read_legacy(document: Field, read: Read) -> None:
    """Read the only document of a file of the old layout."""
    section = document.section("a mapping with version and module", ("version", "module"))
    _check_version(section.need("version", f'version: "{_VERSION}"'))
    module = section.need("module", "a mapping with meta and spec").section(
        "a mapping with meta and spec", ("meta", "spec")
    )
    meta = module.need("meta", "a mapping with type").section("a mapping with type", ("type",))
    meta.need("type", "the type remote").choice(("remote",), any_case=True)
    spec = module.need("spec", "a mapping with endpoints, ingresses and egresses").section(
        "a mapping with endpoints, ingresses and egresses", ("endpoints", "ingresses", "egresses")
    )
    for plural, singular, kind_key in (
        ("endpoints", "endpoint", "kind"),
        ("ingresses", "ingress", "type"),
        ("egresses", "egress", "type"),
    ):
        field = spec.get(plural)
        for item in [] if field is None else field.items(f"a list of '- {singular}:'"):
            expected = f"a mapping with {singular}"
            _read_part(item.section(expected, (singular,)).need(singular, expected), kind_key, read)


def _check_version(field: Field) -> None:
    text = field.text(f'"{_VERSION}"')
    if text in _TOO_OLD:
        field.error(f'"{_VERSION}"', "such files are too old for StateFun 3 too; write them as kind and spec")
    elif text and text != _VERSION:
        field.error(f'"{_VERSION}"', "newer files have no version; they are documents of kind and spec")
    elif text and isinstance(field.node, Scalar) and field.node.is_plain:
        field.error(f'"{_VERSION}" in quotes', "without them it is a number, which StateFun refuses")


def _read_part(field: Field, kind_key: str, read: Read) -> None:
    section = field.section("a mapping with meta and spec", ("meta", "spec"))
    has_id = kind_key == "type"
    known = (kind_key, "id") if has_id else (kind_key,)
    expected = f"a mapping with {' and '.join(known)}"
    meta = section.need("meta", expected).section(expected, known)
    kind = meta.need(kind_key, "a kind")
    name = kind.text("a kind")
    spec = section.need("spec", "the settings")
    if has_id:
        spec = _with_id(spec, meta)
    if name:
        read(kind, _KINDS.get(name, name), spec)


def _with_id(spec: Field, meta: Section) -> Field:
    """Return the settings with the id among them, where the current layout has it."""
    id = meta.need("id", "the id, namespace/name")
    if not isinstance(spec.node, MappingNode):
        return spec
    entries = {**spec.node.entries, "id": Entry(id.place.line, id.node)}
    node = MappingNode(spec.node.line, entries, spec.node.repeated)
    return Field(node, spec.place, spec.problems)
