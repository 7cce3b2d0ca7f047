"""Storage written by the first version stays readable, to the byte where bytes are promised."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from statefun_checkpoints import entry_format, layout
from statefun_checkpoints.commit_log import CommitLog, LogReader
from statefun_checkpoints.model import Entry, Job, Position
from statefun_checkpoints.reader import load
from statefun_checkpoints.resolve import find_snapshot
from statefun_checkpoints.store import LocalStore
from statefun_checkpoints.store_requests import run_store
from statefun_checkpoints.tables import open_checkpoint
from statefun_checkpoints.verify import verify

GOLDEN = Path(__file__).parent / "checkpoint-1"
NOW_MS = 1_767_225_600_000


@pytest.fixture
def store() -> LocalStore:
    return LocalStore(GOLDEN)


def newest(store: LocalStore) -> Entry:
    log = LogReader()
    run_store(store, log.open())
    return run_store(store, find_snapshot(log))


def test_names_of_objects(store: LocalStore) -> None:
    assert store.list("") == [
        "data/g0000001/n0000000001/w000.base.arrow",
        "data/g0000001/n0000000001/w001.base.arrow",
        "data/g0000001/n0000000003/w000.transient.arrow",
        "job.json",
        "log/0000000000/0000000000000000000.json",
        "log/0000000000/0000000000000000001.json",
        "log/0000000000/0000000000000000002.json",
    ]


def test_job(store: LocalStore) -> None:
    data = store.get(layout.JOB)
    assert data is not None
    job = entry_format.decode_job(data, layout.JOB)
    assert job == Job(name="golden", key_group_count=64, egress_shards=8, key_hash="xxh3_64")
    assert entry_format.encode(job) == data


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_entries_are_encoded_as_then(store: LocalStore, slot: int) -> None:
    path = layout.slot_path(slot)
    data = store.get(path)
    assert data is not None
    assert entry_format.encode(entry_format.decode_entry(data, path)) == data


def test_entry_fields(store: LocalStore) -> None:
    entry = newest(store)
    assert (entry.kind, entry.slot, entry.generation, entry.nonce) == ("stop", 2, 1, "golden-3")
    assert (entry.snapshot_id, entry.parent, entry.rhythm) == (3, 1, "final")
    assert entry.positions == (Position("http-0", 0, 32, 44), Position("http-0", 32, 64, 45))
    assert (entry.out_seq, entry.in_flight, entry.timer_next) == ({"0": 1, "7": 0}, 2, 10)
    assert [(part.kind, part.level, part.slot, part.index) for part in entry.parts] == [
        ("base", None, None, None),
        ("base", None, None, None),
        ("delta", "periodic", 1, 2),
        ("delta", "small", None, None),
        ("transient", None, None, None),
    ]
    note = entry.functions["shop/cart"].states["note"]
    assert (note.type, note.expire, note.expire_ms, note.json) == (
        "io.statefun.types/string",
        "after_write",
        60_000,
        False,
    )


def test_every_row(store: LocalStore) -> None:
    loaded = run_store(store, load(newest(store)))
    state = {(t, i, s): (v, e) for _, t, i, s, _, v, e in loaded.state}
    counts = {f"cart-{n}": n for n in range(40) if n != 7} | {"cart-2": 99}
    assert state == {
        **{
            ("shop/cart.count", id, ""): (b"\x09" + n.to_bytes(8, "little") if n else b"", None)
            for id, n in counts.items()
        },
        ("shop/cart.note", "Grüße", ""): ("\n\x05süß".encode(), NOW_MS + 60_000),
        ("shop/cart.raw", "cart-1", ""): (b"\x00\xff", None),
        ("~queue", "cart-3", "000001"): (b"queued", None),
        ("~timers", "cart-4", "000009"): (b"later", NOW_MS + 5_000),
    }
    assert list(loaded.transient) == [
        (7, "~inflight", "cart-5", "000002", "shop/add", b"moving", None),
        (7, "~outbox", "cart-5", "000000", "shop/out", b"row", None),
    ]


def test_half_of_it(store: LocalStore) -> None:
    loaded = run_store(store, load(newest(store), (32, 64)))
    assert 10 < len(loaded.state) < 30
    assert all(32 <= group < 64 for group in loaded.state.key_group)


def test_it_is_sound(store: LocalStore) -> None:
    assert run_store(store, verify()).findings == ()


def test_tables() -> None:
    table = open_checkpoint(str(GOLDEN)).table("shop/cart")
    rows = {row["id"]: row for row in table.to_pylist()}
    assert len(rows) == 40
    assert rows["cart-1"] == {"id": "cart-1", "count": 1, "note": None, "raw": b"\x00\xff"}
    assert rows["Grüße"] == {"id": "Grüße", "count": None, "note": "süß", "raw": None}


def test_an_application_goes_on_from_it(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "copy")
    store = LocalStore(tmp_path / "copy")
    log = CommitLog(Job(name="golden", key_group_count=64, egress_shards=8))
    run_store(store, log.open())
    claim = run_store(store, log.claim("next", NOW_MS))
    assert (claim.slot, claim.generation) == (3, 2)
    found = run_store(store, log.latest_snapshot())
    assert found is not None
    assert found.snapshot_id == 3
