"""Requests and answers of remote functions, byte for byte and message for message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints.model import StateSpec
from statefun_ingress.topics import EGRESS_RECORD
from statefun_ray.core.state import Table
from statefun_ray.io.record_checks import record_checks
from statefun_ray.io.remote.codec import (
    DURATION_MS_MAX,
    SINGLE_WRITE_BYTES_MAX,
    UNSET_TYPE,
    AnswerDecoder,
    RequestEncoder,
    decode_answer,
)
from statefun_ray.io.remote.errors import BadAnswer
from statefun_ray.module.model import PLAYGROUND_EGRESS, FileEgress, KafkaEgress, Module, PlaygroundEgress
from statefun_sdk.protocol import FromFunction, KafkaProducerRecord, ToFunction

INT = "io.statefun.types/int"
RECORD = KafkaProducerRecord(topic="t").SerializeToString()
KAFKA = "type.googleapis.com/io.statefun.sdk.egress.KafkaProducerRecord"
TABLES = [Table("ns/f.count", INT), Table("ns/f.odd.name", UNSET_TYPE)]
INDEXES = {table.name.partition(".")[2]: index for index, table in enumerate(TABLES)}
EGRESSES = record_checks(
    Module(
        kafka_egresses=(KafkaEgress("out/kafka"),),
        file_egresses=(FileEgress("out/file", "unused"),),
        playground_egress=PlaygroundEgress(("t",)),
    )
)


def built(id: str, states: list[Any], messages: list[Any]) -> ToFunction:
    """Return the request as protobuf's own classes make it."""
    request = ToFunction()
    batch = request.invocation
    batch.target.namespace, batch.target.type, batch.target.id = "ns", "f", id
    for name, typename, value in states:
        state = ToFunction.PersistedValue(state_name=name)
        if value is not None:
            state.state_value.typename, state.state_value.has_value, state.state_value.value = (
                typename,
                True,
                value,
            )
        batch.state.append(state)
    for _, _, caller_type, caller_id, value_type, value in messages:
        invocation = ToFunction.Invocation()
        if caller_type:
            namespace, _, name = caller_type.partition("/")
            invocation.caller.namespace, invocation.caller.type = namespace, name
            invocation.caller.id = caller_id
        invocation.argument.typename = value_type
        if value is not None:
            invocation.argument.has_value, invocation.argument.value = True, value
        batch.invocations.append(invocation)
    return request


texts = st.text(max_size=20)
values = st.none() | st.binary(max_size=40) | st.sampled_from([b"x" * 200, b"y" * 20_000])
messages = st.tuples(
    st.just("ns/f"),
    st.just("1"),
    st.sampled_from(["", "a/b", "ns/f"]),
    texts,
    st.sampled_from(["", INT]),
    values,
)


@given(texts, st.lists(st.tuples(texts, texts, values), max_size=4), st.lists(messages, max_size=5))
def test_requests_are_what_protobuf_makes(id: str, states: list[Any], batch: list[Any]) -> None:
    encoder = RequestEncoder("ns/f")
    for name, typename, _ in states:
        encoder.declare(name, typename)
    expected = built(id, states, batch)
    for _ in range(2):  # the second time from its pieces
        encoded = encoder.encode(id, [value for _, _, value in states], batch)
        assert encoded == expected.SerializeToString()
        assert ToFunction.FromString(encoded) == expected


@given(texts, st.lists(messages, min_size=1, max_size=8), st.data())
def test_a_batch_prepared_ahead_is_the_same_request(id: str, queue: list[Any], data: st.DataObject) -> None:
    """Whatever was prepared when, and whatever has been taken from the queue's beginning since."""
    queue = [tuple(message) for message in queue]
    encoder = RequestEncoder("ns/f")
    prepared = None
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(queue) - 1))
        end = data.draw(st.integers(start + 1, len(queue)))
        prepared, _ = encoder.prepare(queue[start:end], prepared, data.draw(st.integers(1, 8)))
    batch = queue[data.draw(st.integers(0, len(queue) - 1)) :][: data.draw(st.integers(1, 8))]
    assert encoder.encode(id, [], batch, prepared) == built(id, [], batch).SerializeToString()


