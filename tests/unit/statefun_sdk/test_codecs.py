"""The hand-written encodings are those of protobuf, in both directions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_sdk import UndecodableValueError, UserTypeError, UserValueError, codecs
from tests.unit.statefun_sdk.protobuf_wrappers import wrapper_classes

WRAPPERS = wrapper_classes()
# A busy machine must not fail a test that only compares.

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any], str]
BOOL: Codec = (codecs.encode_bool, codecs.decode_bool, "BooleanWrapper")
INT: Codec = (codecs.encode_int, codecs.decode_int, "IntWrapper")
LONG: Codec = (codecs.encode_long, codecs.decode_long, "LongWrapper")
FLOAT: Codec = (codecs.encode_float, codecs.decode_float, "FloatWrapper")
DOUBLE: Codec = (codecs.encode_double, codecs.decode_double, "DoubleWrapper")
STRING: Codec = (codecs.encode_string, codecs.decode_string, "StringWrapper")
ALL = {"bool": BOOL, "int": INT, "long": LONG, "float": FLOAT, "double": DOUBLE, "string": STRING}


def check_both_ways(codec: Codec, value: Any) -> None:
    """What we write protobuf writes; what protobuf writes we read; NaN counts as equal."""
    encode, decode, wrapper = codec
    data = encode(value)
    theirs = WRAPPERS[wrapper](value=value)
    assert data == theirs.SerializeToString()
    assert repr(decode(data)) == repr(theirs.value)
    assert repr(WRAPPERS[wrapper].FromString(data).value) == repr(theirs.value)


@pytest.mark.parametrize(
    ("codec", "value", "encoded"),
    [
        (BOOL, True, "0801"),
        (BOOL, False, ""),
        (INT, 0, ""),
        (INT, 1, "0d01000000"),
        (INT, -1, "0dffffffff"),
        (LONG, 0, ""),
        (LONG, 1, "090100000000000000"),
        (LONG, -2, "09feffffffffffffff"),
        (FLOAT, 0.0, ""),
        (FLOAT, 1.0, "0d0000803f"),
        (DOUBLE, 0.0, ""),
        (DOUBLE, 1.0, "09000000000000f03f"),
        (STRING, "", ""),
        (STRING, "hi", "0a026869"),
    ],
)
def test_golden_bytes_of_the_wire_format(codec: Codec, value: Any, encoded: str) -> None:
    encode, decode, _ = codec
    assert encode(value).hex() == encoded
    assert decode(bytes.fromhex(encoded)) == value
    check_both_ways(codec, value)


@given(INT32)
def test_ints_agree_with_protobuf(value: int) -> None:
    check_both_ways(INT, value)


@given(INT64)
def test_longs_agree_with_protobuf(value: int) -> None:
    check_both_ways(LONG, value)


@given(st.floats())
def test_floats_agree_with_protobuf(value: float) -> None:
    check_both_ways(FLOAT, value)


@given(st.floats())
def test_doubles_agree_with_protobuf(value: float) -> None:
    check_both_ways(DOUBLE, value)


@given(st.text())
def test_strings_agree_with_protobuf(value: str) -> None:
    check_both_ways(STRING, value)


@pytest.mark.parametrize("length", [126, 127, 128, 16_383, 16_384, 2_097_152])
def test_long_strings_agree_with_protobuf(length: int) -> None:
    check_both_ways(STRING, "x" * length)


@pytest.mark.parametrize("value", [-0.0, 1e-50, -1e-50, 1e39, -1e39, 3.4028235677973366e38, 5e-324, math.inf])
def test_floats_at_the_edges_agree_with_protobuf(value: float) -> None:
    check_both_ways(FLOAT, value)
    check_both_ways(DOUBLE, value)


def test_negative_zero_is_kept() -> None:
    assert math.copysign(1, codecs.decode_double(codecs.encode_double(-0.0))) == -1
    assert math.copysign(1, codecs.decode_float(codecs.encode_float(-0.0))) == -1


def test_an_explicit_zero_is_read_as_zero() -> None:
    assert codecs.decode_bool(b"\x08\x00") is False
    assert codecs.decode_int(b"\x0d" + bytes(4)) == 0
    assert codecs.decode_long(b"\x09" + bytes(8)) == 0
    assert codecs.decode_float(b"\x0d" + bytes(4)) == 0.0
    assert codecs.decode_double(b"\x09" + bytes(8)) == 0.0
    assert codecs.decode_string(b"\x0a\x00") == ""


def test_of_a_repeated_field_the_last_wins() -> None:
    for encode, decode, wrapper in ALL.values():
        first, last = ("a", "bc") if wrapper == "StringWrapper" else (1, True)
        twice = encode(first) + encode(last)
        assert decode(twice) == decode(encode(last)) == WRAPPERS[wrapper].FromString(twice).value


def test_varints_longer_than_needed_are_read() -> None:
    assert codecs.decode_bool(b"\x08\x81\x00") is True
    assert codecs.decode_bool(b"\x88\x00\x01") is True
    assert codecs.decode_string(b"\x0a\x82\x00hi") == "hi"


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\xff" * 11,
        b"\x0d\x01",
        b"\x0a\x05hi",
        b"\x00",
        b"\x12\x02x",
        b"\x10",
        b"\x13\x14",
        b'{"a":1}',
        b"\x0e",
        b"\x80\x80\x80\x80\x10\x01",
        b"\x90\x80\x80\x80\x80\x00\x00",
        b"\x0a\x81\x80\x80\x80\x80\x00x",
    ],
)
def test_bytes_of_another_type_are_refused(name: str, data: bytes) -> None:
    _, decode, _ = ALL[name]
    with pytest.raises(UndecodableValueError, match=f"are not a io.statefun.types/{name}"):
        decode(data)


@pytest.mark.parametrize("name", sorted(ALL))
def test_fields_of_a_later_version_are_passed_over(name: str) -> None:
    encode, decode, wrapper = ALL[name]
    value: Any = "hi" if name == "string" else True
    data = encode(value)
    for added in (b"\x10\x01", b"\x12\x01x", b"\x15abcd", b"\x19abcdefgh", b"\xfa\xff\xff\xff\x0f\x00"):
        for whole in (data + added, added + data, added):
            assert decode(whole) == WRAPPERS[wrapper].FromString(whole).value


@pytest.mark.parametrize(("writer", "reader"), [(w, r) for w in ALL for r in ALL])
def test_a_value_of_another_type_is_not_read_as_zero(writer: str, reader: str) -> None:
    data = ALL[writer][0]("hi" if writer == "string" else 1)
    tags = {"bool": 0, "int": 5, "float": 5, "long": 1, "double": 1, "string": 2}
    if tags[writer] != tags[reader]:
        with pytest.raises(UndecodableValueError, match=f"found field 1 of wire type {tags[writer]}"):
            ALL[reader][1](data)


def test_another_wire_type_is_named_in_the_error() -> None:
    with pytest.raises(
        UndecodableValueError, match="found field 1 of wire type 5, expected field 1 of wire type 2"
    ):
        codecs.decode_string(codecs.encode_int(7))


def test_text_that_is_not_utf8_is_refused_when_read() -> None:
    with pytest.raises(UndecodableValueError, match="not UTF-8"):
        codecs.decode_string(b"\x0a\x01\xff")


@given(st.sampled_from(sorted(ALL)), st.binary(max_size=24))
def test_any_bytes_are_either_read_as_protobuf_reads_them_or_refused(name: str, data: bytes) -> None:
    _, decode, wrapper = ALL[name]
    try:
        value = decode(data)
    except UndecodableValueError:
        return
    assert repr(value) == repr(WRAPPERS[wrapper].FromString(data).value)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (INT, 2**31),
        (INT, -(2**31) - 1),
        pytest.param(INT, 10**400, id="huge int"),
        (LONG, 2**63),
        (LONG, -(2**63) - 1),
        pytest.param(FLOAT, 10**400, id="huge float"),
        pytest.param(DOUBLE, 10**400, id="huge double"),
        (STRING, "\ud800"),
        (STRING, b"\xff"),
    ],
)
def test_values_out_of_range_are_refused(codec: Codec, value: Any) -> None:
    encode, _, _ = codec
    with pytest.raises(UserValueError):
        encode(value)
    with pytest.raises(ValueError):  # noqa: PT011 - the builtin the official SDK raises
        encode(value)


WRONG: list[tuple[Codec, list[Any]]] = [
    (BOOL, ["x", 1.0, b"", [], {}]),
    (INT, ["1", 1.0, 0.0, "", b"", [], None]),
    (LONG, ["1", 1.0, 0.0, "", b"", [], None]),
    (FLOAT, ["1", "", b"1", [], None]),
    (DOUBLE, ["1", "", b"1", [], None]),
    (STRING, [0, 1, 1.0, [], ["hi"], None]),
]


@pytest.mark.parametrize(("codec", "value"), [(codec, value) for codec, values in WRONG for value in values])
def test_values_of_the_wrong_python_type_are_refused(codec: Codec, value: Any) -> None:
    encode, _, _ = codec
    with pytest.raises(UserTypeError, match=r"io\.statefun\.types/\w+ needs a"):
        encode(value)


def test_neighbouring_python_types_are_taken_as_the_official_sdk_does() -> None:
    assert codecs.encode_int(True) == codecs.encode_int(1)
    assert codecs.encode_int(False) == b""
    assert codecs.encode_bool(2) == codecs.encode_bool(True)
    assert codecs.encode_bool(0) == b""
    assert codecs.encode_double(3) == codecs.encode_double(3.0)
    assert codecs.encode_string(b"hi") == codecs.encode_string("hi")
    assert codecs.encode_string(bytearray(b"hi")) == codecs.encode_string("hi")


def test_a_number_too_large_for_single_precision_becomes_infinity() -> None:
    assert codecs.decode_float(codecs.encode_float(1e39)) == math.inf
    assert codecs.decode_float(codecs.encode_float(-(10**300))) == -math.inf
    assert codecs.encode_float(0.1) == b"\x0d" + struct.pack("<f", 0.1)


def test_an_int_too_large_for_int_names_long() -> None:
    with pytest.raises(
        UserValueError, match=r"2147483648 does not fit into 32 bits with a sign; use LongType"
    ):
        codecs.encode_int(2**31)
