"""Small rows, parts and entries, and a store that fails when told to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from statefun_checkpoints import writer
from statefun_checkpoints.commit_log import CommitLog, Committed
from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.model import (
    Entry,
    Job,
    KeyGroups,
    Level,
    PartDescriptor,
    PartKind,
    Row,
    Rows,
    key_group_of,
)
from statefun_checkpoints.store_requests import ObjectStore, StoreRequest, StoreSteps, perform, run_store

T = TypeVar("T")

GROUPS = 16
INT = "io.statefun.types/int"


def int_value(number: int) -> bytes:
    return b"\x0d" + number.to_bytes(4, "little", signed=True) if number else b""


def row(id: str, value: bytes | None, *, table: str = "shop/cart.total", typename: str = INT) -> Row:
    return (key_group_of(id, GROUPS), table, id, "", typename, value, None)


def carts(count: int, first: int = 0) -> Rows:
    return Rows.of(row(f"cart-{i}", int_value(i)) for i in range(first, first + count))


def snapshot(snapshot_id: int, parts: Iterable[PartDescriptor] = (), **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "kind": "snapshot",
        "slot": 0,
        "generation": 1,
        "nonce": "",
        "created_at_ms": 1_700_000_000_000 + snapshot_id,
        "snapshot_id": snapshot_id,
        "rhythm": "periodic",
        "key_group_count": GROUPS,
        "worker_count": 1,
        "parts": tuple(parts),
    }
    return Entry(**{**given, **fields})


class App:
    """An application in a store: writes parts and commits snapshots."""

    def __init__(self, store: ObjectStore, name: str = "shop") -> None:
        self.store = store
        self.log = CommitLog(Job(name=name, key_group_count=GROUPS, egress_shards=4))
        run_store(store, self.log.open())
        self.name = name
        self.nonces = 0
        run_store(store, self.log.claim(self.nonce(), 1))
        self.last: Entry | None = None

    def nonce(self) -> str:
        self.nonces += 1
        return f"{self.name}.{self.nonces}"

    def part(
        self,
        rows: Rows,
        snapshot_id: int,
        kind: PartKind = "delta",
        *,
        level: Level | None = "periodic",
        worker: int = 0,
        key_groups: KeyGroups = (0, GROUPS),
        inline_bytes_max: int = 0,
    ) -> PartDescriptor:
        encoded = writer.encode(
            rows,
            kind=kind,
            level=level if kind == "delta" else None,
            generation=self.log.generation,
            snapshot=snapshot_id,
            worker=worker,
            key_groups=key_groups,
            inline_bytes_max=inline_bytes_max,
        )
        assert encoded is not None
        return run_store(self.store, writer.write(encoded))

    def commit(self, entry: Entry) -> Entry:
        outcome = run_store(self.store, self.log.commit(entry, self.nonce()))
        assert isinstance(outcome, Committed)
        self.last = outcome.entry
        return outcome.entry

    def snapshot(self, snapshot_id: int, parts: Iterable[PartDescriptor] = (), **fields: Any) -> Entry:
        parent = self.last.slot if self.last is not None else None
        return self.commit(snapshot(snapshot_id, parts, **{"parent": parent, **fields}))


LOST, UNANSWERED = "lost", "unanswered"


def run_with_faults(store: ObjectStore, steps: StoreSteps[T], faults: dict[int, str]) -> T:
    """Run a procedure; the n-th request (from 0) is lost, or performed without an answer."""
    number = 0
    try:
        request: StoreRequest = next(steps)
        while True:
            fault = faults.get(number)
            number += 1
            answer = None if fault == LOST else perform(store, request)
            if fault is None:
                request = steps.send(answer)
            else:
                request = steps.throw(StoreUnavailable(str(request), "try", fault))
    except StopIteration as done:
        result: T = done.value
        return result
