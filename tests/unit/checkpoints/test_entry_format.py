"""Entries as bytes: round trip, canonical form, and every kind of damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints import entry_format
from statefun_checkpoints.errors import CorruptEntry, UnsupportedFormat
from statefun_checkpoints.model import (
    Boundary,
    Entry,
    FunctionSpec,
    Job,
    PartDescriptor,
    PartKind,
    Position,
    StateSpec,
)
from tests.unit.checkpoints.building import snapshot

NAME = "log/0000000000/0000000000000000001.json"

naturals = st.integers(0, 2**53)
names = st.text(max_size=12)


@st.composite
def parts(draw: st.DrawFn) -> PartDescriptor:
    kinds: list[PartKind] = ["delta", "base", "transient"]
    kind = draw(st.sampled_from(kinds))
    place: dict[str, Any] = draw(
        st.sampled_from([{"path": "data/x"}, {"inline": "QUJD"}, {"slot": 3, "index": 0}])
    )
    first = draw(st.integers(0, 1000))
    return PartDescriptor(
        kind=kind,
        level=draw(st.sampled_from(["small", "periodic"])) if kind == "delta" else None,
        worker=draw(naturals),
        snapshot=draw(naturals),
        key_groups=(first, draw(st.integers(first + 1, 1024))),
        rows=draw(st.integers(1, 2**40)),
        bytes=draw(st.integers(1, 2**40)),
        xxh3_128=draw(names),
        **place,
    )


specs = st.builds(
    StateSpec,
    type=names,
    expire=st.sampled_from(["none", "after_write", "after_call"]),
    expire_ms=naturals,
    json=st.booleans(),
)

snapshots = st.builds(
    Entry,
    kind=st.sampled_from(["snapshot", "stop"]),
    slot=st.integers(10, 2**53),
    generation=naturals,
    nonce=names,
    created_at_ms=naturals,
    snapshot_id=st.integers(1, 2**53),
    parent=st.none() | st.integers(0, 9),
    rhythm=st.sampled_from(["periodic", "reply", "final"]),
    key_group_count=st.integers(1, 65_536),
    worker_count=st.integers(1, 128),
    parts=st.lists(parts(), max_size=3).map(tuple),
    positions=st.lists(st.builds(Position, names, naturals, naturals, naturals), max_size=3).map(tuple),
    out_seq=st.dictionaries(names, naturals, max_size=3),
    counters=st.dictionaries(names, naturals, max_size=3),
    in_flight=naturals,
    timer_next=naturals,
    functions=st.dictionaries(
        names,
        st.builds(
            FunctionSpec,
            st.dictionaries(names, specs, max_size=2),
            differing=st.dictionaries(names, st.dictionaries(names, specs, max_size=2), max_size=2),
        ),
        max_size=2,
    ),
)


@given(snapshots)
def test_snapshot_entries_round_trip(entry: Entry) -> None:
    data = entry_format.encode(entry)
    assert entry_format.decode_entry(data, NAME) == entry
    assert entry_format.encode(entry_format.decode_entry(data, NAME)) == data


@given(naturals, naturals, names, naturals)
def test_claims_round_trip(slot: int, generation: int, nonce: str, now_ms: int) -> None:
    entry = Entry(kind="claim", slot=slot, generation=generation, nonce=nonce, created_at_ms=now_ms)
    assert entry_format.decode_entry(entry_format.encode(entry), NAME) == entry


def test_job_and_boundary_round_trip() -> None:
    job = Job(name="shop")
    assert entry_format.decode_job(entry_format.encode(job), "job.json") == job
    boundary = Boundary(first_slot=3_000)
    assert entry_format.decode_boundary(entry_format.encode(boundary), "boundary.json") == boundary


def test_form_is_canonical_json_with_the_hash_last() -> None:
    data = entry_format.encode(Entry(kind="claim", slot=1, generation=2, nonce="n", created_at_ms=3))
    body = b'{"created_at_ms":3,"format":1,"generation":2,"kind":"claim","nonce":"n","slot":1}'
    assert data == body[:-1] + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


ENTRY = entry_format.encode(snapshot(1, slot=1, counters={"admitted": 5}, out_seq={"3": 4}))


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_found(bit: int) -> None:
    for offset in range(len(ENTRY)):
        damaged = bytearray(ENTRY)
        damaged[offset] ^= 1 << bit
        with pytest.raises(CorruptEntry, match=NAME):
            entry_format.decode_entry(bytes(damaged), NAME)


def test_every_truncation_and_extension_is_found() -> None:
    for length in range(len(ENTRY)):
        with pytest.raises(CorruptEntry, match="sha256 does not match"):
            entry_format.decode_entry(ENTRY[:length], NAME)
    with pytest.raises(CorruptEntry):
        entry_format.decode_entry(ENTRY + b"\n", NAME)


def signed(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    return body[:-1] + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


def fields() -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(ENTRY)
    del decoded["sha256"]
    return decoded


def test_unknown_fields_are_ignored() -> None:
    assert entry_format.decode_entry(signed({**fields(), "later": [1]}), NAME).snapshot_id == 1


def test_a_newer_format_is_named() -> None:
    with pytest.raises(UnsupportedFormat, match="has format 2, this version of statefun-ray reads 1"):
        entry_format.decode_entry(signed({**fields(), "format": 2, "kind": "novel"}), NAME)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slot": "x"}, "Expected `int`"),
        ({"slot": -1}, "must not be negative"),
        ({"kind": "party"}, "Invalid enum value"),
        ({"snapshot_id": 0}, "snapshot_id of at least 1"),
        ({"rhythm": None}, "needs a rhythm"),
        ({"key_group_count": 0}, "needs its key_group_count"),
        ({"parent": 1}, "must lie below slot"),
        ({"kind": "claim"}, "a claim carries no snapshot"),
        ({"parts": [{}]}, "missing required field"),
    ],
)
def test_a_well_hashed_but_impossible_entry_is_corrupt(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CorruptEntry, match=reason):
        entry_format.decode_entry(signed({**fields(), **change}), NAME)


def test_hashed_garbage_is_corrupt() -> None:
    body = b"[}"
    data = body[:-1] + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'
    with pytest.raises(CorruptEntry):
        entry_format.decode_entry(data, NAME)
