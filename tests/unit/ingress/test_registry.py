from __future__ import annotations

import pytest

from statefun_ingress.errors import RequestRefused
from statefun_ingress.registry import FunctionInfo, Registry, Target
from statefun_ingress.values import INT, JSON, STRING


def target(*accepts: tuple[str, bool]) -> Target:
    return Registry([FunctionInfo("n/t", accepts)]).target("n/t")


def test_untyped_json_is_the_one_json_type() -> None:
    assert target(("t/flight", True), (INT, False)).from_json(None)[0] == "t/flight"


def test_untyped_json_is_the_one_built_in_type_if_there_is_no_json_type() -> None:
    typename, convert = target((INT, False), ("t/opaque", False)).from_json(None)

    assert (typename, convert(b"1")) == (INT, b"\x0d\x01\0\0\0")


def test_untyped_json_is_the_json_type_of_ours_if_nothing_is_declared() -> None:
    typename, convert = target().from_json(None)

    assert (typename, convert(b"[1]")) == (JSON, b"[1]")


@pytest.mark.parametrize(
    "accepts",
    [
        [("t/a", True), ("t/b", True)],
        [(INT, False), (STRING, False)],
        [("t/opaque", False)],
    ],
)
def test_untyped_json_that_could_be_several_or_no_type_is_refused(accepts: list[tuple[str, bool]]) -> None:
    with pytest.raises(RequestRefused) as caught:
        target(*accepts).from_json(None)

    assert caught.value.status == 415
    assert all(name in caught.value.detail for name, _ in accepts)


def test_a_type_that_is_not_accepted_is_refused_with_those_that_are() -> None:
    with pytest.raises(RequestRefused, match=f"accepts t/a, {INT}, not t/b") as caught:
        target(("t/a", True), (INT, False)).from_json("t/b")
    assert caught.value.status == 415


def test_a_typed_value_is_json_or_base64_by_its_type() -> None:
    flight = target(("t/flight", True), ("t/opaque", False))

    assert flight.from_json("t/flight")[1](b"{}") == b"{}"
    assert flight.from_json("t/opaque")[1](b'"AA=="') == b"\0"
    assert target().from_json("t/any")[1](b'"AA=="') == b"\0"
    assert target().from_json(JSON)[1](b"{}") == b"{}"


def test_an_unknown_function_is_told_the_nearest_names() -> None:
    registry = Registry([FunctionInfo("shop/cart"), FunctionInfo("shop/inventory")])

    with pytest.raises(RequestRefused, match="did you mean shop/cart") as caught:
        registry.target("shop/card")
    assert caught.value.status == 404
    with pytest.raises(RequestRefused, match="there are shop/cart, shop/inventory"):
        registry.target("zzz/yyy")
    with pytest.raises(RequestRefused, match="no functions are bound"):
        Registry([]).target("a/b")


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="n/t is registered twice"):
        Registry([FunctionInfo("n/t"), FunctionInfo("n/t")])


def test_json_types_are_those_any_function_declares_and_those_named() -> None:
    registry = Registry(
        [FunctionInfo("n/a", [("t/in", True)]), FunctionInfo("n/b", states={"s": ("t/state", True)})],
        ["t/reply"],
    )

    assert registry.is_json_type("t/in")
    assert registry.is_json_type("t/state")
    assert registry.is_json_type("t/reply")
    assert registry.is_json_type(JSON)
    assert not registry.is_json_type(INT)


def test_a_namespace_may_hold_any_function() -> None:
    registry = Registry([FunctionInfo("shop/cart")], namespaces=["remote"])
    found = registry.target("remote/anything")
    assert found.typename == "remote/anything"
    assert registry.target("remote/anything") is found
    for unknown in ("remote/", "remote/a/b", "remotes/a", "shop/card"):
        with pytest.raises(
            RequestRefused, match=r"(did you mean|there are) shop/cart.*; all of remote/\* is served too"
        ):
            registry.target(unknown)
    with pytest.raises(RequestRefused, match=r"; only remote/\* is served$"):
        Registry([], namespaces=["remote"]).target("shop/cart")
