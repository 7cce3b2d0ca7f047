"""The file sink: egress rows as NDJSON objects, each written exactly once.

One object per shard and run of rows, created if absent under a name that contains the sequence
numbers::

    <sink>/<namespace>/<name>/<shard>/<first sequence>-<last sequence>.ndjson

A shard and epoch always hold the same rows, so an object that is there already *is* the
publication, and publishing again after a crash changes nothing. No order between shards; within a
shard names sort in order. Sequence numbers count all egress rows of a shard, so those of one
egress increase, with gaps where another egress was written to.

A line is ``{"seq": …, "type": typename, "value": …}``: the value of a built-in type or of a JSON
type as JSON, any other as ``"base64"`` instead of ``"value"``, and neither for an empty message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from statefun_checkpoints.store import ObjectStore, open_store
from statefun_ray.core.outbox import EgressRow
from statefun_sdk import codecs
from statefun_sdk.types import JSON_TYPENAME, json_typenames

_BUILT_IN: Final[dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    codecs.BOOL: (codecs.encode_bool, codecs.decode_bool),
    codecs.INT: (codecs.encode_int, codecs.decode_int),
    codecs.LONG: (codecs.encode_long, codecs.decode_long),
    codecs.FLOAT: (codecs.encode_float, codecs.decode_float),
    codecs.DOUBLE: (codecs.encode_double, codecs.decode_double),
    codecs.STRING: (codecs.encode_string, codecs.decode_string),
}

_OBJECT_NAME = re.compile(r"(\d{3,})/(\d{19})-(\d{19})\.ndjson")

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


class _Line(msgspec.Struct, omit_defaults=True):
    seq: int
    type: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET


_line_decoder = msgspec.json.Decoder(_Line)


class EgressConflict(Exception):
    """The place of some egress rows is taken by something else: publishing stops.

    Args:
        uri: of the sink.
        name: of the object.
    """

    def __init__(self, uri: str, name: str) -> None:
        super().__init__(uri, name)
        self.uri, self.name = uri, name

    def __str__(self) -> str:
        return (
            f"{self.name} in {self.uri} exists with other rows than those to publish; is the sink shared with "
            "another application, or older than this application's storage? Give each application its own sink"
        )


class EgressUnreadable(Exception):
    """What lies in a sink is not what the file sink writes."""

    def __init__(self, uri: str, name: str, problem: str) -> None:
        super().__init__(uri, name, problem)
        self.uri, self.name, self.problem = uri, name, problem

    def __str__(self) -> str:
        return f"{self.name} in {self.uri}: {self.problem}"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One egress message, as read back from a sink.

    Attributes:
        shard: egress shard of the sending function's id.
        seq: number of the row in its shard.
        typename: of the value.
        value: its exact bytes for built-in and binary types, the JSON text for JSON types; None
            for a message without a value.
        data: the value as Python sees it: a number, a string, parsed JSON, or the bytes.
    """

    shard: int
    seq: int
    typename: str
    value: bytes | None
    data: Any


class FileSink:
    """Writes the rows of one egress under a prefix of a store. Blocking; safe to use from threads."""

    def __init__(self, store: ObjectStore, egress: str, prefix: str = "") -> None:
        self._store = store
        self._folder = _folder(egress, prefix)

    joins_shards = False
    """Each shard has objects of its own, so a slow store is asked for several at once."""

    def publish(self, batch: Sequence[tuple[int, list[EgressRow]]]) -> None:
        """Make rows of this egress exist exactly once, those of each list as one object.

        Raises:
            StoreError: the store gave no answer, or said no; publishing again is safe.
            EgressConflict: the object exists with other content.
        """
        for shard, rows in batch:
            name = f"{self._folder}{shard:03d}/{rows[0][0]:019d}-{rows[-1][0]:019d}.ndjson"
            data = b"".join(_line(row) for row in rows)
            if not self._store.create(name, data) and self._store.get(name) != data:
                raise EgressConflict(self._store.uri, name)

    def open(self) -> None:
        """Nobody has to be kept from writing an object that can exist only once."""

    def flush(self, timeout_s: float) -> None:
        """What is published is there."""

    def close(self) -> None:
        """Nothing to let go of: the store is shared."""


