"""State values as Arrow columns.

The built-in types are one-field protobuf messages; their canonical bytes are so simple that a
whole column is decoded by joining bytes: a tag byte, then a little-endian number, or a length
and UTF-8 text. The zero value is no bytes at all.

======  ============  ===========================
tag     types         then
======  ============  ===========================
``08``  bool          one byte
``0D``  int, float    4 bytes
``09``  long, double  8 bytes
``0A``  string        varint byte length, UTF-8
======  ============  ===========================
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from statefun_checkpoints.errors import CorruptValue
from statefun_checkpoints.model import StateSpec

JSON_TYPE = "statefun-ray.types/json"

_BUILT_IN = "io.statefun.types/"
_NUMBERS = {
    _BUILT_IN + "int": (b"\x0d", pa.int32()),
    _BUILT_IN + "long": (b"\x09", pa.int64()),
    _BUILT_IN + "float": (b"\x0d", pa.float32()),
    _BUILT_IN + "double": (b"\x09", pa.float64()),
}
_TRUE, _FALSE = b"\x08\x01", b""
_STRING_TAG = 0x0A


def decode(values: list[bytes | None], spec: StateSpec, *, table: str, ids: list[str]) -> Any:
    """Return the values of one state as a `pyarrow.Array`.

    Args:
        values: none is None here; tombstones are gone.
        spec: its type decides the column's.
        table, ids: whose values, for the error.

    Raises:
        CorruptValue: a value is not of the declared type; names the first.
    """
    present = [value or b"" for value in values]
    try:
        if spec.type in _NUMBERS:
            return _numbers(present, *_NUMBERS[spec.type])
        if spec.type == _BUILT_IN + "bool":
            return pa.array([_bool(value) for value in present], pa.bool_())
        if spec.type == _BUILT_IN + "string":
            return pa.array([_text(value) for value in present], pa.string())
        if spec.json or spec.type == JSON_TYPE:
            return pa.array([value.decode() for value in present], pa.string())
    except ValueError as error:
        if len(present) == 1:
            raise CorruptValue(
                f"{table} of {ids[0]!r}", f"{present[0].hex() or 'no bytes'} is not {spec.type}: {error}"
            ) from error
        half = len(present) // 2
        decode(values[:half], spec, table=table, ids=ids[:half])
        decode(values[half:], spec, table=table, ids=ids[half:])
        raise
    return pa.array(present, pa.binary())


def _numbers(values: list[bytes], tag: bytes, type: Any) -> Any:
    width = type.bit_width // 8
    zero = tag + bytes(width)
    whole = [value or zero for value in values]
    if set(map(len, whole)) - {width + 1} or b"".join(whole)[:: width + 1] != tag * len(whole):
        raise ValueError(f"expected the byte {tag.hex()} and {width} more")
    packed = b"".join([value[1:] for value in whole])
    return pa.Array.from_buffers(type, len(whole), [None, pa.py_buffer(packed)])


def _bool(value: bytes) -> bool:
    if value == _TRUE:
        return True
    if value == _FALSE:
        return False
    raise ValueError("expected 0801 or nothing")


def _text(value: bytes) -> str:
    if not value:
        return ""
    if value[0] != _STRING_TAG:
        raise ValueError("expected the byte 0a")
    length = shift = 0
    for at, byte in enumerate(value[1:], 2):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if len(value) - at != length:
                raise ValueError(f"the text is {len(value) - at} bytes long, its length says {length}")
            return value[at:].decode()
    raise ValueError("the length does not end")
