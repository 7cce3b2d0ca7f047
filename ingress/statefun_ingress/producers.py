"""Which requests of which producers have been accepted: exact, also out of order.

A producer numbers its requests 0, 1, 2, ... or 1, 2, 3, ... and repeats a request that got
no answer under the same number. It may have many requests open at once, so they arrive in
any order; per producer there is a *floor*, below which everything is accepted, and the set
of sequences accepted above it, at most ``window`` wide.

    sequence < floor or in the set          accepted before: a duplicate
    in the batch that is being synced       a duplicate that has to wait for that sync
    floor <= sequence < floor + window      new
    beyond                                  refused: an earlier request is missing

Two kinds of knowledge are kept apart. *Reserved* sequences belong to records that are not
durable yet; *settled* ones are. Only settled ones are written into segment headers: a
reserved one could outlive the record it stands for.

Invariant: a sequence is settled if and only if its record is durable in this log.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from statefun_ingress.errors import SequenceTooFarAhead, TooManyProducers

WINDOW_DEFAULT: Final = 1024
"""How far a producer may run ahead of its oldest unaccepted request."""

PRODUCERS_MAX_DEFAULT: Final = 10_000
"""Producers one log remembers; they are written into every segment header."""

ANSWERS_MAX_DEFAULT: Final = 65_536
"""Answers kept in memory so that a repeated request gets the very same one, and another request under
its number is told apart."""


class Answer(NamedTuple):
    """What an accepted request is told, now and when it is repeated.

    Attributes:
        first_seq: sequence of its first event; -1 if the number is no longer remembered.
        event_count: events accepted.
        request_id: under which a reply is awaited; "" if none is.
        digest: ``content_digest`` of a numbered request; None if it is not remembered.
    """

    first_seq: int
    event_count: int
    request_id: str = ""
    digest: int | None = None


class _Producer:
    __slots__ = ("floor", "seen")

    def __init__(self, floor: int, seen: set[int]) -> None:
        self.floor = floor
        self.seen = seen

    def add(self, sequence: int, window: int) -> None:
        if sequence < self.floor:
            return
        seen = self.seen
        seen.add(sequence)
        if self.floor == 0 and sequence >= window:
            # A producer that counts from 0 may not be here while its 0 is unanswered, so
            # this one counts from 1 and there will never be a 0.
            seen.add(0)
        while self.floor in seen:
            seen.remove(self.floor)
            self.floor += 1


class Producers:
    """The table of producers of one log.

    Args:
        window: how far ahead a producer may run.
        producers_max: how many producers are remembered.
        answers_max: how many answers are remembered for repeated requests.
    """

    def __init__(
        self,
        *,
        window: int = WINDOW_DEFAULT,
        producers_max: int = PRODUCERS_MAX_DEFAULT,
        answers_max: int = ANSWERS_MAX_DEFAULT,
    ) -> None:
        self.window = window
        self.producers_max = producers_max
        self.answers_max = answers_max
        self._settled: dict[str, _Producer] = {}
        self._reserved: dict[tuple[str, int], Answer] = {}
        self._reserved_new: set[str] = set()  # producers known from reserved sequences only
        self._answers: OrderedDict[tuple[str, int], Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._settled) + len(self._reserved_new)

    def find(self, producer_id: str, sequence: int, count: int) -> Answer | None:
        """Return the answer of a settled duplicate, or None if ``sequence`` is not settled.

        Args:
            count: events of the repeated request, for an answer no longer remembered.
        """
        producer = self._settled.get(producer_id)
        if producer is None or (sequence >= producer.floor and sequence not in producer.seen):
            return None
        return self._answers.get((producer_id, sequence)) or Answer(-1, count)

    def find_reserved(self, producer_id: str, sequence: int) -> Answer | None:
        """Return the answer a duplicate will get once the batch with its original is durable."""
        return self._reserved.get((producer_id, sequence))

    def check(self, producer_id: str, sequence: int) -> None:
        """Check that a new ``sequence`` may be reserved.

        Raises:
            SequenceTooFarAhead: an earlier sequence of the producer is missing.
            TooManyProducers: the producer is new and the table is full.
        """
        producer = self._settled.get(producer_id)
        is_new = producer is None and producer_id not in self._reserved_new
        if is_new and len(self) >= self.producers_max:
            raise TooManyProducers(producer_id, self.producers_max)
        floor = 0 if producer is None else producer.floor
        # At floor 0 it is not known yet whether the producer counts from 0 or from 1.
        if sequence < floor + self.window or (floor == 0 and sequence == self.window):
            return
        expected = max(floor, 1)
        while producer is not None and expected in producer.seen:
            expected += 1
        raise SequenceTooFarAhead(producer_id, sequence, expected, self.window)

    def reserve(self, producer_id: str, sequence: int, answer: Answer) -> None:
        """Note that a record with this sequence was appended and is not durable yet."""
        if producer_id not in self._settled:
            self._reserved_new.add(producer_id)
        self._reserved[(producer_id, sequence)] = answer

    def settle(self, producer_id: str, sequence: int) -> None:
        """Note that the record of a reserved sequence is durable."""
        answer = self._reserved.pop((producer_id, sequence))
        self._reserved_new.discard(producer_id)
        self.restore(producer_id, sequence, answer)

    def restore(self, producer_id: str, sequence: int, answer: Answer) -> None:
        """Enter a sequence whose record is durable; a second time changes nothing."""
        producer = self._settled.get(producer_id)
        if producer is None:
            producer = self._settled[producer_id] = _Producer(0, set())
        producer.add(sequence, self.window)
        self._answers[(producer_id, sequence)] = answer
        if len(self._answers) > self.answers_max:
            self._answers.popitem(last=False)

    def dump(self) -> list[tuple[str, int, list[int]]]:
        """Return the settled table, for a segment header: (producer, floor, sequences above)."""
        return [(id, entry.floor, sorted(entry.seen)) for id, entry in self._settled.items()]

    def load(self, table: list[Any]) -> None:
        """Replace the settled table by a dumped one."""
        self._settled = {id: _Producer(floor, set(seen)) for id, floor, seen in table}
