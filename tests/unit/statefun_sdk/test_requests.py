"""Requests read by hand are what protobuf reads, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statefun_sdk.protocol import Address, ToFunction, TypedValue
from statefun_sdk.requests import (
    MalformedRequestError,
    Request,
    read_by_hand,
    read_by_protobuf,
    read_request,
)

# Sizes of one, two, three and four bytes, and what is on either side.
SIZES = st.sampled_from([0, 1, 5, 60, 90, 100, 126, 127, 128, 129, 300, 16_383, 16_384, 70_000])
NAMES = st.sampled_from(["a", "count", "é", "io.statefun.types/int", "n" * 127, "n" * 128, "n" * 300])
TEXTS = st.one_of(st.sampled_from(["1", "key-1", "ü" * 63, "ü" * 64, "i" * 20_000]), st.text(max_size=8))
ADDRESSES = st.builds(Address, namespace=NAMES, type=NAMES, id=TEXTS)
BYTES = st.one_of(st.binary(max_size=12), SIZES.map(lambda size: b"\x12" * size))
VALUES = st.builds(TypedValue, typename=NAMES, has_value=st.just(True), value=BYTES)
ANY_VALUES = st.builds(TypedValue, typename=st.just("") | NAMES, has_value=st.booleans(), value=BYTES)
STATES = st.builds(ToFunction.PersistedValue, state_name=NAMES, state_value=st.none() | VALUES)
CALLS = st.builds(ToFunction.Invocation, caller=st.none() | ADDRESSES, argument=VALUES)
ANY_STATES = st.builds(
    ToFunction.PersistedValue, state_name=st.just("") | NAMES, state_value=st.none() | ANY_VALUES
)
ANY_CALLS = st.builds(
    ToFunction.Invocation,
    caller=st.none() | ADDRESSES | st.just(Address()),
    argument=st.none() | ANY_VALUES,
)


def request_of(
    target: Address, states: list[ToFunction.PersistedValue], calls: list[ToFunction.Invocation]
) -> bytes:
    batch = ToFunction.InvocationBatchRequest(target=target, state=states, invocations=calls)
    return ToFunction(invocation=batch).SerializeToString()


REQUESTS = st.builds(request_of, ADDRESSES, st.lists(STATES, max_size=3), st.lists(CALLS, max_size=4))
ANY_REQUESTS = st.builds(
    request_of,
    ADDRESSES | st.just(Address()),
    st.lists(ANY_STATES, max_size=3),
    st.lists(ANY_CALLS, max_size=4),
)


@pytest.mark.parametrize("caller", [b"\x0a\x00", b"\x0a\x06\x0a\x00\x12\x00\x1a\x00"])
def test_a_caller_without_any_part_is_none(caller: bytes) -> None:
    argument = TypedValue(typename="t/v", has_value=True, value=b"1")
    call = caller + ToFunction.Invocation(argument=argument).SerializeToString()
    batch = request_of(Address(namespace="a", type="f", id="x"), [], [])[3:] + b"\x1a%c%b" % (len(call), call)
    request = b"\xa2\x06%c%b" % (len(batch), batch)
    assert ToFunction.FromString(request).invocation.invocations[0].HasField("caller")
    assert read_request(request) == read_by_protobuf(request) == ("a/f", "x", {}, [("", "", "t/v", b"1")])


def by_hand(data: bytes) -> Request | None:
    try:
        return read_by_hand(data)
    except (IndexError, ValueError):
        return None


def by_protobuf(data: bytes) -> Request | None:
    try:
        return read_by_protobuf(data)
    except DecodeError:
        return None


@given(ANY_REQUESTS | REQUESTS)
def test_both_read_the_same(data: bytes) -> None:
    assert by_hand(data) in (None, read_by_protobuf(data))
    assert read_request(data) == read_by_protobuf(data)
    assert read_request(bytearray(data)) == read_by_protobuf(data)  # type: ignore[arg-type]


@settings(max_examples=1_000)
@given(
    st.data(),
    st.builds(request_of, ADDRESSES, st.lists(ANY_STATES, max_size=2), st.lists(ANY_CALLS, max_size=2)),
)
def test_damaged_bytes_have_no_other_meaning(data: st.DataObject, request_bytes: bytes) -> None:
    damaged = bytearray(request_bytes[:2_000])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        cut = data.draw(st.integers(0, 2))
        new = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"\x0a", b"\x12", b"\x1a\x00", b"\x80", b"\x10\x01"])
        )
        damaged[place : place + cut] = new
    found = by_hand(bytes(damaged))
    assert found is None or found == by_protobuf(bytes(damaged))


@given(
    st.lists(
        st.sampled_from([b"\x0a", b"\x12", b"\x1a", b"\x10\x01", b"a", b"\x80", b"\0", b"\x02", b"\x05"]),
        max_size=30,
    )
)
def test_what_looks_like_a_request_has_no_other_meaning(pieces: list[bytes]) -> None:
    target = b"\x0a\x09\x0a\x01a\x12\x01b\x1a\x01c"
    batch = target + b"".join(pieces)
    data = b"\xa2\x06" + bytes((len(batch),)) + batch
    found = by_hand(data)
    assert found is None or found == by_protobuf(data)


def said_by(read: Callable[[bytes], Request], data: bytes) -> Request | tuple[str, BaseException | None]:
    try:
        return read(data)
    except MalformedRequestError as error:
        return str(error), None if error.__suppress_context__ else error.__context__


def usual(calls: int = 1, *, name: str = "count", value: bytes = b"12345", id: str = "1") -> bytes:
    def typed(data: bytes) -> TypedValue:
        return TypedValue(typename="t/v", has_value=True, value=data)

    return request_of(
        Address(namespace="a", type="f", id=id),
        [
            ToFunction.PersistedValue(state_name=name, state_value=typed(value)),
            ToFunction.PersistedValue(state_name="absent"),
        ],
        [
            ToFunction.Invocation(
                caller=Address(namespace="a", type="g", id=str(n)) if n % 2 else None, argument=typed(value)
            )
            for n in range(calls)
        ],
    )


@pytest.mark.parametrize(("size", "calls"), [(5, 2), (0, 2), (200, 1)])
def test_no_single_byte_gives_another_meaning(size: int, calls: int) -> None:
    usual_bytes = usual(calls, value=b"v" * size)
    assert by_hand(usual_bytes) == by_protobuf(usual_bytes)
    for place in range(min(len(usual_bytes), 100)):
        for byte in range(256):
            data = usual_bytes[:place] + bytes((byte,)) + usual_bytes[place + 1 :]
            found = by_hand(data)
            assert found is None or found == by_protobuf(data), (place, byte)
        assert by_hand(usual_bytes[:place]) is None


@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 129, 1_000, 16_384, 300_000])
@pytest.mark.parametrize("calls", [0, 1, 2, 300])
def test_usual_requests_are_read_by_hand(size: int, calls: int) -> None:
    data = usual(min(calls, 300_000 // (size or 1)), value=b"v" * size)
    assert read_by_hand(data) == read_by_protobuf(data)
    data = usual(calls, name="n" * min(size, 1_000))
    assert by_hand(data) in (None, read_by_protobuf(data))


def test_a_long_name_of_a_state_with_a_value_is_usual() -> None:
    data = usual(name="n" * 200)
    assert read_by_hand(data) == read_by_protobuf(data)


@pytest.mark.parametrize(
    "data",
    [
        usual(id="i" * 200),
        usual() + b"\xf8\x07\x01",  # a field we do not know
        usual() + usual(),  # protobuf merges
        usual(value=b"v" * 3_000_000),
        request_of(Address(namespace="a", type="f", id="1"), [], [ToFunction.Invocation()]),
    ],
)
def test_unusual_requests_are_left_to_protobuf(data: bytes) -> None:
    assert by_hand(data) is None
    assert read_request(data) == read_by_protobuf(data)


@example(b"")
@example(b"\xa2\x06\x00")
@example(b"\xa2\x06\x80\x80\x80\x80\x80")
@given(st.binary(max_size=40))
def test_what_is_no_request_is_told_as_protobuf_tells_it(data: bytes) -> None:
    assert said_by(read_request, data) == said_by(read_by_protobuf, data)


def test_text_that_is_not_utf8_is_refused() -> None:
    for text in (b"key-1", b"ns", b"t/v", b"count", b"caller"):
        data = request_of(
            Address(namespace="ns", type="f", id="key-1"),
            [ToFunction.PersistedValue(state_name="count")],
            [
                ToFunction.Invocation(
                    caller=Address(namespace="x", type="y", id="caller"),
                    argument=TypedValue(typename="t/v", has_value=True),
                )
            ],
        )
        assert read_by_hand(data)
        with pytest.raises(MalformedRequestError):
            read_request(data.replace(text, b"\xff" * len(text)))
