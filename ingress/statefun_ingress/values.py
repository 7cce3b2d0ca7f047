"""From JSON to the bytes of a value and back, for the types that can be written as JSON.

Three kinds of type matter at the edge: a *JSON type*, whose bytes are JSON text; a
*built-in* type, whose bytes are the protobuf wrapper of one scalar; and any other, whose
bytes are opaque and written as base64 where JSON is needed.

The built-in encodings are StateFun's: a tag byte and the payload, and zero bytes for the
zero of the type.
"""

from __future__ import annotations

import binascii
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec

from statefun_ingress.errors import RequestRefused

BOOL: Final = "io.statefun.types/bool"
INT: Final = "io.statefun.types/int"
LONG: Final = "io.statefun.types/long"
FLOAT: Final = "io.statefun.types/float"
DOUBLE: Final = "io.statefun.types/double"
STRING: Final = "io.statefun.types/string"
JSON: Final = "statefun-ray.types/json"
"""The typename of JSON for functions that do not declare what they accept."""

JSON_DEPTH_MAX: Final = 128
"""Arrays and objects inside one another; deeper values exhaust the stack of many parsers."""

Converter = Callable[[bytes], bytes]
"""From the JSON text of a value to the bytes of its type; raises RequestRefused (422 or 400)."""

_INT = struct.Struct("<Bi")
_LONG = struct.Struct("<Bq")
_FLOAT = struct.Struct("<Bf")
_DOUBLE = struct.Struct("<Bd")

_json_bool = msgspec.json.Decoder(bool).decode
_json_int = msgspec.json.Decoder(int).decode
_json_float = msgspec.json.Decoder(float).decode
_json_str = msgspec.json.Decoder(str).decode
_json_any = msgspec.json.Decoder().decode


def refuse_value(typename: str, text: bytes, cause: str) -> RequestRefused:
    """Return the refusal of a value that does not fit its type."""
    shown = text[:60].decode("utf-8", "replace") + ("…" if len(text) > 60 else "")
    return RequestRefused(
        422, "The value does not fit its type", f"{typename} cannot be made from {shown}: {cause}"
    )


def check_json_depth(text: bytes) -> None:
    """Refuse JSON that is nested too deeply, before anything recursive reads it.

    Raises:
        RequestRefused: 400, nested deeper than ``JSON_DEPTH_MAX``.
    """
    if len(text) <= 2 * JSON_DEPTH_MAX or text.count(b"[") + text.count(b"{") <= JSON_DEPTH_MAX:
        return  # upper bounds of the depth, and all that most values need
    depth, at, size = 0, 0, len(text)
    while at < size:
        byte = text[at]
        if byte == 0x22:  # a string: its brackets do not count
            at += 1
            while at < size and text[at] != 0x22:
                at += 2 if text[at] == 0x5C else 1
        elif byte in b"[{":
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise RequestRefused(
                    400,
                    "The JSON is nested too deeply",
                    f"arrays and objects are nested more than {JSON_DEPTH_MAX} deep at byte {at}; flatten the value",
                )
        elif byte in b"]}":
            depth -= 1
        at += 1


