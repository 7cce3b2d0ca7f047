"""A message survives being stored, whatever is in it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.core.message import Message, pack_message, unpack_message

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MESSAGES = st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.none() | st.binary(max_size=8))


@given(MESSAGES)
def test_unpacking_gives_what_was_packed(message: Message) -> None:
    assert unpack_message(pack_message(message)) == message


def test_an_empty_value_is_not_no_value() -> None:
    for value in (None, b""):
        assert unpack_message(pack_message(("a/b", "1", "", "", "t", value)))[5] == value


@pytest.mark.parametrize("data", [b"", b"\xc0", msgspec.msgpack.encode(["a/b", "1"])])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack_message(data)
