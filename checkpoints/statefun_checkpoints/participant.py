"""Chandy-Lamport for one participant: when it has cut, and which channels it still records.

Pure bookkeeping. The participant does not own state or messages; its worker does the cut (state
frozen, mailbox copied, markers sent) in the same uninterrupted step in which it calls
:meth:`Participant.begin`, and hands over what arrives on the channels.

Invariants, with the names of the protocol description:

* I1: at most one snapshot is open, and snapshot ids strictly increase;
* a channel is recorded from the cut until its marker, so a message is either in the sender's and
  receiver's state, or in exactly one recording;
* markers are handled when received, never when the messages before them have been processed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

M = TypeVar("M")


class ProtocolViolation(Exception):
    """A peer broke an invariant of the snapshot protocol; the generation cannot go on."""


class Participant(Generic[M]):
    """The snapshot state of one worker; ``M`` is the type of its messages.

    ==================  ======================================================
    ``open_snapshot``   meaning
    ==================  ======================================================
    None                no snapshot open; the last cut was ``last_cut``
    n                   cut n is done; ``open_channels`` are still recorded
    ==================  ======================================================
    """

    __slots__ = ("_recorded", "channels", "last_cut", "open_channels", "open_snapshot")

    def __init__(self, channels: Iterable[int], last_cut: int) -> None:
        self.channels: tuple[int, ...] = tuple(channels)
        self.last_cut = last_cut
        self.open_snapshot: int | None = None
        self.open_channels: set[int] = set()
        self._recorded: dict[int, list[M]] = {}

    def wants_cut(self, snapshot_id: int) -> bool:
        """Whether a trigger or marker of ``snapshot_id`` is the first this participant hears of it."""
        return snapshot_id > self.last_cut

    def begin(self, snapshot_id: int) -> None:
        """Note that the worker has cut, and start to record every incoming channel.

        To be called when `wants_cut` says so, and after `close` of the snapshot before.
        """
        assert self.open_snapshot is None, f"cut {snapshot_id} with snapshot {self.open_snapshot} open"
        assert snapshot_id > self.last_cut, f"cut {snapshot_id} after cut {self.last_cut}"
        self.last_cut = snapshot_id
        self.open_snapshot = snapshot_id
        self.open_channels = set(self.channels)
        self._recorded = {channel: [] for channel in self.channels}

    def record(self, channel: int, messages: list[M]) -> None:
        """Keep messages that were in flight at the cut: received after it, sent before the sender's."""
        if channel in self.open_channels:
            self._recorded[channel].extend(messages)

    def marker(self, channel: int, snapshot_id: int) -> None:
        """End the recording of ``channel``; the worker has cut before, at the latest for this marker."""
        if snapshot_id == self.open_snapshot:
            self.open_channels.discard(channel)

    @property
    def is_complete(self) -> bool:
        """Whether a snapshot is open and every channel has delivered its marker."""
        return self.open_snapshot is not None and not self.open_channels

    def recorded(self) -> list[M]:
        """Return what was in flight on the channels, in order within each channel."""
        return [message for channel in self.channels for message in self._recorded[channel]]

    def close(self) -> None:
        """Forget the open snapshot: its recording was handed over, or it was aborted."""
        self.open_snapshot = None
        self.open_channels = set()
        self._recorded = {}
