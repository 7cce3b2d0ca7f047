"""Addresses that cannot take a message at once, and the messages that wait for them.

An address whose synchronous function succeeds never appears here. One does when an awaiting
invocation is in flight, or its function has failed:

==========  =====================================================================
phase       meaning
==========  =====================================================================
READY       it has waiting messages and may be started
IN_FLIGHT   the first ``in_flight`` messages are being run by the driver
BACKOFF     the last attempt failed; started again at ``retry_at_ms``
PARKED      it failed for longer than the retry deadline; waits for a person
==========  =====================================================================

All its messages, those in flight included, are rows of the reserved table ``~queue`` until their
effects are applied, so a cut needs no further list of them. The failure history is a row of
``~failures``: a parked address stays parked across restarts, and the retry deadline is not
renewed by a crash.

A failing batch is bisected until the poison message stands alone: the messages before it succeed,
those behind it wait. When the service that runs the function is not there, no message is to blame:
the batch is *postponed*, and its failure history stands still meanwhile.

What is READY stands in the queue of its lane (``lanes``), which decides when it is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from heapq import heappop, heappush
from typing import Final, TypeAlias

import msgspec

from statefun_ray.core.lanes import FULL_MS_MAX, Lane
from statefun_ray.core.message import Message
from statefun_ray.core.state import QueueTable, Table

BACKOFF_MS_MIN: Final = 100
BACKOFF_MS_MAX: Final = 60_000
"""Attempts follow after 0.1 s, 0.2 s, 0.4 s, ... and at most a minute apart."""

BATCH_MESSAGES_MAX: Final = 1_000
"""Waiting messages given to one awaiting invocation; bounds what a failure repeats."""

BATCH_BYTES_MAX: Final = 8_388_608
"""Of their values together, unless the first is larger: bounds a request to a remote function."""

LARGE_BYTES: Final = BATCH_BYTES_MAX // BATCH_MESSAGES_MAX
"""Batches of messages up to this size need not be measured."""

ERROR_CHARS_MAX: Final = 500
"""Of an exception's text, kept with the address."""

Failure: TypeAlias = tuple[bool, int, int, str]
"""``(parked, attempts, first failed ms, last error)`` as packed in ``~failures``."""

_encoder = msgspec.msgpack.Encoder()
_failure_decoder: msgspec.msgpack.Decoder[Failure] = msgspec.msgpack.Decoder(Failure)


class Phase(IntEnum):
    """What a busy address waits for; see the module's table."""

    READY = 0
    IN_FLIGHT = 1
    BACKOFF = 2
    PARKED = 3


class BusyAddress:
    """One address with waiting messages.

    Most are made for one message and gone when it is done, so what only failures need is kept in the
    class until it is set.
    """

    phase = Phase.READY
    in_flight = 0
    has_large = False
    """Whether a message larger than ``LARGE_BYTES`` has come."""
    is_full = False
    """Whether it is counted in ``lane.full``."""
    attempts = 0
    first_failed_ms = 0
    retry_at_ms = 0
    tried_ms = 0
    """When the last attempt ended, 0 if none has in this generation."""
    error = ""

    def __init__(self, function_type: str, id: str, lane: Lane) -> None:
        self.function_type = function_type
        self.id = id
        self.lane = lane
        self.batch_max = lane.batch_max
        self.waiting: list[Message] = []
        """In arrival order, those in flight first."""
        self.ordinals: list[int] = []
        """Of the waiting messages: what names them in the snapshot."""


