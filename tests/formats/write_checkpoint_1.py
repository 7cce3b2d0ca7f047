"""How the files under ``checkpoint-1`` were made. They are never made again.

They stand for what is stored at users': later versions must read them. A change of format gets a
directory and a script of its own, and this one stays.

    PYTHONPATH=checkpoints python tests/formats/write_checkpoint_1.py
"""

from __future__ import annotations

from pathlib import Path

from statefun_checkpoints import writer
from statefun_checkpoints.commit_log import CommitLog, Committed
from statefun_checkpoints.coordinator import lasting_parts
from statefun_checkpoints.model import (
    Entry,
    FunctionSpec,
    Job,
    KeyGroups,
    Level,
    PartDescriptor,
    PartKind,
    Position,
    Rows,
    StateSpec,
    key_group_of,
)
from statefun_checkpoints.store import LocalStore
from statefun_checkpoints.store_requests import run_store

HERE = Path(__file__).parent / "checkpoint-1"
GROUPS = 64
NOW_MS = 1_767_225_600_000
BUILT_IN = "io.statefun.types/"
FUNCTIONS = {
    "shop/cart": FunctionSpec(
        {
            "count": StateSpec(type=BUILT_IN + "long"),
            "note": StateSpec(type=BUILT_IN + "string", expire="after_write", expire_ms=60_000),
            "raw": StateSpec(type="shop/raw"),
        }
    )
}


def user_state(id: str, state: str, value: bytes | None, expires_at_ms: int | None = None) -> Rows:
    typename = FUNCTIONS["shop/cart"].states[state].type
    row = (key_group_of(id, GROUPS), f"shop/cart.{state}", id, "", typename, value, expires_at_ms)
    return Rows.of([row])


def joined(*parts: Rows) -> Rows:
    rows = Rows()
    for part in parts:
        rows.extend(part)
    return rows


def main() -> None:
    """Write the store."""
    store = LocalStore(HERE.absolute())
    log = CommitLog(Job(name="golden", key_group_count=GROUPS, egress_shards=8))
    run_store(store, log.open())
    run_store(store, log.claim("golden-1", NOW_MS))

    def part(
        rows: Rows,
        snapshot: int,
        kind: PartKind,
        key_groups: KeyGroups = (0, GROUPS),
        level: Level | None = None,
        inline: bool = False,
    ) -> PartDescriptor:
        encoded = writer.encode(
            rows,
            kind=kind,
            level=level,
            generation=1,
            snapshot=snapshot,
            worker=key_groups[0] // 32,
            key_groups=key_groups,
            inline_bytes_max=65_536 if inline else 0,
        )
        assert encoded is not None
        return run_store(store, writer.write(encoded))

    def commit(entry: Entry) -> Entry:
        outcome = run_store(store, log.commit(entry, f"golden-{entry.snapshot_id}"))
        assert isinstance(outcome, Committed)
        return outcome.entry

    base = joined(
        *(
            user_state(f"cart-{n}", "count", b"\x09" + n.to_bytes(8, "little") if n else b"")
            for n in range(40)
        ),
        user_state("Grüße", "note", b"\x0a\x05s\xc3\xbc\xc3\x9f", NOW_MS + 60_000),
        user_state("cart-1", "raw", b"\x00\xff"),
    )
    low, high = (0, 32), (32, 64)
    first = commit(
        Entry(
            kind="snapshot",
            slot=0,
            generation=1,
            nonce="",
            created_at_ms=NOW_MS + 1_000,
            snapshot_id=2,
            rhythm="periodic",
            key_group_count=GROUPS,
            worker_count=2,
            parts=(
                part(base.select(low), 1, "base", low),
                part(base.select(high), 1, "base", high),
                part(
                    user_state("cart-2", "count", b"\x09\x63" + bytes(7)),
                    2,
                    "delta",
                    level="periodic",
                    inline=True,
                ),
            ),
            positions=(Position("http-0", 0, 32, 40), Position("http-0", 32, 64, 41)),
            out_seq={"0": 0, "7": 0},
            counters={"admitted": 43, "applied": 43},
            functions=FUNCTIONS,
        )
    )
    queue = Rows.of([(5, "~queue", "cart-3", "000001", "shop/add", b"queued", None)])
    timers = Rows.of([(6, "~timers", "cart-4", "000009", "shop/tick", b"later", NOW_MS + 5_000)])
    transient = Rows.of(
        [
            (7, "~inflight", "cart-5", "000002", "shop/add", b"moving", None),
            (7, "~outbox", "cart-5", "000000", "shop/out", b"row", None),
        ]
    )
    changes = joined(user_state("cart-7", "count", None), queue, timers)
    commit(
        Entry(
            kind="stop",
            slot=0,
            generation=1,
            nonce="",
            created_at_ms=NOW_MS + 2_000,
            snapshot_id=3,
            parent=first.slot,
            rhythm="final",
            key_group_count=GROUPS,
            worker_count=2,
            parts=(
                *lasting_parts(first),
                part(changes, 3, "delta", level="small", inline=True),
                part(transient, 3, "transient"),
            ),
            positions=(Position("http-0", 0, 32, 44), Position("http-0", 32, 64, 45)),
            out_seq={"0": 1, "7": 0},
            counters={
                "admitted": 47,
                "applied": 45,
                "timers_set": 1,
                "egress_rows": 1,
            },
            in_flight=2,
            timer_next=10,
            functions=FUNCTIONS,
        )
    )


if __name__ == "__main__":
    main()
