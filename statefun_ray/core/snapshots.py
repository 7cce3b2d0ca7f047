"""What a worker holds of a snapshot between its cut and the word that it was committed or aborted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from statefun_checkpoints.model import INFLIGHT, PartDescriptor, Rows
from statefun_ray.core.control import Ack
from statefun_ray.core.key_groups import key_group_of
from statefun_ray.core.message import Message, pack_message
from statefun_ray.core.state import SLICE_ROWS


@dataclass(frozen=True, slots=True)
class FinishedBase:
    """A scan that is done: its label, and the part if it found anything."""

    snapshot_id: int
    part: PartDescriptor | None


class OpenSnapshot:
    """A cut whose fate is not known yet."""

    __slots__ = ("ack", "awaited", "base", "mailbox", "outbox", "parts", "periodic", "snapshot_id")

    def __init__(self, snapshot_id: int, *, periodic: bool) -> None:
        self.snapshot_id = snapshot_id
        self.periodic = periodic
        self.awaited = {"delta", "transient"}
        """Kinds of parts that are not written yet."""
        self.parts: list[PartDescriptor] = []
        self.base: FinishedBase | None = None
        self.mailbox: list[Message] = []
        self.outbox: Iterator[Rows] = iter(())
        self.ack: Ack | None = None


def transient_slices(messages: list[Message], outbox: Iterator[Rows], key_group_count: int) -> Iterator[Rows]:
    """Yield what belongs to one snapshot only, messages in flight and then the outbox, in slices."""
    for at in range(0, len(messages), SLICE_ROWS):
        portion = messages[at : at + SLICE_ROWS]
        yield Rows.of_columns(
            key_group=[key_group_of(message[1], key_group_count) for message in portion],
            table=[INFLIGHT] * len(portion),
            id=[message[1] for message in portion],
            sub=[f"{at + index:08x}" for index in range(len(portion))],
            typename=[""] * len(portion),
            value=[pack_message(message) for message in portion],
            expires_at_ms=[None] * len(portion),
        )
    yield from outbox
