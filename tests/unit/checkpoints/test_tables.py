"""A snapshot as typed tables and under SQL, with no cluster running."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from statefun_checkpoints.errors import MissingExtra, NoApplication, NoSnapshot, NoTable
from statefun_checkpoints.model import FunctionSpec, Rows, StateSpec, key_group_of
from statefun_checkpoints.store import open_store
from statefun_checkpoints.tables import Checkpoint, open_checkpoint
from tests.unit.checkpoints.building import GROUPS, INT, App, int_value

STRING = "io.statefun.types/string"
FUNCTIONS = {
    "shop/cart": FunctionSpec(
        {
            "total": StateSpec(type=INT),
            "note": StateSpec(type=STRING, expire="after_write", expire_ms=1_000),
            "blob": StateSpec(type="my/proto"),
            "json": StateSpec(type="my/json", json=True),
        }
    ),
    "shop/empty": FunctionSpec({"x": StateSpec(type=INT)}),
    "shop.v2/cart.x": FunctionSpec({"a.b": StateSpec(type="io.statefun.types/bool")}),
}
NOW_MS = 1_700_000_000_000


def state(table: str, id: str, value: bytes | None, expires_at_ms: int | None = None) -> Any:
    return (key_group_of(id, GROUPS), table, id, "", "", value, expires_at_ms)


ROWS = Rows.of(
    [
        state("shop/cart.total", "a", int_value(5)),
        state("shop/cart.total", "b", b""),
        state("shop/cart.note", "b", b"\x0a\x02hi", NOW_MS + 1),
        state("shop/cart.note", "a", b"\x0a\x03old", NOW_MS),
        state("shop/cart.note", "gone", b"\x0a\x03old", NOW_MS - 1),
        state("shop/cart.blob", "c", b"\xff"),
        state("shop/cart.json", "c", b"{}"),
        state("shop.v2/cart.x.a.b", "z", b"\x08\x01"),
        (1, "~timers", "a", "t1", "shop/x", b"m", 7),
    ]
)


def filled(uri: str) -> str:
    app = App(open_store(uri))
    app.snapshot(1, [app.part(ROWS.slice(0, 1), 1)], functions=FUNCTIONS, created_at_ms=NOW_MS)
    queued = Rows.of([(1, "~outbox", "e", "1", "t", b"row", None)])
    app.snapshot(
        2,
        [app.part(ROWS, 2, "base"), app.part(queued, 2, "transient")],
        functions=FUNCTIONS,
        created_at_ms=NOW_MS,
    )
    return uri


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return filled(str(tmp_path))


def test_every_store_can_be_read(store_uri: str) -> None:
    assert by_id(open_checkpoint(filled(store_uri)).table("shop.v2/cart.x")) == {"z": {"a.b": True}}


@pytest.fixture
def checkpoint(uri: str) -> Checkpoint:
    return open_checkpoint(uri)


def by_id(table: Any) -> dict[str, dict[str, Any]]:
    return {row.pop("id"): row for row in table.to_pylist()}


def test_each_function_type_is_a_table(checkpoint: Checkpoint) -> None:
    assert checkpoint.snapshot_id == 2
    assert checkpoint.tables() == ["shop.v2/cart.x", "shop/cart", "shop/empty"]


def test_states_are_typed_columns_and_null_where_absent_or_expired(checkpoint: Checkpoint) -> None:
    table = checkpoint.table("shop/cart")
    assert table.schema == pa.schema(
        [
            ("id", pa.string()),
            ("blob", pa.binary()),
            ("json", pa.string()),
            ("note", pa.string()),
            ("total", pa.int32()),
        ]
    )
    assert by_id(table) == {
        "a": {"total": 5, "note": None, "blob": None, "json": None},
        "b": {"total": 0, "note": "hi", "blob": None, "json": None},
        "c": {"total": None, "note": None, "blob": b"\xff", "json": "{}"},
    }


def test_names_with_dots_are_not_mixed_up(checkpoint: Checkpoint) -> None:
    assert by_id(checkpoint.table("shop.v2/cart.x")) == {"z": {"a.b": True}}


def test_a_table_without_rows_has_its_columns(checkpoint: Checkpoint) -> None:
    table = checkpoint.table("shop/empty")
    assert (table.num_rows, table.schema.names) == (0, ["id", "x"])
    assert table.schema.field("x").type == pa.int32()


def test_older_snapshots_can_be_read(uri: str) -> None:
    assert by_id(open_checkpoint(uri, snapshot=1).table("shop/cart")) == {
        "a": {"total": 5, "note": None, "blob": None, "json": None}
    }
    with pytest.raises(NoSnapshot, match="no snapshot 3; the nearest: 2"):
        open_checkpoint(uri, snapshot=3)


def test_reserved_tables_are_shown_as_stored(checkpoint: Checkpoint) -> None:
    assert checkpoint.table("~timers").to_pylist() == [
        {"key_group": 1, "id": "a", "sub": "t1", "typename": "shop/x", "value": b"m", "expires_at_ms": 7}
    ]
    assert checkpoint.table("~outbox").column("value").to_pylist() == [b"row"]
    assert checkpoint.table("~queue").num_rows == 0


def test_an_unknown_table_names_the_known_ones(checkpoint: Checkpoint) -> None:
    with pytest.raises(NoTable, match=r"no table 'shop/x'.*shop/cart, shop/empty"):
        checkpoint.table("shop/x")


def test_sql_runs_over_the_tables(checkpoint: Checkpoint) -> None:
    pytest.importorskip("duckdb")
    result = checkpoint.sql('SELECT id, total FROM "shop/cart" WHERE total IS NOT NULL ORDER BY id')
    assert result.to_pydict() == {"id": ["a", "b"], "total": [5, 0]}
    assert checkpoint.sql('SELECT count(*) AS n FROM "~timers"').to_pylist() == [{"n": 1}]


def test_sql_without_a_result_is_a_table_without_columns(checkpoint: Checkpoint) -> None:
    assert checkpoint.sql("").num_columns == 0
    assert checkpoint.sql("CREATE TABLE mine (a INT)").num_rows == 0


def test_wrong_sql_says_what_is_wrong(checkpoint: Checkpoint) -> None:
    duckdb = pytest.importorskip("duckdb")
    with pytest.raises(duckdb.Error, match="shop/nothing"):
        checkpoint.sql('SELECT * FROM "shop/nothing"')


def test_without_duckdb_the_extra_is_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_duckdb(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_duckdb)
    with pytest.raises(MissingExtra, match=r"statefun-ray\[sql\]"):
        checkpoint.sql("SELECT 1")


def test_nothing_stored_is_said_with_the_place(store_uri: str) -> None:
    with pytest.raises(NoApplication, match=r"no application is stored at \w+://"):
        open_checkpoint(store_uri)
