"""The bytes of an answer, put together by hand.

Most of an answer is the same time after time: names of states, types and functions, and the sizes
around them. Those pieces are kept, and an answer is one of them after the other with the values
between. It comes to the bytes that ``protocol.FromFunction`` serializes to, for a fraction of what
building one costs. An answer that asks for states has nothing that is worth it, and is rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from statefun_sdk.address import split_typename
from statefun_sdk.codecs import varint
from statefun_sdk.context import Delayed, Egress, Send
from statefun_sdk.memo import Memo
from statefun_sdk.protocol import FromFunction
from statefun_sdk.specs import ValueSpec

_EXPIRE_MODES: Final = {
    "none": FromFunction.ExpirationSpec.NONE,
    "after_write": FromFunction.ExpirationSpec.AFTER_WRITE,
    "after_call": FromFunction.ExpirationSpec.AFTER_INVOKE,
}


def effects_answer(
    specs: Sequence[ValueSpec],
    writes: Mapping[int, bytes | None],
    sends: Sequence[Send],
    delayed: Sequence[Delayed],
    egress: Sequence[Egress],
) -> bytes:
    """Return the serialized ``FromFunction`` for what a batch did; zero bytes if it did nothing.

    Args:
        specs: the states of the function.
        writes: what became of them, by place in ``specs``; None for deleted.
        sends: messages to send now.
        delayed: messages to send later, and cancellations.
        egress: records.
    """
    if len(writes) == 1 and not (sends or delayed or egress):
        [(index, data)] = writes.items()
        if data is not None:  # by far the commonest of answers
            return _single_mutation_heads[specs[index], len(data)] + data
    parts = [_mutation(specs[index], writes[index]) for index in sorted(writes)]
    if sends:
        parts.extend([_message(send) for send in sends])
    if delayed:
        parts.extend([_delayed(entry) for entry in delayed])
    if egress:
        parts.extend([_record(record) for record in egress])
    return _field(b"\xa2\x06", b"".join(parts)) if parts else b""


def missing_answer(missing: Iterable[ValueSpec]) -> bytes:
    """Return the serialized ``FromFunction`` that asks for the same batch with these states as well."""
    answer = FromFunction()
    answer.incomplete_invocation_context.missing_values.extend(_wire_spec(spec) for spec in missing)
    return answer.SerializeToString()


def _wire_spec(spec: ValueSpec) -> FromFunction.PersistedValueSpec:
    # The expiration is said even where there is none, as the official Python SDK does.
    return FromFunction.PersistedValueSpec(
        state_name=spec.name,
        type_typename=spec.type.typename,
        expiration_spec=FromFunction.ExpirationSpec(
            mode=_EXPIRE_MODES[spec.expire_mode], expire_after_millis=spec.duration
        ),
    )


# -- pieces; first comes the tag, which is number and kind of a field -----------------------


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


def _text(tag: bytes, text: str) -> bytes:
    """Return a string field; the empty string is left out, as all that protobuf takes for granted."""
    return _field(tag, text.encode()) if text else b""


def _mutation(spec: ValueSpec, data: bytes | None) -> bytes:
    if data is None:
        return _field(b"\x0a", _text(b"\x12", spec.name))
    return _mutation_heads[spec, len(data)] + data


def _message(send: Send) -> bytes:
    target_typename, target_id, value_typename, value = send
    target = _address(b"\x0a", target_typename, target_id)
    return _field(b"\x12", target + _typed_value(b"\x12", value_typename, value))


def _delayed(entry: Delayed) -> bytes:
    if len(entry) == 2:
        return _field(b"\x1a", b"\x50\x01" + _text(b"\x5a", entry[1]))
    _, delay_ms, token, target_typename, target_id, value_typename, value = entry
    delay = b"\x08" + varint(delay_ms) if delay_ms else b""
    target = _address(b"\x12", target_typename, target_id)
    argument = _typed_value(b"\x1a", value_typename, value)
    return _field(b"\x1a", delay + target + argument + _text(b"\x5a", token))


def _record(record: Egress) -> bytes:
    typename, value_typename, value = record
    return _field(b"\x22", _types[typename] + _typed_value(b"\x1a", value_typename, value))


def _address(tag: bytes, typename: str, id: str) -> bytes:
    return _field(tag, _types[typename] + _text(b"\x1a", id))


def _typed_value(tag: bytes, typename: str, value: bytes | None) -> bytes:
    if value is None:
        return _field(tag, _text(b"\x0a", typename))
    return _value_heads[tag, typename, len(value)] + value


def _type(typename: str) -> bytes:
    """Return the first two fields of an ``Address``, and of a record for an egress."""
    namespace, name = split_typename(typename)
    return _text(b"\x0a", namespace) + _text(b"\x12", name)


def _value_head(parts: tuple[bytes, str, int]) -> bytes:
    """Return what is before the bytes of a value that is there: its tag, typename and size."""
    tag, typename, size = parts
    head = _text(b"\x0a", typename) + b"\x10\x01"
    if size:
        head += b"\x1a" + varint(size)
    return tag + varint(len(head) + size) + head


def _mutation_head(parts: tuple[ValueSpec, int]) -> bytes:
    """Return what is before the bytes a state is set to: its name, their typename and size."""
    spec, size = parts
    head = b"\x08\x01" + _text(b"\x12", spec.name) + _value_head((b"\x1a", spec.type.typename, size))
    return b"\x0a" + varint(len(head) + size) + head


def _single_mutation_head(parts: tuple[ValueSpec, int]) -> bytes:
    """Return what is before the bytes a state is set to if nothing else is in the answer."""
    _, size = parts
    head = _mutation_head(parts)
    return b"\xa2\x06" + varint(len(head) + size) + head


_types = Memo(_type)
_value_heads = Memo(_value_head)
_mutation_heads = Memo(_mutation_head)
_single_mutation_heads = Memo(_single_mutation_head)
