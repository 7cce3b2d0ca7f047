"""Reading the durable records of a log in order, in slices small enough for an event loop."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NoReturn

from statefun_ingress.errors import CorruptLog
from statefun_ingress.record import (
    CHUNK_EVENTS_MAX,
    BadRecord,
    Chunk,
    TornRecord,
    decode_chunk,
    decode_chunk_into,
    read_record,
)
from statefun_ingress.segment import Segment, segment_name

if TYPE_CHECKING:
    from statefun_ingress.log import IngressLog

_READ_BYTES: Final = 128 << 10  # one read of the file
_RECORDS_MAX: Final = 200  # decoded in one step: about a millisecond


class LogReader:
    """Reads durable records in order, a bounded slice at a time.

    Attributes:
        next_seq: the sequence after the last event read.
    """

    def __init__(self, log: IngressLog, from_seq: int) -> None:
        self._log = log
        self.next_seq = from_seq
        self._segment: Segment | None = None
        self._offset = 0  # in the segment, of the first byte of _data
        self._data = b""
        self._at = 0  # in _data
        self._record_seq = from_seq  # sequence of the next record or waiting chunk
        self._waiting: list[bytes] = []  # chunks of a record begun, last first

    def read(self) -> Chunk | None:
        """Return the next events, or None if all durable ones have been read.

        At most one chunk's worth of events, and about a millisecond's of work, at a time. The
        first chunk may begin before the sequence asked for, where its record does.

        Raises:
            CorruptLog: a record does not read as it was written.
            LogTrimmed: the next record has been removed meanwhile.
            OSError: the disk failed.
        """
        gathered: Chunk | None = None
        for _ in range(_RECORDS_MAX):
            if gathered is not None and len(gathered.events.ids) >= CHUNK_EVENTS_MAX:
                break
            if not self._waiting and not self._next_record(may_read=gathered is None):
                break
            encoded = self._waiting[-1]
            if gathered is None:
                gathered = Chunk(self._record_seq, decode_chunk(encoded), len(encoded))
            elif not decode_chunk_into(encoded, gathered):
                break
            self._waiting.pop()
            self._record_seq = gathered.end_seq
        if gathered is not None:
            self.next_seq = self._record_seq
        return gathered

    def _next_record(self, *, may_read: bool) -> bool:
        """Decode the next record's chunks into ``_waiting``; False if there is none (at hand)."""
        while True:
            if self._at >= len(self._data) and (not may_read or not self._fill(_READ_BYTES)):
                return False
            try:
                record, end = read_record(self._data, self._at)
            except TornRecord as torn:
                if not may_read:
                    return False
                if torn.needed > self._durable_bytes_left():
                    self._damaged("it ends in the middle of a record")
                self._fill(max(torn.needed, _READ_BYTES))
                continue
            except BadRecord as bad:
                self._damaged(str(bad))
            if record.first_seq + record.event_count <= self._record_seq:
                self._at = end  # before the sequence asked for
                continue
            self._at = end
            self._record_seq = record.first_seq
            self._waiting = record.chunks[::-1]
            return True

    def _durable_bytes_left(self) -> int:
        assert self._segment is not None, "a record was found, so a segment was"
        return self._segment.size_bytes - self._offset - self._at

    def _fill(self, length: int) -> bool:
        """Read on from the current record; False if there are no more durable bytes."""
        segment = self._segment
        position = self._offset + self._at
        if segment is None or position >= segment.size_bytes:
            found = self._log.segment_at(self._record_seq)
            if found is None:
                return False
            if found is segment:
                self._damaged(f"it ends at sequence {self._record_seq}, expected {found.end_seq}")
            segment = self._segment = found
            at = bisect_right(segment.index, self._record_seq, key=lambda point: point[0])
            position = segment.index[at - 1][1]
        if position < segment.size_bytes < position + length:
            length = segment.size_bytes - position
        data = self._log.files.read(segment.name, position, length)
        self._offset, self._data, self._at = position, data, 0
        if len(data) < length:
            self._damaged(f"the file ends {length - len(data)} bytes early")
        return True

    def _damaged(self, found: str) -> NoReturn:
        name = self._segment.name if self._segment is not None else segment_name(self._record_seq)
        raise CorruptLog(name, self._offset + self._at, found)
