"""Addresses and the names they are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from statefun_sdk import SdkAddress, UserTypeError, UserValueError
from statefun_sdk.address import check_function_typename, check_id, check_qualified, split_typename


def test_an_address_knows_its_parts() -> None:
    address = SdkAddress.of("shop/cart", "42")
    assert (address.namespace, address.name, address.id, address.typename) == (
        "shop",
        "cart",
        "42",
        "shop/cart",
    )
    assert address == SdkAddress("shop", "cart", "42", "shop/cart")
    assert hash(address) == hash(SdkAddress("shop", "cart", "42", "shop/cart"))
    assert type(address) is SdkAddress
    assert repr(address) == "SdkAddress(namespace='shop', name='cart', id='42', typename='shop/cart')"


@pytest.mark.parametrize("address", [SdkAddress.of("a/b", "c"), SdkAddress("a", "b", "c", "a/b")])
def test_an_address_cannot_be_changed(address: SdkAddress) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.id = "d"  # type: ignore[misc]
    assert dataclasses.replace(address, id="d").id == "d"


def test_the_last_slash_splits() -> None:
    assert split_typename("a/b/c") == ("a/b", "c")
    assert split_typename("/c") == ("", "c")
    with pytest.raises(UserValueError, match="'cart' has no slash; write it as 'namespace/name'"):
        split_typename("cart")


@pytest.mark.parametrize("typename", ["cart", "/cart", "shop/", "a/b/c", "/", "a/\ud800"])
def test_a_function_typename_has_two_parts(typename: str) -> None:
    with pytest.raises(UserValueError, match="function typename"):
        check_function_typename(typename)


@pytest.mark.parametrize(
    "typename", ["statefun-ray.reply/x", "io.statefun-ray/dead-letters", "~queue/x", "~/x"]
)
def test_namespaces_of_the_runtime_are_reserved(typename: str) -> None:
    with pytest.raises(UserValueError, match="reserved for the runtime"):
        check_function_typename(typename)


@pytest.mark.parametrize(
    "typename", ["shop/cart", "a.b-c/d_e", "größe/maß", "statefun-ray.replyx/y", "io.statefun-ray.x/y"]
)
def test_other_function_typenames_are_fine(typename: str) -> None:
    assert check_function_typename(typename) == typename


def test_names_must_be_text() -> None:
    with pytest.raises(UserTypeError, match="thing must be a str like 'namespace/name', not 7"):
        check_qualified(7, "thing")


@pytest.mark.parametrize("id", ["x", "ü", "a/b", " ", "\0", "𝄞"])
def test_any_text_can_be_an_id(id: str) -> None:
    assert check_id(id) == id


@pytest.mark.parametrize(
    ("id", "error", "text"),
    [
        ("", UserValueError, "target id is missing, found ''"),
        ("\ud800", UserValueError, "cannot be encoded as UTF-8"),
        (7, UserTypeError, r"not int 7; convert it with str\(...\)"),
        (None, UserValueError, "target id is missing, found None"),
        (0, UserValueError, "target id is missing, found 0"),
        (b"x", UserTypeError, "must be a str"),
    ],
)
def test_other_ids_are_refused(id: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_id(id)
