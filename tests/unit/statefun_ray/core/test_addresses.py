"""Addresses that cannot take a message at once: ready, in flight, backing off, parked."""

from __future__ import annotations

from statefun_checkpoints.model import FAILURES
from statefun_ray.core.addresses import BATCH_MESSAGES_MAX, ERROR_CHARS_MAX, Addresses, BusyAddress, Phase
from statefun_ray.core.lanes import Lane
from statefun_ray.core.message import ordinal_sub, pack_message
from statefun_ray.core.state import QueueTable, Table
from tests.unit.statefun_ray.core.staging import message

DEADLINE_MS = 1_000


class Desk:
    """Addresses and the tables they stand in."""

    def __init__(self) -> None:
        self.queue, self.failures = QueueTable(), Table(FAILURES, "")
        self.lane = Lane("lane", 10, batch_max=BATCH_MESSAGES_MAX)
        self.addresses = Addresses(self.queue, self.failures, lambda _: self.lane)
        self.ordinal = 0

    def enqueue(self, *texts: str, id: str = "1") -> BusyAddress:
        for text in texts:
            self.ordinal += 1
            address = self.addresses.enqueue(message("a/b", id, text), self.ordinal)
        return address

    def begin(self) -> tuple[BusyAddress, list[str]]:
        address = self.lane.ready.popleft()
        return address, [(each[5] or b"").decode() for each in self.addresses.begin(address)]

    def fail(self, address: BusyAddress, now_ms: int, error: str = "broken") -> bool:
        is_over = self.addresses.failed(address, error, now_ms, DEADLINE_MS)
        if is_over:
            self.addresses.park(address)
        return is_over

    def restarted(self, *, retry_parked: bool = False) -> Desk:
        desk = Desk()
        for ordinal, waiting in self.queue.scan():
            desk.queue.load((waiting[1], ordinal_sub(ordinal)), pack_message(waiting), None)
        desk.failures.live.update(self.failures.live)
        desk.ordinal = self.ordinal
        desk.addresses.rebuild(retry_parked=retry_parked)
        return desk


def test_an_address_is_ready_once_however_much_waits() -> None:
    desk = Desk()
    desk.enqueue("a", "b")

    assert len(desk.lane.ready) == 1
    assert desk.begin()[1] == ["a", "b"]
    desk.enqueue("c")
    assert not desk.lane.ready, "it is in flight"


def test_what_was_in_flight_is_forgotten_only_when_it_has_succeeded() -> None:
    desk = Desk()
    address = desk.enqueue("a", "b")
    desk.begin()
    desk.enqueue("c")
    assert desk.addresses.waiting_count == 3

    assert desk.addresses.succeeded(address) == 2
    assert desk.addresses.waiting_count == 1
    assert desk.begin()[1] == ["c"]
    desk.addresses.succeeded(address)
    assert desk.addresses.busy == {}
    assert list(desk.queue.scan()) == []


def test_a_base_begun_after_a_restart_holds_what_waits() -> None:
    desk = Desk()
    desk.enqueue("a", "b")

    assert [ordinal for ordinal, _ in desk.restarted().queue.scan()] == [1, 2]


def test_a_batch_has_a_limit() -> None:
    desk = Desk()
    address = desk.enqueue(*("x" for _ in range(BATCH_MESSAGES_MAX + 5)))

    assert len(desk.begin()[1]) == BATCH_MESSAGES_MAX
    desk.addresses.succeeded(address)
    assert len(desk.begin()[1]) == 5


def test_halves_grow_again_after_success() -> None:
    desk = Desk()
    address = desk.enqueue(*"abcdefgh")
    desk.begin()
    desk.fail(address, 0)
    assert desk.begin()[1] == ["a", "b", "c", "d"]
    desk.addresses.succeeded(address)
    desk.enqueue(*"ijklmn")

    assert len(desk.begin()[1]) == 8


