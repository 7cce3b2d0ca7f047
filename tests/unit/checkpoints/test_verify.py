"""Sound storage is called sound; each kind of damage is one line that names object and numbers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from statefun_checkpoints import entry_format, layout
from statefun_checkpoints.errors import NoApplication, StoreUnavailable
from statefun_checkpoints.model import Entry, Rows
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import ObjectStore, run_store
from statefun_checkpoints.verify import Report, verify
from tests.unit.checkpoints.building import GROUPS, LOST, App, carts, row, run_with_faults

COUNTERS = {
    "admitted": 10,
    "emitted": 7,
    "timers_fired": 2,
    "applied": 15,
    "timers_set": 4,
    "timers_cancelled": 1,
    "egress_rows": 9,
    "replies": 3,
}


def reserved(table: str, *subs: str) -> list[Any]:
    return [(1, table, "a", sub, "t", b"m", None) for sub in subs]


def grown(store: ObjectStore, snapshots: int = 4, **fields: Any) -> App:
    app = App(store)
    for number in range(1, snapshots + 1):
        keyed = Rows.of([*carts(20), *reserved("~queue", "1", "2"), *reserved("~timers", "1")])
        parts = [
            app.part(keyed, number, "base"),
            app.part(carts(2), number, inline_bytes_max=65_536),
            app.part(Rows.of(reserved("~inflight", "1", "2")), number, "transient"),
        ]
        app.snapshot(
            number,
            parts,
            **{"counters": COUNTERS, "in_flight": 4, "out_seq": {"0": 4, "3": 5}, **fields},
        )
    return app


def check(store: ObjectStore, kept: int = 3) -> Report:
    return run_store(store, verify(kept))


def findings(store: ObjectStore) -> list[str]:
    report = check(store)
    assert report.is_sound == (not report.findings)
    return report.lines()[1:]


def replace_entry(store: MemoryStore, at: int, **changes: Any) -> None:
    path = layout.slot_path(at)
    entry = msgspec.structs.replace(entry_format.decode_entry(store.objects[path], path), **changes)
    store.objects[path] = entry_format.encode(entry)


def test_sound_storage_is_sound(store: ObjectStore) -> None:
    grown(store)
    report = check(store)
    (line,) = report.lines()
    size = f"{report.rows} rows, {report.bytes} bytes"
    assert line == f"shop: 3 snapshots, 3 log slots, 9 parts, {size}, 0 dead letters in snapshot 4: sound"
    assert report.snapshots == (4, 3, 2)
    assert report.rows == 3 * (23 + 2 + 2)


def test_an_application_without_snapshots_is_sound() -> None:
    store = MemoryStore()
    App(store)
    assert check(store).lines() == ["shop: 0 snapshots, 1 log slots, 0 parts, 0 rows, 0 bytes: sound"]


def test_nothing_stored_is_an_error() -> None:
    with pytest.raises(NoApplication):
        check(MemoryStore())


def test_a_silent_store_is_an_error_and_not_a_finding() -> None:
    app = grown(MemoryStore())
    with pytest.raises(StoreUnavailable):
        run_with_faults(app.store, verify(), dict.fromkeys(range(8, 20), LOST))


def test_parts_shared_by_snapshots_are_counted_once() -> None:
    app = App(MemoryStore())
    part = app.part(carts(5), 1, "base")
    for number in (1, 2):
        app.snapshot(number, [part])
    assert check(app.store).parts == 1


# --- parts -------------------------------------------------------------------------------


def test_a_missing_part_is_found() -> None:
    store = MemoryStore()
    grown(store)
    path = layout.part_path(1, 3, 0, "base")
    store.delete(path)
    assert findings(store) == [f"{path}: is missing; snapshot 3 (log slot 3) refers to it"]


def test_a_damaged_part_is_found() -> None:
    store = MemoryStore()
    grown(store)
    path = layout.part_path(1, 4, 0, "transient")
    store.objects[path] = store.objects[path][:-1] + b"?"
    (finding,) = findings(store)
    assert finding.startswith(f"{path}: its xxh3_128 is ")


def test_rows_that_do_not_belong_are_found() -> None:
    store = MemoryStore()
    app = App(store)
    strangers = Rows.of([row("cart-0", b""), (15, "~inflight", "a", "", "t", b"m", None)])
    part = app.part(strangers, 1, key_groups=(0, 15))
    app.snapshot(1, [msgspec.structs.replace(part, rows=3)], in_flight=1, counters={"admitted": 1})
    assert findings(store) == [
        f"{part.path}: it holds 2 rows, its entry says 3",
        f"{part.path}: 1 rows are outside key groups [0, 15): ~inflight 'a' (key group 15)",
        f"{part.path}: a delta part holds rows of ~inflight",
    ]


# --- the chain ---------------------------------------------------------------------------


def test_a_missing_and_a_corrupt_slot_are_found() -> None:
    store = MemoryStore()
    grown(store, 5)
    del store.objects[layout.slot_path(4)]
    store.objects[layout.slot_path(3)] += b" "
    report = check(store)
    assert report.snapshots == (5, 2, 1)
    assert [finding.name for finding in report.findings] == [layout.slot_path(4), layout.slot_path(3)]
    assert "is missing" in report.findings[0].text
    assert "sha256" in report.findings[1].text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"slot": 9}, "it says that it is slot 9"),
        ({"generation": 0}, "generation 0 after generation 1 in slot 3"),
        ({"snapshot_id": 3}, "snapshot 3 after snapshot 3 in slot 3"),
        ({"parent": None}, "it has no parent, but snapshot 3 is in slot 3"),
        ({"key_group_count": GROUPS * 2}, f"{GROUPS * 2} key groups, job.json says {GROUPS}"),
    ],
)
def test_a_broken_link_is_found(changes: dict[str, Any], text: str) -> None:
    store = MemoryStore()
    grown(store)
    replace_entry(store, 4, **changes)
    assert f"{layout.slot_path(4)}: {text}" in findings(store)


def test_a_parent_that_is_no_snapshot_is_found() -> None:
    store = MemoryStore()
    grown(store, 3)
    app = App(store)
    app.snapshot(4, parent=4)
    assert f"{layout.slot_path(5)}: its parent, slot 4, is not a snapshot" in findings(store)


def test_reply_snapshots_between_retained_ones_are_part_of_the_chain() -> None:
    store = MemoryStore()
    app = grown(store, 2)
    app.snapshot(3, rhythm="reply")
    app.snapshot(4)
    report = check(store)
    assert report.is_sound
    assert report.snapshots == (4, 2, 1)


# --- conservation ------------------------------------------------------------------------


def with_letters(store: ObjectStore, rows: int, **counters: int) -> App:
    app = App(store)
    for number in (1, 2):
        keyed = Rows.of([*carts(3), *reserved("~dead", *map(str, range(rows - 2 + number)))])
        part = app.part(keyed, number, "base")
        app.snapshot(number, [part], counters={"buried": rows + 1, "unburied": 3 - number, **counters})
    return app


def test_the_dead_letters_of_each_snapshot_are_counted() -> None:
    store = MemoryStore()
    with_letters(store, 3)
    report = check(store)
    assert report.is_sound
    assert report.dead_letters == {2: 3, 1: 2}
    (line,) = report.lines()
    assert line.endswith("3 dead letters in snapshot 2: sound")


def test_a_letter_that_is_missing_is_found() -> None:
    store = MemoryStore()
    with_letters(store, 3, buried=5)
    assert findings(store) == [
        f"{layout.slot_path(2)}: buried is 5, but unburied 1 + 3 rows in ~dead = 4",
        f"{layout.slot_path(1)}: buried is 5, but unburied 2 + 2 rows in ~dead = 4",
    ]


def test_letters_of_a_snapshot_that_cannot_be_read_are_unknown() -> None:
    store = MemoryStore()
    with_letters(store, 3)
    store.delete(layout.part_path(1, 2, 0, "base"))
    report = check(store)
    assert report.dead_letters == {1: 2}
    assert "unknown dead letters in snapshot 2" in report.lines()[0]


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        (
            "applied",
            -2,
            "2 messages lost: admitted 10 + emitted 7 + timers_fired 2 = 19, applied 13 + in_flight 4 + timers_replied 0 = 17",
        ),
        (
            "applied",
            +1,
            "1 messages doubled: admitted 10 + emitted 7 + timers_fired 2 = 19, applied 16 + in_flight 4 + timers_replied 0 = 20",
        ),
        (
            "timers_set",
            +1,
            "timers_set is 5, but timers_fired 2 + timers_cancelled 1 + 1 rows in ~timers = 4",
        ),
        ("egress_rows", -1, "the out_seq of all shards sum to 9, egress_rows is 8"),
    ],
)
def test_what_does_not_add_up_is_found_with_its_numbers(name: str, change: int, text: str) -> None:
    store = MemoryStore()
    grown(store, 1, counters={**COUNTERS, name: COUNTERS[name] + change})
    assert findings(store) == [f"{layout.slot_path(1)}: {text}"]


def test_in_flight_rows_are_counted() -> None:
    store = MemoryStore()
    grown(store, 1, in_flight=5, counters={**COUNTERS, "applied": 14})
    assert findings(store) == [
        f"{layout.slot_path(1)}: in_flight is 5, but there are 2 rows in ~inflight and 2 in ~queue"
    ]


def test_an_entry_is_readable_by_hand() -> None:
    entry = grown(MemoryStore(), 1).last
    assert isinstance(entry, Entry)
    assert entry.counters == COUNTERS
