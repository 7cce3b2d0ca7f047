"""Rows as Arrow IPC files, format 1.

==============  ==========================  ===============================================
column          Arrow type                  why
==============  ==========================  ===============================================
key_group       uint16                      what a restoring worker selects by
table           dictionary<int32, string>   few different ones, long and repeated
id              string                      exact
sub             string                      empty in user state, costs offsets only
typename        dictionary<int32, string>   as table
value           binary, null = tombstone    the exact bytes; never decoded here
expires_at_ms   int64, null = never
==============  ==========================  ===============================================

Schema metadata: ``statefun-ray.format`` = "1", ``statefun-ray.kind``, and in a base
``statefun-ray.key_groups``: JSON ``[[key group, rows], ...]`` in file order. A base is sorted by
(key_group, table, id, sub), so a range of key groups is one slice; deltas keep the order they
were given. Record batches hold 65,536 rows. Buffers are compressed with lz4 where a part is
large enough to gain from it.

No pickle, no extension types: any Arrow implementation reads these files.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from statefun_checkpoints.errors import CorruptPart, UnsupportedFormat
from statefun_checkpoints.model import COLUMNS, FORMAT, KeyGroups, PartKind, Rows

FORMAT_KEY = b"statefun-ray.format"
KIND_KEY = b"statefun-ray.kind"
KEY_GROUPS_KEY = b"statefun-ray.key_groups"

SLICE_ROWS = 4_000  # turned into Arrow in one go with the GIL held: about 2 ms
BATCH_ROWS = 65_536
_SLICE_BYTES_MAX = 1 << 30  # an Arrow binary array ends at 2 GiB
_COMPRESS_BYTES_MIN = 16_384  # below it lz4 framing eats the gain

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        pa.field("key_group", pa.uint16(), nullable=False),
        pa.field("table", _DICTIONARY, nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("sub", pa.string(), nullable=False),
        pa.field("typename", _DICTIONARY, nullable=False),
        pa.field("value", pa.binary()),
        pa.field("expires_at_ms", pa.int64()),
    ]
)
_CODED = pa.schema([field if field.type != _DICTIONARY else field.with_type(pa.int32()) for field in _SCHEMA])
_TABLE, _TYPENAME = COLUMNS.index("table"), COLUMNS.index("typename")
_SCHEMAS = {
    kind: _SCHEMA.with_metadata({FORMAT_KEY: str(FORMAT), KIND_KEY: kind}) for kind in get_args(PartKind)
}
_SORT_KEYS = [(name, "ascending") for name in ("key_group", "table", "id", "sub")]
_PLAIN = pa.ipc.IpcWriteOptions()
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


def encode_part(rows: Rows, kind: PartKind) -> bytes:
    """Return the file of ``rows``, which must not be empty.

    Large parts are converted in slices too, so that other threads get their turn, but the caller
    waits; on an event loop use `encode_slices`.
    """
    steps = encode_slices([rows], kind)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        data: bytes = done.value
        return data


def encode_slices(chunks: Iterable[Rows], kind: PartKind) -> Generator[None, None, bytes]:
    """Encode ``chunks``, one file for all, a slice at a time; yields after each slice.

    A thread that drives it holds the GIL for a slice at a time; sorting, joining, compressing
    and writing run without it.

    Args:
        chunks: taken one by one, so they may be made on the way. A base's may come in any order.
        kind: decides whether the file is sorted and indexed.

    Returns:
        The file, as the generator's value.

    Raises:
        ValueError: there is no row at all.
    """
    tables: dict[str, int] = {}
    typenames: dict[str, int] = {}
    slices = []
    for chunk in chunks:
        for start, end in _slices(chunk):
            slices.append(_arrays(chunk, start, end, tables, typenames))
            yield
    if not slices:
        raise ValueError("an empty part is never written")
    if kind == "base":
        return _write_base(slices, tables, list(typenames))
    return _write(slices, list(tables), list(typenames), _SCHEMAS[kind])


def _slices(rows: Rows) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), SLICE_ROWS):
        end = min(start + SLICE_ROWS, len(rows))
        size = 0
        first = start
        for row, value in enumerate(rows.value[start:end], start):
            size += len(value) if value else 0
            if size > _SLICE_BYTES_MAX and row > first:
                yield first, row
                first, size = row, len(value or b"")
        yield first, end


def _arrays(rows: Rows, start: int, end: int, tables: dict[str, int], typenames: dict[str, int]) -> list[Any]:
    """Convert one slice; its dictionary columns as plain codes, since the dictionaries still grow."""
    return [
        pa.array(rows.key_group[start:end], pa.uint16()),
        _codes(rows.table[start:end], tables),
        pa.array(rows.id[start:end], pa.string()),
        pa.array(rows.sub[start:end], pa.string()),
        _codes(rows.typename[start:end], typenames),
        pa.array(rows.value[start:end], pa.binary()),
        _numbers(rows.expires_at_ms[start:end]),
    ]


def _numbers(numbers: list[int | None]) -> Any:
    if numbers.count(None) == len(numbers):
        return pa.nulls(len(numbers), pa.int64())
    return pa.array(numbers, pa.int64())


def _codes(words: list[str], dictionary: dict[str, int]) -> Any:
    if words.count(words[0]) == len(words):  # mostly, as a slice is of one table
        return pa.repeat(pa.scalar(dictionary.setdefault(words[0], len(dictionary)), pa.int32()), len(words))
    for word in dict.fromkeys(words):
        dictionary.setdefault(word, len(dictionary))
    return pa.array([dictionary[word] for word in words], pa.int32())


def _write_base(slices: list[list[Any]], tables: dict[str, int], typenames: list[str]) -> bytes:
    """Sort the rows and write them with their index.

    Arrow sorts codes, not words, so tables are renumbered in alphabetical order first.
    """
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(arrays, schema=_CODED) for arrays in slices])
    names = sorted(tables)
    rank = {name: position for position, name in enumerate(names)}
    ranks = pa.array([rank[name] for name in tables], pa.int32())
    table = table.set_column(_TABLE, _CODED.field("table"), pc.take(ranks, table.column(_TABLE)))
    table = table.sort_by(_SORT_KEYS).combine_chunks()
    schema = _SCHEMAS["base"].with_metadata(
        {**_SCHEMAS["base"].metadata, KEY_GROUPS_KEY: _key_group_index(table.column("key_group"))}
    )
    return _write([batch.columns for batch in table.to_batches()], names, typenames, schema)


def _key_group_index(key_groups: Any) -> bytes:
    counts = pc.value_counts(key_groups)  # in order of appearance, and they are sorted
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return json.dumps(list(pairs), separators=(",", ":")).encode()


def _write(slices: list[list[Any]], tables: list[str], typenames: list[str], schema: Any) -> bytes:
    words = {_TABLE: pa.array(tables, pa.string()), _TYPENAME: pa.array(typenames, pa.string())}
    batches = []
    for arrays in slices:
        columns = list(arrays)
        for index, dictionary in words.items():
            columns[index] = pa.DictionaryArray.from_arrays(columns[index], dictionary)
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    sink = pa.BufferOutputStream()
    options = _LZ4 if sum(batch.nbytes for batch in batches) >= _COMPRESS_BYTES_MIN else _PLAIN
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        if len(batches) == 1 and len(batches[0]) <= BATCH_ROWS:
            writer.write_batch(batches[0])  # a Table would take as long as all the rest
        else:
            writer.write_table(pa.Table.from_batches(batches).combine_chunks(), max_chunksize=BATCH_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_part(data: bytes, key_groups: KeyGroups | None = None, *, name: str = "part") -> Rows:
    """Return the rows of a file, in file order.

    Args:
        data: the whole file. Check its hash first: Arrow does not notice every flipped bit.
        key_groups: [first, end) to select; all by default.
        name: of the object, for errors.

    Raises:
        CorruptPart: it is not an Arrow file of our schema.
        UnsupportedFormat: a newer version wrote it.
    """
    try:
        return _rows(_select(decode_table(data, name=name), key_groups))
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise CorruptPart(name, f"not readable as Arrow: {error}") from error


def decode_table(data: bytes, *, name: str = "part") -> Any:
    """As `decode_part`, all rows as a `pyarrow.Table` in the file's schema."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        metadata = table.schema.metadata or {}
        found = metadata.get(FORMAT_KEY, b"none").decode()
        if found.isdecimal() and int(found) > FORMAT:
            raise UnsupportedFormat(name, found, str(FORMAT))
        if found != str(FORMAT) or not table.schema.equals(_SCHEMA):
            raise CorruptPart(
                name,
                f"format {found} with columns {_described(table.schema)}, expected {_described(_SCHEMA)}",
            )
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptPart(name, f"not readable as Arrow: {error}") from error
    return table


