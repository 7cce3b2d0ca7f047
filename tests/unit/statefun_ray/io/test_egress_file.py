from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints.store import LocalStore, MemoryStore
from statefun_ray.core.outbox import EgressRow
from statefun_ray.io.egress_file import EgressConflict, EgressUnreadable, FileSink, read_egress
from statefun_sdk import codecs, make_json_type

EGRESS = "shop/receipts"
INT = codecs.INT


def rows(*sequences: int) -> list[EgressRow]:
    return [(sequence, EGRESS, INT, codecs.encode_int(sequence * 10)) for sequence in sequences]


def test_published_rows_are_read_back_by_shard_and_in_order() -> None:
    store = MemoryStore()
    sink = FileSink(store, EGRESS)

    sink.publish([(2, rows(0, 1))])
    sink.publish([(1, rows(7))])
    sink.publish([(2, rows(2, 5))])

    published = read_egress(store, EGRESS)
    assert [(row.shard, row.seq, row.data) for row in published] == [
        (1, 7, 70),
        (2, 0, 0),
        (2, 1, 10),
        (2, 2, 20),
        (2, 5, 50),
    ]
    assert published[0].value == codecs.encode_int(70)
    assert published[0].typename == INT


def test_publishing_again_changes_nothing() -> None:
    store = MemoryStore()
    FileSink(store, EGRESS).publish([(0, rows(0, 1))])
    before = dict(store.objects)

    FileSink(store, EGRESS).publish([(0, rows(0, 1))])

    assert store.objects == before


def test_other_rows_in_the_same_place_are_refused() -> None:
    store = MemoryStore("sink")
    FileSink(store, EGRESS).publish([(0, rows(0))])

    with pytest.raises(EgressConflict, match="exists with other rows"):
        FileSink(store, EGRESS).publish([(0, [(0, EGRESS, INT, codecs.encode_int(999))])])


def test_rows_published_twice_under_different_ranges_are_found_by_the_reader() -> None:
    store = MemoryStore()
    FileSink(store, EGRESS).publish([(0, rows(0, 1))])
    FileSink(store, EGRESS).publish([(0, rows(1, 2))])

    with pytest.raises(EgressUnreadable, match="row 1 of shard 0 was published before"):
        read_egress(store, EGRESS)


def test_a_line_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    receipt = make_json_type("shop/receipt")
    sink = FileSink(LocalStore(tmp_path), EGRESS)

    written: list[EgressRow] = [
        (0, EGRESS, receipt.typename, b'{"total":\n 5}'),
        (1, EGRESS, codecs.STRING, codecs.encode_string("hé")),
        (2, EGRESS, "shop/blob", b"\x00\xff"),
        (3, EGRESS, INT, None),
    ]
    sink.publish([(3, written)])

    file = tmp_path / "shop" / "receipts" / "003" / "0000000000000000000-0000000000000000003.ndjson"
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"seq": 0, "type": "shop/receipt", "value": {"total": 5}},
        {"seq": 1, "type": codecs.STRING, "value": "hé"},
        {"seq": 2, "type": "shop/blob", "base64": "AP8="},
        {"seq": 3, "type": INT},
    ]
    assert [row.data for row in read_egress(tmp_path.as_uri(), EGRESS)] == [
        {"total": 5},
        "hé",
        b"\x00\xff",
        None,
    ]


@given(
    value=st.one_of(
        st.tuples(st.just(codecs.BOOL), st.booleans().map(codecs.encode_bool)),
        st.tuples(st.just(codecs.LONG), st.integers(-(2**63), 2**63 - 1).map(codecs.encode_long)),
        st.tuples(st.just(codecs.FLOAT), st.floats(width=32).map(codecs.encode_float)),
        st.tuples(st.just(codecs.DOUBLE), st.floats().map(codecs.encode_double)),
        st.tuples(st.just(codecs.STRING), st.text().map(codecs.encode_string)),
        st.tuples(st.sampled_from([codecs.INT, codecs.STRING, "a/b"]), st.binary(max_size=20)),
        st.tuples(st.just("a/b"), st.none()),
    )
)
def test_exact_bytes_come_back_whatever_they_are(value: tuple[str, bytes | None]) -> None:
    store = MemoryStore()
    typename, data = value

    FileSink(store, EGRESS).publish([(0, [(0, EGRESS, typename, data)])])

    (row,) = read_egress(store, EGRESS)
    assert (row.typename, row.value) == (typename, data)


def test_a_number_that_json_does_not_know_is_kept_as_bytes() -> None:
    store = MemoryStore()

    FileSink(store, EGRESS).publish([(0, [(0, EGRESS, codecs.DOUBLE, codecs.encode_double(math.inf))])])

    assert read_egress(store, EGRESS)[0].value == codecs.encode_double(math.inf)


@pytest.mark.parametrize("egress", ["a b/c", "../x", ".hidden/..", "ü/%", "=a/-b", "/x"])
def test_any_egress_name_is_a_safe_object_name_of_its_own(egress: str) -> None:
    store = MemoryStore()

    FileSink(store, egress, "egress").publish([(0, rows(0))])

    assert len(read_egress(store, egress, "egress")) == 1
    assert all(name.startswith("egress/") for name in store.objects)


def test_a_stranger_in_the_sink_is_named() -> None:
    store = MemoryStore()
    store.put("shop/receipts/readme.txt", b"hello")

    with pytest.raises(EgressUnreadable, match=r"shop/receipts/readme\.txt.*not an object of the file sink"):
        read_egress(store, EGRESS)


def test_a_damaged_line_is_named() -> None:
    store = MemoryStore()
    store.put(f"shop/receipts/000/{0:019d}-{0:019d}.ndjson", b'{"seq": 0')

    with pytest.raises(EgressUnreadable, match="a line is not an egress row"):
        read_egress(store, EGRESS)


@pytest.mark.parametrize("error", [EgressConflict("u", "n"), EgressUnreadable("u", "n", "p")])
def test_errors_survive_pickling(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
