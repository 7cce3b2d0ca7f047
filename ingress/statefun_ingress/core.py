"""One ingress without its I/O: accept, make durable, acknowledge, feed, hand on replies.

It ties the log, its producers, the feeds and the pending replies together and is driven by
``service.py`` on sockets and a committer thread, and by the simulator on simulated ones.

The acknowledgement rule: ``accept`` either returns the answer of a request that is durable
already (a repeated one), or keeps the waiter until ``batch_synced`` gives it back with its
answer. A waiter of a failed batch gets None: whether its event will be seen is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from statefun_ingress.dead_letters import DEAD_LETTERS
from statefun_ingress.errors import LogFailed, SequenceReused
from statefun_ingress.feed import (
    Credit,
    EgressAck,
    EgressRows,
    Feed,
    Feeds,
    Figures,
    Hello,
    Query,
    Reply,
    ReplyAck,
    State,
    Trim,
    WorkerFrame,
)
from statefun_ingress.log import Batch, IngressLog
from statefun_ingress.pending import PENDING_MAX_DEFAULT, PendingReplies
from statefun_ingress.producers import Answer
from statefun_ingress.record import NO_PRODUCER, Events, content_digest
from statefun_ingress.topics import PlaygroundTopics

QUERIES_MAX_DEFAULT: Final = 10_000
"""State queries that may wait for a worker at once."""

AnswerWaiter = Callable[[Answer | None], None]
StateWaiter = Callable[[State | None], None]


class IngressCore:
    """One ingress.

    Args:
        log: opened; the core is its only user.
        app_name, key_group_count: of the application.
        pending_max: requests that may wait for a reply at once.
        topics: of the playground's egress, if the application has one.
    """

    def __init__(
        self,
        log: IngressLog,
        *,
        app_name: str,
        key_group_count: int,
        pending_max: int = PENDING_MAX_DEFAULT,
        topics: PlaygroundTopics | None = None,
    ) -> None:
        self.log = log
        self.feeds = Feeds(log, app_name=app_name, key_group_count=key_group_count)
        self.pending = PendingReplies(log.incarnation, pending_max=pending_max)
        self.topics = topics or PlaygroundTopics(())
        self.replies_dropped = 0
        self._waiters: list[tuple[AnswerWaiter, Answer]] = []  # of records in the buffer
        self._waiters_in_flight: list[tuple[AnswerWaiter, Answer]] = []
        self._queries: dict[int, tuple[Feed, StateWaiter]] = {}
        self._last_query_id = 0

    # --- accepting ---------------------------------------------------------------------

    def accept(
        self,
        parts: list[tuple[Events, bytes]],
        waiter: AnswerWaiter,
        *,
        received_at_ms: int,
        producer_id: str = "",
        producer_sequence: int = NO_PRODUCER,
        request_id: str = "",
    ) -> Answer | None:
        """Append one request's events, once.

        Args:
            parts: from ``encode_events``; the core keeps them.
            waiter: called with the answer once the record is durable, or with None if the
                log fails first. Not called if an answer is returned.
            received_at_ms: milliseconds since 1970, for people and tools.
            producer_id, producer_sequence: if the producer numbers its requests.
            request_id: from ``pending.open`` if a reply is awaited.

        Returns:
            The answer, if this request is a repetition of a durable one; else None.

        Raises:
            LogFailed: the log takes nothing more.
            ProducerError: the sequence cannot be taken, or was used for other events.
        """
        log = self.log
        if producer_sequence != NO_PRODUCER:
            producers = log.producers
            repeated = producers.find(producer_id, producer_sequence, sum(len(part[0]) for part in parts))
            if repeated is not None:
                _check_same(repeated, parts, producer_id, producer_sequence)
                return repeated
            reserved = producers.find_reserved(producer_id, producer_sequence)
            if reserved is not None:
                _check_same(reserved, parts, producer_id, producer_sequence)
                if log.failure is not None:
                    raise log.failure
                # Its original is not durable yet, so neither may be answered before it is.
                is_buffered = reserved.first_seq >= log.buffered_seq
                (self._waiters if is_buffered else self._waiters_in_flight).append((waiter, reserved))
                return None
            producers.check(producer_id, producer_sequence)
        first_seq = log.append_encoded(
            parts,
            received_at_ms=received_at_ms,
            producer_id=producer_id,
            producer_sequence=producer_sequence,
            request_id=request_id,
        )
        self._waiters.append((waiter, Answer(first_seq, log.end_seq - first_seq, request_id)))
        return None

    def take_batch(self) -> Batch | None:
        """Return the next batch to be written with ``log.write_batch``, if there is one."""
        batch = self.log.take_batch()
        if batch is not None:
            self._waiters_in_flight, self._waiters = self._waiters, []
        return batch

    def batch_synced(self, batch: Batch) -> None:
        """Acknowledge a written batch and give its events to the feeds; or fail for good.

        Never raises: after a failure ``log.failure`` says why, and every waiter has been
        told.
        """
        waiters, self._waiters_in_flight = self._waiters_in_flight, []
        try:
            self.log.batch_synced(batch)
        except LogFailed:
            waiters += self._waiters
            self._waiters = []
            for waiter, _ in waiters:
                waiter(None)
            return
        self.feeds.publish(batch.chunks)
        for waiter, answer in waiters:
            waiter(answer)

    # --- workers -----------------------------------------------------------------------

    def receive(self, feed: Feed, frame: WorkerFrame) -> list[str]:
        """Act on a worker's frame; return files of the log to remove (``log.remove_segments``)."""
        if feed.hello is None and not isinstance(frame, Hello):
            feed.close("a connection begins with hello")
        elif isinstance(frame, Credit):
            self.feeds.grant(feed, frame)
        elif isinstance(frame, Reply):
            for request_id, typename, value in frame.replies:
                if not self.pending.complete(frame.incarnation, request_id, typename, value):
                    self.replies_dropped += 1
            feed.send(ReplyAck(frame.ack_id))
        elif isinstance(frame, EgressRows):
            self.topics.publish(frame.shard, frame.rows)
            feed.send(EgressAck(frame.ack_id))
        elif isinstance(frame, Figures):
            feed.figures = frame
        elif isinstance(frame, Trim):
            trim_to = self.feeds.let_go(feed, frame)
            if trim_to is not None:
                return self.log.trim(trim_to)
        elif isinstance(frame, State):
            asked = self._queries.get(frame.query_id)
            if asked is not None and asked[0] is feed:
                del self._queries[frame.query_id]
                asked[1](frame)
        elif isinstance(frame, Hello):
            self.feeds.say_hello(feed, frame)
        return []

    def closed(self, feed: Feed) -> None:
        """Note that a worker's connection is gone; its open queries get None."""
        self.feeds.closed(feed)
        for query_id in [id for id, (asked, _) in self._queries.items() if asked is feed]:
            _, waiter = self._queries.pop(query_id)
            waiter(None)

    def query(self, function_type: str, id: str, *, wait_commit: bool, waiter: StateWaiter) -> int | None:
        """Ask the owner of an address for its state.

        Returns:
            A number for ``forget_query``; None if the owner is not connected or too many
            queries are open, and then the waiter is not called.
        """
        feed = self.feeds.owner_of(id)
        return None if feed is None else self.query_of(feed, function_type, id, wait_commit, waiter)

    def query_of(
        self, feed: Feed, function_type: str, id: str | None, wait_commit: bool, waiter: StateWaiter
    ) -> int | None:
        """Ask one worker; as `query`."""
        if len(self._queries) >= QUERIES_MAX_DEFAULT:
            return None
        self._last_query_id += 1
        self._queries[self._last_query_id] = (feed, waiter)
        feed.send(Query(self._last_query_id, function_type, id, wait_commit))
        return self._last_query_id

    def query_letters(
        self, feed: Feed, function_type: str, id: str | None, waiter: StateWaiter
    ) -> int | None:
        """Ask one worker for its dead letters, those to one function or of one id if it is given; as `query`.

        As of a commit: a letter that is not in a snapshot may be gone after a crash, and its name be that
        of another, so that nothing could be told to it.
        """
        return self.query_of(feed, f"{DEAD_LETTERS}#{function_type}", id, True, waiter)

    def forget_query(self, query_id: int) -> None:
        """Stop waiting for a query; its waiter is not called any more."""
        self._queries.pop(query_id, None)

    # --- status ------------------------------------------------------------------------

    @property
    def lag(self) -> int:
        """Events accepted and not yet handed to the worker that owns them."""
        return self.log.durable_seq - self.feeds.position_min()


def _check_same(
    known: Answer, parts: list[tuple[Events, bytes]], producer_id: str, producer_sequence: int
) -> None:
    """Raise SequenceReused if it is known that the number was used for other events."""
    if known.digest is not None and known.digest != content_digest([encoded for _, encoded in parts]):
        raise SequenceReused(producer_id, producer_sequence, known.first_seq)
