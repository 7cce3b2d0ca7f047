"""Types: a typename and how its values become bytes.

The runtime never looks into values. It stores and moves ``(typename, bytes)``, and both
ends of a message or a state agree on what the bytes mean by naming the same type.

A ``Type`` takes any non-empty typename, as in the official SDK. Where a typename has to
be ``namespace/name`` (the types of states), ``StatefulFunctions.register`` says so.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from statefun_sdk import codecs
from statefun_sdk.address import check_text
from statefun_sdk.errors import UserTypeError, UserValueError

T = TypeVar("T")

# What an undeclared JSON body is called when it enters over HTTP.
JSON_TYPENAME = "statefun-ray.types/json"

_json_typenames: set[str] = set()


@dataclass(frozen=True, slots=True)
class TypedValue:
    """Bytes and the name of their type, with the fields of the wire message of that name.

    Attributes:
        typename: ``namespace/name`` of the type.
        has_value: false if there is no value at all; zero bytes can be a value.
        value: the encoded value; empty if there is none.
    """

    typename: str = ""
    has_value: bool = False
    value: bytes = b""


class TypeSerializer(ABC, Generic[T]):
    """Turns values of one type into bytes and back."""

    @abstractmethod
    def serialize(self, value: T) -> bytes:
        """Return the bytes of ``value``."""

    @abstractmethod
    def deserialize(self, byte: bytes) -> T:
        """Return the value that ``byte`` encodes; the name is that of the official SDK."""


class Type(ABC, Generic[T]):
    """A typename and its serializer.

    Attributes:
        typename: names the type on the wire and in state.
        is_json: the values are UTF-8 JSON documents; ``json_typenames`` lists such types.
    """

    is_json: ClassVar[bool] = False

    def __init__(self, typename: str) -> None:
        """Name the type.

        Raises:
            UserValueError: ``typename`` is empty.
            UserTypeError: it is not a string.
        """
        if not typename:
            raise UserValueError("the typename of a Type is missing; write it as 'namespace/name'")
        self.typename = check_text(typename, "the typename of a Type")
        if self.is_json:
            _json_typenames.add(typename)

    @abstractmethod
    def serializer(self) -> TypeSerializer[T]:
        """Return what encodes and decodes values of this type."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.typename!r})"


def json_typenames() -> frozenset[str]:
    """Return the typenames of all JSON types made in this process so far."""
    return frozenset(_json_typenames)


def codec_of(tpe: Type[T]) -> tuple[Callable[[T], bytes], Callable[[bytes], T]]:
    """Return the plain functions that encode and decode values of ``tpe``.

    Hot paths keep these instead of going through ``serializer()`` for every value. The
    encoder of a type defined by a user checks that bytes came out.
    """
    serializer = tpe.serializer()
    if isinstance(serializer, _FunctionSerializer):
        return serializer.encode, serializer.decode
    return _returning_bytes(tpe.typename, serializer.serialize), serializer.deserialize


def simple_type(
    typename: str | None = None,
    serialize_fn: Callable[[T], bytes] | None = None,
    deserialize_fn: Callable[[bytes], T] | None = None,
) -> Type[T]:
    """Make a type from two functions.

    Args:
        typename: ``namespace/name``.
        serialize_fn: value to bytes; a str is refused when a value is encoded, so a plain
            ``json.dumps`` needs an ``.encode()``.
        deserialize_fn: bytes to value.

    Raises:
        UserValueError: the typename or a function is missing.
    """
    typename = typename or ""  # which the type refuses
    if not serialize_fn or not deserialize_fn:
        raise UserValueError(f"simple_type {typename!r} needs both a serialize_fn and a deserialize_fn")
    return _FunctionType(typename, _returning_bytes(typename, serialize_fn), deserialize_fn)