def _described(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _select(table: Any, key_groups: KeyGroups | None) -> Any:
    if key_groups is None:
        return table
    first, end = key_groups
    index = (table.schema.metadata or {}).get(KEY_GROUPS_KEY)
    if index is None:
        column = table.column("key_group")
        return table.filter(
            pc.and_(
                pc.greater_equal(column, pa.scalar(first, pa.uint32())),
                pc.less(column, pa.scalar(end, pa.uint32())),
            )
        )
    counts = json.loads(index)
    start = sum(rows for group, rows in counts if group < first)
    return table.slice(start, sum(rows for group, rows in counts if first <= group < end))


def _rows(table: Any) -> Rows:
    rows = Rows()
    for name in COLUMNS:
        setattr(rows, name, _values(table.column(name)))
    return rows


def _values(column: Any) -> list[Any]:
    if column.type == _DICTIONARY:
        return _dictionary_values(column)
    if column.null_count == len(column):
        return [None] * len(column)
    # User state has an empty `sub` in every row; making a million empty strings one by one shows.
    if column.type == pa.string() and not pc.max(pc.binary_length(column)).as_py():
        return [""] * len(column)
    values: list[Any] = column.to_pylist()
    return values


def _dictionary_values(column: Any) -> list[str]:
    values: list[str] = []
    for chunk in column.chunks:
        # Lookups share one str per word; decoding each row would make a million copies.
        words = chunk.dictionary.to_pylist()
        values.extend(map(words.__getitem__, chunk.indices.to_pylist()))
    return values
