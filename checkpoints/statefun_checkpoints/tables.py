"""Reading a snapshot as tables. Needs no running cluster and changes nothing.

Each function type is one table with a column ``id`` and one per state in alphabetical order, a row per address that
has any. A state is null where it was never set, was deleted, or had expired when the snapshot
was taken: the table shows that moment and does not change as time goes by.

==========================================  =======================
typename                                    column
==========================================  =======================
io.statefun.types/bool                      bool
io.statefun.types/int, /long                int32, int64
io.statefun.types/float, /double            float32, float64
io.statefun.types/string                    string
declared as JSON, statefun-ray.types/json   string, the JSON text
anything else                               binary, the exact bytes
==========================================  =======================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from statefun_checkpoints import values
from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.errors import MissingExtra, NoApplication, NoTable
from statefun_checkpoints.model import DEAD, KEYED_RESERVED, TRANSIENT_TABLES, Entry, StateSpec, state_table
from statefun_checkpoints.reader import Loaded, load
from statefun_checkpoints.resolve import find_snapshot
from statefun_checkpoints.store import ObjectStore, open_store, run_store

if TYPE_CHECKING:
    import duckdb


def open_checkpoint(uri: str, snapshot: int | None = None) -> Checkpoint:
    """Open a snapshot for reading.

    Args:
        uri: the application's storage: ``file:///dir``, a path, or ``s3://bucket/prefix``.
        snapshot: id; the newest by default.

    Raises:
        NoApplication: nothing is stored there.
        NoSnapshot: no snapshot has been committed, or not this one.
        StoreError: the storage cannot be read.
    """
    store = open_store(uri)
    log = LogReader()
    try:
        run_store(store, log.open())
    except NoApplication:
        raise NoApplication(store.uri) from None
    return Checkpoint(store, run_store(store, find_snapshot(log, snapshot)))


DEAD_LETTERS: Final = "io.statefun-ray/dead-letters"
_NO_CALLER: Final = ("", "io.statefun-ray/no-address")
"""The second of a letter that never was a message: a record of a source that could be none."""
"""Table of the messages that nobody could process."""


class Checkpoint:
    """A snapshot as tables. Rows are read, and verified, on first use.

    Attributes:
        entry: the commit-log entry.
    """

    def __init__(self, store: ObjectStore, entry: Entry) -> None:
        self._store = store
        self.entry = entry
        self._loaded: Loaded | None = None

    @property
    def snapshot_id(self) -> int:
        """Number of the snapshot."""
        return self.entry.snapshot_id

    def tables(self) -> list[str]:
        """Return the function types, ``namespace/type``, sorted."""
        return sorted(self.entry.functions)

    def table(self, name: str) -> Any:
        """Return one function type as a `pyarrow.Table`, in no particular order.

        ``.to_pandas()``, ``polars.from_arrow`` and DuckDB take it from there. Reserved tables
        (``~queue``, ``~timers``, ``~failures``, ``~inflight``, ``~outbox``) are shown as stored.

        ``io.statefun-ray/dead-letters`` has the messages that nobody could process.

        Raises:
            NoTable: the snapshot knows no such function type.
            CorruptValue: a stored value is not of its declared type.
            MissingPart, CorruptPart: the snapshot is damaged.
        """
        if name == DEAD_LETTERS:
            return self._dead_letters()
        if name in (*KEYED_RESERVED, *TRANSIENT_TABLES):
            return self._reserved(name)
        function = self.entry.functions.get(name)
        if function is None:
            raise NoTable(name, tuple(self.tables()))
        ids: dict[str, int] = {}
        found = {
            state: self._state(state_table(name, state), ids, spec)
            for state, spec in sorted(function.states.items())
        }
        columns = {"id": pa.array(list(ids), pa.string())}
        for state, (positions, array) in found.items():
            columns[state] = _spread(positions, array, len(ids))
        return pa.table(columns)

    def sql(self, query: str) -> Any:
        """Run a query and return its result as a `pyarrow.Table`.

        Each function type is a table of its name, to be quoted: ``SELECT * FROM "shop/cart"``.

        Raises:
            MissingExtra: DuckDB is not installed.
            duckdb.Error: the query is wrong.
        """
        connection = _duckdb()
        try:
            for name in (*self.tables(), DEAD_LETTERS, *KEYED_RESERVED, *TRANSIENT_TABLES):
                if name in query:  # the others are not worth decoding
                    connection.register(name, self.table(name))
            # None for an empty query and for statements without rows, which DuckDB's types do not say.
            result: Any = connection.sql(query)
            return pa.table({}) if result is None else result.to_arrow_table()
        finally:
            connection.close()

    def _load(self) -> Loaded:
        if self._loaded is None:
            self._loaded = run_store(self._store, load(self.entry))
        return self._loaded

    def _state(self, table: str, ids: dict[str, int], spec: StateSpec) -> tuple[list[int], Any]:
        """Return where in ``ids``, which grows, each live value of a state belongs, and the values."""
        rows = self._load().state
        now_ms = self.entry.created_at_ms
        live = [
            index
            for index, (name, expires_at_ms) in enumerate(zip(rows.table, rows.expires_at_ms, strict=True))
            if name == table and (expires_at_ms is None or expires_at_ms > now_ms)
        ]
        names = [rows.id[index] for index in live]
        positions = [ids.setdefault(name, len(ids)) for name in names]
        return positions, values.decode([rows.value[index] for index in live], spec, table=table, ids=names)

    def _dead_letters(self) -> Any:
        rows = self._load().state.of_table(DEAD)
        letters = [msgspec.msgpack.decode(value) for value in rows.value if value is not None]
        messages = [letter[0] for letter in letters]
        callers = [None if message[2] in _NO_CALLER else f"{message[2]}/{message[3]}" for message in messages]
        return pa.table(
            {
                "id": pa.array(rows.id, pa.string()),
                "letter": pa.array(rows.sub, pa.string()),
                "function": pa.array([message[0] for message in messages], pa.string()),
                "caller": pa.array(callers, pa.string()),
                "type": pa.array([message[4] for message in messages], pa.string()),
                "value": pa.array([message[5] for message in messages], pa.binary()),
                "attempts": pa.array([letter[1] for letter in letters], pa.int64()),
                "error": pa.array([letter[2] for letter in letters], pa.string()),
                "first_failed_ms": pa.array([letter[3] for letter in letters], pa.int64()),
                "last_failed_ms": pa.array([letter[4] for letter in letters], pa.int64()),
            }
        )

    def _reserved(self, name: str) -> Any:
        loaded = self._load()
        rows = (loaded.transient if name in TRANSIENT_TABLES else loaded.state).of_table(name)
        return pa.table(
            {
                "key_group": pa.array(rows.key_group, pa.uint16()),
                "id": pa.array(rows.id, pa.string()),
                "sub": pa.array(rows.sub, pa.string()),
                "typename": pa.array(rows.typename, pa.string()),
                "value": pa.array(rows.value, pa.binary()),
                "expires_at_ms": pa.array(rows.expires_at_ms, pa.int64()),
            }
        )


def _spread(positions: list[int], array: Any, length: int) -> Any:
    """Return ``length`` values, ``array`` at ``positions`` and null elsewhere."""
    if positions == list(range(length)):
        return array
    source: list[int | None] = [None] * length
    for index, position in enumerate(positions):
        source[position] = index
    return array.take(pa.array(source, pa.int64()))


def _duckdb() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "sql") from None
    return duckdb.connect()
