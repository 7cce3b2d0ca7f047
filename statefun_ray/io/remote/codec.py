"""The bytes of a request to a remote function, and what the bytes of its answer mean. No I/O.

Values are opaque and pass through as they are. Requests are put together by hand, from pieces that
are the same in every request of a function; that takes half as long as building the messages of
``statefun_sdk.protocol``, with the same result. Answers are parsed by protobuf, which ignores
fields it does not know.

Everything that StateFun answers with a restart of the whole application, and that shows in the
answer alone, is refused here with a text that names it. Nothing of a refused answer is applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from statefun_checkpoints.model import ExpireMode, StateSpec
from statefun_ray.core.invoker import Delayed, Egress, InvocationEffects, Send
from statefun_ray.core.message import Message
from statefun_ray.core.state import Table
from statefun_ray.io.record_checks import RecordCheck
from statefun_ray.io.remote.errors import BadAnswer
from statefun_sdk import protocol

CONTENT_TYPE: Final = "application/octet-stream"

DURATION_MS_MAX: Final = 10**15
"""Delays and expirations are cut down to thirty thousand years, so that no sum overflows."""

UNSET_TYPE: Final = "io.statefun.types/unset"
"""The type of a state that is declared without one."""

PIECES_MAX: Final = 10_000
"""Pieces of each kind kept by one encoder: names come from outside, so there may be any number."""

SINGLE_WRITE_BYTES_MAX: Final = 1_024
"""Values up to this length are recognised at the end of an answer; of larger ones the rest is little."""

_VARINTS: Final = [bytes((n,)) for n in range(0x80)] + [
    bytes((n & 0x7F | 0x80, n >> 7)) for n in range(0x80, 0x4000)
]
_MODIFY: Final = protocol.FromFunction.PersistedValueMutation.MODIFY
_DELETE: Final = protocol.FromFunction.PersistedValueMutation.DELETE
_EXPIRE_MODES: Final[Mapping[int, ExpireMode]] = {1: "after_write", 2: "after_call"}


def _varint(number: int) -> bytes:
    if number < 0x4000:
        return _VARINTS[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _text(tag: bytes, text: str) -> bytes:
    """Return a string field, nothing for the empty string."""
    encoded = text.encode()
    return tag + _varint(len(encoded)) + encoded if encoded else b""


def _type(function_type: str) -> bytes:
    """Return the first two fields of an ``Address``."""
    namespace, _, name = function_type.partition("/")
    return _text(b"\x0a", namespace) + _text(b"\x12", name)


class RequestEncoder:
    """Encodes requests for one function type, whose states are declared one after another."""

    __slots__ = ("_callers", "_prefixes", "_states", "_target", "_values")

    def __init__(self, function_type: str) -> None:
        self._target = _type(function_type)
        self._states: list[_StateEncoder] = []
        self._callers: dict[str, bytes] = {}
        self._values: dict[str, bytes] = {}
        self._prefixes: dict[tuple[str, str, str, int], bytes] = {}
        """Of invocations, see `_prefix`: whoever sends once mostly sends again."""

    @property
    def state_count(self) -> int:
        """States declared so far."""
        return len(self._states)

    def declare(self, name: str, typename: str) -> None:
        """Add a state of the function to the requests from now on."""
        self._states.append(_StateEncoder(name, typename))

    def encode(
        self,
        id: str,
        values: Sequence[bytes | None],
        messages: Sequence[Message],
        prepared: Prepared | None = None,
    ) -> bytes:
        """Return a ``ToFunction`` with one batch.

        Args:
            id: of the target.
            values: of every declared state, in the order of their declaration; None where it has no value.
            messages: for the target, in order.
            prepared: what may be known of the batch already.
        """
        target = self._target + _text(b"\x1a", id)
        parts = [b"\x0a" + _varint(len(target)) + target]
        add = parts.append
        for state, value in zip(self._states, values, strict=True):
            if value is None:
                add(state.absent)
            else:
                add(state.prefixes.get(len(value)) or state.prefix(len(value)))
                add(value)
        if prepared is not None and prepared.begins(messages):
            parts += prepared.parts
            messages = messages[prepared.count :]
        self._add(messages, parts)
        batch = b"".join(parts)
        return b"\xa2\x06" + _varint(len(batch)) + batch

    def prepare(
        self, messages: Sequence[Message], prepared: Prepared | None, most: int
    ) -> tuple[Prepared, int]:
        """Encode what is going to be a batch, or its beginning, ahead of its turn.

        Args:
            messages: of the batch, at least one.
            prepared: of the same address, earlier; it is gone on with if it is the beginning of these.
            most: messages to encode now.

        Returns:
            What is prepared of the batch, and how many messages were encoded for it now.
        """
        if prepared is None or not prepared.begins(messages):
            prepared = Prepared(messages[0])
        further = messages[prepared.count : prepared.count + most]
        if further:
            self._add(further, prepared.parts)
            prepared.count, prepared.last = prepared.count + len(further), further[-1]
        return prepared, len(further)

    def _add(self, messages: Sequence[Message], parts: list[bytes]) -> None:
        """Add what messages are in a request."""
        add, prefixes = parts.append, self._prefixes
        for _, _, caller_type, caller_id, value_type, value in messages:
            kind = caller_type, caller_id, value_type, -1 if value is None else len(value)
            add(prefixes.get(kind) or self._prefix(kind))
            if value:
                add(value)

    def _prefix(self, kind: tuple[str, str, str, int]) -> bytes:
        """Return a whole ``Invocation`` but for its value, which ends it.

        ``kind`` is caller type, caller id, type of the value, and its length; -1 for no value.
        """
        caller_type, caller_id, value_type, length = kind
        head = self._values.get(value_type)
        if head is None:
            head = _piece(self._values, value_type, _text(b"\x0a", value_type))
        # A value of no bytes is left out, as protobuf does; has_value says that it is there.
        if length > 0:
            head = head + b"\x10\x01\x1a" + _varint(length)
        elif length == 0:
            head = head + b"\x10\x01"
        size = max(0, length)
        invocation = b"\x12" + _varint(len(head) + size) + head
        if caller_type:
            caller = self._callers.get(caller_type)
            if caller is None:
                caller = _piece(self._callers, caller_type, _type(caller_type))
            caller += _text(b"\x1a", caller_id)
            invocation = b"\x0a" + _varint(len(caller)) + caller + invocation
        prefix = b"\x1a" + _varint(len(invocation) + size) + invocation
        if len(self._prefixes) >= PIECES_MAX:
            self._prefixes.clear()
        self._prefixes[kind] = prefix
        return prefix


class Prepared:
    """The beginning of a batch, encoded while the batch before it is in flight."""

    __slots__ = ("_first", "count", "last", "parts")

    def __init__(self, first: Message) -> None:
        self._first = self.last = first
        self.count = 0
        """Messages encoded so far."""
        self.parts: list[bytes] = []

    def begins(self, messages: Sequence[Message]) -> bool:
        """Whether ``messages`` of the same address begin with these: its queue grows at one end, and shrinks at the other."""
        count = self.count
        return count <= len(messages) and messages[0] is self._first and messages[count - 1] is self.last


class _StateEncoder:
    """Encodes the values of one state."""

    __slots__ = ("_head", "_name", "absent", "prefixes")

    def __init__(self, name: str, typename: str) -> None:
        self._name = _text(b"\x0a", name)
        self._head = _text(b"\x0a", typename) + b"\x10\x01"
        self.absent = b"\x12" + _varint(len(self._name)) + self._name
        self.prefixes: dict[int, bytes] = {}
        """By length of the value: a whole ``PersistedValue`` but for its value, which ends it."""

    def prefix(self, length: int) -> bytes:
        """Return what stands before a value of this length."""
        head = self._head + b"\x1a" + _varint(length) if length else self._head
        head = self._name + b"\x12" + _varint(len(head) + length) + head
        prefix = b"\x12" + _varint(len(head) + length) + head
        if len(self.prefixes) < PIECES_MAX:
            self.prefixes[length] = prefix
        return prefix


def _piece(pieces: dict[str, bytes], name: str, encoded: bytes) -> bytes:
    if len(pieces) < PIECES_MAX:
        pieces[name] = encoded
    return encoded


Egresses = Mapping[str, RecordCheck | None]
"""Egress id -> what checks its records, None where any will do."""


class AnswerDecoder:
    """Decodes the answers of one function.

    Most answers change one state and ask for nothing else, so an answer differs from an earlier one in
    the value at its end. Those are recognised by their length and by what stands before the value, which
    includes every length there is, and takes a tenth of the time of parsing them.
    """

    __slots__ = ("_egresses", "_function_type", "_single_writes", "_tables", "indexes")

    def __init__(self, function_type: str, tables: Sequence[Table], egresses: Egresses) -> None:
        """Args: see `decode_answer`."""
        self._function_type = function_type
        self._tables = tables
        self._egresses = egresses
        self.indexes: dict[str, int] = {}
        """Of registered states by name, as in the effects; to be kept complete by the owner."""
        self._single_writes: dict[int, tuple[bytes, int]] = {}
        """By length of an answer that writes one state: what it begins with, and which state that is."""

    def decode(self, body: bytes) -> InvocationEffects | dict[str, StateSpec] | None:
        """See `decode_answer`."""
        known = self._single_writes.get(len(body))
        if known is not None and body.startswith(known[0]):
            return {known[1]: body[len(known[0]) :]}, [], [], []
        decoded = decode_answer(body, self._function_type, self._tables, self.indexes, self._egresses)
        if isinstance(decoded, tuple):
            self._remember(body, decoded)
        return decoded

    def _remember(self, body: bytes, effects: InvocationEffects) -> None:
        writes, sends, delayed, egress = effects
        if len(writes) != 1 or sends or delayed or egress:
            return
        [(index, value)] = writes.items()
        if not value or len(value) > SINGLE_WRITE_BYTES_MAX:
            return
        table = self._tables[index]
        name = table.name[len(self._function_type) + 1 :]
        prefix = _single_write(name, table.typename, len(value))
        if body == prefix + value:
            self._single_writes[len(body)] = prefix, index


def _single_write(state: str, typename: str, length: int) -> bytes:
    """Return an answer that writes one state and asks for nothing else, but for the value that ends it."""
    value = _text(b"\x0a", typename) + b"\x10\x01\x1a" + _varint(length)
    mutation = b"\x08\x01" + _text(b"\x12", state) + b"\x1a" + _varint(len(value) + length) + value
    result = b"\x0a" + _varint(len(mutation) + length) + mutation
    return b"\xa2\x06" + _varint(len(result) + length) + result


def decode_answer(
    body: bytes,
    function_type: str,
    tables: Sequence[Table],
    indexes: Mapping[str, int],
    egresses: Egresses,
) -> InvocationEffects | dict[str, StateSpec] | None:
    """Return what an answer asks for.

    Args:
        body: of a successful response.
        function_type: that was called, for the texts of errors.
        tables: of its registered states, by index as in the effects.
        indexes: of these states, by name.
        egresses: what the application has.

    Returns:
        Effects, None if there are none; or the states that the service misses, by name: then it has
        executed nothing.

    Raises:
        BadAnswer: it is no ``FromFunction``, or asks for something that cannot be.
    """
    if not body:
        return None
    try:
        answer = protocol.FromFunction.FromString(body)
    except DecodeError as error:
        raise BadAnswer(
            f"the service of {function_type} answered {len(body)} bytes that are no FromFunction: {error}"
        ) from None
    # Each look at a field costs about as much as parsing all of this, so nothing is looked at twice.
    result = answer.invocation_result
    writes: dict[int, bytes | None] = {}
    sends: list[Send] = []
    delayed: list[Delayed] = []
    egress: list[Egress] = []
    if mutations := result.state_mutations:
        writes = _writes(mutations, function_type, tables, indexes)
    if messages := result.outgoing_messages:
        sends = [_send(message, function_type) for message in messages]
    if invocations := result.delayed_invocations:
        delayed = [_delayed(invocation, function_type) for invocation in invocations]
    if records := result.outgoing_egresses:
        egress = [_egress(record, function_type, egresses) for record in records]
    if writes or sends or delayed or egress:
        return writes, sends, delayed, egress
    if answer.HasField("incomplete_invocation_context"):
        return _missing_states(answer.incomplete_invocation_context, function_type)
    return None


def _missing_states(
    incomplete: protocol.FromFunction.IncompleteInvocationContext, function_type: str
) -> dict[str, StateSpec]:
    specs: dict[str, StateSpec] = {}
    for missing in incomplete.missing_values:
        name, typename = missing.state_name, missing.type_typename or UNSET_TYPE
        known = specs.get(name)
        if known is not None:
            # As if they came in two rounds: the type has to be the same, and the first expiration stays.
            if known.type != typename:
                raise BadAnswer(
                    f"state {name!r} of {function_type} is declared twice, as {known.type} and as {typename}; "
                    "declare it once"
                )
            continue
        expiration = missing.expiration_spec
        # Modes we do not know count as none, as in StateFun.
        mode = _EXPIRE_MODES.get(expiration.mode, "none")
        expire_ms = expiration.expire_after_millis if mode != "none" else 0
        if mode != "none" and expire_ms <= 0:
            raise BadAnswer(
                f"state {name!r} of {function_type} is declared to expire after {expire_ms} ms; "
                "the shortest expiration is 1 ms"
            )
        specs[name] = StateSpec(type=typename, expire=mode, expire_ms=min(expire_ms, DURATION_MS_MAX))
    return specs


def _typename(what: str, namespace: str, name: str, function_type: str) -> str:
    # An empty namespace is one: `/name` may be served, and may be an egress.
    if not name or "/" in namespace or "/" in name:
        raise BadAnswer(
            f"{function_type} asks for {what} with namespace {namespace!r} and type {name!r}; the type must be "
            "given, and neither has a slash"
        )
    return f"{namespace}/{name}"


def _send(message: protocol.FromFunction.Invocation, function_type: str) -> Send:
    target, argument = message.target, message.argument
    return (
        _typename("a message to a target", target.namespace, target.type, function_type),
        target.id,
        argument.typename,
        argument.value if argument.has_value else None,
    )


def _delayed(message: protocol.FromFunction.DelayedInvocation, function_type: str) -> Delayed:
    token = message.cancellation_token
    if message.is_cancellation_request:
        if not token:
            raise BadAnswer(f"{function_type} cancels a delayed message and does not say which: no token")
        return "cancel", token
    delay_ms = message.delay_in_ms
    if delay_ms < 0:
        raise BadAnswer(f"{function_type} asks for a message after {delay_ms} ms; delays begin at 0")
    target, argument = message.target, message.argument
    return (
        "send",
        min(delay_ms, DURATION_MS_MAX),
        token,
        _typename("a delayed message to a target", target.namespace, target.type, function_type),
        target.id,
        argument.typename,
        argument.value if argument.has_value else None,
    )


def _egress(message: protocol.FromFunction.EgressMessage, function_type: str, egresses: Egresses) -> Egress:
    name = _typename("a record to an egress", message.egress_namespace, message.egress_type, function_type)
    if name not in egresses:
        configured = ", ".join(sorted(egresses)) or "none"
        raise BadAnswer(
            f"{function_type} sends a record to egress {name}, which is not configured; configured: {configured}"
        )
    argument, check = message.argument, egresses[name]
    typename, value = argument.typename, argument.value if argument.has_value else None
    problem = check(typename, value) if check is not None else None
    if problem is not None:
        raise BadAnswer(f"{function_type} sends a record that cannot be published: {problem}")
    return name, typename, value


def _writes(
    mutations: Sequence[protocol.FromFunction.PersistedValueMutation],
    function_type: str,
    tables: Sequence[Table],
    indexes: Mapping[str, int],
) -> dict[int, bytes | None]:
    writes: dict[int, bytes | None] = {}
    for mutation in mutations:
        index = indexes.get(mutation.state_name)
        if index is None:
            raise BadAnswer(
                f"{function_type} changes state {mutation.state_name!r}, which it has not declared; declared: "
                f"{', '.join(sorted(indexes)) or 'none'}"
            )
        kind = mutation.mutation_type
        if kind == _MODIFY:
            value, declared = mutation.state_value, tables[index].typename
            typename = value.typename
            if typename != declared and (typename or UNSET_TYPE) != declared:
                raise BadAnswer(
                    f"{function_type} writes a value of type {typename!r} into state "
                    f"{mutation.state_name!r}, which is {declared}; nothing was changed. Write {declared} again, "
                    "or give the state another name"
                )
            writes[index] = value.value
        elif kind == _DELETE:
            writes[index] = None
        else:
            raise BadAnswer(
                f"{function_type} changes state {mutation.state_name!r} by a mutation of kind "
                f"{kind}, which is unknown"
            )
    return writes
