"""The kinds that only we have."""

from __future__ import annotations

import pytest

from statefun_ray.module.model import FailurePolicy, FileEgress
from tests.unit.statefun_ray.module.reading import document, error_of, module_of

FUNCTIONS = "io.statefun-ray.v1/python-functions"
HTTP = "io.statefun-ray.v1/http-ingress"
FILE = "io.statefun-ray.v1/file-egress"
POLICY = "io.statefun-ray.v1/failure-policy"


def test_python_functions_of_several_documents_add_up() -> None:
    texts = [document(FUNCTIONS, f"functions: {target}") for target in ("shop.main:functions", "a:b.c")]
    assert module_of("---\n".join(texts)).functions == ("shop.main:functions", "a:b.c")


@pytest.mark.parametrize(
    "target", ["shop", "'shop:'", "':x'", "'a b:c'", "a-b:c", "a/b:c", "[a]", "a..b:c", "a:b:c"]
)
def test_python_functions_are_a_variable_of_a_module(target: str) -> None:
    key, line, text = error_of(document(FUNCTIONS, f"functions: {target}"))
    assert (key, line) == ("spec.functions", 3)
    assert "my_app:functions" in text


def test_a_python_file_is_no_module() -> None:
    assert (
        "name the module, not its file"
        in error_of(document(FUNCTIONS, "functions: shop/main.py:functions"))[2]
    )


def test_the_same_functions_twice_are_refused() -> None:
    text = document(FUNCTIONS, "functions: a:b")
    assert "a second python-functions a:b" in error_of(text, text)[2]


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "0.0.0.0:0", "'[::1]:80'", "host.name:65535"])
def test_the_http_ingress_listens(listen: str) -> None:
    assert module_of(document(HTTP, f"listen: {listen}")).http_ingress == listen.strip("'")


@pytest.mark.parametrize(
    "listen", ["8080", "':8080'", "h:65536", "'::1:80'", "http://h:80", "'h:'", "'h :1'", "{}"]
)
def test_it_listens_at_a_host_and_a_port(listen: str) -> None:
    assert error_of(document(HTTP, f"listen: {listen}"))[0] == "spec.listen"


def test_the_http_ingress_has_limits_with_and_without_an_address() -> None:
    module = module_of(document(HTTP, "listen: h:1\nbodyBytesMax: 50_331_648\nidBytesMax: 100"))
    assert (module.http_ingress, module.http_limits) == (
        "h:1",
        {"bodyBytesMax": 48 << 20, "idBytesMax": 100},
    )
    module = module_of(document(HTTP, "bulkBytesMax: 1\nheaderBytesMax: 2"))
    assert (module.http_ingress, module.http_limits) == ("", {"bulkBytesMax": 1, "headerBytesMax": 2})


@pytest.mark.parametrize("setting", ["bodyBytesMax: 0", "bodyBytesMax: 50331649", "idBytesMax: 1 KB"])
def test_other_limits_are_refused(setting: str) -> None:
    key, _, text = error_of(document(HTTP, f"listen: h:1\n{setting}"))
    assert key == f"spec.{setting.partition(':')[0]}"
    assert "a number of bytes, 1 to " in text


def test_an_http_ingress_that_says_nothing_is_refused() -> None:
    assert error_of(document(HTTP, "{}"))[0] == "spec.listen"


def test_there_is_one_http_ingress() -> None:
    text = document(HTTP, "listen: h:1")
    key, line, words = error_of(text, text)
    assert (key, line) == ("spec", 2)
    assert "found a second http-ingress; expected one, and the first is at a.yaml:2" in words


@pytest.mark.parametrize("uri", ["file:///var/receipts", "s3://bucket", "s3://bucket/a/b"])
def test_a_file_egress_goes_to_a_folder_or_a_bucket(uri: str) -> None:
    module = module_of(document(FILE, f"id: a/b\nuri: {uri}"))
    assert module.file_egresses == (FileEgress("a/b", uri),)
    assert module.egress_ids == {"a/b"}


@pytest.mark.parametrize(
    "uri", ["/var/x", "http://h/x", "file://x/y", "file:x", "s3:///x", "''", "'http://[x'"]
)
def test_other_places_are_refused(uri: str) -> None:
    assert error_of(document(FILE, f"id: a/b\nuri: {uri}"))[0] == "spec.uri"


def test_the_ids_of_egresses_are_their_own_whatever_the_kind() -> None:
    kafka = document("io.statefun.kafka.v1/egress", "id: a/b\naddress: k")
    key, line, text = error_of(kafka, document(FILE, "id: a/b\nuri: s3://x"))
    assert (key, line) == ("spec.id", 3)
    assert "a second egress a/b; expected one, and the first is at a.yaml:3" in text
    # An ingress of that id is another matter.
    topics = "topics: [{topic: t, valueType: v, targets: [a/b]}]"
    ingress = document("io.statefun.kafka.v1/ingress", f"id: a/b\naddress: k\nconsumerGroupId: g\n{topics}")
    module_of(kafka, ingress)


def test_the_failure_policy_has_defaults() -> None:
    assert module_of(document(POLICY, "{}")).failure_policy == FailurePolicy(3_600_000, "dead-letter", False)
    assert module_of(
        document(POLICY, "retryFor: 0\nthen: park\nstrict: true")
    ).failure_policy == FailurePolicy(0, "park", True)


@pytest.mark.parametrize("setting", ["retryFor: soon", "then: explode", "strict: maybe", "strict: 'yes'"])
def test_other_policies_are_refused(setting: str) -> None:
    assert error_of(document(POLICY, setting))[0] == f"spec.{setting.partition(':')[0]}"


def test_there_is_one_failure_policy() -> None:
    assert "a second failure-policy" in error_of(document(POLICY, "{}"), document(POLICY, "{}"))[2]
