"""Files as a whole: section 3.1 and 3.2 of StateFun's behaviour, and files like those of real applications."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.module.model import Module, PlaygroundIngress
from statefun_ray.module.read import KINDS, UNAVAILABLE, read
from tests.unit.statefun_ray.module.reading import (
    document,
    error_of,
    errors_of,
    module_of,
    reading_of,
    warned_module,
)

GOLDEN = Path(__file__).parent / "golden"

ENDPOINT = document("io.statefun.endpoints.v2/http", "functions: shop/*\nurlPathTemplate: http://h/")
PYTHON = document("io.statefun-ray.v1/python-functions", "functions: my_app:functions")
PLAYGROUND = document("io.statefun.playground.v1/ingress", "port: 8090")


def test_documents_and_files_merge() -> None:
    module = module_of(
        ENDPOINT + "---\n" + PLAYGROUND, document("io.statefun-ray.v1/http-ingress", "listen: h:1")
    )
    assert [endpoint.functions for endpoint in module.endpoints] == ["shop/*"]
    assert module.playground_ingress is not None
    assert module.http_ingress == "h:1"


def test_empty_documents_are_skipped() -> None:
    assert module_of("---\n---\n" + ENDPOINT + "---\n~\n---\n# a remark\n").endpoints


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "null\n"])
def test_a_file_without_documents_has_a_warning(text: str) -> None:
    module, (warning,) = warned_module(text)
    assert module == Module()
    assert "no document" in warning


def test_an_application_needs_no_ingress_of_its_own_here() -> None:
    assert module_of(ENDPOINT).endpoints


def test_other_keys_beside_kind_and_spec_are_ignored_with_a_warning() -> None:
    _, (warning,) = warned_module("metadata: {name: x}\n" + ENDPOINT)
    assert warning.startswith("metadata: found the unknown key")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[1]\n", [""]),
        ("text\n", [""]),
        ("kind: io.statefun.playground.v1/ingress\n", ["spec"]),
        ("spec: {}\n", ["kind"]),
        ("kind: {}\nspec: {}\n", ["kind"]),
        ("kind: nokind\nspec: {}\n", ["kind"]),
        ("kind: io.statefun.playground.v1/ingress\nspec:\n", ["spec"]),
        ("kind: io.statefun.playground.v1/ingress\nspec: 5\n", ["spec"]),
    ],
)
def test_a_document_is_a_mapping_of_kind_and_spec(text: str, keys: list[str]) -> None:
    assert [key for key, _, _ in errors_of(text)] == keys


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("io.statefun.endpoints.v2/htttp", "did you mean io.statefun.endpoints.v2/http?"),
        ("io.statefun.kafka/ingress", "did you mean io.statefun.kafka.v1/ingress?"),
        ("com.example/other", "docs/module-yaml.md"),
    ],
)
def test_an_unknown_kind_is_refused(kind: str, words: str) -> None:
    key, line, text = error_of(document(kind, "a: b"))
    assert (key, line) == ("kind", 1)
    assert words in text


@pytest.mark.parametrize("kind", sorted(UNAVAILABLE))
def test_kinesis_is_recognised_and_not_available(kind: str) -> None:
    spec = "id: a/b\nawsRegion: {type: specific, id: us-west-1}\nstreams: [{stream: s, valueType: v, targets: [a/b]}]"
    key, _, text = error_of(document(kind, spec))
    assert key == "kind"
    assert "no connector for Kinesis" in text
    assert "remove this document" in text


def test_all_errors_of_all_files_are_there_by_place() -> None:
    reading = reading_of(
        document("io.statefun.endpoints.v2/http", "functions: a\nurlPathTemplate: x\ntransport: {call: 0}")
        + "---\n"
        + document("io.statefun.kafka.v1/egress", "id: b"),
        document("io.statefun.playground.v1/ingress", "port: x"),
    )
    assert reading.module is None
    assert [(str(p.place), p.place.key) for p in reading.errors] == [
        ("a.yaml:3", "spec.functions"),
        ("a.yaml:4", "spec.urlPathTemplate"),
        ("a.yaml:5", "spec.transport.call"),
        ("a.yaml:8", "spec.address"),
        ("a.yaml:9", "spec.id"),
        ("b.yaml:3", "spec.port"),
    ]


def test_duplicates_across_documents_and_files_name_both_places() -> None:
    assert "the first is at a.yaml:3" in error_of(ENDPOINT + "---\n" + ENDPOINT)[2]
    reading = reading_of("# b\n" + ENDPOINT, ENDPOINT)
    (error,) = reading.errors
    assert str(error.place) == "b.yaml:3"
    assert error.text == (
        "found a second endpoint for shop/*; expected one, and the first is at a.yaml:4; remove one of the two"
    )


def test_what_comes_before_a_syntax_error_is_checked_too() -> None:
    errors = errors_of("kind: a\nspec: {}\n---\n[\n")
    assert [key for key, _, _ in errors] == ["kind", ""]
    assert "what follows in this file is not checked" in errors[1][2]


KAFKA = document(
    "io.statefun.kafka.v1/ingress",
    "id: a/in\naddress: k\nconsumerGroupId: g\n"
    "topics: [{topic: t, valueType: v, targets: [shop/cart, shp/cart, a/b]}]",
)


def test_targets_that_no_endpoint_serves_have_a_warning_each() -> None:
    _, warnings = warned_module(KAFKA, ENDPOINT, ENDPOINT.replace("shop/*", "shop/cart"))
    assert [warning.partition(";")[0] for warning in warnings] == [
        f"spec.topics[0].targets[{index}]: found {name!r}, which no endpoint serves"
        for index, name in ((1, "shp/cart"), (2, "a/b"))
    ]
    assert "did you mean shop/cart?" in warnings[0]


@pytest.mark.parametrize("others", [[], [ENDPOINT, PYTHON]])
def test_where_functions_in_python_may_serve_them_nothing_is_said(others: list[str]) -> None:
    module_of(KAFKA, *others)


def test_a_variable_is_passed_on_as_it_stands_with_a_warning() -> None:
    text = document(
        "io.statefun.kafka.v1/egress",
        "id: a/b\naddress: ${HOST}:${PORT}\nproperties: [{sasl.password: '${SECRET}'}]",
    )
    module, warnings = warned_module(text)
    assert module.kafka_egresses[0].properties == {
        "bootstrap.servers": "${HOST}:${PORT}",
        "sasl.password": "${SECRET}",
    }
    assert [warning.partition(";")[0] for warning in warnings] == [
        "spec.address: found '${HOST}'",
        "spec.address: found '${PORT}'",
        "spec.properties[0].sasl.password: found '${SECRET}'",
    ]


def test_of_a_key_written_twice_the_last_counts_with_one_warning() -> None:
    text = document(
        "io.statefun.endpoints.v2/http",
        "functions: a/b\nurlPathTemplate: http://h/\ntransport:\n  call: 1s\n  call: 2s",
    )
    module, (warning,) = warned_module(text)
    assert module.endpoints[0].transport.call_ms == 2_000
    assert warning.startswith("spec.transport.call: found the key 'call' again")


def test_anchors_and_aliases_work() -> None:
    shared = "functions: a/b\nurlPathTemplate: http://h/\ntransport: &t {call: 7s, connect: 1s}\nx: *t"
    module, _ = warned_module(document("io.statefun.endpoints.v2/http", shared))
    assert module.endpoints[0].transport.call_ms == 7_000


def test_a_merge_key_is_not_applied_and_that_is_said() -> None:
    text = "x: &x {port: 1}\nkind: io.statefun.playground.v1/ingress\nspec:\n  <<: *x\n"
    module, (_, warning) = warned_module(text)
    assert module.playground_ingress == PlaygroundIngress(port=0)
    assert warning == (
        "spec.<<: found a merge key '<<'; it is not applied, nor is it in StateFun; write its keys out here"
    )


def test_an_alias_to_another_document_is_said_to_reach_nothing() -> None:
    (error,) = reading_of("kind: &k a/b\nspec: {}\n---\nkind: *k\nspec: {}\n").errors[1:]
    assert error.text == (
        "found undefined alias 'k'; expected YAML; its anchor has to stand before it in the same document; "
        "write the value out; what follows in this file is not checked"
    )


def test_a_module_is_plain_data() -> None:
    module = module_of(ENDPOINT)
    assert pickle.loads(pickle.dumps(module)) == module  # noqa: S301 - our own bytes


def test_every_kind_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "module-yaml.md").read_text(encoding="utf-8")
    assert [kind for kind in [*KINDS, *UNAVAILABLE] if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_a_file_like_those_of_real_applications(name: str) -> None:
    reading = read([(f"{name}.yaml", (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))])
    said = {
        "problems": [str(problem) for problem in reading.problems],
        "module": None if reading.module is None else asdict(reading.module),
    }
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(said)) == expected


_NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a/b", "a/*", "exactly-once", "${X}", "1 s"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "type", "topics", "topic", "targets", "properties", "transport", "timeouts", "call", "offsets",
             "functions", "urlPathTemplate", "address", "deliverySemantic", "startupPosition", "meta", "spec",
             "endpoints", "endpoint", "transactionTimeout", "date", "port", "listen", "uri", "x"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.sampled_from([*KINDS, *UNAVAILABLE]), _NODES)
def test_any_spec_is_read_or_refused_with_a_place(kind: str, spec: object) -> None:
    # JSON is YAML.
    for content in ({"kind": kind, "spec": spec}, {"version": "3.0", "module": spec}):
        reading = read([("x", json.dumps(content))])
        assert (reading.module is None) == bool(reading.errors)
        assert all(problem.place.line == 1 and problem.found for problem in reading.problems)
