"""Feeding each worker the events of its own key groups, from its own positions.

One connection of a worker is a ``Feed``. All feeds share the *tail*: the newest durable
events, in memory. A feed whose position lies in the tail is served from it as soon as a
batch is durable; one that is behind it (a worker that starts from an old snapshot, or does
not keep up) reads the log, a bounded slice per turn, until it is back in the tail.

Positions. A worker's position is a list of key-group intervals, each with the next sequence
it needs. A feed starts at the lowest and leaves out what is below an interval's own. Frames
of one feed are contiguous: each covers ``from_seq <= seq < to_seq`` completely.

Generations. The newest generation owns the feeds; hello of a newer one closes all older,
of a lower one is refused. Within a generation a worker's new connection replaces its old.

No clock, sockets or tasks here: the driver passes frames in, calls ``publish`` when a batch
is durable and ``pump`` until it returns False, and sends what gathers in ``Feed.outgoing``.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from statefun_ingress.errors import CorruptLog, LogTrimmed
from statefun_ingress.frames import (
    FRAME_BYTES_MAX,
    Credit,
    EgressAck,
    EgressRows,
    EventsFrame,
    Figures,
    FrameSplitter,
    Hello,
    IngressFrame,
    Query,
    Refused,
    Reply,
    ReplyAck,
    ReplyRow,
    State,
    StateRow,
    Trim,
    Welcome,
    WorkerFrame,
    decode_ingress_frame,
    decode_worker_frame,
    encode_frame,
)
from statefun_ingress.key_groups import key_group_of
from statefun_ingress.log import IngressLog
from statefun_ingress.log_reader import LogReader
from statefun_ingress.record import Chunk, Events

__all__ = [
    "Feed",
    "Feeds",
    "FRAME_BYTES_MAX",
    "Credit",
    "EgressAck",
    "EgressRows",
    "EventsFrame",
    "Figures",
    "FrameSplitter",
    "Hello",
    "IngressFrame",
    "Query",
    "Refused",
    "Reply",
    "ReplyAck",
    "ReplyRow",
    "State",
    "StateRow",
    "Trim",
    "Welcome",
    "WorkerFrame",
    "decode_ingress_frame",
    "decode_worker_frame",
    "encode_frame",
]

TAIL_EVENTS_MAX_DEFAULT: Final = 200_000
"""Events kept in memory for workers that keep up; about two seconds of a busy ingress."""

TAIL_BYTES_MAX_DEFAULT: Final = 64 << 20
"""Bytes of such events, for applications with large values."""

FRAME_EVENTS_MAX: Final = 1_000
"""Events of one frame: about a millisecond to gather and encode."""

FRAME_BYTES_SOFT: Final = 1 << 20
"""A frame is closed once its events are about this large."""

SCAN_EVENTS_MAX: Final = 4_000
"""Events looked at in one turn, other workers' included."""

IDLE_EVENTS: Final = 10_000
"""A feed without events of its own is moved on after so many of others'."""

NOT_OURS: Final = 1 << 63
"""The next sequence of a key group that a feed does not serve."""


class Feed:
    """One connection of a worker.

    Attributes:
        outgoing: encoded frames to be sent, in order; the driver takes them out.
        closing: why the connection is to be closed once ``outgoing`` is sent, if it is.
        hello: what the worker said at the start; None until it did.
        told_seq: where the frames sent so far end.
        figures: what it last said of itself.
        is_paused: set by the driver while the connection takes no more bytes.
    """

    def __init__(self) -> None:
        self.outgoing: list[bytes] = []
        self.closing: str | None = None
        self.hello: Hello | None = None
        self.told_seq = 0
        self.is_paused = False
        self.figures = Figures([])
        self.scan_seq = 0  # everything below has been looked at
        self.granted_events = 0
        self.sent_events = 0
        self.trim_seq = 0
        self._next_of: list[int] = []  # key group -> first sequence it needs, or NOT_OURS
        self._reader: LogReader | None = None
        self._read_chunk: Chunk | None = None  # read from the log, not used up

    @property
    def is_serving(self) -> bool:
        """The worker has been welcomed and not been sent away."""
        return self.hello is not None and self.closing is None

    def serves(self, key_group: int) -> bool:
        """Return whether this feed's worker owns ``key_group``."""
        return self.is_serving and self._next_of[key_group] != NOT_OURS

    def send(self, frame: IngressFrame) -> None:
        """Queue a frame."""
        self.outgoing.append(encode_frame(frame))

    def close(self, text: str) -> None:
        """Refuse further service: tell the worker why, then close."""
        if self.closing is None:
            self.send(Refused(text))
            self.closing = text

    def take_outgoing(self) -> list[bytes]:
        """Return the frames to send and forget them."""
        frames, self.outgoing = self.outgoing, []
        return frames