def test_back_off_ends_in_its_time_and_success_clears_the_record() -> None:
    desk = Desk()
    address = desk.enqueue("a")
    desk.begin()
    desk.fail(address, 50)
    assert desk.addresses.next_retry_ms() == 150
    desk.addresses.release_due(149)
    assert not desk.lane.ready
    desk.addresses.release_due(150)
    desk.begin()
    assert desk.failures.live

    desk.addresses.succeeded(address)
    assert desk.failures.live == {}
    assert desk.addresses.next_retry_ms() is None


def test_a_held_message_is_in_flight_at_once() -> None:
    desk = Desk()
    address = desk.addresses.hold(message("a/b", "1", "x"), 1)

    assert address.phase is Phase.IN_FLIGHT
    assert not desk.lane.ready
    assert desk.addresses.waiting_count == 1


def test_long_errors_are_cut() -> None:
    desk = Desk()
    address = desk.enqueue("a")
    desk.begin()
    desk.fail(address, 0, "x" * 10_000)

    assert len(address.error) == ERROR_CHARS_MAX


def test_a_restart_keeps_order_attempts_and_deadline() -> None:
    desk = Desk()
    desk.enqueue("x", id="2")
    address = desk.enqueue(*"abc")
    desk.begin()
    desk.addresses.begin(address)
    desk.fail(address, 1)  # three of them: bisected
    for now_ms in (10, 500):
        desk.addresses.begin(address)
        desk.fail(address, now_ms)

    again = desk.restarted()
    restored = again.addresses.busy["a/b", "1"]
    assert (restored.attempts, restored.first_failed_ms, restored.error) == (2, 10, "broken")
    assert [id for address, _ in (again.begin(), again.begin()) for id in address.id] == ["2", "1"]
    again.addresses.begin(restored)
    restored.in_flight = 1
    assert again.fail(restored, 10 + DEADLINE_MS)
    assert restored.phase is Phase.PARKED


def test_parked_messages_are_counted_however_they_come() -> None:
    desk = Desk()
    address = desk.enqueue("a", "b")
    desk.begin()
    desk.addresses.park(address)
    desk.enqueue("c")
    assert desk.addresses.parked_messages == 3

    again = desk.restarted()
    assert again.addresses.parked_messages == 3
    assert not again.lane.ready

    mended = desk.restarted(retry_parked=True)
    assert mended.addresses.parked_messages == 0
    assert mended.begin()[1] == ["a", "b", "c"]
    assert not mended.restarted().addresses.parked, "the chance is kept"


def test_addresses_are_known_as_retrying_until_they_succeed_or_are_given_up() -> None:
    desk = Desk()
    for id in ("1", "2", "3"):
        desk.enqueue("a", id=id)
    addresses = [desk.begin()[0] for _ in range(3)]
    for address in addresses:
        desk.fail(address, 50)
    assert list(desk.addresses.retrying.values()) == addresses
    assert [each.id for each in desk.restarted().addresses.retrying.values()] == ["1", "2", "3"]
    desk.addresses.release_due(150)
    for _ in addresses:
        desk.begin()
    assert len(desk.addresses.retrying) == 3, "also while the next attempt is made"

    desk.addresses.succeeded(addresses[0])
    desk.addresses.bury(addresses[1])
    desk.fail(addresses[2], 50 + DEADLINE_MS)

    assert desk.addresses.retrying == {}
    assert list(desk.addresses.parked) == [("a/b", "3")]
    assert not desk.restarted(retry_parked=True).addresses.retrying, "another chance is no failure yet"


def test_a_lane_knows_how_much_waits_for_it() -> None:
    desk = Desk()
    for id in ("1", "2", "3"):
        desk.enqueue("a", "b", id=id)
    first, second, third = (desk.begin()[0] for _ in range(3))
    desk.enqueue("c", id="1")
    assert desk.lane.waiting == 7

    desk.addresses.succeeded(first)
    desk.addresses.bury(second)
    desk.addresses.park(third)
    desk.enqueue("c", id="3")
    assert desk.lane.waiting == 2
    assert desk.restarted().lane.waiting == 2
    assert desk.restarted(retry_parked=True).lane.waiting == 5