def make_json_type(typename: str) -> Type[Any]:
    """Make a type whose values are stored as UTF-8 JSON.

    Any value that ``json.dumps`` takes; non-ASCII text stays readable in the bytes.

    Raises:
        UserValueError: the typename is missing.
    """
    return _JsonType(typename, _encode_json, json.loads)


class ProtobufMessage(Protocol):
    """What ``make_protobuf_type`` uses of a generated message class, besides its descriptor."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name

    @classmethod
    def FromString(cls, s: bytes, /) -> Self: ...  # noqa: N802 - protobuf's name


M = TypeVar("M", bound=ProtobufMessage)


def make_protobuf_type(cls: type[M], namespace: str | None = None) -> Type[M]:
    """Make a type from a generated protobuf message class.

    Args:
        cls: the class; it brings its own protobuf, none is imported here.
        namespace: of the typename; ``type.googleapis.com`` unless given.

    Returns:
        A type named ``<namespace>/<full name of the message>``.

    Raises:
        UserValueError: the class is missing.
        UserTypeError: it is not a protobuf message class.
    """
    if cls is None:
        raise UserValueError("make_protobuf_type needs the generated message class")
    full_name = getattr(getattr(cls, "DESCRIPTOR", None), "full_name", None)
    if not callable(getattr(cls, "FromString", None)) or not isinstance(full_name, str):
        raise UserTypeError(f"make_protobuf_type needs a generated message class, not {cls!r}")

    def encode(value: M) -> bytes:
        if not isinstance(value, cls):
            raise UserTypeError(
                f"{typename} needs a {full_name} message, not {type(value).__name__} {value!r}"
            )
        return value.SerializeToString()

    typename = f"{namespace or 'type.googleapis.com'}/{full_name}"
    return _FunctionType(typename, encode, cls.FromString)


# -- how they are made ------------------------------------------------------------------


class _FunctionSerializer(TypeSerializer[T]):
    """A serializer made of two functions, which ``codec_of`` can take out again."""

    __slots__ = ("decode", "encode")

    def __init__(self, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        self.encode = encode
        self.decode = decode

    def serialize(self, value: T) -> bytes:
        return self.encode(value)

    def deserialize(self, byte: bytes) -> T:
        return self.decode(byte)


class _FunctionType(Type[T]):
    """A type made of two functions."""

    def __init__(self, typename: str, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        super().__init__(typename)
        self._serializer = _FunctionSerializer(encode, decode)

    def serializer(self) -> TypeSerializer[T]:
        return self._serializer

    def __repr__(self) -> str:
        return f"Type({self.typename!r})"


class _JsonType(_FunctionType[Any]):
    is_json = True


def _returning_bytes(typename: str, encode: Callable[[T], Any]) -> Callable[[T], bytes]:
    """Return ``encode`` with a check that it made bytes."""

    def encode_checked(value: T) -> bytes:
        data = encode(value)
        if type(data) is bytes:
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        advice = "; add .encode('utf-8') to it" if isinstance(data, str) else ""
        raise UserTypeError(f"the serializer of {typename} returned {type(data).__name__}, not bytes{advice}")

    return encode_checked


def _encode_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


BoolType: Type[bool] = _FunctionType(codecs.BOOL, codecs.encode_bool, codecs.decode_bool)
IntType: Type[int] = _FunctionType(codecs.INT, codecs.encode_int, codecs.decode_int)
LongType: Type[int] = _FunctionType(codecs.LONG, codecs.encode_long, codecs.decode_long)
FloatType: Type[float] = _FunctionType(codecs.FLOAT, codecs.encode_float, codecs.decode_float)
DoubleType: Type[float] = _FunctionType(codecs.DOUBLE, codecs.encode_double, codecs.decode_double)
StringType: Type[str] = _FunctionType(codecs.STRING, codecs.encode_string, codecs.decode_string)

# For JSON that entered without a declared type. Declaring one of your own is clearer.
JsonType: Type[Any] = make_json_type(JSON_TYPENAME)
