"""Requests that wait for the reply their event's function will send.

A request is registered before its event is appended, so that no reply can come too early.
The first committed reply wins; one for a request that is gone (answered, timed out, or of
an earlier incarnation) is dropped. Waiters are called exactly once, with a reply or None.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from statefun_ingress.errors import TooManyPendingReplies

PENDING_MAX_DEFAULT: Final = 10_000
"""Requests that may wait at once: each holds a connection open."""

REPLY_NAMESPACE: Final = "statefun-ray.reply"
"""Reserved: messages to it are never routed, they become replies when committed."""


class ReplyValue(NamedTuple):
    """A committed reply: its typename, and its bytes or None for a message without a value."""

    typename: str
    value: bytes | None


Waiter = Callable[[ReplyValue | None], None]


class _Pending:
    __slots__ = ("deadline_ms", "waiters")

    def __init__(self, deadline_ms: int, waiter: Waiter) -> None:
        self.deadline_ms = deadline_ms
        self.waiters: list[tuple[int, Waiter]] = [(deadline_ms, waiter)]


class PendingReplies:
    """The requests of one incarnation that wait for a reply.

    Args:
        incarnation: of the log; part of the reply address.
        pending_max: requests that may wait at once.
    """

    def __init__(self, incarnation: str, *, pending_max: int = PENDING_MAX_DEFAULT) -> None:
        self.incarnation = incarnation
        self.caller_type = f"{REPLY_NAMESPACE}/{incarnation}"
        self.pending_max = pending_max
        self._pending: dict[str, _Pending] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, waiter: Waiter, deadline_ms: int) -> str:
        """Register a request; return its id, the ``caller_id`` of its event.

        Args:
            waiter: called with the reply, or with None at the deadline.
            deadline_ms: on the clock given to ``expire``.

        Raises:
            TooManyPendingReplies: as many as may already wait.
        """
        if len(self._pending) >= self.pending_max:
            raise TooManyPendingReplies(self.pending_max)
        self._last_id += 1
        request_id = str(self._last_id)
        self._pending[request_id] = _Pending(deadline_ms, waiter)
        heappush(self._deadlines, (deadline_ms, request_id))
        return request_id

    def join(self, request_id: str, waiter: Waiter, deadline_ms: int) -> bool:
        """Let a repeated request wait with its original; False if that no longer waits.

        The original's deadline is not extended beyond the later of the two.
        """
        pending = self._pending.get(request_id)
        if pending is None:
            return False
        pending.waiters.append((deadline_ms, waiter))
        pending.deadline_ms = max(pending.deadline_ms, deadline_ms)
        heappush(self._deadlines, (deadline_ms, request_id))
        return True

    def discard(self, request_id: str) -> None:
        """Forget a request whose event was not appended after all; its waiter is not called."""
        self._pending.pop(request_id, None)

    def complete(self, incarnation: str, request_id: str, typename: str, value: bytes | None) -> bool:
        """Hand a committed reply to whoever waits for it; return whether anyone did."""
        if incarnation != self.incarnation:
            return False
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return False
        reply = ReplyValue(typename, value)
        for _, waiter in pending.waiters:
            waiter(reply)
        return True

    def expire(self, now_ms: int) -> int:
        """Give up the waiters whose deadline has passed; return how many."""
        expired = 0
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            _, request_id = heappop(self._deadlines)
            pending = self._pending.get(request_id)
            if pending is None:
                continue
            if pending.deadline_ms <= now_ms:
                del self._pending[request_id]
            due = [waiter for deadline_ms, waiter in pending.waiters if deadline_ms <= now_ms]
            pending.waiters = [entry for entry in pending.waiters if entry[0] > now_ms]
            for waiter in due:
                waiter(None)
            expired += len(due)
        return expired

    def abandon(self) -> None:
        """Give up all waiters, since the ingress stops."""
        pending, self._pending = self._pending, {}
        self._deadlines.clear()
        for entry in pending.values():
            for _, waiter in entry.waiters:
                waiter(None)
