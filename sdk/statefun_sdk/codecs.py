"""Encodings of the six built-in types, without protobuf.

Each is the proto3 message ``{ <type> value = 1; }`` of ``io.statefun.sdk.types``, and
proto3 leaves out default values: the zero of every type is **zero bytes**. Encoders write
the canonical form only, so equal values are equal bytes.

| typename                  | tag  | payload                            |
|---------------------------|------|------------------------------------|
| ``io.statefun.types/bool``   | 08   | varint; false is left out          |
| ``io.statefun.types/int``    | 0D   | 4 bytes, little-endian, signed     |
| ``io.statefun.types/long``   | 09   | 8 bytes, little-endian, signed     |
| ``io.statefun.types/float``  | 0D   | IEEE-754 single, little-endian     |
| ``io.statefun.types/double`` | 09   | IEEE-754 double, little-endian     |
| ``io.statefun.types/string`` | 0A   | varint byte length, UTF-8          |

Negative zero is not the default value and keeps its bytes, as in current protobuf; a Java
function may collapse it to zero.

Decoders take the canonical form on a short path. Anything else goes through a small
field reader that accepts what proto3 accepts (explicit zeros, long varints, a repeated
field of which the last wins, fields that a later version may add). What it refuses is a
field 1 of another wire type, which protobuf would pass over: all six types have their
value there, so the bytes are of another one, and would be read as zero.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

from statefun_sdk.errors import UndecodableValueError, UserTypeError, UserValueError

BOOL = "io.statefun.types/bool"
INT = "io.statefun.types/int"
LONG = "io.statefun.types/long"
FLOAT = "io.statefun.types/float"
DOUBLE = "io.statefun.types/double"
STRING = "io.statefun.types/string"

_TAG_BOOL = 0x08
_TAG_32 = 0x0D
_TAG_64 = 0x09
_TAG_STRING = 0x0A

_pack_int = struct.Struct("<Bi").pack
_pack_long = struct.Struct("<Bq").pack
_pack_float = struct.Struct("<Bf").pack
_pack_double = struct.Struct("<Bd").pack
_unpack_int = struct.Struct("<Bi").unpack
_unpack_long = struct.Struct("<Bq").unpack
_unpack_float = struct.Struct("<Bf").unpack
_unpack_double = struct.Struct("<Bd").unpack

_TRUE = b"\x08\x01"
# Tag and length of every string shorter than 128 bytes: one look-up instead of a varint.
_STRING_HEADS = tuple(bytes((_TAG_STRING, length)) for length in range(128))

_ONE_BYTE = tuple(bytes((number,)) for number in range(128))

_ZERO_FLOAT = b"\x0d" + bytes(4)
_ZERO_DOUBLE = b"\x09" + bytes(8)

_VARINT_BYTES_MAX = 10
_SHORT_VARINT_BYTES_MAX = 5  # of a tag or a size: protobuf takes no longer one, whatever its value


# -- encoders ---------------------------------------------------------------------------


def encode_bool(value: Any) -> bytes:
    """Encode a bool; an int counts by its truth, as in protobuf.

    Raises:
        UserTypeError: anything else.
    """
    if value is True:
        return _TRUE
    if value is False:
        return b""
    try:
        return _TRUE if value.__index__() else b""
    except (AttributeError, TypeError):
        raise UserTypeError(f"{BOOL} needs a bool, not {type(value).__name__} {value!r}") from None


def encode_int(value: Any) -> bytes:
    """Encode a 32-bit signed integer; a bool counts as 0 or 1.

    Raises:
        UserValueError: outside [-2**31, 2**31).
        UserTypeError: not an integer.
    """
    try:
        data = _pack_int(_TAG_32, value)
    except struct.error:
        raise _not_an_integer(INT, value, 32) from None
    return data if value else b""


def encode_long(value: Any) -> bytes:
    """Encode a 64-bit signed integer; a bool counts as 0 or 1.

    Raises:
        UserValueError: outside [-2**63, 2**63).
        UserTypeError: not an integer.
    """
    try:
        data = _pack_long(_TAG_64, value)
    except struct.error:
        raise _not_an_integer(LONG, value, 64) from None
    return data if value else b""


def encode_float(value: Any) -> bytes:
    """Encode a number in single precision; one too large becomes infinity.

    Raises:
        UserValueError: an int too large even for double precision.
        UserTypeError: not a number.
    """
    try:
        data = _pack_float(_TAG_32, value)
    except (OverflowError, struct.error):
        data = _pack_float(_TAG_32, math.copysign(math.inf, _as_double(FLOAT, value)))
    # Compared as bytes: a tiny double is true, yet zero in single precision.
    return b"" if data == _ZERO_FLOAT else data


def encode_double(value: Any) -> bytes:
    """Encode a number in double precision.

    Raises:
        UserValueError: an int too large for double precision.
        UserTypeError: not a number.
    """
    try:
        data = _pack_double(_TAG_64, value)
    except struct.error:
        data = _pack_double(_TAG_64, _as_double(DOUBLE, value))
    return b"" if data == _ZERO_DOUBLE else data


def encode_string(value: Any) -> bytes:
    """Encode a str; bytes holding UTF-8 are accepted, as in protobuf.

    Raises:
        UserValueError: the text has no UTF-8 form (surrogates), or the bytes are not UTF-8.
        UserTypeError: not text.
    """
    try:
        data: bytes = value.encode()
    except AttributeError:
        data = _utf8_bytes(value)
    except UnicodeEncodeError as error:
        raise UserValueError(
            f"{STRING}: the text cannot be encoded as UTF-8 ({error}); remove the surrogate characters"
        ) from None
    length = len(data)
    if length == 0:
        return b""
    if length < 128:
        return _STRING_HEADS[length] + data
    return b"\x0a" + varint(length) + data


# -- decoders ---------------------------------------------------------------------------


def decode_bool(data: bytes) -> bool:
    """Decode a bool.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    if data == _TRUE:
        return True
    if not data:
        return False
    return bool(_read_field(BOOL, data, _TAG_BOOL, False))


