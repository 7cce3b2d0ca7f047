"""Messages, egress records and their builders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from statefun_sdk import (
    BoolType,
    DoubleType,
    EgressMessage,
    FloatType,
    IntType,
    LongType,
    Message,
    StringType,
    Type,
    TypedValue,
    UndecodableValueError,
    UserTypeError,
    UserValueError,
    egress_message_builder,
    make_json_type,
    message_builder,
)

JSON = make_json_type("t/json")
PRIMITIVES: list[tuple[str, str, Any, Type[Any]]] = [
    ("int_value", "int", 7, IntType),
    ("bool_value", "bool", True, BoolType),
    ("long_value", "long", 2**40, LongType),
    ("str_value", "string", "hi", StringType),
    ("float_value", "float", 0.5, FloatType),
    ("double_value", "double", 0.1, DoubleType),
]
build: Any = message_builder  # the wrong calls below would not type-check


@pytest.mark.parametrize(("keyword", "name", "value", "tpe"), PRIMITIVES)
def test_a_primitive_value_is_built_and_read(keyword: str, name: str, value: Any, tpe: Type[Any]) -> None:
    message = build("t/f", "x", **{keyword: value})
    assert (message.target_typename, message.target_id) == ("t/f", "x")
    assert message.value_typename() == f"io.statefun.types/{name}"
    assert message.raw_value() == tpe.serializer().serialize(value)
    assert message.is_type(tpe)
    assert message.as_type(tpe) == value
    for _, other, _, _ in PRIMITIVES:
        assert getattr(message, f"is_{other}")() is (other == name)
    assert getattr(message, f"as_{name}")() == value
    assert message.raw_value() == build("t/f", "x", value=value, value_type=tpe).raw_value()


@pytest.mark.parametrize("keyword", ["int_value", "long_value", "float_value", "double_value", "bool_value"])
def test_zero_is_a_value(keyword: str) -> None:
    message = build("t/f", "x", **{keyword: 0})
    assert message.raw_value() == b""
    assert message.typed_value == TypedValue(message.value_typename(), True, b"")


def test_a_value_of_any_type_is_built() -> None:
    message = message_builder("t/f", "x", value={"a": 1}, value_type=JSON)
    assert message.is_type(JSON)
    assert message.as_type(JSON) == {"a": 1}
    assert repr(message) == "Message(to t/f/x, t/json, 8 bytes)"


def test_the_value_is_decoded_without_a_look_at_the_typename() -> None:
    message = message_builder("t/f", "x", int_value=0)
    assert message.as_string() == ""
    with pytest.raises(UndecodableValueError):
        message_builder("t/f", "x", int_value=1).as_string()


def test_a_message_without_a_value_reads_as_none() -> None:
    message = Message("t/f", "x", TypedValue("io.statefun.types/int", False))
    for _, name, _, tpe in PRIMITIVES:
        assert getattr(message, f"as_{name}")() is None
        assert message.as_type(tpe) is None
    assert message.raw_value() is None
    assert message.is_int()
    assert message.typed_value == TypedValue("io.statefun.types/int", False, b"")
    assert repr(message) == "Message(to t/f/x, io.statefun.types/int, no value)"


def test_the_parts_of_a_message_can_be_set() -> None:
    message = message_builder("t/f", "x", int_value=1)
    message.target_typename, message.target_id = "t/g", "y"
    message.typed_value = message_builder("t/f", "x", str_value="hi").typed_value
    assert (message.target_typename, message.target_id, message.as_string()) == ("t/g", "y", "hi")

    record = egress_message_builder("t/out", 1, IntType)
    record.typename, record.typed_value = "t/other", message.typed_value
    assert (record.typename, record.raw_value()) == ("t/other", b"\x0a\x02hi")


@pytest.mark.parametrize(
    ("part", "value", "error"),
    [
        ("target_typename", "", UserValueError),
        ("target_typename", 7, UserTypeError),
        ("target_id", None, UserValueError),
        ("target_id", 7, UserTypeError),
        ("target_id", "\ud800", UserValueError),
        ("typed_value", None, UserValueError),
        ("typed_value", b"1", UserTypeError),
        ("anything", 1, AttributeError),
    ],
)
def test_a_part_is_set_to_what_it_may_be(part: str, value: Any, error: type[Exception]) -> None:
    message = message_builder("t/f", "x", int_value=1)
    with pytest.raises(error):
        setattr(message, part, value)
    assert (message.target_typename, message.target_id, message.as_int()) == ("t/f", "x", 1)


def test_names_beyond_ascii_are_fine() -> None:
    message = message_builder("größe/maß", "é", int_value=1)
    assert (message.target_typename, message.target_id) == ("größe/maß", "é")


def test_the_typed_value_of_another_sdk_is_taken() -> None:
    protobuf_like: Any = SimpleNamespace(typename="t/x", has_value=True, value=b"ab")
    message = Message("t/f", "x", protobuf_like)
    assert message.typed_value == TypedValue("t/x", True, b"ab")
    assert Message("t/g", "y", message.typed_value).raw_value() == b"ab"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("", "x", TypedValue("t/x")), UserValueError, "target typename is missing"),
        ((None, "x", TypedValue("t/x")), UserValueError, "target typename is missing"),
        ((7, "x", TypedValue("t/x")), UserTypeError, "target typename must be a str"),
        (("t/f", "", TypedValue("t/x")), UserValueError, "target id is missing, found ''"),
        (("t/f", 7, TypedValue("t/x")), UserTypeError, "target id must be a str"),
        (("t/f", "x", None), UserValueError, "typed_value is missing"),
        (("t/f", "x", 7), UserTypeError, "typed_value must be a TypedValue, not int"),
        (("t/\ud800", "x", TypedValue("t/x")), UserValueError, "target typename .* cannot be encoded"),
        (("t/f", "x", TypedValue("t/\ud800")), UserValueError, "typename of a value .* cannot be encoded"),
        (
            ("t/f", "x", SimpleNamespace(typename=7, has_value=True, value=b"")),
            UserTypeError,
            "must be a str",
        ),
        (
            ("t/f", "x", SimpleNamespace(typename="t/x", has_value=True, value="1")),
            UserTypeError,
            "must be bytes",
        ),
    ],
)
def test_a_message_needs_all_its_parts(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Message(*arguments)


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (("", "x"), UserValueError, "target typename is missing"),
        ((None, "x"), UserValueError, "target typename is missing"),
        ((7, "x"), UserTypeError, "target typename must be a str"),
        (("t/f", ""), UserValueError, "target id is missing, found ''"),
        (("t/f", None), UserValueError, "target id is missing, found None"),
        (("t/f", 7), UserTypeError, "not int 7"),
        (("t/\ud800", "x"), UserValueError, "cannot be encoded as UTF-8"),
        (("t/f", "\ud800"), UserValueError, "cannot be encoded as UTF-8"),
    ],
)
def test_a_builder_needs_a_whole_target(target: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build(*target, int_value=1)


@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({}, UserTypeError, "takes exactly one of .* given: none"),
        ({"int_value": 1, "str_value": "x"}, KeyError, "^a message takes .* given: int_value, str_value"),
        ({"int_value": 1, "value_type": IntType}, KeyError, "given: int_value, value_type"),
        ({"value": 1, "other": 2}, KeyError, "given: value, other"),
        ({"one": 1, "other": 2}, UserTypeError, "given: one, other"),
        ({"value": 1, "value_type": IntType, "int_value": 1}, UserTypeError, "takes exactly one of"),
        ({"int_value": None}, UserValueError, "int_value is None"),
        ({"value": None, "value_type": IntType}, UserValueError, "value is None"),
        ({"value": 1}, UserValueError, "belong together"),
        ({"value_type": IntType}, UserValueError, "belong together"),
        ({"integer": 1}, UserValueError, "unknown keyword 'integer'; give one of int_value"),
        ({"value": 1, "value_type": int}, UserTypeError, "value_type must be a statefun Type"),
        ({"value": 1, "value_type": None}, UserValueError, "value_type is None"),
        ({"int_value": 2**31}, UserValueError, "does not fit into 32 bits"),
        ({"int_value": "1"}, UserTypeError, "needs an int"),
        ({"str_value": 1}, UserTypeError, "needs a str"),
    ],
)
def test_a_builder_needs_exactly_one_value(keywords: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build("t/f", "x", **keywords)


def test_a_type_checker_sees_wrong_calls() -> None:
    # An ignore that is not needed is an error, so each of these lines is one to mypy.
    with pytest.raises(UserTypeError):
        message_builder("t/f", "x", int_value="1")  # type: ignore[call-overload]
    with pytest.raises(UserTypeError):
        message_builder("t/f", "x", int_value=1, str_value="x")  # type: ignore[call-overload]
    with pytest.raises(UserTypeError):
        message_builder("t/f", "x")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        message_builder("t/f", "x", 1)  # type: ignore[call-overload]


def test_a_type_checker_knows_what_is_read() -> None:
    message = message_builder("t/f", "x", int_value=20)
    total: int = 1 + message.as_int() + message.as_type(IntType)
    assert total == 41
    with pytest.raises(UndecodableValueError):
        message.as_string().encode()
    with pytest.raises(AttributeError):
        message.as_int().encode()  # type: ignore[union-attr]


def test_an_egress_record_is_built() -> None:
    record = egress_message_builder("t/out", "hi", StringType)
    assert isinstance(record, EgressMessage)
    assert record.typename == "t/out"
    assert record.value_typename() == "io.statefun.types/string"
    assert record.raw_value() == b"\x0a\x02hi"
    assert record.typed_value == TypedValue("io.statefun.types/string", True, b"\x0a\x02hi")
    assert repr(record) == "EgressMessage(to t/out, io.statefun.types/string, 4 bytes)"
    again = EgressMessage("t/out", record.typed_value)
    assert again.raw_value() == record.raw_value()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("", 1, IntType), UserValueError, "egress typename is missing"),
        ((None, 1, IntType), UserValueError, "egress typename is missing"),
        ((7, 1, IntType), UserTypeError, "egress typename must be a str"),
        (("t/out", None, IntType), UserValueError, "value is None"),
        (("t/out", 1, None), UserValueError, "value_type is None"),
        (("t/out", 1, int), UserTypeError, "value_type must be a statefun Type"),
    ],
)
def test_an_egress_record_needs_all_its_parts(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        egress_message_builder(*arguments)


def test_an_egress_message_needs_a_typed_value() -> None:
    with pytest.raises(UserValueError, match="typed_value is missing"):
        EgressMessage("t/out", None)  # type: ignore[arg-type]