def json_text(text: bytes) -> bytes:
    """Check JSON text and return it as the bytes of a JSON type."""
    check_json_depth(text)
    try:
        _json_any(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(
            400, "The body is not JSON", f"{error}; send one valid UTF-8 JSON value"
        ) from error
    return text.strip(b" \t\r\n")


def _bool_from_json(text: bytes) -> bytes:
    try:
        return b"\x08\x01" if _json_bool(text) else b""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse_value(BOOL, text, f"{error}; use true or false") from error


def _int_from_json(text: bytes) -> bytes:
    try:
        value = _json_int(text)
        return _INT.pack(0x0D, value) if value else b""
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise refuse_value(INT, text, "use a whole number from -2147483648 to 2147483647") from error


def _long_from_json(text: bytes) -> bytes:
    try:
        value = _json_int(text)
        return _LONG.pack(0x09, value) if value else b""
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise refuse_value(LONG, text, "use a whole number from -2**63 to 2**63-1") from error


def _float_from_json(text: bytes) -> bytes:
    try:
        value = _json_float(text)
        data = _FLOAT.pack(0x0D, value)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise refuse_value(FLOAT, text, "use a number within single precision") from error
    return data if data != b"\x0d\0\0\0\0" else b""


def _double_from_json(text: bytes) -> bytes:
    try:
        value = _json_float(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse_value(DOUBLE, text, "use a number within double precision") from error
    data = _DOUBLE.pack(0x09, value)
    return data if data != b"\x09\0\0\0\0\0\0\0\0" else b""


def encode_string(utf8: bytes) -> bytes:
    """Return the bytes of a built-in string; ``utf8`` must be valid."""
    length = len(utf8)
    if length == 0:
        return b""
    head = bytearray(b"\x0a")
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + utf8


def _string_from_json(text: bytes) -> bytes:
    try:
        return encode_string(_json_str(text).encode())
    except (msgspec.DecodeError, UnicodeError) as error:
        raise refuse_value(STRING, text, f"{error}; use a JSON string") from error


BUILT_INS: Final[dict[str, Converter]] = {
    BOOL: _bool_from_json,
    INT: _int_from_json,
    LONG: _long_from_json,
    FLOAT: _float_from_json,
    DOUBLE: _double_from_json,
    STRING: _string_from_json,
}
"""Converters from JSON text, by typename."""


def base64_converter(typename: str) -> Converter:
    """Return the converter of an opaque type: a JSON string holding base64."""

    def convert(text: bytes) -> bytes:
        try:
            return b64decode(_json_str(text), validate=True)
        except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError) as error:
            cause = f"{error}; its bytes are opaque here, send them as a base64 string"
            raise refuse_value(typename, text, cause) from error

    return convert


def _fixed(data: bytes, form: struct.Struct, tag: int) -> Any:
    if not data:
        return 0
    found, value = form.unpack(data)
    if found != tag:
        raise ValueError(f"tag {found:#x}, expected {tag:#x}")
    return value


def _decode_string(data: bytes) -> str:
    if not data:
        return ""
    length = shift = 0
    at = 1
    while True:
        byte = data[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    if data[0] != 0x0A or len(data) - at != length:
        raise ValueError("not one length-delimited field")
    return data[at:].decode()


def decode_built_in(typename: str, data: bytes) -> Any:
    """Return the scalar in the bytes of a built-in type.

    Raises:
        ValueError: the bytes are not in the canonical form of ``typename``.
    """
    try:
        if typename == STRING:
            return _decode_string(data)
        if typename == BOOL:
            if data in (b"", b"\x08\x01", b"\x08\x00"):
                return data == b"\x08\x01"
            raise ValueError("not one boolean field")
        if typename == INT:
            return _fixed(data, _INT, 0x0D)
        if typename == LONG:
            return _fixed(data, _LONG, 0x09)
        if typename == FLOAT:
            return float(_fixed(data, _FLOAT, 0x0D))
        return float(_fixed(data, _DOUBLE, 0x09))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def to_json(typename: str, data: bytes, *, is_json: bool) -> bytes | None:
    """Return a value as JSON text, or None if only base64 can carry it."""
    try:
        if is_json:
            _json_any(data)
            return data
        if typename not in BUILT_INS:
            return None
        value = decode_built_in(typename, data)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None  # written by a function in another language, or under another type
    if isinstance(value, float) and not math.isfinite(value):
        # As protobuf's JSON mapping writes them; JSON has no number for these.
        return b'"NaN"' if math.isnan(value) else (b'"Infinity"' if value > 0 else b'"-Infinity"')
    return msgspec.json.encode(value)


def to_base64_json(data: bytes) -> bytes:
    """Return opaque bytes as a JSON string of base64."""
    return b'"' + b64encode(data) + b'"'
