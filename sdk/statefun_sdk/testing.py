"""A test kit: run one function on given state and look at what it did.

    tester = FunctionTester(functions, "shop/cart", "cart-7", state={"items": 2})

    effects = tester.invoke(int_value=1, caller=SdkAddress.of("shop/user", "ann"))

    assert tester.state["items"] == 3
    assert effects.message_to("shop/inventory", "book").as_int() == 1
    assert not effects.egress

Nothing runs but the function: no runtime, no clock, no delivery. Effects come back as
plain lists. State stays between invocations, encoded as in production, and a function
that raises changes nothing. Expirations never happen here.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Unpack

from statefun_sdk.address import SdkAddress, check_id
from statefun_sdk.context import Context, Delayed
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.functions import StatefulFunctions
from statefun_sdk.messages import EgressMessage, Message, ValueKeywords, message_builder
from statefun_sdk.types import TypedValue, codec_of

__all__ = ["Cancellation", "DelayedMessage", "Effects", "FunctionTester"]


@dataclass(frozen=True, slots=True)
class DelayedMessage:
    """A message sent with ``send_after``.

    Attributes:
        delay: until it is sent.
        message: what is sent.
        cancellation_token: "" if it was sent without one.
    """

    delay: timedelta
    message: Message
    cancellation_token: str


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A call of ``cancel_delayed_message``.

    Attributes:
        cancellation_token: of the delayed message to cancel.
    """

    cancellation_token: str


@dataclass(frozen=True, slots=True)
class Effects:
    """What one invocation asked for, in the order of its calls.

    Attributes:
        messages: sent at once.
        timeline: delayed messages and cancellations, interleaved as they were called.
        egress: records for egresses.
        changes: the states it touched, by name: the new value, None if it was deleted.
    """

    messages: list[Message] = field(default_factory=list)
    timeline: list[DelayedMessage | Cancellation] = field(default_factory=list)
    egress: list[EgressMessage] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def delayed(self) -> list[DelayedMessage]:
        """The delayed messages, also those it cancelled again."""
        return [entry for entry in self.timeline if isinstance(entry, DelayedMessage)]

    @property
    def cancelled(self) -> list[str]:
        """The cancelled tokens."""
        return [entry.cancellation_token for entry in self.timeline if isinstance(entry, Cancellation)]

    def messages_to(self, typename: str, id: str | None = None) -> list[Message]:
        """Return the messages sent to a function, or to one instance of it."""
        return [
            message
            for message in self.messages
            if message.target_typename == typename and id in (None, message.target_id)
        ]

    def message_to(self, typename: str, id: str | None = None) -> Message:
        """Return the only message sent to a function, or to one instance of it.

        Raises:
            AssertionError: there is none, or more than one.
        """
        found = self.messages_to(typename, id)
        if len(found) != 1:
            target = typename if id is None else f"{typename}/{id}"
            raise AssertionError(
                f"expected one message to {target}, found {len(found)}; sent: {self.messages or 'nothing'}"
            )
        return found[0]

    def egress_to(self, typename: str) -> list[EgressMessage]:
        """Return the records for one egress."""
        return [message for message in self.egress if message.typename == typename]

    def __bool__(self) -> bool:
        """Say whether there was any effect."""
        return bool(self.messages or self.timeline or self.egress or self.changes)


