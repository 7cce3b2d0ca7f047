"""``Context``: what a function sees of its surroundings, and where its effects go.

A context records and performs nothing. The runtime takes the buffers when the call has
returned, and discards them when it raised: effects are applied all together or not at all.

One context serves many calls, one after another; do not keep it beyond the call. Calls
of async functions that overlap each have a context of their own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from statefun_sdk.address import SdkAddress, check_text, split_typename
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.memo import Memo
from statefun_sdk.messages import EgressMessage, Message
from statefun_sdk.storage import Storage

# (target typename, target id, value typename, value)
Send = tuple[str, str, str, bytes | None]
# ("send", delay_ms, token, target typename, target id, value typename, value), token "" = none;
# or ("cancel", token)
Delayed = tuple[str, int, str, str, str, str, bytes | None] | tuple[str, str]
# (egress typename, value typename, value)
Egress = tuple[str, str, bytes | None]

MESSAGE_BYTES_MAX = 64 << 20
"""Of one message's value: it stands whole in memory at both ends, and travels between workers in one
frame, of which 256 MiB are taken: a longer one would break the connection, again after every restart."""

_MILLISECOND = timedelta(milliseconds=1)
_names = Memo(split_typename)


class Context:
    """The running instance, its caller, its storage, and the effects it asks for.

    Whoever runs functions makes one with ``_of``. A test may derive a class of its own from this one.

    Attributes:
        storage: the states of the instance, one attribute per ``ValueSpec``.
    """

    __slots__ = (
        "_address",
        "_caller",
        "_caller_id",
        "_caller_type",
        "_delayed",
        "_egress",
        "_id",
        "_names",
        "_sends",
        "_tokens",
        "_typename",
        "storage",
    )

    storage: Any  # a generated class: its attributes are not known to a type checker

    _typename: str
    _names: tuple[str, str]
    _id: str
    _caller_type: str
    _caller_id: str
    _address: SdkAddress | None
    _caller: SdkAddress | None
    _sends: list[Send]
    _delayed: list[Delayed]
    _egress: list[Egress]
    _tokens: set[str]  # of the messages in _delayed that are not cancelled there

    @staticmethod
    def _of(typename: str, storage: Storage) -> Context:
        """Serve the function ``typename``; ``_begin`` names the instance."""
        context = Context()
        context._typename = typename
        context._names = split_typename(typename)
        context.storage = storage
        context._id = context._caller_type = context._caller_id = ""
        context._address = context._caller = None
        context._sends, context._delayed, context._egress = [], [], []
        context._tokens = set()
        return context

    # -- for the function ---------------------------------------------------------------

    @property
    def address(self) -> SdkAddress:
        """The instance that is running."""
        address = self._address
        if address is None:
            namespace, name = self._names
            address = self._address = SdkAddress._of(namespace, name, self._id, self._typename)
        return address

    @property
    def caller(self) -> SdkAddress | None:
        """The instance that sent the message, None if it came from an ingress."""
        caller = self._caller
        if caller is None and self._caller_type:
            namespace, name = _names[self._caller_type]
            caller = self._caller = SdkAddress._of(namespace, name, self._caller_id, self._caller_type)
        return caller

    def send(self, message: Message) -> None:
        """Send ``message`` when this call has succeeded.

        Raises:
            UserTypeError: it is not a ``Message``.
            UserValueError: its target typename has no slash, or its value is too large.
        """
        if type(message) is not Message:
            _check_is_message(message)
        target_typename = message._target_typename
        if "/" not in target_typename:
            split_typename(target_typename)
        value = message._value
        if value is not None and len(value) > MESSAGE_BYTES_MAX:
            _refuse_size(target_typename, len(value))
        self._sends.append((target_typename, message._target_id, message._value_typename, value))

    def send_after(self, duration: timedelta, message: Message, cancellation_token: str | None = "") -> None:
        """Send ``message`` some time after this call has succeeded.

        Args:
            duration: how long after, in whole milliseconds; the rest is cut off, also of a time that
                is over by less than one.
            message: what to send.
            cancellation_token: names the message for ``cancel_delayed_message``; it must be
                unique among the pending ones of this id. None or "" for no token.

        Raises:
            UserTypeError: an argument is of the wrong Python type.
            UserValueError: the duration is negative, the target typename has no slash, the value is
                too large, or another message of this call, or of its batch, has the token. That one
                of an earlier batch has it, only the runtime knows: the call fails when it returns.
        """
        if type(message) is not Message:
            _check_is_message(message)
        split_typename(message._target_typename)
        if message._value is not None and len(message._value) > MESSAGE_BYTES_MAX:
            _refuse_size(message._target_typename, len(message._value))
        delay_ms = _delay_ms(duration)
        token = "" if cancellation_token is None else _checked_token(cancellation_token)
        if token:
            if token in self._tokens:
                raise UserValueError(
                    f"the cancellation token {token!r} was given to another message just now; "
                    f"cancel that one first or use another token"
                )
            self._tokens.add(token)
        self._delayed.append(
            (
                "send",
                delay_ms,
                token,
                message._target_typename,
                message._target_id,
                message._value_typename,
                message._value,
            )
        )

    def cancel_delayed_message(self, cancellation_token: str) -> None:
        """Cancel the delayed message with this token, if it is still pending.

        Raises:
            UserTypeError: the token is not a str.
            UserValueError: the token is empty.
        """
        token = _checked_token(cancellation_token)
        if not token:
            raise UserValueError(
                "the cancellation token is empty; pass the token that was given to send_after"
            )
        self._tokens.discard(token)
        self._delayed.append(("cancel", token))

    def send_egress(self, message: EgressMessage) -> None:
        """Hand ``message`` to its egress when this call has succeeded.

        Raises:
            UserTypeError: it is not an ``EgressMessage``.
            UserValueError: the typename of the egress has no slash.
        """
        _check_is_egress_message(message)
        split_typename(message._typename)
        self._egress.append((message._typename, message._value_typename, message._value))

    # -- for the runtime ----------------------------------------------------------------

    def _begin(self, id: str, caller_type: str, caller_id: str) -> None:
        """Turn context and storage to instance ``id``; caller type "" means no caller."""
        self.storage._Id = self._id = id
        self._caller_type = caller_type
        self._caller_id = caller_id
        self._address = self._caller = None

    def _discard(self) -> None:
        """Forget all effects, those of the storage too. Buffers taken before are left as they are."""
        if self._sends:
            self._sends = []
        if self._delayed:
            self._delayed = []
            self._tokens.clear()
        if self._egress:
            self._egress = []
        if self.storage._Writes:
            self.storage._Writes = {}


def _refuse_size(target_typename: str, size_bytes: int) -> None:
    raise UserValueError(
        f"the value of a message to {target_typename!r} has {size_bytes:,} bytes, at most {MESSAGE_BYTES_MAX:,} are "
        "taken; keep large data in an object store and send its name"
    )


def _check_is_message(message: object) -> None:
    if isinstance(message, Message):
        return
    advice = "; egress records go through send_egress(...)" if isinstance(message, EgressMessage) else ""
    raise UserTypeError(f"a Message is needed, not {message!r}{advice}")


def _check_is_egress_message(message: object) -> None:
    if isinstance(message, EgressMessage):
        return
    advice = "; messages to functions go through send(...)" if isinstance(message, Message) else ""
    raise UserTypeError(f"an EgressMessage is needed, not {message!r}{advice}")


def _checked_token(token: object) -> str:
    return check_text(token, "the cancellation token")


def _delay_ms(duration: object) -> int:
    if not isinstance(duration, timedelta):
        raise UserTypeError(f"the delay must be a timedelta, not {duration!r}")
    if duration <= -_MILLISECOND:
        raise UserValueError(f"the delay is {duration}; it cannot be negative")
    return max(duration // _MILLISECOND, 0)
