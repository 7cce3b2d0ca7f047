"""A worker's side of its ingress feeds: what it has read, takes, owes and answers.

A feed's connection may come and go without ending the generation, because the ingress is outside
the rollback: everything that matters is said again by the next hello, and replies are kept until
they are acknowledged. Sent frames are handed to ``emit`` as effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from statefun_checkpoints.model import Position
from statefun_checkpoints.participant import ProtocolViolation
from statefun_ingress import frames
from statefun_ray.core.effects import FeedFrame
from statefun_ray.core.message import Message
from statefun_ray.core.outbox import Outbox, Reply
from statefun_ray.core.positions import Interval, LogPosition, clip
from statefun_ray.core.splits import is_log

REPLY_FRAME_BYTES_MAX: Final = 16 << 20
"""Of the values in one frame of replies; the ingress refuses frames four times as large."""


class LogFeeds:
    """The feeds of all ingress logs of one worker."""

    __slots__ = (
        "_app",
        "_credit",
        "_emit",
        "_generation",
        "_key_group_count",
        "_outbox",
        "_positions",
        "_range",
        "_reads",
        "_reply_batch",
        "_restored",
        "_trim",
        "_unacked",
        "_window",
        "_worker",
        "_worker_count",
    )

    def __init__(
        self,
        *,
        app: str,
        generation: int,
        worker: int,
        worker_count: int,
        key_groups: tuple[int, int],
        key_group_count: int,
        window: int,
        outbox: Outbox,
        emit: Callable[[FeedFrame], None],
    ) -> None:
        """Args:
        window: events that may be on their way from one log.
        outbox: holds the replies until they are acknowledged.
        """
        self._app = app
        self._generation = generation
        self._worker = worker
        self._worker_count = worker_count
        self._range = key_groups
        self._key_group_count = key_group_count
        self._window = window
        self._outbox = outbox
        self._emit = emit
        self._positions: dict[str, LogPosition] = {}
        self._restored: dict[str, list[Interval]] = {}
        self._credit: dict[str, tuple[int, int]] = {}
        """Connected log -> events granted and received since hello."""
        self._reads: list[tuple[int, str, frames.State]] = []
        """``(cut that must be passed, log, answer)`` of reads that wait for a commit."""
        self._unacked: dict[int, tuple[str, set[str]]] = {}
        self._reply_batch = 0
        self._trim: dict[str, int] = {}

    # --- reading ----------------------------------------------------------------------------------

    def restore(self, positions: tuple[Position, ...]) -> None:
        """Take the positions of a snapshot, of all workers."""
        for position in positions:
            if is_log(position.log_id):
                interval = (position.first, position.end, position.next_seq)
                self._restored.setdefault(position.log_id, []).append(interval)

    def positions(self) -> list[Position]:
        """Return the position in every log that was ever read, connected or not."""
        low, high = self._range
        inherited = {
            log_id: clip(intervals, low, high)
            for log_id, intervals in self._restored.items()
            if log_id not in self._positions
        }
        read = {log_id: position.intervals for log_id, position in self._positions.items()}
        return [
            Position(log_id, *interval)
            for log_id, intervals in {**inherited, **read}.items()
            for interval in intervals
        ]

    def next_sequence(self, log_id: str) -> int:
        """Return the sequence below which everything of this log has arrived; -1 if never connected."""
        position = self._positions.get(log_id)
        return -1 if position is None else position.next_sequence

    def opened(self, log_id: str) -> None:
        """A connection exists: say which key groups to send, and from where."""
        position = self._positions.get(log_id)
        if position is None:
            low, high = self._range
            intervals = clip(self._restored.get(log_id, []), low, high)
            position = self._positions[log_id] = LogPosition(intervals, self._key_group_count)
        self._credit[log_id] = (self._window, 0)
        intervals = [
            (low, high, max(sequence, position.next_sequence)) for low, high, sequence in position.intervals
        ]
        self._send(
            log_id,
            frames.Hello(
                self._app, self._generation, self._worker, self._worker_count, intervals, self._window
            ),
        )

    def closed(self, log_id: str) -> None:
        """The connection is gone; what was on its way is asked for again by the next hello."""
        self._credit.pop(log_id, None)
        # Its open queries were given up at the other end, and the next ingress counts from 1 again.
        self._reads = [read for read in self._reads if read[1] != log_id]

    def admit(self, log_id: str, events: frames.EventsFrame) -> list[Message]:
        """Return the messages of a frame that were not taken before.

        Raises:
            ProtocolViolation: the feed left a gap or sent another worker's events.
        """
        messages: list[Message] = list(
            zip(
                events.target_types,
                events.ids,
                events.caller_types,
                events.caller_ids,
                events.value_types,
                events.values,
                strict=True,
            )
        )
        granted, received = self._credit[log_id]
        self._credit[log_id] = (granted, received + len(messages))
        try:
            return self._positions[log_id].admit(events.from_seq, events.to_seq, events.seqs, messages)
        except ValueError as error:
            raise ProtocolViolation(f"ingress log {log_id}: {error}") from error

    def grant(self) -> None:
        """Ask for more events of every log that has sent half of what it may."""
        for log_id, (granted, received) in self._credit.items():
            if granted - received <= self._window // 2:
                self._credit[log_id] = (received + self._window, received)
                self._send(log_id, frames.Credit(received + self._window))

    def trim(self, sequences: Mapping[str, int]) -> None:
        """Tell logs what no retained snapshot needs any more."""
        for log_id, sequence in sequences.items():
            if sequence > self._trim.get(log_id, 0):
                self._trim[log_id] = sequence
                self._send(log_id, frames.Trim(sequence))

    # --- replies ----------------------------------------------------------------------------------

    def release(self, after: int, until: int) -> None:
        """Send the replies of the committed epochs in ``(after, until]``."""
        for incarnation, replies in self._outbox.released(after, until).items():
            self._release(incarnation, replies)

    def welcomed(self, log_id: str, incarnation: str, committed: int) -> None:
        """The feed has answered hello: send what its process has not acknowledged, drop the rest.

        Args:
            log_id: of the feed.
            incarnation: of the process that now serves the log.
            committed: newest committed snapshot.
        """
        # What was sent over an earlier connection and is not acknowledged will not be any more.
        self._unacked = {ack_id: sent for ack_id, sent in self._unacked.items() if log_of(sent[0]) != log_id}
        for name, replies in self._outbox.released(0, committed).items():
            if name == incarnation:
                self._release(name, replies)
            elif log_of(name) == log_id:
                # Its clients went with the process that held their connections.
                self._outbox.drop_replies(name, {reply[1] for reply in replies})

    def acknowledged(self, ack_id: int) -> None:
        """The ingress has taken the replies of this frame."""
        incarnation, request_ids = self._unacked.pop(ack_id, ("", set()))
        self._outbox.drop_replies(incarnation, request_ids)

    def _release(self, incarnation: str, replies: list[Reply]) -> None:
        rows: list[tuple[str, str, bytes | None]] = []
        size_bytes = 0
        for _, request_id, typename, value in replies:
            rows.append((request_id, typename, value))
            size_bytes += len(value or b"")
            if size_bytes >= REPLY_FRAME_BYTES_MAX:
                self._send_replies(incarnation, rows)
                rows, size_bytes = [], 0
        if rows:
            self._send_replies(incarnation, rows)

    def _send_replies(self, incarnation: str, rows: list[tuple[str, str, bytes | None]]) -> None:
        self._reply_batch += 1
        self._unacked[self._reply_batch] = (incarnation, {request_id for request_id, _, _ in rows})
        self._send(log_of(incarnation), frames.Reply(self._reply_batch, incarnation, rows))

    # --- state reads ------------------------------------------------------------------------------

    @property
    def has_reads(self) -> bool:
        """Whether a read waits for a commit."""
        return bool(self._reads)

    def answer(self, log_id: str, answer: frames.State) -> None:
        """Answer a read at once."""
        self._send(log_id, answer)

    def answer_committed(self, log_id: str, answer: frames.State, after: int) -> None:
        """Answer a read when a snapshot later than ``after`` has been committed."""
        self._reads.append((after, log_id, answer))

    def committed(self, snapshot_id: int) -> None:
        """A snapshot was committed: answer the reads that it contains."""
        waiting, self._reads = self._reads, []
        for after, log_id, answer in waiting:
            if after < snapshot_id:
                self._send(log_id, msgspec.structs.replace(answer, snapshot_id=snapshot_id))
            else:
                self._reads.append((after, log_id, answer))

    def _send(self, log_id: str, frame: frames.WorkerFrame) -> None:
        self._emit(FeedFrame(log_id, frames.encode_frame(frame)))


def log_of(incarnation: str) -> str:
    """Return the log that an incarnation, ``<log id>.<boot>``, serves."""
    return incarnation.rpartition(".")[0]
