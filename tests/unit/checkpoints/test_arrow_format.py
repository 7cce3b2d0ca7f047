"""Rows to Arrow files and back, and files that are not what they should be."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints import arrow_format
from statefun_checkpoints.arrow_format import decode_part, decode_table, encode_part, encode_slices
from statefun_checkpoints.errors import CorruptPart, UnsupportedFormat
from statefun_checkpoints.model import PartKind, Rows
from tests.unit.checkpoints.building import carts

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 65_535),
        text,
        text,
        text,
        text,
        st.none() | st.binary(max_size=30),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    min_size=1,
    max_size=40,
).map(Rows.of)


@given(rows_strategy, st.sampled_from(["delta", "transient"]))
def test_rows_round_trip_in_order(rows: Rows, kind: PartKind) -> None:
    assert decode_part(encode_part(rows, kind)) == rows


@given(rows_strategy)
def test_bases_are_sorted(rows: Rows) -> None:
    found = decode_part(encode_part(rows, "base"))
    # By bytes, as Arrow sorts text; Python's order differs beyond the basic plane.
    keys = [
        (g, t.encode(), i.encode(), s.encode())
        for g, t, i, s in zip(found.key_group, found.table, found.id, found.sub, strict=True)
    ]
    assert keys == sorted(keys)
    assert sorted(map(repr, found)) == sorted(map(repr, rows))


@given(rows_strategy, st.integers(0, 65_536), st.integers(0, 65_536), st.sampled_from(["delta", "base"]))
def test_a_range_of_key_groups_is_selected(rows: Rows, one: int, other: int, kind: PartKind) -> None:
    first, end = sorted([one, other])
    found = decode_part(encode_part(rows, kind), (first, end))
    assert sorted(map(repr, found)) == sorted(map(repr, rows.select((first, end))))


@pytest.mark.parametrize("kind", ["delta", "base"])
@pytest.mark.parametrize(
    "count", [arrow_format.SLICE_ROWS, arrow_format.SLICE_ROWS + 1, arrow_format.BATCH_ROWS + 1]
)
def test_many_rows_make_few_batches(kind: PartKind, count: int) -> None:
    rows = carts(count)
    data = encode_part(rows, kind)
    batches = pa.ipc.open_file(pa.BufferReader(data)).num_record_batches
    assert batches == -(-count // arrow_format.BATCH_ROWS)
    found = decode_part(data)
    assert (sorted(found) if kind == "base" else list(found)) == (
        sorted(rows) if kind == "base" else list(rows)
    )
    assert len(decode_part(data, (4, 9))) == len(rows.select((4, 9)))


def test_slices_are_encoded_one_by_one_and_make_the_same_file() -> None:
    chunks = [carts(10), carts(arrow_format.SLICE_ROWS * 2, first=10), carts(0), carts(5, first=9_000)]
    whole = Rows()
    for chunk in chunks:
        whole.extend(chunk)
    taken = []

    def one_by_one() -> Any:
        for chunk in chunks:
            taken.append(len(chunk))
            yield chunk

    steps = encode_slices(one_by_one(), "delta")
    next(steps)
    assert taken == [10]  # a chunk is made only when the ones before it are done
    count = 1
    try:
        while True:
            next(steps)
            count += 1
    except StopIteration as done:
        data: bytes = done.value
    assert count == 4
    assert decode_part(data) == whole


def test_values_beyond_an_arrow_array_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_format, "_SLICE_BYTES_MAX", 100)
    rows = Rows.of(
        (1, "t", str(i), "", "", bytes(size), None) for i, size in enumerate([60, 60, 300, 10, 0, 90, 1])
    )
    slices = list(arrow_format._slices(rows))
    assert slices == [(0, 1), (1, 2), (2, 3), (3, 6), (6, 7)]
    assert decode_part(encode_part(rows, "delta")) == rows


def test_no_rows_make_no_file() -> None:
    with pytest.raises(ValueError, match="an empty part is never written"):
        encode_part(Rows(), "delta")


def test_small_parts_are_small_and_large_ones_compressed() -> None:
    assert len(encode_part(carts(10), "delta")) < 3_500
    assert len(encode_part(carts(10_000), "delta")) < 10_000 * 30


def test_the_file_is_plain_arrow_with_documented_metadata() -> None:
    table = pa.ipc.open_file(pa.BufferReader(encode_part(carts(50), "base"))).read_all()
    assert table.schema.names == [
        "key_group",
        "table",
        "id",
        "sub",
        "typename",
        "value",
        "expires_at_ms",
    ]
    metadata = table.schema.metadata
    assert metadata[b"statefun-ray.format"] == b"1"
    assert metadata[b"statefun-ray.kind"] == b"base"
    assert metadata[b"statefun-ray.key_groups"].startswith(b"[[1,2],[2,1],[3,6],")


# --- damage ------------------------------------------------------------------------------

PART = encode_part(carts(20), "base")


def test_every_truncation_is_found_and_named() -> None:
    for length in range(0, len(PART), 7):
        with pytest.raises(CorruptPart, match=r"w003\.base"):
            decode_part(PART[:length], name="w003.base")


@pytest.mark.parametrize(
    "garbage", [b"", b"ARROW1", b"\0" * 5_000, b"ARROW1\0\0" + b"\xff" * 500 + b"ARROW1"]
)
def test_garbage_is_found(garbage: bytes) -> None:
    with pytest.raises(CorruptPart, match="not readable as Arrow"):
        decode_part(garbage)


def test_flipped_bits_never_crash() -> None:
    # Whether the rows are right is for the hash to say; here it is enough to come back.
    for offset in range(0, len(PART), 3):
        damaged = bytearray(PART)
        damaged[offset] ^= 1 << (offset % 8)
        try:
            decode_part(bytes(damaged), (0, 5))
        except (CorruptPart, UnsupportedFormat):
            continue


def rewritten(change: Any) -> bytes:
    table = change(decode_table(PART))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_another_schema_is_refused() -> None:
    with pytest.raises(CorruptPart, match="expected key_group uint16"):
        decode_part(rewritten(lambda table: table.drop_columns(["sub"])))


def test_a_file_without_our_mark_is_refused() -> None:
    with pytest.raises(CorruptPart, match="format none"):
        decode_part(rewritten(lambda table: table.replace_schema_metadata(None)))


def test_a_newer_format_is_named() -> None:
    with pytest.raises(UnsupportedFormat, match="x has format 2"):
        decode_part(
            rewritten(lambda table: table.replace_schema_metadata({"statefun-ray.format": "2"})), name="x"
        )


def test_a_broken_index_is_found() -> None:
    metadata = {"statefun-ray.format": "1", "statefun-ray.key_groups": "["}
    with pytest.raises(CorruptPart):
        decode_part(rewritten(lambda table: table.replace_schema_metadata(metadata)), (0, 3))
