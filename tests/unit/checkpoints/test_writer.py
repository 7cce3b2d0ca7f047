"""Inline or file, described truthfully, in the store before anyone hears of it."""

from __future__ import annotations

import base64

import pytest
import xxhash

from statefun_checkpoints import writer
from statefun_checkpoints.arrow_format import decode_part, encode_part
from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.model import Rows
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import run_store
from tests.unit.checkpoints.building import LOST, UNANSWERED, carts, run_with_faults


def encoded(rows: Rows, inline_bytes_max: int = 65_536) -> writer.EncodedPart:
    part = writer.encode(
        rows,
        kind="delta",
        level="small",
        generation=7,
        snapshot=42,
        worker=3,
        key_groups=(0, 16),
        inline_bytes_max=inline_bytes_max,
    )
    assert part is not None
    return part


def test_nothing_is_written_for_no_rows() -> None:
    assert writer.encode(Rows(), kind="base", generation=1, snapshot=1, worker=0, key_groups=(0, 16)) is None


def test_a_small_part_is_inline() -> None:
    store = MemoryStore()
    descriptor = run_store(store, writer.write(encoded(carts(10))))
    assert store.objects == {}
    assert descriptor.inline is not None
    data = base64.b64decode(descriptor.inline)
    assert decode_part(data) == carts(10)
    assert (descriptor.rows, descriptor.bytes, descriptor.level) == (10, len(data), "small")
    assert descriptor.xxh3_128 == xxhash.xxh3_128_hexdigest(data)


def test_a_large_part_is_a_file() -> None:
    store = MemoryStore()
    descriptor = run_store(store, writer.write(encoded(carts(5_000))))
    assert descriptor.path == "data/g0000007/n0000000042/w003.delta.arrow"
    assert descriptor.inline is None
    assert decode_part(store.objects[descriptor.path]) == carts(5_000)


def test_the_limit_itself_is_inline() -> None:
    size = len(encode_part(carts(10), "delta"))
    assert encoded(carts(10), inline_bytes_max=size).file is None
    assert encoded(carts(10), inline_bytes_max=size - 1).file is not None


@pytest.mark.parametrize("fault", [LOST, UNANSWERED])
def test_an_unanswered_put_is_repeated(fault: str) -> None:
    store = MemoryStore()
    part = encoded(carts(10), 0)
    descriptor = run_with_faults(store, writer.write(part), {0: fault, 1: fault})
    assert store.objects == {descriptor.path: part.file}


def test_a_part_that_cannot_be_stored_is_never_described() -> None:
    with pytest.raises(StoreUnavailable):
        run_with_faults(MemoryStore(), writer.write(encoded(carts(10), 0)), dict.fromkeys(range(9), LOST))
