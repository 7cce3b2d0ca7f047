"""Files as StateFun 3.0 had them: section 3.1 of StateFun's behaviour."""

from __future__ import annotations

import pytest

from tests.unit.statefun_ray.module.reading import error_of, errors_of, module_of, warned_module

HEAD = 'version: "3.0"\nmodule:\n  meta: {type: remote}\n  spec:\n'

ENDPOINT = """\
    endpoints:
      - endpoint:
          meta:
            kind: http
          spec:
            functions: shop/*
            urlPathTemplate: http://h/{function.name}
            timeouts: {call: 2min}
"""
KAFKA = """\
    ingresses:
      - ingress:
          meta: {type: io.statefun.kafka/ingress, id: shop/orders}
          spec:
            address: k
            consumerGroupId: g
            topics: [{topic: t, valueType: v, targets: [shop/cart]}]
    egresses:
      - egress:
          meta: {type: io.statefun.kafka/egress, id: shop/receipts}
          spec: {address: k, id: nonsense}
"""


CURRENT = """\
kind: io.statefun.endpoints.v1/http
spec: {functions: shop/*, urlPathTemplate: 'http://h/{function.name}', timeouts: {call: 2min}}
---
kind: io.statefun.kafka.v1/ingress
spec:
  id: shop/orders
  address: k
  consumerGroupId: g
  topics: [{topic: t, valueType: v, targets: [shop/cart]}]
---
kind: io.statefun.kafka.v1/egress
spec: {id: shop/receipts, address: k}
"""


def test_an_old_file_says_what_the_new_one_does() -> None:
    assert module_of(HEAD + ENDPOINT + KAFKA) == module_of(CURRENT)


def test_today_s_kinds_are_known_there_as_well() -> None:
    spec = "    egresses:\n    - egress:\n        meta: {type: io.statefun-ray.v1/file-egress, id: a/b}\n"
    assert module_of(HEAD + spec + "        spec: {uri: s3://x}\n").egress_ids == {"a/b"}


def test_the_type_may_be_of_any_case() -> None:
    module_of((HEAD + ENDPOINT).replace("remote", "Remote"))
    assert error_of((HEAD + ENDPOINT).replace("remote", "embedded"))[0] == "module.meta.type"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ('"1.0"', "too old"),
        ('"2.0"', "too old"),
        ('"3.1"', "documents of kind and spec"),
        ("3.0", "in quotes"),
        ("[3]", "found a list"),
    ],
)
def test_other_versions_are_refused(version: str, words: str) -> None:
    key, line, text = error_of((HEAD + ENDPOINT).replace('"3.0"', version))
    assert (key, line) == ("version", 1)
    assert words in text


@pytest.mark.parametrize("other", ["null\n", "~\n"])
def test_empty_documents_beside_it_do_not_count(other: str) -> None:
    module_of(HEAD + ENDPOINT + "---\n" + other)


def test_beside_another_document_it_is_nothing() -> None:
    other = "---\nkind: io.statefun.playground.v1/ingress\nspec: {}\n"
    assert [key for key, _, _ in errors_of(HEAD + ENDPOINT + other)] == ["kind", "spec"]


def test_problems_have_the_place_in_the_old_file() -> None:
    text = (HEAD + ENDPOINT + KAFKA).replace("id: shop/receipts", "id: receipts").replace("2min", "soon")
    assert [(key, line) for key, line, _ in errors_of(text)] == [
        ("module.spec.endpoints[0].endpoint.spec.timeouts.call", 12),
        ("module.spec.egresses[0].egress.spec.id", 22),
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('version: "3.0"\n', ["module"]),
        ('version: "3.0"\nmodule: {}\n', ["module.meta", "module.spec"]),
        ('version: "3.0"\nmodule: {meta: {}, spec: x}\n', ["module.meta.type", "module.spec"]),
        (HEAD + "    endpoints: {}\n", ["module.spec.endpoints"]),
        (HEAD + "    endpoints: [{}]\n", ["module.spec.endpoints[0].endpoint"]),
        (
            HEAD + "    ingresses: [{ingress: {}}]\n",
            ["module.spec.ingresses[0].ingress.meta", "module.spec.ingresses[0].ingress.spec"],
        ),
        (
            HEAD + "    egresses: [{egress: {meta: {type: x/y}, spec: {}}}]\n",
            ["module.spec.egresses[0].egress.meta.id", "module.spec.egresses[0].egress.meta.type"],
        ),
        (
            HEAD + "    endpoints: [{endpoint: {meta: {kind: grpc}, spec: {}}}]\n",
            ["module.spec.endpoints[0].endpoint.meta.kind"],
        ),
    ],
)
def test_what_is_missing_is_named(text: str, keys: list[str]) -> None:
    assert sorted(key for key, _, _ in errors_of(text)) == sorted(keys)


def test_an_id_that_is_missing_is_asked_for_once_and_where_it_belongs() -> None:
    text = (HEAD + KAFKA).replace(", id: shop/orders", "").replace(", id: nonsense", "")
    assert [key for key, _, _ in errors_of(text)] == ["module.spec.ingresses[0].ingress.meta.id"]


def test_kinesis_is_recognised_under_its_old_name() -> None:
    part = "    ingresses: [{ingress: {meta: {type: io.statefun.kinesis/ingress, id: a/b}, spec: {}}}]\n"
    assert "no connector for Kinesis" in error_of(HEAD + part)[2]


def test_functions_of_2_x_are_ignored_with_a_warning() -> None:
    _, (warning,) = warned_module(HEAD + ENDPOINT + "    functions: []\n")
    assert warning.startswith("module.spec.functions: found the unknown key 'functions'")