def read_egress(uri: str | ObjectStore, egress: str, prefix: str = "") -> list[PublishedRow]:
    """Return everything published to an egress, by shard and in order within each.

    Args:
        uri: of the sink; the default sink of an application is ``<storage>/egress``.
        egress: typename of the egress, ``namespace/name``.
        prefix: of the sink within a store that is given open.

    Raises:
        EgressUnreadable: an object is not one of ours, or rows repeat: a bug or a shared sink.
    """
    store = open_store(uri) if isinstance(uri, str) else uri
    folder = _folder(egress, prefix)
    published: list[PublishedRow] = []
    last = (-1, -1)
    for name in store.list(folder):
        match = _OBJECT_NAME.fullmatch(name.removeprefix(folder))
        data = store.get(name)
        if match is None or data is None:
            raise EgressUnreadable(store.uri, name, "not an object of the file sink")
        shard = int(match[1])
        for row in _rows(store.uri, name, shard, data):
            if (shard, row.seq) <= last:
                raise EgressUnreadable(
                    store.uri, name, f"row {row.seq} of shard {shard} was published before"
                )
            last = shard, row.seq
            published.append(row)
    return published


def _rows(uri: str, name: str, shard: int, data: bytes) -> Iterator[PublishedRow]:
    for line in data.splitlines():
        try:
            row = _line_decoder.decode(line)
            value, value_data = _value(row)
        except (msgspec.DecodeError, ValueError) as error:
            raise EgressUnreadable(uri, name, f"a line is not an egress row: {error}") from error
        yield PublishedRow(shard, row.seq, row.type, value, value_data)


def _value(row: _Line) -> tuple[bytes | None, Any]:
    if row.base64 is not msgspec.UNSET:
        return row.base64, row.base64
    if row.value is msgspec.UNSET:
        return None, None
    text = bytes(row.value)
    data = _decode_json(text)
    if row.type in _BUILT_IN:
        encode, _ = _BUILT_IN[row.type]
        return encode(data), data
    return text, data


def _line(row: EgressRow) -> bytes:
    sequence, _, typename, value = row
    line = _Line(sequence, typename)
    if value is not None:
        text = _as_json(typename, value)
        if text is None:
            line.base64 = value
        else:
            line.value = msgspec.Raw(text)
    return _encode_json(line) + b"\n"


def _as_json(typename: str, value: bytes) -> bytes | None:
    """Return ``value`` as one line of JSON, or None where it has no such form."""
    try:
        if typename in _BUILT_IN:
            encode, decode = _BUILT_IN[typename]
            data = decode(value)
            if encode(data) != value or (isinstance(data, float) and not math.isfinite(data)):
                return None  # JSON would not give these bytes back
            return _encode_json(data)
        if typename == JSON_TYPENAME or typename in json_typenames():
            _decode_json(value)
            # Line breaks stand between tokens only; inside a JSON string they are escaped.
            return value.replace(b"\r", b" ").replace(b"\n", b" ")
    except (msgspec.DecodeError, ValueError):
        pass  # bytes that are not what their type says are kept as they are
    return None


def _folder(egress: str, prefix: str) -> str:
    namespace, _, name = egress.partition("/")
    return f"{prefix}/{_safe(namespace)}/{_safe(name)}/".removeprefix("/")


def _safe(text: str) -> str:
    """Return ``text`` as one segment of an object name: odd characters as ``~`` and two hex digits.

    No text at all, as an empty namespace is, becomes a ``~`` alone.
    """
    if not text:
        return "~"
    safe = re.sub(rb"[^A-Za-z0-9_.=+@-]", lambda match: b"~%02x" % match[0][0], text.encode()).decode()
    first, rest = safe[:1], safe[1:]
    return f"~{ord(first):02x}{rest}" if first and first in ".=+@-" else safe
