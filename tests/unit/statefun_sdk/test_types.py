"""Types make bytes of values, and say so when they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from statefun_sdk import (
    BoolType,
    DoubleType,
    FloatType,
    IntType,
    JsonType,
    LongType,
    StringType,
    Type,
    TypeSerializer,
    UserTypeError,
    UserValueError,
    json_typenames,
    make_json_type,
    make_protobuf_type,
    simple_type,
)
from statefun_sdk.types import codec_of
from tests.unit.statefun_sdk.protobuf_wrappers import wrapper_classes

SDK_FOLDER = Path(__file__).resolve().parents[3] / "sdk"
WRAPPERS = wrapper_classes()


class Reversed(TypeSerializer[str]):
    def serialize(self, value: str) -> bytes:
        return value[::-1].encode()

    def deserialize(self, byte: bytes) -> str:
        return byte.decode()[::-1]


class ReversedType(Type[str]):
    """A type as a user would derive one."""

    def __init__(self) -> None:
        super().__init__("t/reversed")

    def serializer(self) -> TypeSerializer[str]:
        return Reversed()


@pytest.mark.parametrize(
    ("tpe", "typename", "value"),
    [
        (BoolType, "io.statefun.types/bool", True),
        (IntType, "io.statefun.types/int", 7),
        (LongType, "io.statefun.types/long", -7),
        (FloatType, "io.statefun.types/float", 0.5),
        (DoubleType, "io.statefun.types/double", 0.1),
        (StringType, "io.statefun.types/string", "hi"),
        (JsonType, "statefun-ray.types/json", {"a": [1, None]}),
        (ReversedType(), "t/reversed", "abc"),
    ],
)
def test_a_type_reads_back_what_it_wrote(tpe: Type[Any], typename: str, value: Any) -> None:
    assert tpe.typename == typename
    serializer = tpe.serializer()
    assert serializer.deserialize(serializer.serialize(value)) == value
    encode, decode = codec_of(tpe)
    assert encode(value) == serializer.serialize(value)
    assert decode(encode(value)) == value


def test_a_type_shows_its_typename() -> None:
    assert repr(IntType) == "Type('io.statefun.types/int')"
    assert repr(ReversedType()) == "ReversedType('t/reversed')"


@pytest.mark.parametrize("typename", ["", None])
def test_a_type_needs_a_typename(typename: Any) -> None:
    with pytest.raises(UserValueError, match="typename of a Type is missing"):
        make_json_type(typename)


def test_a_typename_is_text() -> None:
    with pytest.raises(UserTypeError, match="must be a str, not int 7"):
        make_json_type(7)  # type: ignore[arg-type]


def test_a_typename_without_slash_is_allowed_for_a_type() -> None:
    assert simple_type("plain", bytes, bytes).typename == "plain"


@pytest.mark.parametrize("functions", [(None, bytes), (bytes, None)])
def test_a_simple_type_needs_both_functions(functions: tuple[Any, Any]) -> None:
    with pytest.raises(UserValueError, match="needs both a serialize_fn and a deserialize_fn"):
        simple_type("t/x", *functions)


def test_a_serializer_that_returns_text_is_refused_with_advice() -> None:
    tpe = simple_type("t/x", json.dumps, json.loads)  # type: ignore[arg-type]
    with pytest.raises(
        UserTypeError, match=r"serializer of t/x returned str, not bytes; add .encode\('utf-8'\)"
    ):
        tpe.serializer().serialize({"a": 1})


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_other_kinds_of_bytes_become_bytes(data: Any) -> None:
    encode, _ = codec_of(simple_type("t/x", lambda value: value, bytes))
    assert type(encode(data)) is bytes
    assert encode(data) == b"ab"


def test_a_derived_type_that_returns_no_bytes_is_refused() -> None:
    class Broken(Reversed):
        def serialize(self, value: str) -> bytes:
            return 7  # type: ignore[return-value]

    class BrokenType(ReversedType):
        def serializer(self) -> TypeSerializer[str]:
            return Broken()

    encode, _ = codec_of(BrokenType())
    with pytest.raises(UserTypeError, match="returned int, not bytes"):
        encode("x")


def test_json_is_utf8_with_readable_text_and_the_usual_separators() -> None:
    tpe = make_json_type("t/json")
    assert tpe.serializer().serialize({"größe": [1, "é"]}) == '{"größe": [1, "é"]}'.encode()
    assert tpe.serializer().deserialize(b'{"a":1}') == {"a": 1}


def test_json_types_are_known_as_such() -> None:
    tpe = make_json_type("t/known-json")
    assert tpe.is_json
    assert not IntType.is_json
    assert {"t/known-json", "statefun-ray.types/json"} <= json_typenames()
    assert "io.statefun.types/int" not in json_typenames()


def test_a_derived_type_can_declare_itself_json() -> None:
    class MyJson(ReversedType):
        is_json = True

    MyJson()
    assert "t/reversed" in json_typenames()


def test_a_protobuf_type_is_named_after_its_message() -> None:
    cls = WRAPPERS["IntWrapper"]
    tpe: Type[Any] = make_protobuf_type(cls)
    assert tpe.typename == "type.googleapis.com/io.statefun.sdk.types.IntWrapper"
    assert make_protobuf_type(cls, namespace="shop").typename == "shop/io.statefun.sdk.types.IntWrapper"
    data = tpe.serializer().serialize(cls(value=5))
    assert data == cls(value=5).SerializeToString()
    assert tpe.serializer().deserialize(data) == cls(value=5)


def test_a_protobuf_type_refuses_other_messages() -> None:
    tpe: Type[Any] = make_protobuf_type(WRAPPERS["IntWrapper"])
    with pytest.raises(
        UserTypeError, match=r"needs a io\.statefun\.sdk\.types\.IntWrapper message, not LongWrapper"
    ):
        tpe.serializer().serialize(WRAPPERS["LongWrapper"](value=5))


@pytest.mark.parametrize(
    ("cls", "error"), [(None, UserValueError), (int, UserTypeError), ("x", UserTypeError)]
)
def test_a_protobuf_type_needs_a_message_class(cls: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="needs"):
        make_protobuf_type(cls)


@pytest.mark.slow
def test_importing_the_sdk_loads_no_protobuf() -> None:
    program = "import sys, statefun_sdk, statefun_sdk.testing; sys.exit('google.protobuf' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(SDK_FOLDER)})
