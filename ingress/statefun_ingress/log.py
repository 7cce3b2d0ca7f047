"""The log of one ingress: segments of checksummed records, made durable in groups.

It decides what is written and what may be acknowledged, and does its I/O through
``LogFiles``, so the simulator runs it on files that tear, lose and fail.

    append -> take_batch -> write_batch (in a thread) -> batch_synced -> acknowledge, feed

One batch is being written at a time; appends meanwhile gather in memory and form the next
one. Nothing is acknowledged, fed or entered into the producer table before its batch is
durable. A failed write or fsync is final: the log takes nothing more (see ``LogFailed``).

Invariants
    * sequences are dense: each segment starts where the one before it ends;
    * a segment's name is its first sequence, its header the producer table at that point and
      the size of the segment before it, so a missing or shortened segment is noticed;
    * only the end of the last segment may be torn, and only behind everything acknowledged.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final, NamedTuple

from statefun_ingress.errors import CorruptLog, LogFailed, LogTrimmed
from statefun_ingress.log_files import LogFiles as LogFiles
from statefun_ingress.log_reader import LogReader
from statefun_ingress.producers import Answer, Producers
from statefun_ingress.record import (
    CHUNK_BYTES_MAX,
    CHUNK_EVENTS_MAX,
    NO_PRODUCER,
    BadRecord,
    Chunk,
    Events,
    RecordHeader,
    TornRecord,
    check_record,
    content_digest,
    encode_chunk,
    encode_record,
    find_record_after,
    read_record,
)
from statefun_ingress.segment import (
    FORMAT,
    INDEX_BYTES,
    META_NAME,
    SEGMENT_SUFFIX,
    Segment,
    decode_segment_header,
    encode_segment_header,
    first_seq_of,
    read_meta,
    segment_name,
    write_meta,
)

SEGMENT_BYTES_DEFAULT: Final = 64 << 20
"""Size from which on a new segment is begun: the unit of trimming."""


class Appended(NamedTuple):
    """A record that waits for its batch to become durable."""

    answer: Answer
    producer_id: str
    producer_sequence: int


class Batch:
    """Records on their way to disk; opaque except for what is listed here.

    Attributes:
        appended: the records, in order.
        chunks: their events, to be fed once durable.
        end_seq: the sequence after the last event.
        error: why writing failed, if it did.
    """

    __slots__ = (
        "appended",
        "chunks",
        "data",
        "end_seq",
        "error",
        "first_seq",
        "index",
        "segment_header",
        "segment_name",
        "size_bytes",
    )

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.end_seq = first_seq
        self.appended: list[Appended] = []
        self.chunks: list[Chunk] = []
        self.data: list[bytes] = []
        self.size_bytes = 0
        self.index: list[tuple[int, int]] = []  # offsets from the start of the batch
        self.segment_name = ""
        self.segment_header = b""  # not empty: begin a new segment with it
        self.error: str | None = None


def encode_events(events: Events) -> list[tuple[Events, bytes]]:
    """Encode events in chunks of bounded size, as ``append_encoded`` takes them."""
    total = len(events)
    if total == 1:
        return [(events, encode_chunk(events))]
    parts = []
    start = chunk_bytes = 0
    for row, value in enumerate(events.values, 1):
        chunk_bytes += len(value) if value is not None else 0
        if row == total or row - start == CHUNK_EVENTS_MAX or chunk_bytes >= CHUNK_BYTES_MAX:
            part = events.slice(start, row)
            parts.append((part, encode_chunk(part)))
            start, chunk_bytes = row, 0
    return parts


class IngressLog:
    """The log in one directory. Make it with ``IngressLog.open``."""

    def __init__(
        self, files: LogFiles, log_id: str, boot: int, producers: Producers, segment_bytes: int
    ) -> None:
        self.log_id = log_id
        self.boot = boot
        self.incarnation = f"{log_id}.{boot}"
        self.producers = producers
        self.files = files
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._end_seq = 0  # the next sequence to assign
        self._durable_seq = 0
        self._written_bytes = 0  # of the segment batches go to, the one in flight included
        self._buffer = Batch(0)
        self._in_flight: Batch | None = None
        self._failed: LogFailed | None = None

    # --- opening -----------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        files: LogFiles,
        new_log_id: str,
        *,
        segment_bytes: int = SEGMENT_BYTES_DEFAULT,
        producers: Producers | None = None,
    ) -> IngressLog:
        """Open the log in ``files``, or begin one.

        Finds the end, cuts off a torn tail, rebuilds the producer table, checks every
        retained record and counts one more boot. Blocking: about a second per GB.

        Args:
            files: the directory.
            new_log_id: the log's id if there is none yet; random, ``[a-z0-9-]+``.
            segment_bytes: size from which on a new segment is begun.
            producers: an empty table with its limits.

        Raises:
            CorruptLog: something acknowledged is damaged or missing.
            OSError: the disk failed.
        """
        names = set(files.list())
        if META_NAME in names:
            log_id, boot, end_seq_known = read_meta(files)
        elif any(name.endswith(SEGMENT_SUFFIX) for name in names):
            raise CorruptLog(META_NAME, 0, "the file is missing, but there are segments")
        else:
            log_id, boot, end_seq_known = new_log_id, 0, 0
            write_meta(files, log_id, boot, 0)
        log = cls(files, log_id, boot + 1, Producers() if producers is None else producers, segment_bytes)
        if boot == 0:
            # Boot 0 lasts until the first segment is durable: nothing was accepted yet.
            log._begin()
        else:
            log._recover(end_seq_known)
        write_meta(files, log_id, boot + 1, log._durable_seq)
        log._end_seq = log._durable_seq
        log._buffer = Batch(log._end_seq)
        return log

    def _begin(self) -> None:
        for name in self.files.list():
            if name.endswith(SEGMENT_SUFFIX):
                self.files.remove(name)
        name = segment_name(0)
        header = encode_segment_header(self.log_id, 0, None, [])
        self.files.append(name, header)
        self.files.sync(name)
        self.files.sync_directory()
        self._segments = [Segment(name, 0, 0, len(header), [])]
        self._written_bytes = len(header)

    def _recover(self, end_seq_known: int) -> None:
        names = sorted(name for name in self.files.list() if name.endswith(SEGMENT_SUFFIX))
        if not names:
            raise CorruptLog(segment_name(0), 0, "the log has no segment left")
        segments = self._segments
        for name in names[:-1]:
            self._recover_segment(name, is_last=False)
        self._recover_segment(names[-1], is_last=True)
        if not segments:
            raise CorruptLog(names[0], 0, "the only segment has no readable header")
        if segments[-1].name != names[-1]:
            # The last one was begun and never became durable: the one before it, which has
            # just been found whole, is the last, and the producers are in it.
            self._recover_segment(segments.pop().name, is_last=True)
        previous = segments[-1]
        if previous.end_seq < end_seq_known:
            raise CorruptLog(
                previous.name,
                previous.size_bytes,
                f"the log ends at sequence {previous.end_seq}, but had been durable up to {end_seq_known}",
            )
        self._durable_seq = previous.end_seq
        self._written_bytes = previous.size_bytes

    def _recover_segment(self, name: str, *, is_last: bool) -> None:
        """Check one segment and keep it, unless it was begun and never became durable."""
        data = self.files.read(name, 0, self.files.size(name))
        first_seq = first_seq_of(name)
        try:
            header, offset = decode_segment_header(data)
        except (TornRecord, BadRecord) as error:
            self._refuse_unless_torn(name, data, 0, first_seq, str(error), is_last=is_last)
            self.files.remove(name)
            self.files.sync_directory()
            return
        self._check_segment_header(name, header, first_seq, self._segments[-1] if self._segments else None)
        if is_last:
            self.producers.load(header["producers"])
        end_seq = first_seq
        header_bytes = offset
        offsets: list[tuple[int, int]] = []  # of the records that may not have been synced
        index: list[tuple[int, int]] = []
        while offset < len(data):
            try:
                found = check_record(data, offset)
                if found.first_seq != end_seq:
                    raise BadRecord(f"it holds sequence {found.first_seq}, expected {end_seq}")
                if is_last:
                    self._restore_producer(data, offset)
            except (TornRecord, BadRecord) as error:
                self._refuse_unless_torn(name, data, offset, end_seq, str(error), is_last=is_last)
                self.files.truncate(name, offset)
                break
            if not index or offset - index[-1][1] >= INDEX_BYTES:
                index.append((end_seq, offset))
            if offsets and found.synced_seq > offsets[0][0]:
                offsets = [unsynced for unsynced in offsets if unsynced[0] >= found.synced_seq]
            offsets.append((end_seq, offset))
            end_seq += found.event_count
            offset = found.end_offset
        if is_last:
            # The last batch may have been written and never synced, or its fsync may have
            # failed and left clean pages that are not on disk. Writing the same bytes again
            # makes the fsync below be about them, and a crash in between changes nothing.
            start = 0 if not offsets or offsets[0][1] == header_bytes else offsets[0][1]
            self.files.overwrite(name, start, data[start:offset])
            self.files.sync(name)
            self.files.sync_directory()
        self._segments.append(Segment(name, first_seq, end_seq, offset, index))

    def _restore_producer(self, data: bytes, offset: int) -> None:
        record, _ = read_record(data, offset)
        if record.producer_sequence != NO_PRODUCER:
            digest = content_digest(record.chunks)
            answer = Answer(record.first_seq, record.event_count, digest=digest)
            self.producers.restore(record.producer_id, record.producer_sequence, answer)

    def _check_segment_header(
        self, name: str, header: dict[str, Any], first_seq: int, previous: Segment | None
    ) -> None:
        if header["format"] != FORMAT:
            raise CorruptLog(name, 0, f"it has format {header['format']}, this version reads {FORMAT}")
        if header["log_id"] != self.log_id or header["first_seq"] != first_seq:
            raise CorruptLog(
                name,
                0,
                f"its header names log {header['log_id']} and sequence {header['first_seq']}, "
                f"expected log {self.log_id} and sequence {first_seq}",
            )
        if previous is None:
            return  # everything before the first retained segment was trimmed
        expected = header["previous"]
        found = [previous.first_seq, previous.end_seq, previous.size_bytes]
        if expected is None or expected[0] != found[0]:
            missing = segment_name(expected[0]) if expected else "none"
            raise CorruptLog(name, 0, f"the segment before it should be {missing}, found {previous.name}")
        if expected != found:
            raise CorruptLog(
                previous.name,
                previous.size_bytes,
                f"it ends at sequence {found[1]} after {found[2]} bytes, expected {expected[1]} after {expected[2]}",
            )

    def _refuse_unless_torn(
        self, name: str, data: bytes, offset: int, seq: int, cause: str, *, is_last: bool
    ) -> None:
        """Raise CorruptLog unless what does not read at ``offset`` was never acknowledged."""
        if not is_last:
            raise CorruptLog(name, offset, cause or "it ends in the middle of a record")
        later: RecordHeader | None = find_record_after(data, offset)
        while later is not None:
            if later.synced_seq > seq:
                raise CorruptLog(name, offset, f"{cause}; a later record says this one had been durable")
            later = find_record_after(data, later.end_offset - 1)

    # --- appending ---------------------------------------------------------------------

    @property
    def end_seq(self) -> int:
        """The sequence the next event will get."""
        return self._end_seq

    @property
    def durable_seq(self) -> int:
        """Everything below is durable and may be read."""
        return self._durable_seq

    @property
    def first_seq(self) -> int:
        """The first sequence still kept."""
        return self._segments[0].first_seq

    @property
    def failure(self) -> LogFailed | None:
        """Why the log takes nothing more, if so."""
        return self._failed

    @property
    def buffered_bytes(self) -> int:
        """Bytes appended and not durable yet."""
        in_flight = self._in_flight.size_bytes if self._in_flight is not None else 0
        return self._buffer.size_bytes + in_flight

    @property
    def buffered_seq(self) -> int:
        """Sequences from here on are of records that no batch has taken yet."""
        return self._buffer.first_seq

    @property
    def is_writing(self) -> bool:
        """A batch has been taken and neither synced nor failed."""
        return self._in_flight is not None

    def append(
        self,
        events: Events,
        *,
        received_at_ms: int,
        producer_id: str = "",
        producer_sequence: int = NO_PRODUCER,
        request_id: str = "",
    ) -> int:
        """Add one request's events as one record; return the sequence of its first event.

        The record is in memory only; it becomes durable with its batch. A producer sequence
        must have been looked up in ``producers`` by the caller.

        Raises:
            LogFailed: the log takes nothing more.
        """
        return self.append_encoded(
            encode_events(events),
            received_at_ms=received_at_ms,
            producer_id=producer_id,
            producer_sequence=producer_sequence,
            request_id=request_id,
        )

    def append_encoded(
        self,
        parts: list[tuple[Events, bytes]],
        *,
        received_at_ms: int,
        producer_id: str = "",
        producer_sequence: int = NO_PRODUCER,
        request_id: str = "",
    ) -> int:
        """As ``append``, for events already encoded with ``encode_events``."""
        if self._failed is not None:
            raise self._failed
        first_seq = self._end_seq
        buffer = self._buffer
        count = 0
        for events, encoded in parts:
            # Events of small requests share a chunk, so that feeding them costs per event
            # and not per request.
            last = buffer.chunks[-1] if buffer.chunks else None
            if last is not None and last.can_take(len(events.ids), len(encoded)):
                last.add(events, len(encoded))
            else:
                buffer.chunks.append(Chunk(first_seq + count, events, len(encoded)))
            count += len(events.ids)
        record = encode_record(
            first_seq,
            self._durable_seq,
            count,
            [encoded for _, encoded in parts],
            received_at_ms=received_at_ms,
            producer_id=producer_id,
            producer_sequence=producer_sequence,
        )
        if not buffer.index or buffer.size_bytes - buffer.index[-1][1] >= INDEX_BYTES:
            buffer.index.append((first_seq, buffer.size_bytes))
        buffer.data.append(record)
        buffer.size_bytes += len(record)
        digest = None
        if producer_sequence != NO_PRODUCER:
            digest = content_digest([encoded for _, encoded in parts])
        answer = Answer(first_seq, count, request_id, digest)
        buffer.appended.append(Appended(answer, producer_id, producer_sequence))
        self._end_seq = buffer.end_seq = first_seq + count
        if producer_sequence != NO_PRODUCER:
            self.producers.reserve(producer_id, producer_sequence, answer)
        return first_seq

    def take_batch(self) -> Batch | None:
        """Return what has been appended, to be written; None if nothing is or one is being written."""
        batch = self._buffer
        if self._in_flight is not None or self._failed is not None or not batch.appended:
            return None
        segment = self._segments[-1]
        if self._written_bytes >= self._segment_bytes:
            # No batch is in flight, so the settled producers are those of the records
            # before this batch: its own must not be in the header, they may yet be torn.
            previous = [segment.first_seq, segment.end_seq, segment.size_bytes]
            batch.segment_name = segment_name(batch.first_seq)
            batch.segment_header = encode_segment_header(
                self.log_id, batch.first_seq, previous, self.producers.dump()
            )
            self._written_bytes = len(batch.segment_header)
        else:
            batch.segment_name = segment.name
        self._written_bytes += batch.size_bytes
        self._in_flight = batch
        self._buffer = Batch(batch.end_seq)
        return batch

    def write_batch(self, batch: Batch) -> None:
        """Write and sync a batch; blocking, may run in a thread, never raises OSError.

        A failure is kept in ``batch.error`` for ``batch_synced`` to act on.
        """
        try:
            self.files.append(batch.segment_name, b"".join((batch.segment_header, *batch.data)))
            self.files.sync(batch.segment_name)
            if batch.segment_header:
                self.files.sync_directory()
        except OSError as error:
            batch.error = f"{type(error).__name__}: {error}"

    def batch_synced(self, batch: Batch) -> list[Appended]:
        """Make a written batch visible; return its records, which may now be acknowledged.

        Raises:
            LogFailed: writing failed; nothing of this batch or of later appends is
                acknowledged, ever.
        """
        assert batch is self._in_flight, "batches become durable one at a time, in order"
        if batch.error is not None:
            self._failed = LogFailed(self.log_id, batch.error)
            raise self._failed
        self._in_flight = None
        if batch.segment_header:
            start = len(batch.segment_header)
            segment = Segment(batch.segment_name, batch.first_seq, batch.first_seq, start, [])
            self._segments.append(segment)
        segment = self._segments[-1]
        for seq, offset in batch.index:
            at = segment.size_bytes + offset
            if not segment.index or at - segment.index[-1][1] >= INDEX_BYTES:
                segment.index.append((seq, at))
        segment.size_bytes += batch.size_bytes
        segment.end_seq = self._durable_seq = batch.end_seq
        for _, producer_id, producer_sequence in batch.appended:
            if producer_sequence != NO_PRODUCER:
                self.producers.settle(producer_id, producer_sequence)
        return batch.appended

    # --- reading and trimming ----------------------------------------------------------

    def read(self, from_seq: int) -> LogReader:
        """Return a reader of the durable records from ``from_seq`` on.

        Raises:
            LogTrimmed: ``from_seq`` is no longer kept.
        """
        if from_seq < self.first_seq:
            raise LogTrimmed(self.log_id, from_seq, self.first_seq)
        return LogReader(self, from_seq)

    def trim(self, next_seq: int) -> list[str]:
        """Forget the segments that lie entirely below ``next_seq``; return their file names.

        The files are still there; hand the names to ``remove_segments``, in a thread if
        you like. A crash in between only leaves them for the next trim.
        """
        names = []
        while len(self._segments) > 1 and self._segments[1].first_seq <= next_seq:
            names.append(self._segments.pop(0).name)
        return names

    def remove_segments(self, names: list[str]) -> None:
        """Remove the files of trimmed segments, oldest first; blocking."""
        for name in names:
            self.files.remove(name)
            # One by one: a hole left by a power loss would look like a missing segment.
            self.files.sync_directory()

    def close(self) -> None:
        """Release the files. What was not synced is gone, as it was never acknowledged.

        Notes the durable end, so that the next opening misses nothing below it.
        """
        if self._failed is None:
            write_meta(self.files, self.log_id, self.boot, self._durable_seq)
            self._failed = LogFailed(self.log_id, "the log was closed")
        self.files.close()

    def segment_at(self, seq: int) -> Segment | None:
        """Return the segment that holds the durable ``seq``; None if it is not durable yet."""
        if seq >= self._durable_seq:
            return None
        if seq < self.first_seq:
            raise LogTrimmed(self.log_id, seq, self.first_seq)
        at = bisect_right(self._segments, seq, key=lambda segment: segment.first_seq)
        return self._segments[at - 1]
