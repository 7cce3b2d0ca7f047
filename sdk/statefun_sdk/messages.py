"""Messages to functions and records for egresses, and how to build them.

A message carries a typename and bytes. Values are encoded when a message is built and
decoded when they are asked for; ``typed_value`` is made on demand.

``as_int`` and its like give None for a message without a value. No builder and no ingress
makes such a message, only another SDK can, so their return types are ``int | Any``: a type
checker knows the type, and does not ask for a test against None that never matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypedDict, TypeVar, overload

from statefun_sdk import codecs
from statefun_sdk.address import check_id, check_text
from statefun_sdk.errors import UserKeywordError, UserTypeError, UserValueError
from statefun_sdk.types import Type, TypedValue, codec_of

T = TypeVar("T")


class TypedValueLike(Protocol):
    """A ``TypedValue`` of ours or the protobuf message of that name."""

    @property
    def typename(self) -> str: ...
    @property
    def has_value(self) -> bool: ...
    @property
    def value(self) -> bytes: ...


class Message:
    """A typed value with the function instance it is for.

    All three parts can be set, and are checked as the constructor checks them. What was sent stays as it was.
    """

    __slots__ = ("_target_id", "_target_typename", "_value", "_value_typename")

    _target_typename: str
    _target_id: str
    _value_typename: str
    _value: bytes | None

    def __init__(self, target_typename: str, target_id: str, typed_value: TypedValueLike) -> None:
        """Address ``typed_value`` to an instance.

        Raises:
            UserValueError: a part is missing or empty.
            UserTypeError: a part is of the wrong Python type.
        """
        self._target_typename = _checked_target(target_typename)
        self._target_id = check_id(target_id)
        self._value_typename, self._value = _parts_of(typed_value)

    @staticmethod
    def _of(target_typename: str, target_id: str, value_typename: str, value: bytes | None) -> Message:
        """Make a message from parts known to be right."""
        message = _new(Message)
        message._target_typename = target_typename
        message._target_id = target_id
        message._value_typename = value_typename
        message._value = value
        return message

    @property
    def target_typename(self) -> str:
        """``namespace/name`` of the function it is for."""
        return self._target_typename

    @target_typename.setter
    def target_typename(self, target_typename: str) -> None:
        self._target_typename = _checked_target(target_typename)

    @property
    def target_id(self) -> str:
        """The instance it is for."""
        return self._target_id

    @target_id.setter
    def target_id(self, target_id: str) -> None:
        self._target_id = check_id(target_id)

    @property
    def typed_value(self) -> TypedValue:
        """The value as a ``TypedValue``."""
        return _typed_value(self._value_typename, self._value)

    @typed_value.setter
    def typed_value(self, typed_value: TypedValueLike) -> None:
        self._value_typename, self._value = _parts_of(typed_value)

    def is_int(self) -> bool:
        """Say whether the value is an ``IntType``."""
        return self._value_typename == codecs.INT

    def as_int(self) -> int | Any:
        """Decode an ``IntType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_int(value)

    def is_bool(self) -> bool:
        """Say whether the value is a ``BoolType``."""
        return self._value_typename == codecs.BOOL

    def as_bool(self) -> bool | Any:
        """Decode a ``BoolType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_bool(value)

    def is_long(self) -> bool:
        """Say whether the value is a ``LongType``."""
        return self._value_typename == codecs.LONG

    def as_long(self) -> int | Any:
        """Decode a ``LongType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_long(value)

    def is_string(self) -> bool:
        """Say whether the value is a ``StringType``."""
        return self._value_typename == codecs.STRING

    def as_string(self) -> str | Any:
        """Decode a ``StringType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_string(value)

    def is_float(self) -> bool:
        """Say whether the value is a ``FloatType``."""
        return self._value_typename == codecs.FLOAT

    def as_float(self) -> float | Any:
        """Decode a ``FloatType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_float(value)

    def is_double(self) -> bool:
        """Say whether the value is a ``DoubleType``."""
        return self._value_typename == codecs.DOUBLE

    def as_double(self) -> float | Any:
        """Decode a ``DoubleType`` value; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else codecs.decode_double(value)

    def is_type(self, tpe: Type[Any]) -> bool:
        """Say whether the value is of type ``tpe``."""
        return self._value_typename == tpe.typename

    def as_type(self, tpe: Type[T]) -> T | Any:
        """Decode a value of type ``tpe``; None if there is no value. The typename is not checked."""
        value = self._value
        return None if value is None else tpe.serializer().deserialize(value)

    def value_typename(self) -> str:
        """Return the typename of the value."""
        return self._value_typename

    def raw_value(self) -> bytes | None:
        """Return the encoded value, None if there is no value."""
        return self._value

    def __repr__(self) -> str:
        return (
            f"Message(to {self._target_typename}/{self._target_id}, "
            f"{_described(self._value_typename, self._value)})"
        )


_new: Callable[[type[Message]], Message] = object.__new__


class EgressMessage:
    """A typed value for an egress. Both parts can be set, as those of a ``Message``."""

    __slots__ = ("_typename", "_value", "_value_typename")

    _typename: str
    _value_typename: str
    _value: bytes | None

    def __init__(self, typename: str, typed_value: TypedValueLike) -> None:
        """Address ``typed_value`` to an egress.

        Raises:
            UserValueError: a part is missing.
            UserTypeError: a part is of the wrong Python type.
        """
        self._typename = _checked_egress(typename)
        self._value_typename, self._value = _parts_of(typed_value)

    @property
    def typename(self) -> str:
        """``namespace/name`` of the egress it is for."""
        return self._typename

    @typename.setter
    def typename(self, typename: str) -> None:
        self._typename = _checked_egress(typename)

    @property
    def typed_value(self) -> TypedValue:
        """The value as a ``TypedValue``."""
        return _typed_value(self._value_typename, self._value)

    @typed_value.setter
    def typed_value(self, typed_value: TypedValueLike) -> None:
        self._value_typename, self._value = _parts_of(typed_value)

    def value_typename(self) -> str:
        """Return the typename of the value."""
        return self._value_typename

    def raw_value(self) -> bytes | None:
        """Return the encoded value, None if there is no value."""
        return self._value

    def __repr__(self) -> str:
        return f"EgressMessage(to {self._typename}, {_described(self._value_typename, self._value)})"


# -- builders ---------------------------------------------------------------------------


class ValueKeywords(TypedDict, total=False):
    """The keywords that give a message its value: one of the first six, or the last two."""

    int_value: int
    float_value: float
    long_value: int
    str_value: str
    double_value: float
    bool_value: bool
    value: Any
    value_type: Type[Any]


_PRIMITIVES: Final[dict[str, tuple[str, Callable[[Any], bytes]]]] = {
    "int_value": (codecs.INT, codecs.encode_int),
    "float_value": (codecs.FLOAT, codecs.encode_float),
    "long_value": (codecs.LONG, codecs.encode_long),
    "str_value": (codecs.STRING, codecs.encode_string),
    "double_value": (codecs.DOUBLE, codecs.encode_double),
    "bool_value": (codecs.BOOL, codecs.encode_bool),
}


@overload
def message_builder(target_typename: str, target_id: str, *, int_value: int) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, float_value: float) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, long_value: int) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, str_value: str) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, double_value: float) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, bool_value: bool) -> Message: ...
@overload
def message_builder(target_typename: str, target_id: str, *, value: T, value_type: Type[T]) -> Message: ...
def message_builder(target_typename: str, target_id: str, **kwargs: Any) -> Message:
    """Build a message to the instance ``target_id`` of the function ``target_typename``.

    Give the value by exactly one of ``int_value``, ``float_value``, ``long_value``,
    ``str_value``, ``double_value`` and ``bool_value``, or by ``value`` together with
    ``value_type``.

    Raises:
        UserValueError: a target part is missing or empty, the value is None or out of range,
            or a keyword is unknown.
        UserTypeError: a value of the wrong Python type.
        UserKeywordError: a wrong number of keywords, or two that do not go together.
    """
    if len(kwargs) == 1:
        keyword, value = kwargs.popitem()
        primitive = _PRIMITIVES.get(keyword)
        if primitive is None or value is None:
            raise _refused_keyword(keyword)
        value_typename, encode = primitive
        data = encode(value)
    else:
        value_typename, data = _encoded_pair(kwargs)
    # The checks of the constructor, with a short way for what is right.
    if type(target_typename) is not str or not target_typename or not target_typename.isascii():
        _checked_target(target_typename)
    if type(target_id) is not str or not target_id or not target_id.isascii():
        check_id(target_id)
    message = _new(Message)
    message._target_typename = target_typename
    message._target_id = target_id
    message._value_typename = value_typename
    message._value = data
    return message


def egress_message_builder(target_typename: str, value: T, value_type: Type[T]) -> EgressMessage:
    """Build a record for the egress ``target_typename``.

    Raises:
        UserValueError: the typename is missing, or the value or its type is None.
        UserTypeError: ``value_type`` is not a ``Type``.
    """
    typename, data = _encoded(value, value_type)
    return EgressMessage(target_typename, TypedValue(typename, True, data))


# -- checks and conversions -------------------------------------------------------------


def _encoded_pair(kwargs: dict[str, Any]) -> tuple[str, bytes]:
    if len(kwargs) != 2 or "value" not in kwargs or "value_type" not in kwargs:
        given = ", ".join(kwargs) or "none"
        raise UserKeywordError(
            f"a message takes exactly one of {', '.join(_PRIMITIVES)}, or value together with "
            f"value_type; given: {given}"
        )
    return _encoded(kwargs["value"], kwargs["value_type"])


def _encoded(value: Any, value_type: Any) -> tuple[str, bytes]:
    if value is None:
        raise UserValueError("value is None; a message needs a value")
    if value_type is None:
        raise UserValueError("value_type is None; a value needs a type such as IntType")
    if not isinstance(value_type, Type):
        raise UserTypeError(f"value_type must be a statefun Type such as IntType, not {value_type!r}")
    encode, _ = codec_of(value_type)
    return value_type.typename, encode(value)


def _checked_target(target_typename: object) -> str:
    if not target_typename:
        raise UserValueError("target typename is missing; name the function as 'namespace/name'")
    return check_text(target_typename, "target typename")


def _checked_egress(typename: object) -> str:
    if not typename:
        raise UserValueError("egress typename is missing; name the egress as 'namespace/name'")
    return check_text(typename, "egress typename")


def _parts_of(typed_value: TypedValueLike) -> tuple[str, bytes | None]:
    if typed_value is None:
        raise UserValueError("typed_value is missing; build messages with message_builder(...)")
    try:
        typename, has_value, value = typed_value.typename, typed_value.has_value, typed_value.value
    except AttributeError:
        raise UserTypeError(
            f"typed_value must be a TypedValue, not {type(typed_value).__name__}; "
            f"build messages with message_builder(...)"
        ) from None
    check_text(typename, "the typename of a value")
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise UserTypeError(f"the value of a TypedValue must be bytes, not {type(value).__name__} {value!r}")
    return typename, bytes(value) if has_value else None


def _typed_value(typename: str, value: bytes | None) -> TypedValue:
    return TypedValue(typename, False, b"") if value is None else TypedValue(typename, True, value)


def _described(typename: str, value: bytes | None) -> str:
    return f"{typename}, no value" if value is None else f"{typename}, {len(value)} bytes"


def _refused_keyword(keyword: str) -> UserValueError:
    if keyword in _PRIMITIVES:
        return UserValueError(f"{keyword} is None; a message needs a value")
    if keyword in ("value", "value_type"):
        return UserValueError("value and value_type belong together; one of them is missing")
    return UserValueError(
        f"unknown keyword {keyword!r}; give one of {', '.join(_PRIMITIVES)}, or value with value_type"
    )
