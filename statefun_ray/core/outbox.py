"""What leaves the application: egress rows and replies, held until their snapshot has committed.

Rows of one epoch are numbered per shard without gaps, and published per (shard, epoch) once the
snapshot that ends the epoch exists. Until a sink has confirmed them they stand in every further
snapshot, so a crash between commit and publication loses nothing; the same (shard, epoch) always
holds the same rows, so a sink can recognise what it already has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from statefun_checkpoints.model import OUTBOX, Rows
from statefun_ray.core.state import SLICE_ROWS

EgressRow: TypeAlias = tuple[int, str, str, bytes | None]
"""``(sequence in its shard, egress typename, value typename, value)``."""

Reply: TypeAlias = tuple[str, str, str, bytes | None]
"""``(incarnation, request id, value typename, value)``."""

_encoder = msgspec.msgpack.Encoder()
_egress_decoder: msgspec.msgpack.Decoder[EgressRow] = msgspec.msgpack.Decoder(EgressRow)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

_OPEN: int = 0
"""Stands for the epoch that no cut has ended yet; snapshot ids start at 1."""


class Outbox:
    """The unpublished output of one worker."""

    __slots__ = ("_eager", "_egress", "_is_eager_open", "_replies", "next_sequence")

    def __init__(self, eager: frozenset[str] = frozenset()) -> None:
        """``eager`` names the egresses whose rows somebody waits for, as for a reply."""
        self._eager = eager
        self._is_eager_open = False
        self.next_sequence: dict[int, int] = {}
        """Shard -> number of its next row."""
        self._egress: dict[int, dict[int, list[EgressRow]]] = {}
        """Epoch -> shard -> rows; the epoch of a row is the snapshot whose cut ended it."""
        self._replies: dict[int, list[tuple[int, Reply]]] = {}
        """Epoch -> replies with the key group of their sender."""

    @property
    def is_empty(self) -> bool:
        """Whether everything emitted has left."""
        return not self._egress and not self._replies

    @property
    def is_awaited(self) -> bool:
        """Whether a reply, or a row that somebody waits for, has been emitted since the last cut."""
        return _OPEN in self._replies or self._is_eager_open

    def add_egress(self, shard: int, egress: str, value_type: str, value: bytes | None) -> None:
        """Append a row to the open epoch of ``shard``."""
        sequence = self.next_sequence.get(shard, 0)
        self.next_sequence[shard] = sequence + 1
        if egress in self._eager:
            self._is_eager_open = True
        self._egress.setdefault(_OPEN, {}).setdefault(shard, []).append((sequence, egress, value_type, value))

    def add_reply(self, key_group: int, reply: Reply) -> None:
        """Append a reply to the open epoch."""
        self._replies.setdefault(_OPEN, []).append((key_group, reply))

    def cut(self, snapshot_id: int) -> None:
        """End the open epoch: its rows belong to ``snapshot_id`` from now on."""
        self._is_eager_open = False
        if _OPEN in self._egress:
            self._egress[snapshot_id] = self._egress.pop(_OPEN)
        if _OPEN in self._replies:
            self._replies[snapshot_id] = self._replies.pop(_OPEN)

    def reopen(self, snapshot_id: int) -> None:
        """The snapshot was aborted: its rows go in front of what has been emitted since."""
        for shard, rows in self._egress.pop(snapshot_id, {}).items():
            opened = self._egress.setdefault(_OPEN, {})
            opened[shard] = rows + opened.get(shard, [])
            self._is_eager_open = self._is_eager_open or any(row[1] in self._eager for row in rows)
        if snapshot_id in self._replies:
            self._replies[_OPEN] = self._replies.pop(snapshot_id) + self._replies.get(_OPEN, [])

    def epochs(self, after: int, until: int) -> list[tuple[int, int, list[EgressRow]]]:
        """Return ``(shard, epoch, rows)`` of the epochs in ``(after, until]``, the oldest first."""
        # Sorted: in a snapshot of several workers, that of one may begin with a later epoch than that of the
        # next. A sink that has the later rows of a shard takes the earlier ones for written as well.
        return [
            (shard, epoch, rows)
            for epoch in sorted(self._egress)
            if after < epoch <= until
            for shard, rows in self._egress[epoch].items()
        ]

    def released(self, after: int, until: int) -> dict[str, list[Reply]]:
        """Return the unacknowledged replies of the epochs in ``(after, until]``, by incarnation."""
        result: dict[str, list[Reply]] = {}
        for epoch, replies in self._replies.items():
            if after < epoch <= until:
                for _, reply in replies:
                    result.setdefault(reply[0], []).append(reply)
        return result

    def published(self, shard: int, epoch: int) -> None:
        """The sink has these rows for good; said once of what `epochs` has given."""
        shards = self._egress[epoch]
        del shards[shard]
        if not shards:
            del self._egress[epoch]

    def drop_replies(self, incarnation: str, request_ids: set[str]) -> None:
        """The ingress has taken these replies, or nobody waits for them any more."""
        for epoch in list(self._replies):
            kept = [
                (key_group, reply)
                for key_group, reply in self._replies[epoch]
                if reply[0] != incarnation or reply[1] not in request_ids
            ]
            if kept:
                self._replies[epoch] = kept
            else:
                del self._replies[epoch]

    def capture(self, shard_bounds: list[int]) -> Iterator[Rows]:
        """Return everything of the epochs that have ended, as slices of rows of a snapshot.

        What they hold is fixed now; the rows are made as the slices are taken. Lists of an ended
        epoch are never changed in place, so references are enough.
        """
        egress = [
            (shard, epoch, rows)
            for epoch, shards in self._egress.items()
            if epoch != _OPEN
            for shard, rows in shards.items()
        ]
        replies = [(epoch, rows) for epoch, rows in self._replies.items() if epoch != _OPEN]
        return self._slices(egress, replies, shard_bounds)

    @staticmethod
    def _slices(
        egress: list[tuple[int, int, list[EgressRow]]],
        replies: list[tuple[int, list[tuple[int, Reply]]]],
        shard_bounds: list[int],
    ) -> Iterator[Rows]:
        rows = Rows()
        for shard, epoch, outgoing in egress:
            for row in outgoing:
                rows.append(
                    shard_bounds[shard],
                    OUTBOX,
                    str(shard),
                    f"{epoch}.{row[0]}",
                    row[1],
                    _encoder.encode(row),
                    None,
                )
                if len(rows) == SLICE_ROWS:
                    yield rows
                    rows = Rows()
        for epoch, pending in replies:
            for key_group, reply in pending:
                rows.append(
                    key_group, OUTBOX, "", f"{epoch}.{reply[0]}.{reply[1]}", "", _encoder.encode(reply), None
                )
                if len(rows) == SLICE_ROWS:
                    yield rows
                    rows = Rows()
        if len(rows):
            yield rows

    def load(self, rows: Rows) -> None:
        """Take the outbox rows of a restored snapshot."""
        for key_group, id, sub, value in zip(rows.key_group, rows.id, rows.sub, rows.value, strict=True):
            assert value is not None, "an outbox row carries a value"
            epoch = int(sub.partition(".")[0])
            if id:
                self._egress.setdefault(epoch, {}).setdefault(int(id), []).append(
                    _egress_decoder.decode(value)
                )
            else:
                self._replies.setdefault(epoch, []).append((key_group, _reply_decoder.decode(value)))


def first_rows(transient: Rows) -> dict[tuple[str, int], int]:
    """Return ``(egress, shard)`` -> sequence of the first outbox row that a snapshot has of them."""
    first: dict[tuple[str, int], int] = {}
    outbox = transient.of_table(OUTBOX)
    for egress, shard, sub in zip(outbox.typename, outbox.id, outbox.sub, strict=True):
        if shard:  # a reply has none
            key, sequence = (egress, int(shard)), int(sub.rpartition(".")[2])
            first[key] = min(sequence, first.get(key, sequence))
    return first