class Feeds:
    """All feeds of one log.

    Args:
        log: where events come from; only durable ones are ever fed.
        app_name: of the application; a worker of another one is refused.
        key_group_count: of the application.
        tail_events_max, tail_bytes_max: bounds of the shared tail.
    """

    def __init__(
        self,
        log: IngressLog,
        *,
        app_name: str,
        key_group_count: int,
        tail_events_max: int = TAIL_EVENTS_MAX_DEFAULT,
        tail_bytes_max: int = TAIL_BYTES_MAX_DEFAULT,
    ) -> None:
        self._log = log
        self._app_name = app_name
        self._key_group_count = key_group_count
        self._tail_events_max = tail_events_max
        self._tail_bytes_max = tail_bytes_max
        self._tail: list[Chunk] = []
        self._tail_events = 0
        self._tail_bytes = 0
        self._tail_seq = log.durable_seq  # the first sequence the tail holds
        self._serving: dict[int, Feed] = {}  # worker index -> its feed, of the newest generation
        self._positions: dict[int, int] = {}  # worker index -> told_seq of a feed that is gone
        self._trims: dict[int, int] = {}  # worker index -> what it last let go
        self._trimmed_seq = log.first_seq
        self.generation = -1
        self.worker_count = 0

    # --- connections -------------------------------------------------------------------

    def open(self) -> Feed:
        """Return the feed of a new connection; it is served once its worker said hello."""
        return Feed()

    def closed(self, feed: Feed) -> None:
        """Note that a connection is gone."""
        if feed.closing is None:
            feed.closing = "the connection was closed"
        hello = feed.hello
        if hello is not None and self._serving.get(hello.worker_index) is feed:
            del self._serving[hello.worker_index]
            self._positions[hello.worker_index] = feed.told_seq

    @property
    def serving(self) -> list[Feed]:
        """The feeds of the newest generation that are connected, by worker index."""
        return [self._serving[index] for index in sorted(self._serving)]

    def owner_of(self, id: str) -> Feed | None:
        """Return the feed of the worker that owns ``id``, or None if it is not connected."""
        key_group = key_group_of(id, self._key_group_count)
        for feed in self._serving.values():
            if feed.serves(key_group):
                return feed
        return None

    def say_hello(self, feed: Feed, hello: Hello) -> None:
        """Begin to serve a worker, or refuse it."""
        problem = self._problem_with(feed, hello)
        if problem is not None:
            feed.close(problem)
            return
        if hello.generation > self.generation:
            for older in self._serving.values():
                older.close(f"generation {hello.generation} has taken over from {self.generation}")
            self._serving.clear()
            self._positions.clear()
            self._trims.clear()
            self.generation, self.worker_count = hello.generation, hello.worker_count
        elif hello.worker_index in self._serving:
            self._serving[hello.worker_index].close(f"worker {hello.worker_index} has connected again")
        feed.hello = hello
        feed.granted_events = hello.credit_events
        feed._next_of = [NOT_OURS] * self._key_group_count
        for first, end, next_seq in hello.positions:
            feed._next_of[first:end] = [next_seq] * (end - first)
        start = min((next_seq for _, _, next_seq in hello.positions), default=self._log.durable_seq)
        feed.told_seq = feed.scan_seq = start
        self._serving[hello.worker_index] = feed
        feed.send(Welcome(self._log.log_id, self._log.incarnation, self._log.durable_seq))

    def _problem_with(self, feed: Feed, hello: Hello) -> str | None:
        if feed.hello is not None:
            return "a connection says hello once"
        if hello.app_name != self._app_name:
            return f"this ingress serves application {self._app_name!r}, not {hello.app_name!r}"
        if hello.generation < self.generation:
            return f"generation {hello.generation} is over, {self.generation} has connected"
        if not 0 <= hello.worker_index < hello.worker_count:
            return f"worker {hello.worker_index} of {hello.worker_count} cannot be"
        if hello.generation == self.generation and hello.worker_count != self.worker_count:
            return f"generation {self.generation} has {self.worker_count} workers, not {hello.worker_count}"
        covered = 0
        for first, end, next_seq in sorted(hello.positions):
            if not covered <= first < end <= self._key_group_count:
                return (
                    f"key groups [{first}, {end}) overlap others or lie outside [0, {self._key_group_count})"
                )
            covered = end
            if next_seq < self._log.first_seq:
                return str(LogTrimmed(self._log.log_id, next_seq, self._log.first_seq))
            if next_seq > self._log.durable_seq:
                return (
                    f"log {self._log.log_id} ends at sequence {self._log.durable_seq}, but a snapshot has already "
                    f"taken its events below {next_seq}: acknowledged events are missing from its disk"
                )
        for index, other in self._serving.items():
            if hello.generation == self.generation and index != hello.worker_index:
                for first, end, _ in hello.positions:
                    if any(other._next_of[group] != NOT_OURS for group in range(first, end)):
                        return f"key groups [{first}, {end}) belong to worker {index} in this generation"
        return None

    def grant(self, feed: Feed, credit: Credit) -> None:
        """Let a worker take more events."""
        feed.granted_events = max(feed.granted_events, credit.total_events)

    def let_go(self, feed: Feed, trim: Trim) -> int | None:
        """Note what a worker no longer needs; return a sequence the log may be trimmed to.

        That is the lowest of all workers of the newest generation, once each has spoken.
        """
        hello = feed.hello
        if hello is None or self._serving.get(hello.worker_index) is not feed:
            return None
        index = hello.worker_index
        self._trims[index] = max(self._trims.get(index, 0), trim.next_seq)
        if len(self._trims) < self.worker_count:
            return None
        lowest = min(self._trims.values())
        if lowest <= self._trimmed_seq:
            return None
        self._trimmed_seq = lowest
        return lowest

    # --- events ------------------------------------------------------------------------

    def publish(self, chunks: list[Chunk]) -> None:
        """Take the events of a batch that has just become durable."""
        tail = self._tail
        for chunk in chunks:
            self._tail_events += len(chunk.events.ids)
            self._tail_bytes += chunk.size_bytes
        tail += chunks
        if self._tail_events > self._tail_events_max or self._tail_bytes > self._tail_bytes_max:
            # Room is made in large steps, since removing from the front of a list moves
            # the rest. Feeds that still need what goes read it from the log.
            self._drop_tail(self._tail_events_max * 3 // 4, self._tail_bytes_max * 3 // 4)

    def _drop_tail(self, events_max: int, bytes_max: int) -> None:
        dropped = 0
        for chunk in self._tail:
            if self._tail_events <= events_max and self._tail_bytes <= bytes_max:
                break
            self._tail_events -= len(chunk.events.ids)
            self._tail_bytes -= chunk.size_bytes
            dropped += 1
        del self._tail[:dropped]
        self._tail_seq = self._tail[0].first_seq if self._tail else self._log.durable_seq

    def pump(self, feed: Feed) -> bool:
        """Send a feed one frame of events, if it may have one; return whether to go on.

        Raises:
            CorruptLog, OSError: the log does not read back; the feed is closed.
        """
        allowed = min(feed.granted_events - feed.sent_events, FRAME_EVENTS_MAX)
        if not feed.is_serving or feed.is_paused or allowed <= 0:
            return False
        seqs: list[int] = []
        events = Events.empty()
        frame_bytes = scanned = 0
        at_end = False
        while len(seqs) < allowed and frame_bytes < FRAME_BYTES_SOFT and scanned < SCAN_EVENTS_MAX:
            chunk = self._next_chunk(feed)
            if chunk is None:
                at_end = True
                break
            before, taken = feed.scan_seq, len(seqs)
            self._take(feed, chunk, seqs, events, allowed)
            scanned += feed.scan_seq - before
            # The share of the chunk that was taken, as good as the frame's bound needs it.
            frame_bytes += chunk.size_bytes * (len(seqs) - taken) // len(chunk.events.ids)
            if feed._reader is not None:
                break  # reading back costs more than the tail: one slice a turn
        if seqs:
            feed.sent_events += len(seqs)
            self._send_events(feed, seqs, events)
        elif feed.scan_seq - feed.told_seq >= IDLE_EVENTS:
            self._send_events(feed, seqs, events)
        return not at_end

    def advance_idle(self) -> None:
        """Tell the workers that wait for events of their own how far the log has been read.

        Without it their positions would hold back trimming; call it a few times a second.
        """
        for feed in self._serving.values():
            if feed.is_serving and not feed.is_paused and feed.scan_seq > feed.told_seq:
                self._send_events(feed, [], Events.empty())

    def _send_events(self, feed: Feed, seqs: list[int], events: Events) -> None:
        feed.send(
            EventsFrame(
                feed.told_seq,
                feed.scan_seq,
                seqs,
                events.target_types,
                events.ids,
                events.caller_types,
                events.caller_ids,
                events.value_types,
                events.values,
            )
        )
        feed.told_seq = feed.scan_seq

    def _next_chunk(self, feed: Feed) -> Chunk | None:
        """Return the chunk that holds the feed's next sequence, or None at the durable end."""
        seq = feed.scan_seq
        if seq >= self._log.durable_seq:
            return None
        if seq >= self._tail_seq:
            feed._reader = feed._read_chunk = None
            tail = self._tail
            if seq >= tail[-1].first_seq:
                return tail[-1]
            return tail[bisect_right(tail, seq, key=lambda chunk: chunk.first_seq) - 1]
        chunk = feed._read_chunk
        if chunk is None or chunk.end_seq <= seq:
            try:
                if feed._reader is None:
                    feed._reader = self._log.read(seq)
                chunk = feed._reader.read()
            except (CorruptLog, LogTrimmed, OSError) as error:
                feed.close(str(error))
                raise
            assert chunk is not None, "a durable sequence can be read"
            feed._read_chunk = chunk
        return chunk

    def _take(self, feed: Feed, chunk: Chunk, seqs: list[int], events: Events, allowed: int) -> None:
        """Add the feed's events of ``chunk`` from ``scan_seq`` on, and move ``scan_seq``."""
        groups = chunk.key_groups
        if groups is None:
            count = self._key_group_count
            groups = chunk.key_groups = [key_group_of(id, count) for id in chunk.events.ids]
        first = chunk.first_seq
        start = feed.scan_seq - first
        next_of = feed._next_of
        rows = [
            row
            for row, group in enumerate(groups[start:] if start else groups, start)
            if next_of[group] <= first + row
        ]
        room = allowed - len(seqs)
        if len(rows) > room:
            feed.scan_seq = first + rows[room]
            rows = rows[:room]
        else:
            feed.scan_seq = first + len(groups)
        source = chunk.events
        if len(rows) == len(groups):
            seqs += range(first, first + len(rows))
            events.extend(source)
        elif rows:
            seqs += [first + row for row in rows]
            for column, items in (
                (events.target_types, source.target_types),
                (events.ids, source.ids),
                (events.caller_types, source.caller_types),
                (events.caller_ids, source.caller_ids),
                (events.value_types, source.value_types),
            ):
                column += [items[row] for row in rows]
            values = source.values
            events.values += [values[row] for row in rows]

    # --- status ------------------------------------------------------------------------

    def position_min(self) -> int:
        """Return the sequence below which every event has been handed to its worker.

        A worker that has not connected in this generation holds it at what was trimmed.
        """
        told = [feed.told_seq for feed in self._serving.values()]
        told += [seq for index, seq in self._positions.items() if index not in self._serving]
        if not told or len(told) < self.worker_count:
            told.append(self._trimmed_seq)
        return min(told)
