"""Rows, key groups, and what a part's description may not be."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_checkpoints.model import (
    KEY_GROUP_COUNT_DEFAULT,
    PartDescriptor,
    Rows,
    key_group_of,
    state_table,
)
from tests.unit.checkpoints.building import carts

# Fixed for ever: a change moves every key of every application to another place.
GOLDEN = [
    ("", 194),
    ("a", 543),
    ("cart-42", 984),
    ("N14228", 678),
    ("ключ", 734),
    ("🛒", 417),
    ("x" * 300, 340),
]


@pytest.mark.parametrize(("id", "group"), GOLDEN)
def test_key_groups_are_golden(id: str, group: int) -> None:
    assert key_group_of(id, KEY_GROUP_COUNT_DEFAULT) == group


def test_rows_keep_columns_of_one_length() -> None:
    rows = carts(5)
    assert len(rows) == 5
    assert Rows.of(rows) == rows
    assert rows.slice(1, 3) == Rows.of(list(rows)[1:3])
    assert rows.take([4, 0]) == Rows.of([list(rows)[4], next(iter(rows))])
    assert rows.where([True, False, False, True, False]) == rows.take([0, 3])
    more = rows.slice(0, 0)
    more.extend(rows)
    more.append(*next(iter(rows)))
    assert list(more) == [*rows, next(iter(rows))]
    assert repr(more) == "<Rows 6>"
    assert rows != list(rows)


def test_rows_take_over_columns_and_give_out_tables() -> None:
    rows = carts(3)
    same = Rows.of_columns(
        key_group=rows.key_group,
        table=rows.table,
        id=rows.id,
        sub=rows.sub,
        typename=rows.typename,
        value=rows.value,
        expires_at_ms=rows.expires_at_ms,
    )
    assert same == rows
    assert same.id is rows.id
    mixed = Rows.of([*rows, (1, "~queue", "x", "1", "t", b"", None)])
    assert mixed.of_table("~queue") == mixed.slice(3, 4)
    assert mixed.of_table("none") == Rows()


def test_rows_are_selected_by_key_group() -> None:
    rows = carts(200)
    low, high = rows.select((0, 8)), rows.select((8, 16))
    assert set(low.key_group) == set(range(8))
    assert sorted([*low, *high]) == sorted(rows)


def test_state_table_joins_function_and_state() -> None:
    assert state_table("shop/cart", "total") == "shop/cart.total"


def part(**changes: Any) -> PartDescriptor:
    fields: dict[str, Any] = {
        "kind": "delta",
        "level": "small",
        "worker": 1,
        "snapshot": 2,
        "key_groups": (0, 8),
        "rows": 1,
        "bytes": 1,
        "xxh3_128": "",
        "path": "data/x",
    }
    return PartDescriptor(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": None}, "exactly one of"),
        ({"inline": ""}, "exactly one of"),
        ({"slot": 1, "index": 1}, "exactly one of"),
        ({"path": None, "slot": 1}, "exactly one of"),
        ({"index": 1}, "exactly one of"),
        ({"level": None}, "a delta part needs a level"),
        ({"kind": "base"}, "a base part has no level"),
        ({"key_groups": (8, 8)}, "not a range"),
        ({"key_groups": (-1, 8)}, "not a range"),
        ({"key_groups": (0, 65_537)}, "not a range"),
        ({"rows": 0}, "an empty part is never written"),
        ({"bytes": 0}, "an empty part is never written"),
    ],
)
def test_impossible_parts_cannot_be_described(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        part(**changes)


def test_parts_say_where_they_are() -> None:
    assert part().where == "data/x"
    assert part(path=None, slot=7, index=2).where == "part 2 inline in log slot 7"
    assert part(path=None, inline="QQ==").where == "inline delta part of worker 1 for snapshot 2"
