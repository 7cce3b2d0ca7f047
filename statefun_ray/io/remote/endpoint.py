"""What is known of one service: how much it bears, and whether it is there. No I/O.

The limit of requests in flight grows while answers come and falls when the service shows that it
has too much: additive increase, multiplicative decrease, with a steep start like a TCP
connection's. It is small after a start, so a service is not flooded when an application is restored.
How far it grows is found by trying, see ``concurrency``.

=========  ====================================================================================
service    limit
=========  ====================================================================================
is up      adaptive, between 1 and what the service makes use of, at most the size of the pool
asks for   0 until the time it has named (``Retry-After``), then half of what it was
a pause    or less
is down    0 until the next probe, then 1; each probe that fails doubles the wait
=========  ====================================================================================

A service asks for a pause if several addresses are asked to come later, and nobody has a result
between. A single one waits for itself: it may be the only one that is asked to.

Every change begins a new *round*. A sign of trouble from a request of an earlier round says nothing
new: the requests that were in flight together fail together. Rounds in which the service is down
have odd numbers, so a request that was a probe is known by the round it belongs to.

A service, or a gateway before it, may also refuse one address and serve all others. An address that
is refused again and again waits ever longer by itself, so others are the next probes, and neither
lengthens a pause of the service any more nor asks for one. If it began while the service was up, and
others had results since its last refusal, ``SUSPICIOUS_MAX`` times in a row, then its batch is to
blame, and nothing of that is a sign of the service. Probes never count: while a service is down, nobody is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from statefun_ray.io.remote.concurrency import Concurrency

LIMIT_START: Final = 8
"""Requests in flight at first: what keeps one process of a service busy."""

LIMIT_SLOW: Final = 16
"""Time-outs do not take the limit below this: some functions of a service may just be slow."""

PROBE_MS_MIN: Final = 100
PROBE_MS_MAX: Final = 10_000
"""A service that is down is looked for after 0.1 s, 0.2 s, ... and then every 10 s. Likewise an address
that is refused in a row comes again."""

SUSPICIOUS_MAX: Final = 5
"""Refusals of one address in a row, with results for others between them, that are no accident: in a
service that refuses every other request at random, one address in thirty has so many."""

ASKED_MIN: Final = 2
"""Addresses that a service asks for a pause before all of them make one. More would each be a request that a service
which means it has to refuse."""

TROUBLED_MAX: Final = 10_000
"""Addresses whose refusals are remembered; the oldest of more are forgotten, and count anew."""

RETRY_AFTER_MS_MAX: Final = 600_000
"""Of a pause that a service asks for: a wrong header must not stop it for a day."""

REFUSED_DELAY_MS: Final = 100
"""Before a batch is offered again that the service had no time for."""


Who: TypeAlias = tuple[str, str]
"""``(function type, id)`` of an address."""


@dataclass(slots=True)
class Trouble:
    """What became of the requests of one address since its last result."""

    refusals: int = 0
    """In a row."""
    suspicious: int = 0
    """Those of them that others did not share."""
    results: int = 0
    """Results of the service when the last of them came."""


class EndpointState:
    """How one worker sees one service. Times are milliseconds of any clock that only goes forward."""

    __slots__ = (
        "_asked",
        "_concurrency",
        "_limit",
        "_limit_max",
        "_most",
        "_not_before_ms",
        "_round",
        "_steep_until",
        "_troubles",
        "failures",
        "in_flight",
        "is_down",
        "last_error",
        "name",
        "requests",
        "troubled",
    )

    def __init__(self, name: str, limit_max: int) -> None:
        """Args:
        name: for people.
        limit_max: requests in flight at most.
        """
        self.name = name
        self._limit_max = max(1, limit_max)
        self._limit: float = min(LIMIT_START, self._limit_max)
        self._concurrency = Concurrency(self._limit_max)
        self._steep_until = self._limit_max
        self._round = 0
        self._troubles = 0
        """Probes, or requests at a limit of 1, that failed in a row, each address once."""
        self._not_before_ms = 0.0
        self._asked = 0
        """Addresses that were asked to come later, since the service's last result."""
        self.is_down = False
        self.in_flight = 0
        self._most = 0
        """Requests in flight at most since the concurrency was looked at."""
        self.last_error = ""
        self.requests = 0
        self.failures = 0
        """Requests without a result, whoever is to blame."""
        self.troubled: dict[Who, Trouble] = {}
        """Addresses whose last request had no result; whoever tells of a result takes them out."""

    def limit(self, now_ms: float) -> int:
        """Return how many requests may be in flight."""
        if now_ms < self._not_before_ms:
            return 0
        return 1 if self.is_down else min(int(self._limit), self._concurrency.limit)

    def pause_ends_ms(self, now_ms: float) -> float | None:
        """Return when the limit rises from 0 by itself; None if it is not 0."""
        return self._not_before_ms if now_ms < self._not_before_ms else None

    def begun(self) -> int:
        """A request begins; return the round it belongs to, for what is said of its end."""
        self.in_flight += 1
        if self.in_flight > self._most:
            self._most = self.in_flight
        self.requests += 1
        return self._round

    def looked(self, now_ms: float, *, has_more: bool) -> None:
        """Some requests have ended; ``has_more`` says whether the limit kept others from beginning meanwhile."""
        is_used = has_more and not self.is_down and self.limit(now_ms) == self._concurrency.limit
        self._concurrency.look(now_ms, self._most, is_used=is_used)
        self._most = self.in_flight

    def succeeded(self, messages: int) -> None:
        """A request has its result, for so many messages."""
        is_used = not self.is_down and self.in_flight * 2 > self._limit
        self._concurrency.answered(messages)
        self.in_flight -= 1
        self._is_there()
        if is_used:
            # One more per answer doubles the limit with every round trip, one more per limit's worth
            # of answers adds one.
            self._limit += 1 if self._limit < self._steep_until else 1 / self._limit
            self._limit = min(self._limit, self._limit_max)

    def answered_badly(self, who: Who) -> None:
        """A request was answered with something that is no result: the service is there all the same."""
        self.in_flight -= 1
        self.failures += 1
        self._remember(who, Trouble())
        self._is_there()

    def timed_out(self, begun_in: int, who: Who) -> None:
        """A request was not answered in time."""
        self.in_flight -= 1
        self.failures += 1
        self._remember(who, Trouble())
        if begun_in == self._round:
            self._slow_down(min(self._limit, LIMIT_SLOW))

    def abandoned(self) -> None:
        """A request ended without anybody caring how."""
        self.in_flight -= 1

    def refused(
        self, begun_in: int, now_ms: float, retry_after_ms: int | None, error: str, who: Who
    ) -> int | None:
        """The service says that it has too much to do, or that one behind it is not there.

        Returns:
            Milliseconds after which the same batch may be offered again; None if it is to blame.
        """
        trouble = self._refused_again(who)
        if self._is_to_blame(trouble, begun_in):
            return None
        self.last_error = error
        if begun_in == self._round:
            if self.is_down or self._limit < 2:
                self._goes_down(now_ms, is_news=trouble.refusals == 1)
            else:
                self._slow_down(1)
        asked_ms = 0
        if retry_after_ms is not None:
            asked_ms = min(retry_after_ms, RETRY_AFTER_MS_MAX)
            if trouble.refusals == 1:
                self._asked += 1
                if self._asked >= ASKED_MIN:
                    self._not_before_ms = max(self._not_before_ms, now_ms + asked_ms)
        return self._delay_ms(trouble, now_ms, asked_ms)

    def unreachable(self, begun_in: int, now_ms: float, error: str, who: Who) -> int | None:
        """No connection, or one that broke before there was an answer.

        Returns:
            Milliseconds after which the same batch may be offered again; None if it is to blame.
        """
        trouble = self._refused_again(who)
        if self._is_to_blame(trouble, begun_in):
            return None
        self.last_error = error
        if begun_in == self._round:
            self._goes_down(now_ms, is_news=trouble.refusals == 1)
        return self._delay_ms(trouble, now_ms)

    def _refused_again(self, who: Who) -> Trouble:
        self.in_flight -= 1
        self.failures += 1
        trouble = self.troubled.get(who)
        if trouble is None:
            trouble = Trouble()
            self._remember(who, trouble)
        trouble.refusals += 1
        return trouble

    def _remember(self, who: Who, trouble: Trouble) -> None:
        self.troubled[who] = trouble
        if len(self.troubled) > TROUBLED_MAX:
            del self.troubled[next(iter(self.troubled))]

    def _is_to_blame(self, trouble: Trouble, begun_in: int) -> bool:
        results = self.requests - self.failures - self.in_flight
        had_others, trouble.results = results > trouble.results, results
        if not had_others or begun_in % 2:
            return False
        trouble.suspicious += 1
        return trouble.suspicious >= SUSPICIOUS_MAX

    def _delay_ms(self, trouble: Trouble, now_ms: float, asked_ms: int = 0) -> int:
        pause_ms = max(0.0, self._not_before_ms - now_ms)
        delay_ms = 0 if pause_ms else REFUSED_DELAY_MS
        if trouble.refusals > 1:
            delay_ms = min(PROBE_MS_MAX, PROBE_MS_MIN << min(trouble.refusals - 1, 20))
        # What the pause of the service is long enough for needs no other.
        return max(delay_ms, asked_ms) if asked_ms > pause_ms else delay_ms

    def _is_there(self) -> None:
        self._troubles = self._asked = 0
        if self.is_down:
            self.is_down = False
            self._round += 1
            self._limit = min(LIMIT_START, self._limit_max)

    def _slow_down(self, lowest: float) -> None:
        self._round += 2
        self._limit = max(lowest, self._limit / 2)
        self._steep_until = int(self._limit)

    def _goes_down(self, now_ms: float, *, is_news: bool) -> None:
        if not self.is_down:
            self._steep_until = max(LIMIT_START, int(self._limit / 2))
        self._round += 2 if self.is_down else 1
        self.is_down = True
        self._limit = 1
        pause_ms = min(PROBE_MS_MAX, PROBE_MS_MIN << min(self._troubles, 20))
        self._troubles += is_news
        self._not_before_ms = now_ms + pause_ms
