"""Answers put together by hand are, byte for byte, what protobuf serializes."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from statefun_sdk import IntType, StringType, ValueSpec
from statefun_sdk.answers import effects_answer
from statefun_sdk.context import Delayed, Egress, Send
from statefun_sdk.protocol import FromFunction

SPECS = [ValueSpec("count", IntType), ValueSpec("name", StringType), ValueSpec("n" * 200, IntType)]

SIZES = st.sampled_from([0, 1, 5, 60, 90, 100, 127, 128, 300, 16_383, 16_384, 70_000])
VALUES = st.one_of(st.binary(max_size=12), SIZES.map(lambda size: b"v" * size))
TYPENAMES = st.sampled_from(["a/b", "a/b/c", "é/ü", "n" * 130 + "/x", "/x", "x/"])
TEXTS = st.one_of(st.just("ü" * 64), st.text(max_size=8))
SENDS = st.tuples(TYPENAMES, TEXTS, TEXTS, st.none() | VALUES)
LATER = st.tuples(st.just("send"), st.integers(0, 2**62), TEXTS, TYPENAMES, TEXTS, TEXTS, st.none() | VALUES)
CANCELLATIONS = st.tuples(st.just("cancel"), TEXTS.filter(bool))
RECORDS = st.tuples(TYPENAMES, TEXTS, st.none() | VALUES)


def serialized(
    writes: dict[int, bytes | None], sends: list[Send], delayed: list[Delayed], egress: list[Egress]
) -> bytes:
    answer = FromFunction()
    result = answer.invocation_result
    for index, data in sorted(writes.items()):
        mutation = result.state_mutations.add(state_name=SPECS[index].name)
        if data is not None:
            mutation.mutation_type = FromFunction.PersistedValueMutation.MODIFY
            fill_value(mutation.state_value, SPECS[index].type.typename, data)
    for target_typename, target_id, value_typename, value in sends:
        message = result.outgoing_messages.add()
        fill_address(message.target, target_typename, target_id)
        fill_value(message.argument, value_typename, value)
    for entry in delayed:
        later = result.delayed_invocations.add()
        if len(entry) == 2:
            later.is_cancellation_request, later.cancellation_token = True, entry[1]
        else:
            _, later.delay_in_ms, later.cancellation_token, typename, id, value_typename, value = entry
            fill_address(later.target, typename, id)
            fill_value(later.argument, value_typename, value)
    for typename, value_typename, value in egress:
        record = result.outgoing_egresses.add()
        record.egress_namespace, _, record.egress_type = typename.rpartition("/")
        fill_value(record.argument, value_typename, value)
    return answer.SerializeToString()


def fill_address(address: Any, typename: str, id: str) -> None:
    address.namespace, _, address.type = typename.rpartition("/")
    address.id = id


def fill_value(typed_value: Any, typename: str, value: bytes | None) -> None:
    typed_value.typename = typename
    if value is not None:
        typed_value.has_value, typed_value.value = True, value


@example({}, [], [], [])
@example({0: b"12345"}, [], [], [])
@example({0: b""}, [], [], [])
@example({0: None}, [], [], [])
@example({2: b"12345", 0: b"v" * 20_000}, [], [], [])
@example({0: b"12345"}, [("a/b", "1", "t/v", b"1")], [], [])
@given(
    st.dictionaries(st.integers(0, 2), st.none() | VALUES),
    st.lists(SENDS, max_size=3),
    st.lists(LATER | CANCELLATIONS, max_size=3),
    st.lists(RECORDS, max_size=3),
)
def test_an_answer_is_what_protobuf_serializes(
    writes: dict[int, bytes | None], sends: list[Send], delayed: list[Delayed], egress: list[Egress]
) -> None:
    expected = serialized(writes, sends, delayed, egress) if writes or sends or delayed or egress else b""
    assert effects_answer(SPECS, writes, sends, delayed, egress) == expected