class FunctionTester:
    """One instance of one function, with its state.

    Attributes:
        address: of the instance.
    """

    def __init__(
        self,
        functions: StatefulFunctions,
        typename: str,
        id: str,
        *,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Take an instance of a bound function.

        Args:
            functions: where the function is bound.
            typename: which function.
            id: which instance.
            state: values by name; states that are not named are absent.

        Raises:
            UnknownFunctionError: no function is bound to ``typename``.
            UserValueError: the id is empty, or ``state`` names an undeclared state.
        """
        self._bound = functions.for_typename(typename)
        self.address = SdkAddress.of(typename, check_id(id))
        self._codecs = {spec.name: codec_of(spec.type) for spec in self._bound.specs}
        self._tables: list[dict[str, bytes]] = [{} for _ in self._bound.specs]
        for name, value in (state or {}).items():
            if name not in self._codecs:
                declared = ", ".join(self._codecs) or "none"
                raise UserValueError(f"{typename} declares no state {name!r} (declared: {declared})")
            encode, _ = self._codecs[name]
            self._tables[list(self._codecs).index(name)][id] = encode(value)

    @property
    def state(self) -> dict[str, Any]:
        """All declared states by name, decoded; None for an absent one."""
        values: dict[str, Any] = {}
        for (name, (_, decode)), table in zip(self._codecs.items(), self._tables, strict=True):
            data = table.get(self.address.id)
            values[name] = None if data is None else decode(data)
        return values

    def invoke(
        self,
        message: Message | TypedValue | None = None,
        *,
        caller: SdkAddress | None = None,
        **value: Unpack[ValueKeywords],
    ) -> Effects:
        """Run the function on one message and return what it did.

        An async function runs to its end on an event loop of its own; inside a running
        loop use ``invoke_async``.

        Args:
            message: a message (one sent by another function, say) or a typed value.
            caller: who sent it; None as for a message from an ingress.
            value: the keywords of ``message_builder``, in place of ``message``.

        Raises:
            UserTypeError: message and keywords do not give exactly one value, or a function
                that is not async returned a coroutine.
            Exception: whatever the function raises; its effects are discarded.
        """
        if not self._bound.is_async:
            with self._run(message, caller, value) as (context, argument, effects):
                self._check_returned(self._bound.fun(context, argument))
            return effects
        return asyncio.run(self.invoke_async(message, caller=caller, **value))

    async def invoke_async(
        self,
        message: Message | TypedValue | None = None,
        *,
        caller: SdkAddress | None = None,
        **value: Unpack[ValueKeywords],
    ) -> Effects:
        """Run the function as ``invoke`` does, awaiting it if it is async."""
        with self._run(message, caller, value) as (context, argument, effects):
            result = self._bound.fun(context, argument)
            self._check_returned(await result if self._bound.is_async else result)
        return effects

    # -- one invocation -----------------------------------------------------------------

    @contextmanager
    def _run(
        self, message: Message | TypedValue | None, caller: SdkAddress | None, value: ValueKeywords
    ) -> Iterator[tuple[Context, Message, Effects]]:
        """Yield what the function is called with; apply its effects if nothing was raised."""
        argument = self._argument(message, value)
        storage = self._bound.storage_class(self._tables)
        context = Context._of(self.address.typename, storage)
        context._begin(self.address.id, caller.typename if caller else "", caller.id if caller else "")
        effects = Effects()
        yield context, argument, effects

        effects.messages.extend(Message._of(*send) for send in context._sends)
        effects.timeline.extend(_timeline_entry(entry) for entry in context._delayed)
        effects.egress.extend(
            EgressMessage(typename, _typed_value(value_typename, data))
            for typename, value_typename, data in context._egress
        )
        for index, data in sorted(storage._Writes.items()):
            name = self._bound.specs[index].name
            _, decode = self._codecs[name]
            if data is None:
                self._tables[index].pop(self.address.id, None)
            else:
                self._tables[index][self.address.id] = data
            effects.changes[name] = None if data is None else decode(data)

    def _argument(self, message: Message | TypedValue | None, value: ValueKeywords) -> Message:
        if message is None:
            build: Any = message_builder  # the overloads do not know a dictionary of keywords
            built: Message = build(self.address.typename, self.address.id, **value)
            return built
        if value:
            raise UserTypeError(
                f"give a message or keywords, not both; given: {message!r} and {', '.join(value)}"
            )
        typed_value = message.typed_value if isinstance(message, Message) else message
        return Message(self.address.typename, self.address.id, typed_value)

    def _check_returned(self, result: object) -> None:
        """Refuse a coroutine: its body has not run, so its effects would be missing."""
        if inspect.iscoroutine(result):
            result.close()
            raise UserTypeError(
                f"{self.address.typename} returned a coroutine that nobody awaits; "
                f"make the registered function an `async def`"
            )


def _timeline_entry(entry: Delayed) -> DelayedMessage | Cancellation:
    if len(entry) == 2:
        return Cancellation(entry[1])
    _, delay_ms, token, target_typename, target_id, value_typename, data = entry
    message = Message._of(target_typename, target_id, value_typename, data)
    return DelayedMessage(timedelta(milliseconds=delay_ms), message, token)


def _typed_value(typename: str, data: bytes | None) -> TypedValue:
    return TypedValue(typename, data is not None, data or b"")