def decode_int(data: bytes) -> int:
    """Decode a 32-bit signed integer.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    if not data:
        return 0
    try:
        tag, value = _unpack_int(data)
    except struct.error:
        tag = -1
    if tag == _TAG_32:
        return value  # type: ignore[no-any-return]
    return _unpack_int(b"\x0d" + _read_field(INT, data, _TAG_32, bytes(4)))[1]  # type: ignore[no-any-return]


def decode_long(data: bytes) -> int:
    """Decode a 64-bit signed integer.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    if not data:
        return 0
    try:
        tag, value = _unpack_long(data)
    except struct.error:
        tag = -1
    if tag == _TAG_64:
        return value  # type: ignore[no-any-return]
    return _unpack_long(b"\x09" + _read_field(LONG, data, _TAG_64, bytes(8)))[1]  # type: ignore[no-any-return]


def decode_float(data: bytes) -> float:
    """Decode a single precision number.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    if not data:
        return 0.0
    try:
        tag, value = _unpack_float(data)
    except struct.error:
        tag = -1
    if tag == _TAG_32:
        return value  # type: ignore[no-any-return]
    return _unpack_float(b"\x0d" + _read_field(FLOAT, data, _TAG_32, bytes(4)))[1]  # type: ignore[no-any-return]


def decode_double(data: bytes) -> float:
    """Decode a double precision number.

    Raises:
        UndecodableValueError: the bytes are not of this type.
    """
    if not data:
        return 0.0
    try:
        tag, value = _unpack_double(data)
    except struct.error:
        tag = -1
    if tag == _TAG_64:
        return value  # type: ignore[no-any-return]
    return _unpack_double(b"\x09" + _read_field(DOUBLE, data, _TAG_64, bytes(8)))[1]  # type: ignore[no-any-return]


def decode_string(data: bytes) -> str:
    """Decode a str.

    Raises:
        UndecodableValueError: the bytes are not of this type or not UTF-8.
    """
    if not data:
        return ""
    length = len(data) - 2
    if 0 <= length < 128 and data[0] == _TAG_STRING and data[1] == length:
        text = data[2:]
    else:
        text = _read_field(STRING, data, _TAG_STRING, b"")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise UndecodableValueError(STRING, f"the text is not UTF-8 ({error})", data) from None


# -- beside the short paths -------------------------------------------------------------


def _not_an_integer(typename: str, value: Any, bits: int) -> Exception:
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        return UserTypeError(f"{typename} needs an int, not {type(value).__name__} {value!r}")
    shown = number if number.bit_length() <= 256 else f"an int of {number.bit_length()} bits"
    advice = "; use LongType (long_value) for 64 bits" if bits == 32 else ""
    return UserValueError(f"{typename}: {shown} does not fit into {bits} bits with a sign{advice}")


def _as_double(typename: str, value: Any) -> float:
    """Return a value that could not be packed as the number it is, if it is one."""
    if not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        raise UserTypeError(f"{typename} needs a float, not {type(value).__name__} {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise UserValueError(f"{typename}: the int is too large for a floating point number") from None


def _utf8_bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise UserTypeError(f"{STRING} needs a str, not {type(value).__name__} {value!r}")
    data = bytes(value)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise UserValueError(
            f"{STRING}: the bytes are not UTF-8 ({error}); decode them to a str first"
        ) from None
    return data


def varint(number: int) -> bytes:
    """Return a number of 0 or more as protobuf writes it."""
    if number <= 0x7F:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(typename: str, data: bytes, at: int, bytes_max: int) -> tuple[int, int]:
    """Return the varint at ``at`` and the place behind it.

    Raises:
        UndecodableValueError: there is none.
    """
    number = 0
    for count in range(bytes_max):
        if at + count >= len(data):
            raise UndecodableValueError(typename, "it ends in the middle of a number", data)
        byte = data[at + count]
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + count + 1
    raise UndecodableValueError(typename, f"a number has more than {bytes_max} bytes", data)


def read_fields(typename: str, data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield ``(tag, content)`` of each field: a number for a varint, else bytes.

    Raises:
        UndecodableValueError: the bytes are no row of fields; a group, which nobody writes, is none.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(typename, data, at, _SHORT_VARINT_BYTES_MAX)
        if not 8 <= tag <= 0xFFFFFFFF:
            raise UndecodableValueError(typename, f"there is no field {tag >> 3}", data)
        match tag & 7:
            case 0:
                number, at = _read_varint(typename, data, at, _VARINT_BYTES_MAX)
                yield tag, number
                continue
            case 1:
                size = 8
            case 2:
                size, at = _read_varint(typename, data, at, _SHORT_VARINT_BYTES_MAX)
            case 5:
                size = 4
            case kind:
                raise UndecodableValueError(typename, f"found a field of wire type {kind}", data)
        content = data[at : at + size]
        if len(content) < size:
            raise UndecodableValueError(
                typename, f"field {tag >> 3} needs {size} bytes, {len(content)} are left", data
            )
        yield tag, content
        at += size


def _read_field(typename: str, data: bytes, tag: int, default: Any) -> Any:
    """Return the content of the last field ``tag`` in ``data``, the default if there is none."""
    content = default
    for found, latest in read_fields(typename, data):
        if found == tag:
            content = latest
        elif found >> 3 == 1:
            raise UndecodableValueError(
                typename,
                f"found field 1 of wire type {found & 7}, expected field 1 of wire type {tag & 7}",
                data,
            )
    return content
