from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ingress.errors import RequestRefused
from statefun_ingress.values import (
    BOOL,
    BUILT_INS,
    DOUBLE,
    FLOAT,
    INT,
    JSON_DEPTH_MAX,
    LONG,
    STRING,
    base64_converter,
    check_json_depth,
    decode_built_in,
    json_text,
    to_json,
)


@pytest.mark.parametrize(
    ("typename", "text", "data"),
    [
        (BOOL, "true", "0801"),
        (BOOL, "false", ""),
        (INT, "1", "0d01000000"),
        (INT, "-1", "0dffffffff"),
        (INT, "0", ""),
        (LONG, "1", "090100000000000000"),
        (LONG, "-2", "09feffffffffffffff"),
        (LONG, "0", ""),
        (FLOAT, "1", "0d0000803f"),
        (FLOAT, "0.0", ""),
        (DOUBLE, "1.0", "09000000000000f03f"),
        (DOUBLE, "0", ""),
        (STRING, '"hi"', "0a026869"),
        (STRING, '""', ""),
    ],
)
def test_built_in_values_have_the_reference_bytes(typename: str, text: str, data: str) -> None:
    assert BUILT_INS[typename](text.encode()).hex() == data
    assert (
        to_json(typename, bytes.fromhex(data), is_json=False)
        == json.dumps(decode_built_in(typename, bytes.fromhex(data))).encode()
    )


@given(
    st.one_of(
        st.tuples(st.just(INT), st.integers(-(2**31), 2**31 - 1)),
        st.tuples(st.just(LONG), st.integers(-(2**63), 2**63 - 1)),
        st.tuples(st.just(DOUBLE), st.floats(allow_nan=False, allow_infinity=False)),
        st.tuples(st.just(FLOAT), st.floats(width=32, allow_nan=False, allow_infinity=False)),
        st.tuples(st.just(STRING), st.text(max_size=300)),
        st.tuples(st.just(BOOL), st.booleans()),
    )
)
def test_built_in_values_come_back_from_json(pair: tuple[str, Any]) -> None:
    typename, value = pair
    data = BUILT_INS[typename](json.dumps(value).encode())

    assert decode_built_in(typename, data) == value
    text = to_json(typename, data, is_json=False)
    assert text is not None
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("typename", "text"),
    [
        (BOOL, "1"),
        (BOOL, '"true"'),
        (INT, "2147483648"),
        (INT, "1.5"),
        (INT, "true"),
        (INT, '"1"'),
        (LONG, "9223372036854775808"),
        (LONG, "null"),
        (FLOAT, "1e39"),
        (FLOAT, '"NaN"'),
        (DOUBLE, "1e999"),
        (DOUBLE, "[]"),
        (STRING, "5"),
        (STRING, '"\\ud800"'),
    ],
)
def test_a_value_that_does_not_fit_is_refused_naming_type_and_value(typename: str, text: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        BUILT_INS[typename](text.encode())

    assert caught.value.status == 422
    assert typename in caught.value.detail
    assert text in caught.value.detail


def test_opaque_types_are_base64() -> None:
    convert = base64_converter("t/x")

    assert convert(b'"AAEC"') == b"\0\1\2"
    for text in (b'"A"', b'"%%%%"', b"5", b'"\xc3\xa9"'):
        with pytest.raises(RequestRefused, match="base64"):
            convert(text)


def test_json_text_is_kept_as_it_is() -> None:
    assert json_text(b' {"a": [1,  2.50]}\r\n') == b'{"a": [1,  2.50]}'


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"[1,]", b'"\xff"', b"1 2", b"NaN"])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        json_text(text)
    assert caught.value.status == 400


def test_deep_json_is_refused_and_brackets_in_strings_do_not_count() -> None:
    deepest = b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX
    check_json_depth(deepest)
    check_json_depth(b'["' + b"[" * 500 + b'\\"[{"]')
    check_json_depth(b"[" + b"[{}]," * 300 + b"1]")

    with pytest.raises(RequestRefused, match=f"more than {JSON_DEPTH_MAX} deep at byte {JSON_DEPTH_MAX}"):
        check_json_depth(b"[" + deepest + b"]")
    with pytest.raises(RequestRefused):
        json_text(b'{"a":' * 100_000)


@pytest.mark.parametrize(
    ("typename", "data"),
    [
        (BOOL, "0802"),
        (INT, "0d0100"),
        (INT, "090100000000000000"),
        (LONG, "0d01000000"),
        (STRING, "0a0568"),
        (STRING, "0a02c328"),
        (STRING, "0a"),
        (STRING, "12026869"),
    ],
)
def test_bytes_of_another_type_are_not_shown_as_json(typename: str, data: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is ours and several
        decode_built_in(typename, bytes.fromhex(data))
    assert to_json(typename, bytes.fromhex(data), is_json=False) is None


def test_numbers_json_does_not_have_are_strings() -> None:
    import struct

    for value, text in ((math.nan, b'"NaN"'), (math.inf, b'"Infinity"'), (-math.inf, b'"-Infinity"')):
        assert to_json(DOUBLE, b"\x09" + struct.pack("<d", value), is_json=False) == text


def test_values_of_json_types_are_shown_if_they_are_json() -> None:
    assert to_json("t/j", b'{"a":1}', is_json=True) == b'{"a":1}'
    assert to_json("t/j", b"{a}", is_json=True) is None
    assert to_json("t/x", b"5", is_json=False) is None
