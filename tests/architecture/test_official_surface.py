"""What a module calls of the official SDK can be called here, with the same arguments."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import statefun_sdk
from statefun_sdk import (
    EgressMessage,
    IntType,
    Message,
    RequestReplyHandler,
    SdkAddress,
    StatefulFunctions,
    TypedValue,
    ValueSpec,
    protocol,
)
from tests.parts.services.surface import NAMES, surface_of

SEEN = [
    line
    for line in Path(__file__).with_name("official_surface.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
OURS = surface_of(statefun_sdk)
TYPED_VALUE = TypedValue("t/x", True, b"1")
ATTRIBUTES: list[tuple[Any, list[str]]] = [
    (Message("t/f", "x", TYPED_VALUE), ["target_typename", "target_id", "typed_value"]),
    (EgressMessage("t/out", TYPED_VALUE), ["typename", "typed_value"]),
    (SdkAddress("t", "f", "x", "t/f"), ["namespace", "name", "id", "typename"]),
    (ValueSpec("a", IntType), ["name", "type", "duration", "after_call", "after_write"]),
    (IntType, ["typename"]),
    (RequestReplyHandler(StatefulFunctions()), ["functions"]),
    (statefun_sdk.Context, ["address", "caller", "storage"]),
]


@pytest.mark.parametrize("line", SEEN)
def test_it_can_be_called_as_in_the_official_sdk(line: str) -> None:
    name, _, rest = line.removesuffix(")").partition("(")
    official = rest.split(", ") if rest else []
    ours = OURS[name]
    assert ours[: len(official)] == official
    assert all("=" in parameter for parameter in ours[len(official) :]), "what is only ours can be left out"


def test_the_list_leaves_no_name_out() -> None:
    assert {line.partition("(")[0].partition(".")[0] for line in SEEN} == set(NAMES)


@pytest.mark.parametrize(("thing", "names"), ATTRIBUTES, ids=lambda each: type(each).__name__)
def test_it_has_the_attributes_of_the_official_one(thing: Any, names: list[str]) -> None:
    assert [name for name in names if not hasattr(thing, name)] == []


def test_its_protobuf_messages_are_where_the_guide_says() -> None:
    names = [
        "ToFunction",
        "FromFunction",
        "Address",
        "TypedValue",
        "KafkaProducerRecord",
        "KinesisEgressRecord",
    ]
    assert [name for name in names if not hasattr(protocol, name)] == []
    value = protocol.TypedValue(typename="t/x", has_value=True, value=b"1")
    assert Message("t/f", "x", value).raw_value() == EgressMessage("t/out", value).raw_value() == b"1"


@pytest.mark.parametrize("package", ["statefun_sdk", "statefun_ray"])
def test_what_a_star_imports_from_the_official_sdk_is_imported_here(package: str) -> None:
    found: dict[str, Any] = {}
    exec(f"from {package} import *", found)  # what it does is what is asked
    types = {"BoolType", "IntType", "LongType", "FloatType", "DoubleType", "StringType"}
    assert {*NAMES, *types} <= set(found)
    assert importlib.import_module(package).Message is Message