def test_what_was_prepared_is_gone_on_with() -> None:
    encoder = RequestEncoder("ns/f")
    queue = [("ns/f", "1", "", "", INT, bytes([n])) for n in range(5)]
    prepared, count = encoder.prepare(queue[:2], None, 5)
    assert count == 2
    parts = prepared.parts
    assert encoder.prepare(queue, prepared, 2) == (prepared, 2)
    assert prepared.count == 4
    assert encoder.prepare(queue[:4], prepared, 5) == (prepared, 0)
    assert encoder.prepare(queue[1:], prepared, 5)[0] is not prepared, "the first of these is gone"
    assert len(parts) == 8


def decoded(answer: FromFunction) -> Any:
    return decode_answer(answer.SerializeToString(), "ns/f", TABLES, INDEXES, EGRESSES)


def result() -> tuple[FromFunction, FromFunction.InvocationResponse]:
    answer = FromFunction()
    answer.invocation_result.SetInParent()
    return answer, answer.invocation_result


@pytest.mark.parametrize("body", [b"", b"\xa2\x06\x00", b"\xfa\x3f\x03abc"])
def test_no_bytes_an_empty_result_and_unknown_fields_are_successes(body: bytes) -> None:
    assert decode_answer(body, "ns/f", TABLES, INDEXES, EGRESSES) is None


def test_effects_of_every_kind() -> None:
    answer, response = result()
    sent = response.outgoing_messages.add()
    sent.target.namespace, sent.target.type, sent.target.id = "a", "b", "1"
    sent.argument.typename, sent.argument.has_value, sent.argument.value = INT, True, b"v"
    empty = response.outgoing_messages.add()
    empty.target.namespace, empty.target.type = "a", "b"
    empty.argument.typename = INT
    later = response.delayed_invocations.add()
    later.delay_in_ms, later.cancellation_token = 5, "t"
    later.target.namespace, later.target.type, later.target.id = "a", "b", "2"
    later.argument.typename, later.argument.has_value = INT, True
    cancelled = response.delayed_invocations.add()
    cancelled.is_cancellation_request, cancelled.cancellation_token = True, "t"
    out = response.outgoing_egresses.add()
    out.egress_namespace, out.egress_type = "out", "kafka"
    out.argument.typename, out.argument.has_value, out.argument.value = KAFKA, True, RECORD
    changed = response.state_mutations.add()
    changed.mutation_type = FromFunction.PersistedValueMutation.MODIFY
    changed.state_name = "count"
    changed.state_value.typename, changed.state_value.has_value, changed.state_value.value = INT, True, b"7"
    response.state_mutations.add().state_name = "odd.name"

    assert decoded(answer) == (
        {0: b"7", 1: None},
        [("a/b", "1", INT, b"v"), ("a/b", "", INT, None)],
        [("send", 5, "t", "a/b", "2", INT, b""), ("cancel", "t")],
        [("out/kafka", KAFKA, RECORD)],
    )


def test_missing_states_with_their_expirations() -> None:
    answer = FromFunction()
    missing = answer.incomplete_invocation_context.missing_values
    missing.add(state_name="plain", type_typename=INT)
    missing.add(state_name="untyped").expiration_spec.SetInParent()
    written = missing.add(state_name="written", type_typename=INT).expiration_spec
    written.mode, written.expire_after_millis = FromFunction.ExpirationSpec.AFTER_WRITE, 5
    called = missing.add(state_name="called", type_typename=INT).expiration_spec
    called.mode, called.expire_after_millis = FromFunction.ExpirationSpec.AFTER_INVOKE, 2**62

    assert decoded(answer) == {
        "plain": StateSpec(type=INT),
        "untyped": StateSpec(type=UNSET_TYPE),
        "written": StateSpec(type=INT, expire="after_write", expire_ms=5),
        "called": StateSpec(type=INT, expire="after_call", expire_ms=DURATION_MS_MAX),
    }


