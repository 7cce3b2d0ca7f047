"""Canonical bytes of the built-in types as Arrow columns; the bytes are StateFun's own examples."""

from __future__ import annotations

import math
import struct
from typing import Any

import pyarrow as pa
import pytest

from statefun_checkpoints.errors import CorruptValue
from statefun_checkpoints.model import StateSpec
from statefun_checkpoints.values import decode

T = "io.statefun.types/"


def column(type: str, *hexes: str, json: bool = False) -> Any:
    found: list[bytes | None] = [bytes.fromhex(text) for text in hexes]
    ids = [f"id-{n}" for n in range(len(found))]
    return decode(found, StateSpec(type=type, json=json), table="shop/cart.x", ids=ids)


@pytest.mark.parametrize(
    ("type", "arrow", "hexes", "expected"),
    [
        ("bool", pa.bool_(), ["0801", ""], [True, False]),
        ("int", pa.int32(), ["0D01000000", "0DFFFFFFFF", "", "0DFFFFFF7F"], [1, -1, 0, 2**31 - 1]),
        ("long", pa.int64(), ["090100000000000000", "09FEFFFFFFFFFFFFFF", ""], [1, -2, 0]),
        ("float", pa.float32(), ["0D0000803F", ""], [1.0, 0.0]),
        ("double", pa.float64(), ["09000000000000F03F", ""], [1.0, 0.0]),
        ("string", pa.string(), ["0A026869", "", "0A04F09F9B92"], ["hi", "", "🛒"]),
    ],
)
def test_canonical_bytes_are_decoded(type: str, arrow: Any, hexes: list[str], expected: list[Any]) -> None:
    found = column(T + type, *hexes)
    assert found.type == arrow
    assert found.to_pylist() == expected


def test_every_kind_of_number_comes_out() -> None:
    numbers = [math.pi, -math.inf, 5e-324]
    found = column(T + "double", *[(b"\x09" + struct.pack("<d", number)).hex() for number in numbers])
    assert found.to_pylist() == numbers
    found.validate(full=True)


@pytest.mark.parametrize("length", [1, 127, 128, 300, 20_000])
def test_long_texts_have_long_lengths(length: int) -> None:
    varint, rest = b"", length
    while rest > 0x7F:
        varint += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    value = b"\x0a" + varint + bytes([rest]) + b"x" * length
    assert column(T + "string", value.hex()).to_pylist() == ["x" * length]


def test_json_is_text_and_all_else_exact_bytes() -> None:
    assert column("my/cart", b'{"a": "\xc3\xa9"}'.hex(), json=True).to_pylist() == ['{"a": "é"}']
    assert column("statefun-ray.types/json", "7b7d").to_pylist() == ["{}"]
    found = column("my/proto", "00ff", "")
    assert found.type == pa.binary()
    assert found.to_pylist() == [b"\x00\xff", b""]


def test_no_values_make_an_empty_column() -> None:
    assert column(T + "int").to_pylist() == []


@pytest.mark.parametrize(
    ("type", "wrong", "reason"),
    [
        ("bool", "0800", "expected 0801 or nothing"),
        ("int", "0801", "expected the byte 0d and 4 more"),
        ("int", "0D0100", "expected the byte 0d"),
        ("long", "0D01000000", "expected the byte 09 and 8 more"),
        ("string", "0801", "expected the byte 0a"),
        ("string", "0A056869", "the text is 2 bytes long, its length says 5"),
        ("string", "0AFF", "the length does not end"),
        ("string", "0A02FFFE", "can't decode"),
    ],
)
def test_a_value_of_another_type_is_named(type: str, wrong: str, reason: str) -> None:
    with pytest.raises(
        CorruptValue, match=f"shop/cart.x of 'id-2' is corrupt: {wrong.lower()} is not {T}{type}: .*{reason}"
    ):
        column(T + type, "", "", wrong, "", "")


def test_json_that_is_no_text_is_named() -> None:
    with pytest.raises(CorruptValue, match="of 'id-1'"):
        column("my/cart", "7b7d", "ff", json=True)
