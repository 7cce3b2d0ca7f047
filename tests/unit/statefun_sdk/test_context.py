"""A context records effects in call order and performs nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statefun_sdk import (
    Context,
    IntType,
    Message,
    SdkAddress,
    TypedValue,
    UserTypeError,
    UserValueError,
    ValueSpec,
    egress_message_builder,
    message_builder,
)
from statefun_sdk.codecs import INT, encode_int
from statefun_sdk.context import MESSAGE_BYTES_MAX
from statefun_sdk.storage import storage_class_for


def context_of(id: str = "x", caller_type: str = "", caller_id: str = "") -> Context:
    """A context of ``t/f`` with one int state, turned to an instance."""
    context = Context._of("t/f", storage_class_for("t/f", [ValueSpec("count", IntType)])([{}]))
    context._begin(id, caller_type, caller_id)
    return context


def a_message(target: str = "t/g") -> Message:
    return message_builder(target, "y", int_value=1)


def test_a_test_may_have_a_context_of_its_own() -> None:
    class OwnContext(Context):
        @property
        def address(self) -> SdkAddress:
            return SdkAddress("t", "f", "mine", "t/f")

        @property
        def storage(self) -> str:
            return "also mine"

    assert (OwnContext().address.id, OwnContext().storage) == ("mine", "also mine")


def test_it_knows_its_address() -> None:
    context = context_of("x")
    assert context.address == SdkAddress("t", "f", "x", "t/f")
    assert context.address is context.address


def test_without_a_caller_it_has_none() -> None:
    assert context_of().caller is None


def test_the_caller_is_split_at_the_last_slash() -> None:
    context = context_of("x", "statefun-ray.reply/a/b", "17")
    assert context.caller == SdkAddress("statefun-ray.reply/a", "b", "17", "statefun-ray.reply/a/b")


def test_beginning_turns_everything_to_the_next_instance() -> None:
    context = context_of("x", "t/caller", "1")
    assert context.address.id == "x"
    assert context.caller is not None
    context._begin("y", "", "")
    assert [context.address.id, context.caller, context.storage._Id] == ["y", None, "y"]


def test_messages_are_recorded_in_order() -> None:
    context = context_of()
    context.send(a_message("t/g"))
    context.send(Message("t/h", "z", TypedValue("t/x", False)))
    assert context._sends == [("t/g", "y", INT, encode_int(1)), ("t/h", "z", "t/x", None)]


def test_a_message_that_was_sent_can_be_sent_to_another_instance() -> None:
    context, message = context_of(), a_message()
    context.send(message)
    message.target_id = "z"
    context.send(message)
    assert [target_id for _, target_id, _, _ in context._sends] == ["y", "z"]


def test_the_reply_namespace_can_be_sent_to() -> None:
    context = context_of()
    context.send(a_message("statefun-ray.reply/log.1"))
    assert context._sends[0][0] == "statefun-ray.reply/log.1"


def test_a_message_of_a_derived_class_is_sent() -> None:
    class MyMessage(Message):
        pass

    context = context_of()
    context.send(MyMessage("t/g", "y", TypedValue("t/x", True, b"1")))
    assert context._sends == [("t/g", "y", "t/x", b"1")]


def test_delayed_messages_and_cancellations_are_recorded_together() -> None:
    context = context_of()
    context.send_after(timedelta(days=1, microseconds=1500), a_message(), "token")
    context.cancel_delayed_message("token")
    context.send_after(timedelta(0), a_message())
    context.send_after(timedelta(seconds=1), a_message(), cancellation_token=None)
    assert context._delayed == [
        ("send", 86_400_001, "token", "t/g", "y", INT, encode_int(1)),
        ("cancel", "token"),
        ("send", 0, "", "t/g", "y", INT, encode_int(1)),
        ("send", 1_000, "", "t/g", "y", INT, encode_int(1)),
    ]


def test_what_is_less_than_a_millisecond_of_a_delay_is_cut_off() -> None:
    context = context_of()
    for microseconds in (-999, -1, 0, 999, 1000):
        context.send_after(timedelta(microseconds=microseconds), a_message())
    assert [entry[1] for entry in context._delayed] == [0, 0, 0, 0, 1]


def test_a_token_names_one_message_of_a_batch() -> None:
    context = context_of()
    context.send_after(timedelta(1), a_message(), "token")
    context._begin("x", "", "")  # the next message of the batch
    with pytest.raises(UserValueError, match="token 'token' was given to another message just now; cancel"):
        context.send_after(timedelta(1), a_message(), "token")
    context.send_after(timedelta(1), a_message(), "another")
    assert len(context._delayed) == 2


def test_a_token_is_free_again_after_a_cancellation_and_in_the_next_batch() -> None:
    context = context_of()
    context.send_after(timedelta(1), a_message(), "token")
    context.cancel_delayed_message("token")
    context.send_after(timedelta(1), a_message(), "token")
    context._discard()
    context.cancel_delayed_message("token")
    context.send_after(timedelta(1), a_message(), "token")
    assert [entry[0] for entry in context._delayed] == ["cancel", "send"]


def test_messages_without_a_token_do_not_share_one() -> None:
    context = context_of()
    for token in ("", None, "", None):
        context.send_after(timedelta(1), a_message(), token)
    assert len(context._delayed) == 4


def test_egress_records_are_recorded() -> None:
    context = context_of()
    context.send_egress(egress_message_builder("t/out", 1, IntType))
    assert context._egress == [("t/out", INT, encode_int(1))]


def test_discarding_empties_everything_but_what_was_taken() -> None:
    context = context_of()
    context.send(a_message())
    context.send_after(timedelta(0), a_message())
    context.send_egress(egress_message_builder("t/out", 1, IntType))
    context.storage.count = 1
    taken = (context._sends, context._delayed, context._egress, context.storage._Writes)
    context._discard()
    assert (context._sends, context._delayed, context._egress, context.storage._Writes) == ([], [], [], {})
    assert [len(buffer) for buffer in taken] == [1, 1, 1, 1]


def test_discarding_when_there_is_nothing_keeps_the_buffers() -> None:
    context = context_of()
    buffers = (context._sends, context._delayed, context._egress, context.storage._Writes)
    context._discard()
    assert all(
        after is before
        for after, before in zip(
            (context._sends, context._delayed, context._egress, context.storage._Writes), buffers, strict=True
        )
    )


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.send(None), UserTypeError, "a Message is needed, not None"),
        (lambda c: c.send("hi"), UserTypeError, "a Message is needed, not 'hi'"),
        (
            lambda c: c.send(egress_message_builder("t/out", 1, IntType)),
            UserTypeError,
            r"egress records go through send_egress\(...\)",
        ),
        (lambda c: c.send(a_message("plain")), UserValueError, "typename 'plain' has no slash"),
        (lambda c: c.send_after(timedelta(0), None), UserTypeError, "a Message is needed"),
        (lambda c: c.send_after(timedelta(0), a_message("plain")), UserValueError, "has no slash"),
        (lambda c: c.send_after(5, a_message()), UserTypeError, "the delay must be a timedelta, not 5"),
        (lambda c: c.send_after(timedelta(seconds=-1), a_message()), UserValueError, "cannot be negative"),
        (
            lambda c: c.send_after(timedelta(milliseconds=-1), a_message()),
            UserValueError,
            "cannot be negative",
        ),
        (
            lambda c: c.send_after(timedelta(0), a_message(), 0),
            UserTypeError,
            "token must be a str, not int 0",
        ),
        (lambda c: c.send_after(timedelta(0), a_message(), "\ud800"), UserValueError, "cannot be encoded"),
        (lambda c: c.cancel_delayed_message(""), UserValueError, "the cancellation token is empty"),
        (lambda c: c.cancel_delayed_message(None), UserTypeError, "token must be a str, not NoneType None"),
        (lambda c: c.send_egress(None), UserTypeError, "an EgressMessage is needed, not None"),
        (
            lambda c: c.send_egress(a_message()),
            UserTypeError,
            r"messages to functions go through send\(...\)",
        ),
        (
            lambda c: c.send_egress(egress_message_builder("plain", 1, IntType)),
            UserValueError,
            "typename 'plain' has no slash",
        ),
    ],
)
def test_wrong_calls_are_refused_at_once(call: Any, error: type[Exception], text: str) -> None:
    context = context_of()
    with pytest.raises(error, match=text):
        call(context)
    assert (context._sends, context._delayed, context._egress) == ([], [], [])


def test_only_the_states_can_be_set() -> None:
    context: Any = context_of()
    with pytest.raises(AttributeError):
        context.address = None
    with pytest.raises(AttributeError):
        context.anything = 1


def test_a_value_of_20_mb_is_sent() -> None:
    context = context_of()
    context.send(Message("t/g", "y", TypedValue("t/blob", True, bytes(20_000_000))))
    assert len(context._sends[0][3] or b"") == 20_000_000


def test_a_value_too_large_for_one_frame_is_refused() -> None:
    context = context_of()
    large = Message("t/g", "y", TypedValue("t/blob", True, bytes(MESSAGE_BYTES_MAX + 1)))

    with pytest.raises(UserValueError, match=r"67,108,865 bytes, at most 67,108,864"):
        context.send(large)
    with pytest.raises(UserValueError, match="keep large data in an object store"):
        context.send_after(timedelta(seconds=1), large)

    assert not context._sends
    assert not context._delayed