def test_a_mode_of_expiration_that_we_do_not_know_counts_as_none() -> None:
    body = bytes.fromhex("aa060c 0a0a 0a0173 1205 0809 1082 01".replace(" ", ""))
    parsed = FromFunction.FromString(body)
    assert parsed.incomplete_invocation_context.missing_values[0].expiration_spec.mode == 9
    assert decode_answer(body, "ns/f", TABLES, INDEXES, EGRESSES) == {"s": StateSpec(type=UNSET_TYPE)}


def test_a_state_that_is_declared_twice_has_the_first_expiration_and_one_type() -> None:
    answer = FromFunction()
    missing = answer.incomplete_invocation_context.missing_values
    first = missing.add(state_name="s", type_typename=INT).expiration_spec
    first.mode, first.expire_after_millis = FromFunction.ExpirationSpec.AFTER_WRITE, 5
    missing.add(state_name="s", type_typename=INT)
    assert decoded(answer) == {"s": StateSpec(type=INT, expire="after_write", expire_ms=5)}

    missing.add(state_name="s", type_typename="a/b")
    with pytest.raises(BadAnswer, match=f"'s' of ns/f is declared twice, as {INT} and as a/b"):
        decoded(answer)


def test_the_last_change_of_a_state_counts() -> None:
    answer, response = result()
    for value in (b"1", None, b"3"):
        change = response.state_mutations.add(state_name="count")
        if value is not None:
            change.mutation_type = FromFunction.PersistedValueMutation.MODIFY
            change.state_value.typename, change.state_value.value = INT, value  # has_value is not asked for
    assert decoded(answer) == ({0: b"3"}, [], [], [])


def test_of_a_result_and_missing_states_the_last_one_counts() -> None:
    effects, response = result()
    response.state_mutations.add().state_name = "count"
    asks = FromFunction()
    asks.incomplete_invocation_context.missing_values.add(state_name="s", type_typename=INT)
    done, missing = effects.SerializeToString(), asks.SerializeToString()
    for body, meaning in (
        (done + missing, {"s": StateSpec(type=INT)}),
        (missing + done, ({0: None}, [], [], [])),
    ):
        assert decode_answer(body, "ns/f", TABLES, INDEXES, EGRESSES) == meaning


def test_messages_may_have_a_target_without_namespace_no_argument_and_any_type() -> None:
    answer, response = result()
    response.outgoing_messages.add().target.type = "x"
    odd = response.outgoing_messages.add()
    odd.target.type, odd.argument.typename, odd.argument.has_value = "x", "no slash", True
    assert decoded(answer) == ({}, [("/x", "", "", None), ("/x", "", "no slash", b"")], [], [])


def _unknown_state(response: Any) -> None:
    response.state_mutations.add().state_name = "other"


def _wrong_type(response: Any) -> None:
    response.state_mutations.add(state_name="count", mutation_type=1).state_value.typename = "a/b"


def _unknown_mutation(response: Any) -> None:
    response.state_mutations.add(state_name="count").mutation_type = 7


def _no_target(response: Any) -> None:
    response.outgoing_messages.add()


def _slash_in_target(response: Any) -> None:
    target = response.outgoing_messages.add().target
    target.namespace, target.type = "a/b", "c"


def _negative_delay(response: Any) -> None:
    response.delayed_invocations.add().delay_in_ms = -1


def _delayed_without_target(response: Any) -> None:
    response.delayed_invocations.add().delay_in_ms = 1


def _cancellation_without_token(response: Any) -> None:
    response.delayed_invocations.add().is_cancellation_request = True


def _unknown_egress(response: Any) -> None:
    out = response.outgoing_egresses.add()
    out.egress_namespace, out.egress_type = "out", "else"


def _wrong_record(response: Any) -> None:
    out = response.outgoing_egresses.add()
    out.egress_namespace, out.egress_type = "out", "kafka"
    out.argument.typename, out.argument.has_value = INT, True


