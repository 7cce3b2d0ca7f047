"""What coordinator and workers say survives the wire, and nothing else is taken for it."""

from __future__ import annotations

import msgspec
import pytest

from statefun_checkpoints.model import PartDescriptor, Position
from statefun_ray.core.control import (
    Abort,
    Ack,
    Committed,
    Heartbeat,
    Logs,
    Plan,
    Pulse,
    Ready,
    Shutdown,
    SnapshotWanted,
    Start,
    ToCoordinator,
    ToWorker,
    Trigger,
    WorkerFailed,
    WorkerHello,
    decode_to_coordinator,
    decode_to_worker,
    encode_control,
)

PART = PartDescriptor(
    kind="delta",
    level="small",
    worker=1,
    snapshot=2,
    key_groups=(0, 8),
    rows=1,
    bytes=1,
    xxh3_128="0" * 32,
    inline="AA==",
)
TO_WORKER: list[ToWorker] = [
    Plan(1, 2, 16, 4, [("a", 1), ("b", 2)], {"log": ("c", 3)}, 3, b"{}"),
    Plan(1, 2, 16, 4, [], {}, 2, None),
    Start(1),
    Trigger(1, 2, "reply", 1),
    Committed(1, 2, {"log": 7}),
    Abort(1, 2),
    Pulse(1, True),
    Logs(1, {"log": ("c", 3)}),
    Shutdown(1),
]
TO_COORDINATOR: list[ToCoordinator] = [
    WorkerHello(1, 0, "host", 1, 2, "node"),
    Ready(1, 0, 5),
    Ack(1, 0, 2, [PART], 1, [Position("log", 0, 8, 3)], {0: 4}, {"applied": 1}, 1, 9, 1_000),
    SnapshotWanted(1, 0, 3),
    Heartbeat(1, 0, 5, "a/b/1", 3, 2, [("a/b", "1", "broken", 2)], 1),
    WorkerFailed(1, 0, "broken", True),
]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda message: type(message).__name__)
def test_what_the_coordinator_says_arrives(message: ToWorker) -> None:
    assert decode_to_worker(encode_control(message)) == message


@pytest.mark.parametrize("message", TO_COORDINATOR, ids=lambda message: type(message).__name__)
def test_what_a_worker_says_arrives(message: ToCoordinator) -> None:
    assert decode_to_coordinator(encode_control(message)) == message


def test_each_side_refuses_the_words_of_the_other() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_to_worker(encode_control(Ready(1, 0, 5)))
    with pytest.raises(msgspec.DecodeError):
        decode_to_coordinator(encode_control(Start(1)))
    with pytest.raises(msgspec.DecodeError):
        decode_to_worker(b"")
