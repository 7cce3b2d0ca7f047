"""What is in a request: read by hand if it is laid out as usual, by protobuf if not.

Runtimes write the fields of a request in the order of their numbers, each once. Such bytes are read
in one go, for less than half of what protobuf and its objects cost. Every tag is compared, and every
size has to lead exactly to where the field around it ends, so bytes that are read by hand have no
other meaning. Anything else is left to protobuf: fields we do not know, fields in another order, and
bytes that are no request, so that the error is protobuf's as well.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from statefun_sdk.errors import StateFunError
from statefun_sdk.memo import Memo
from statefun_sdk.protocol import ToFunction

# (caller typename, caller id, value typename, value); typename "" = no caller
Call = tuple[str, str, str, bytes | None]
# name -> (typename, value) of a state, None while it has no value
States = dict[str, tuple[str, bytes] | None]
# (target typename, target id, states, calls in order)
Request = tuple[str, str, States, list[Call]]


class MalformedRequestError(StateFunError, DecodeError):
    """The bytes are not a request of the remote protocol."""


def read_request(data: bytes) -> Request:
    """Return what a serialized ``ToFunction`` holds.

    Raises:
        MalformedRequestError: the bytes are not one, or hold no invocation.
    """
    if type(data) is bytes:  # a bytearray has no hash
        try:
            return read_by_hand(data)
        except (IndexError, ValueError):
            pass
    return read_by_protobuf(data)


def read_by_protobuf(data: bytes) -> Request:
    """Return what any serialized ``ToFunction`` holds.

    Raises:
        MalformedRequestError: the bytes are not one, or hold no invocation.
    """
    try:
        request = ToFunction.FromString(data)
    except DecodeError as error:
        raise MalformedRequestError(f"the request is not a ToFunction message: {error}") from None
    if not request.HasField("invocation"):
        raise MalformedRequestError("the request holds no invocation")
    batch = request.invocation
    target = batch.target
    states: States = {}
    for state in batch.state:
        held = state.state_value
        states[state.state_name] = (held.typename, held.value) if held.has_value else None
    calls: list[Call] = []
    for invocation in batch.invocations:
        argument = invocation.argument
        value = argument.value if argument.has_value else None
        caller = invocation.caller
        if caller.namespace or caller.type or caller.id:
            calls.append((f"{caller.namespace}/{caller.type}", caller.id, argument.typename, value))
        else:
            calls.append(("", "", argument.typename, value))
    return f"{target.namespace}/{target.type}", target.id, states, calls


def read_by_hand(data: bytes) -> Request:
    """Return what a ``ToFunction`` of the usual layout holds.

    Raises:
        ValueError: it is laid out in another way, or is none; text that is not UTF-8 among it.
        IndexError: as well.
    """
    end = len(data)
    size, at = data[2], 3
    if size > 0x7F:
        size, at = _long_size(data, 2)
    if data[:2] != b"\xa2\x06" or at + size != end:
        raise _UnusualLayout
    typename, id, at = _address(data, at)
    states: States = {}
    while at < end and data[at] == 0x12:
        size = data[at + 1]
        stop = at + 2 + size
        start = at + 4 + data[at + 3]
        if start < stop:
            start += 8 + data[start + 3]
        if size <= 0x7F and start <= stop:
            name, value_typename = _state_heads[data[at:start]]
        else:
            name, value_typename, start, stop = _long_or_empty_state(data, at)
        states[name] = None if value_typename is None else (value_typename, data[start:stop])
        at = stop
    calls: list[Call] = []
    while at < end and data[at] == 0x1A:
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            size, at = _long_size(data, at - 1)
        stop = at + size
        if data[at] == 0x0A:
            caller_type, caller_id, at = _address(data, at)
        else:
            caller_type = caller_id = ""
        start = at + 8 + data[at + 3]
        if size <= 0x7F and start <= stop:
            value_typename = _value_heads[data[at:start]]
            at = start + data[start - 1]
        else:
            value_typename, start, at = _long_or_empty_value(data, at)
        if at != stop:
            raise _UnusualLayout
        calls.append((caller_type, caller_id, value_typename, data[start:stop]))
    if at != end:
        raise _UnusualLayout
    return typename, id, states, calls


class _UnusualLayout(ValueError):
    """Protobuf is to have a look."""


def _long_size(data: bytes, at: int) -> tuple[int, int]:
    """Return the size that begins at ``at`` and takes two or three bytes, and where they end."""
    first, second = data[at] & 0x7F, data[at + 1]
    if second <= 0x7F:
        return first | second << 7, at + 2
    third = data[at + 2]
    if third > 0x7F:
        raise _UnusualLayout
    return first | (second & 0x7F) << 7 | third << 14, at + 3


def _address(data: bytes, at: int) -> tuple[str, str, int]:
    """Return typename and id of the ``Address`` in field 1, and where it ends."""
    start = at + 8 + data[at + 3]
    start += data[start - 3]
    typename = _address_heads[data[at:start]]
    stop = start + data[start - 1]
    return typename, data[start:stop].decode(), stop


def _long_or_empty_state(data: bytes, at: int) -> tuple[str, str, int, int]:
    """Return name and typename of a state with a value, and where its bytes begin and end."""
    size, at = data[at + 1], at + 2
    if size > 0x7F:
        size, at = _long_size(data, at - 1)
    stop = at + size
    if data[at] != 0x0A:
        raise _UnusualLayout
    size, at = data[at + 1], at + 2
    if size > 0x7F:
        size, at = _long_size(data, at - 1)
    name = data[at : at + size].decode()
    typename, start, at = _long_or_empty_value(data, at + size)
    if at != stop:
        raise _UnusualLayout
    return name, typename, start, stop


def _long_or_empty_value(data: bytes, at: int) -> tuple[str, int, int]:
    """Return the typename of the ``TypedValue`` in field 2, and where its bytes begin and end."""
    if data[at] != 0x12:
        raise _UnusualLayout
    size, at = data[at + 1], at + 2
    if size > 0x7F:
        size, at = _long_size(data, at - 1)
    stop = at + size
    start = at + 5 + data[at + 1]
    if start > stop:  # a value of no bytes is left out
        return _typenames[data[at:stop] + b"\x1a"], stop, stop
    typename = _typenames[data[at:start]]
    size, start = data[start], start + 1
    if size > 0x7F:
        size, start = _long_size(data, start - 1)
    if start + size != stop:
        raise _UnusualLayout
    return typename, start, stop


# What is before an id or a value is the same time after time, and is looked up as a whole. In these
# pieces all sizes are of one byte.


def _address_head(head: bytes) -> str:
    """Read an ``Address`` in field 1 from its tag to the size of its id: the typename."""
    middle = head[3] + 4
    namespace, name, id_size = head[4:middle], head[middle + 2 : -2], head[-1]
    size = len(head) - 2 + id_size
    parts = size, len(namespace), namespace, len(name), name, id_size
    if size > 0x7F or head != b"\x0a%c\x0a%c%b\x12%c%b\x1a%c" % parts or not (namespace or name):
        raise _UnusualLayout
    return f"{namespace.decode()}/{name.decode()}"


def _state_head(head: bytes) -> tuple[str, str | None]:
    """Read a state from its tag to the size of the bytes of its value: name and typename."""
    middle = head[3] + 4
    name, value = head[4:middle], head[middle:]
    size = len(head) - 2 + (head[-1] if value else 0)
    if size > 0x7F or head != b"\x12%c\x0a%c%b%b" % (size, len(name), name, value):
        raise _UnusualLayout
    return name.decode(), _value_head(value) if value else None


def _value_head(head: bytes) -> str:
    """Read a ``TypedValue`` in field 2 from its tag to the size of its bytes: the typename."""
    size = len(head) - 2 + head[-1]
    if size > 0x7F or head[:2] != b"\x12%c" % size:
        raise _UnusualLayout
    return _typename(head[2:-1])


def _typename(head: bytes) -> str:
    """Read a ``TypedValue`` from its beginning to the tag of its bytes: the typename."""
    name = head[2:-3]
    if len(name) > 0x7F or head != b"\x0a%c%b\x10\x01\x1a" % (len(name), name):
        raise _UnusualLayout
    return name.decode()


_address_heads = Memo(_address_head)
_state_heads = Memo(_state_head)
_value_heads = Memo(_value_head)
_typenames = Memo(_typename)