def _no_record(response: Any) -> None:
    out = response.outgoing_egresses.add()
    out.egress_namespace, out.egress_type = "out", "kafka"
    out.argument.typename, out.argument.has_value, out.argument.value = KAFKA, True, b"record"


def _wrong_topic(response: Any) -> None:
    out = response.outgoing_egresses.add()
    out.egress_namespace, _, out.egress_type = PLAYGROUND_EGRESS.partition("/")
    out.argument.typename, out.argument.has_value = EGRESS_RECORD, True
    out.argument.value = b'{"topic": "nope", "payload": "x"}'


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (_unknown_state, "changes state 'other', which it has not declared; declared: count, odd.name"),
        (_wrong_type, "type 'a/b' into state 'count', which is io.statefun.types/int"),
        (_unknown_mutation, "mutation of kind 7"),
        (_no_target, "a message to a target with namespace '' and type ''"),
        (_slash_in_target, "namespace 'a/b' and type 'c'"),
        (_negative_delay, "a message after -1 ms"),
        (_delayed_without_target, "a delayed message to a target"),
        (_cancellation_without_token, "no token"),
        (
            _unknown_egress,
            "egress out/else, which is not configured; configured: io.statefun.playground/egress, out/file",
        ),
        (_wrong_record, f"egress out/kafka takes records of type '{KAFKA}', not one of type '{INT}'"),
        (_no_record, "cannot be published: egress out/kafka: no Kafka record"),
        (_wrong_topic, "the playground egress has no topic 'nope'; it has t"),
    ],
)
def test_what_cannot_be_is_refused_by_name(ask: Any, text: str) -> None:
    answer, response = result()
    ask(response)
    with pytest.raises(BadAnswer) as refused:
        decoded(answer)
    assert text in str(refused.value)
    assert "ns/f" in str(refused.value)


def test_an_expiration_of_nothing_is_refused() -> None:
    answer = FromFunction()
    spec = answer.incomplete_invocation_context.missing_values.add(state_name="s").expiration_spec
    spec.mode = FromFunction.ExpirationSpec.AFTER_WRITE
    with pytest.raises(BadAnswer, match="expire after 0 ms"):
        decoded(answer)


def test_bytes_that_are_nothing() -> None:
    with pytest.raises(BadAnswer, match="3 bytes that are no FromFunction"):
        decode_answer(b"\xff\xff\xff", "ns/f", TABLES, INDEXES, EGRESSES)


def write_of(state: str, typename: str, value: bytes) -> bytes:
    answer, response = result()
    mutation = response.state_mutations.add()
    mutation.mutation_type, mutation.state_name = FromFunction.PersistedValueMutation.MODIFY, state
    mutation.state_value.typename, mutation.state_value.has_value, mutation.state_value.value = (
        typename,
        True,
        value,
    )
    return answer.SerializeToString()


single_writes = st.builds(
    write_of,
    st.sampled_from(["count", "odd.name", "none"]),
    st.sampled_from([INT, UNSET_TYPE]),
    st.binary(max_size=6) | st.sampled_from([b"x" * SINGLE_WRITE_BYTES_MAX, b"x" * 3_000]),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    body: bytes = draw(single_writes)
    match draw(st.integers(0, 5)):
        case 0:
            at = draw(st.integers(0, len(body) - 1))
            return body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
        case 1:
            return body[: draw(st.integers(0, len(body)))]
        case 2:
            return body + draw(single_writes)  # a message may come in two pieces
    return body


@given(st.lists(answers(), max_size=12))
def test_answers_like_earlier_ones_mean_what_they_say(bodies: list[bytes]) -> None:
    decoder = AnswerDecoder("ns/f", TABLES, EGRESSES)
    decoder.indexes.update(INDEXES)

    def outcome(decode: Callable[[bytes], Any], body: bytes) -> Any:
        try:
            return decode(body)
        except BadAnswer as error:
            return str(error)

    for body in bodies:
        expected = outcome(lambda body: decode_answer(body, "ns/f", TABLES, INDEXES, EGRESSES), body)
        assert outcome(decoder.decode, body) == expected
        assert outcome(decoder.decode, body) == expected