class Addresses:
    """The busy addresses of one worker."""

    __slots__ = (
        "_failures",
        "_lane_of",
        "_now_ms",
        "_queue",
        "_retries",
        "busy",
        "parked",
        "parked_messages",
        "retrying",
    )

    def __init__(self, queue: QueueTable, failures: Table, lane_of: Callable[[str], Lane]) -> None:
        """``lane_of`` says which lane a function type belongs to; asked whenever an address gets busy."""
        self._queue = queue
        self._failures = failures
        self._lane_of = lane_of
        self.busy: dict[tuple[str, str], BusyAddress] = {}
        queue.addresses = self.busy
        self.parked: dict[tuple[str, str], BusyAddress] = {}
        self.parked_messages = 0
        """Messages of parked addresses: they wait for a person and must not hold up the sources."""
        self.retrying: dict[tuple[str, str], BusyAddress] = {}
        """Addresses whose first message has failed alone and is tried again, in the order it began."""
        self._retries: list[tuple[int, str, str]] = []
        self._now_ms = 0

    def rebuild(self, *, retry_parked: bool) -> None:
        """Rebuild the queues from the tables; addresses become ready unless they were parked.

        ``retry_parked`` gives those another chance, after a stop: the function may be mended.
        """
        for ordinal, message in self._queue.take_restored():
            self._wait(self._address(message[0], message[1]), message, ordinal)
        for (id, function_type), value in list(self._failures.live.items()):
            address = self._address(function_type, id)
            parked, address.attempts, address.first_failed_ms, address.error = _failure_decoder.decode(value)
            if parked and retry_parked:
                address.attempts, address.first_failed_ms = 1, 0
                self._remember(address, parked=False)
            elif parked:
                address.phase = Phase.PARKED
                self.parked[function_type, id] = address
                self.parked_messages += len(address.waiting)
            else:
                self.retrying[function_type, id] = address
        for address in self.busy.values():
            if address.phase is Phase.READY:
                address.lane.waiting += len(address.waiting)
                address.lane.ready.append(address)
                self._measure(address)

    def _address(self, function_type: str, id: str) -> BusyAddress:
        address = self.busy.get((function_type, id))
        if address is None:
            address = self.busy[function_type, id] = BusyAddress(
                function_type, id, self._lane_of(function_type)
            )
        return address

    def enqueue(self, message: Message, ordinal: int) -> BusyAddress:
        """Let ``message`` wait for its target; ``ordinal`` increases with every call."""
        name = message[:2]
        self._queue.add(ordinal, message)
        address = self.busy.get(name)
        if address is None:
            address = self.busy[name] = BusyAddress(*name, self._lane_of(name[0]))
            address.lane.ready.append(address)
        self._wait(address, message, ordinal)
        if address.phase is Phase.PARKED:
            self.parked_messages += 1
            return address
        lane = address.lane
        lane.waiting += 1
        if 0 < lane.waiting_max <= len(address.waiting) and not address.is_full:
            self._measure(address)
        return address

    def _wait(self, address: BusyAddress, message: Message, ordinal: int) -> None:
        address.waiting.append(message)
        address.ordinals.append(ordinal)
        value = message[5]
        if value is not None and len(value) > LARGE_BYTES:
            address.has_large = True

    def _measure(self, address: BusyAddress) -> None:
        """Count the address as full, or no more, after its queue or phase has changed."""
        lane = address.lane
        is_full = (
            0 < lane.waiting_max <= len(address.waiting) - address.in_flight
            and address.phase <= Phase.IN_FLIGHT
            and not address.attempts
        )
        if is_full != address.is_full:
            address.is_full = is_full
            if is_full:
                lane.full[address] = self._now_ms
            else:
                del lane.full[address]

    def hold(self, message: Message, ordinal: int) -> BusyAddress:
        """Keep a message whose first attempt is being made: its address is busy, and it in flight."""
        address = self.enqueue(message, ordinal)
        address.lane.ready.pop()
        self.begin(address)
        return address

    def begin(self, address: BusyAddress) -> list[Message]:
        """Put the next batch of a READY address in flight and return it; the rows stay."""
        address.phase = Phase.IN_FLIGHT
        batch = address.waiting[: address.batch_max]
        if address.has_large and len(batch) > 1:
            size_bytes = 0
            for place, message in enumerate(batch):
                size_bytes += len(message[5] or b"")
                if size_bytes > BATCH_BYTES_MAX:
                    del batch[max(1, place) :]
                    break
        address.in_flight = len(batch)
        if address.is_full:
            self._measure(address)
            if address.is_full:
                full = address.lane.full
                full.pop(address)
                full[address] = self._now_ms
        return batch

    def succeeded(self, address: BusyAddress) -> int:
        """The batch in flight is applied: forget it; return how many messages it had."""
        count, address.in_flight = address.in_flight, 0
        self._forget(address, count)
        if address.attempts:
            self._forget_failures(address)
        lane = address.lane
        lane.waiting -= count
        if address.batch_max < lane.batch_max:
            address.batch_max = min(lane.batch_max, address.batch_max * 2)
        self._go_on(address)
        return count

    def _forget(self, address: BusyAddress, count: int) -> None:
        self._queue.remove(address.id, address.ordinals[:count])
        del address.waiting[:count], address.ordinals[:count]

    def _go_on(self, address: BusyAddress) -> None:
        if address.waiting:
            address.phase = Phase.READY
            address.lane.ready.append(address)
            self._measure(address)
        else:
            # It is not full: what waits beyond the batch in flight makes it so, and nothing does.
            del self.busy[address.function_type, address.id]

    def failed(self, address: BusyAddress, error: str, now_ms: int, retry_deadline_ms: int) -> bool:
        """The batch in flight failed: bisect it, or back off.

        Returns:
            Whether its deadline is over: then it is one message, to be buried or parked.
        """
        count, address.in_flight = address.in_flight, 0
        address.error = error[:ERROR_CHARS_MAX]
        address.tried_ms = self._now_ms = now_ms
        # Also for a message that failed alone: those that come while it waits must not join it.
        address.batch_max = max(1, count // 2)
        if count > 1:
            address.phase = Phase.READY
            address.lane.ready.append(address)
            self._measure(address)
            return False
        address.attempts += 1
        address.first_failed_ms = address.first_failed_ms or now_ms
        if now_ms - address.first_failed_ms >= retry_deadline_ms:
            return True
        self._back_off(address, now_ms + min(BACKOFF_MS_MAX, BACKOFF_MS_MIN << min(address.attempts - 1, 20)))
        self.retrying[address.function_type, address.id] = address
        self._remember(address, parked=False)
        return False

    def postponed(self, address: BusyAddress, now_ms: int, delay_ms: int) -> None:
        """The batch in flight could not be tried: the same again after ``delay_ms``, and nobody is to blame.

        It goes behind all others that are ready: the next probe of its service is another address's, as
        it may be this one alone that is not let through.
        """
        address.in_flight = 0
        if address.first_failed_ms and address.tried_ms:
            # The retry deadline is for attempts that were answered; an outage does not use it up.
            address.first_failed_ms += now_ms - address.tried_ms
        address.tried_ms = self._now_ms = now_ms
        if delay_ms:
            self._back_off(address, now_ms + delay_ms)
        else:
            address.phase = Phase.READY
            address.lane.ready.append(address)
            self._measure(address)

    def _back_off(self, address: BusyAddress, until_ms: int) -> None:
        address.phase = Phase.BACKOFF
        address.retry_at_ms = until_ms
        heappush(self._retries, (until_ms, address.function_type, address.id))
        self._measure(address)

    def bury(self, address: BusyAddress) -> Message:
        """Take the first message away, with the history of its failures; the address goes on with the rest."""
        message = address.waiting[0]
        self._forget(address, 1)
        address.in_flight = 0
        address.lane.waiting -= 1
        self._forget_failures(address)
        self._go_on(address)
        return message

    def park(self, address: BusyAddress) -> None:
        """Stop trying: the address keeps its messages until a person decides."""
        address.phase = Phase.PARKED
        self.parked[address.function_type, address.id] = address
        self.parked_messages += len(address.waiting)
        address.lane.waiting -= len(address.waiting)
        self.retrying.pop((address.function_type, address.id), None)
        self._measure(address)
        self._remember(address, parked=True)

    def _remember(self, address: BusyAddress, *, parked: bool) -> None:
        failure: Failure = (parked, address.attempts, address.first_failed_ms, address.error)
        self._failures.put((address.id, address.function_type), _encoder.encode(failure))

    def _forget_failures(self, address: BusyAddress) -> None:
        address.attempts, address.first_failed_ms, address.error = 0, 0, ""
        self._failures.delete((address.id, address.function_type))
        self.retrying.pop((address.function_type, address.id), None)

    def next_retry_ms(self) -> int | None:
        """Return when the next address leaves its back-off, or None."""
        return self._retries[0][0] if self._retries else None

    def release_due(self, now_ms: int) -> None:
        """Make the addresses ready whose back-off is over; to be called in every turn, as it tells the time."""
        self._now_ms = now_ms
        while self._retries and self._retries[0][0] <= now_ms:
            _, function_type, id = heappop(self._retries)
            address = self.busy[function_type, id]
            address.phase = Phase.READY
            address.lane.ready.append(address)
            self._measure(address)

    def stalled(self, lanes: Iterable[Lane], lane_max: int) -> int:
        """Count messages that wait for what may take long: a service that is down, an address that fails or hangs.

        Args:
            lanes: all of them.
            lane_max: messages of one lane that are counted at most.
        """
        counts = {lane: lane.waiting if lane.is_down else 0 for lane in lanes}
        for address in self.retrying.values():
            if not address.lane.is_down:
                counts[address.lane] += len(address.waiting)
        for lane in counts:
            if not lane.is_down:
                counts[lane] += sum(
                    len(address.waiting)
                    for address, since_ms in lane.full.items()
                    if address.phase is Phase.IN_FLIGHT and self._now_ms - since_ms >= FULL_MS_MAX
                )
        return sum(min(count, lane_max) for count in counts.values())

    @property
    def waiting_count(self) -> int:
        """Messages in all queues, those in flight included: the rows of ``~queue``."""
        return self._queue.count
