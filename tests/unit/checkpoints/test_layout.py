"""Names and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_checkpoints import layout
from statefun_checkpoints.layout import PartName
from statefun_checkpoints.model import PartKind


def test_names_are_as_documented() -> None:
    assert layout.slot_path(42_017) == "log/0000000042/0000000000000042017.json"
    assert layout.part_path(7, 42, 3, "delta") == "data/g0000007/n0000000042/w003.delta.arrow"
    assert layout.ingress_path("http-0") == "ingress/http-0.json"
    assert layout.probe_path("abc") == "probe/abc"


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_slot_names_sort_as_slots_do(one: int, other: int) -> None:
    assert (layout.slot_path(one) < layout.slot_path(other)) == (one < other)
    assert layout.parse_slot(layout.slot_path(one)) == one


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**12),
    st.integers(0, 5_000),
    st.sampled_from(["delta", "base", "transient"]),
)
def test_part_names_come_apart_again(generation: int, snapshot: int, worker: int, kind: PartKind) -> None:
    path = layout.part_path(generation, snapshot, worker, kind)
    assert layout.parse_part(path) == PartName(generation, snapshot, worker, kind)


@pytest.mark.parametrize(
    "path",
    [
        "log/0000000042/0000000000000000001.json",
        "log/0000000000/1.json",
        "log/notes",
        "log/0000000000/0000000000000000001.json.x",
    ],
)
def test_strangers_are_no_slots(path: str) -> None:
    assert layout.parse_slot(path) is None


@pytest.mark.parametrize(
    "path", ["data/x", "data/g1/n1/w1.delta.arrow", "data/g0000001/n0000000001/w001.other.arrow"]
)
def test_strangers_are_no_parts(path: str) -> None:
    assert layout.parse_part(path) is None


def test_ingress_names_come_apart_again() -> None:
    assert layout.parse_ingress("ingress/http-0.json") == "http-0"
    for path in ("ingress/.json", "ingress/a/b.json", "ingress/a", "log/a.json", "a.json"):
        assert layout.parse_ingress(path) is None
