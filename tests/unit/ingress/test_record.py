from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ingress.log import encode_events
from statefun_ingress.record import (
    HEADER_BYTES,
    BadRecord,
    Events,
    TornRecord,
    check_record,
    content_digest,
    decode_chunk,
    encode_chunk,
    encode_record,
    find_record_after,
    read_record,
)

rows = st.lists(
    st.tuples(
        st.sampled_from(["a/b", "a/c"]),
        st.text(min_size=1, max_size=5),
        st.sampled_from(["", "statefun-ray.reply/x.1"]),
        st.sampled_from(["", "7"]),
        st.sampled_from(["t/int", "t/string"]),
        st.none() | st.binary(max_size=10),
    ),
    min_size=1,
    max_size=20,
)


def events_of(rows: list[tuple[str, str, str, str, str, bytes | None]]) -> Events:
    events = Events.empty()
    for row in rows:
        events.append(*row)
    return events


def record_of(text: bytes = b"value", first_seq: int = 5, synced_seq: int = 3) -> bytes:
    chunk = encode_chunk(Events.of_one("a/b", "id", "", "", "t/x", text))
    return encode_record(
        first_seq, synced_seq, 1, [chunk], received_at_ms=7, producer_id="p", producer_sequence=2
    )


@given(rows)
def test_a_chunk_decodes_to_its_events(
    rows: list[tuple[str, str, str, str, str, bytes | None]],
) -> None:
    assert decode_chunk(encode_chunk(events_of(rows))).rows() == rows


def test_a_column_of_equal_items_is_stored_once() -> None:
    same = events_of([("a/b", str(i), "", "", "t/x", b"") for i in range(100)])
    mixed = events_of([(f"a/b{i % 2}", str(i), "", "", "t/x", b"") for i in range(100)])

    assert len(encode_chunk(same)) < len(encode_chunk(mixed)) - 300


def test_a_record_carries_everything_of_its_request() -> None:
    data = b"junk" + record_of()

    record, end = read_record(data, 4)

    assert end == len(data)
    assert record[:6] == (5, 3, 1, 7, "p", 2)
    assert decode_chunk(record.chunks[0]).rows() == [("a/b", "id", "", "", "t/x", b"value")]


@pytest.mark.parametrize("cut", range(len(record_of())))
def test_a_record_cut_anywhere_is_torn_not_bad(cut: int) -> None:
    with pytest.raises(TornRecord):
        check_record(record_of()[:cut], 0)


@pytest.mark.parametrize("at", range(len(record_of())))
def test_a_flipped_bit_anywhere_is_noticed(at: int) -> None:
    data = bytearray(record_of())
    data[at] ^= 0x10

    with pytest.raises((BadRecord, TornRecord)):
        check_record(bytes(data) + bytes(64), 0)


def test_an_impossible_length_is_bad_rather_than_torn() -> None:
    data = bytearray(record_of())
    data[4:8] = b"\xff\xff\xff\xff"

    with pytest.raises(BadRecord, match="cannot be"):
        check_record(bytes(data), 0)


def test_a_record_behind_damage_is_found() -> None:
    data = b"SFR1 looks like one" + record_of(first_seq=9)

    found = find_record_after(data, -1)

    assert found is not None
    assert found.first_seq == 9
    assert found.body_offset == len(b"SFR1 looks like one") + HEADER_BYTES
    assert find_record_after(data, 19) is None


def test_the_digest_of_a_request_is_that_of_its_events_whoever_is_called_back() -> None:
    def digest(target: str, id: str, caller: str, caller_id: str, value_type: str) -> int:
        return content_digest([encode_chunk(Events.of_one(target, id, caller, caller_id, value_type, b"v"))])

    plain = digest("a/b", "id", "", "", "t/x")
    assert plain == digest("a/b", "id", "reply/1", "7", "t/x")
    assert plain != digest("a/b", "id2", "", "", "t/x")
    assert plain != digest("a/c", "id", "", "", "t/x")
    assert plain != digest("a/b", "id", "", "", "t/y")


def test_the_digest_of_a_bulk_request_is_that_of_its_record() -> None:
    events = Events.empty()
    for number in range(1_234):
        events.append("a/b", str(number), "", "", "t/x", b"v")
    parts = [encoded for _, encoded in encode_events(events)]
    data = encode_record(0, 0, 1_234, parts, received_at_ms=1)
    record, _ = read_record(data, 0)

    assert len(parts) == 3
    assert content_digest(parts) == content_digest(record.chunks)
    assert content_digest(parts) != content_digest(parts[:2])
