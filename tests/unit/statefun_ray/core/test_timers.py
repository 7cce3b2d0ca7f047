"""Delayed messages fire once, in order of due time and then of registration, unless cancelled before."""

from __future__ import annotations

from statefun_checkpoints.model import TIMERS
from statefun_ray.core.message import Message, ordinal_sub
from statefun_ray.core.state import Table
from statefun_ray.core.timers import Timers
from tests.unit.statefun_ray.core.staging import message


def from_sender(id: str, text: str) -> Message:
    return message("a/target", "t", text, ("a/sender", id))


def fired(timers: Timers, now_ms: int) -> list[str]:
    texts = []
    while (found := timers.pop_due(now_ms)) is not None:
        texts.append((found[5] or b"").decode())
    return texts


def test_earlier_ones_fire_first_and_none_before_its_time() -> None:
    timers = Timers(Table(TIMERS, ""))
    timers.add(30, "", from_sender("1", "c"), 1)
    timers.add(10, "", from_sender("1", "a"), 2)
    timers.add(20, "", from_sender("2", "b"), 3)

    assert timers.next_due_ms() == 10
    assert fired(timers, 9) == []
    assert fired(timers, 20) == ["a", "b"]
    assert len(timers) == 1
    assert fired(timers, 1_000) == ["c"], "late is allowed"
    assert timers.next_due_ms() is None


def test_at_one_due_time_the_order_of_registration_decides_also_after_a_restart() -> None:
    table = Table(TIMERS, "")
    timers = Timers(table)
    for number in range(300):
        timers.add(10, "", from_sender(str(number % 7), str(number)), number)
    restored = Timers(table)
    restored.rebuild()

    assert fired(restored, 10) == [str(number) for number in range(300)]
    assert table.live == {}


def test_a_cancelled_message_never_fires() -> None:
    timers = Timers(Table(TIMERS, ""))
    timers.add(10, "t", from_sender("1", "a"), 1)

    assert timers.cancel("1", "t")
    assert not timers.cancel("1", "t")
    assert timers.next_due_ms() is None
    assert fired(timers, 10) == []


def test_a_token_belongs_to_the_id_of_its_sender() -> None:
    timers = Timers(Table(TIMERS, ""))
    timers.add(10, "t", from_sender("1", "a"), 1)

    assert timers.has_token("1", "t")
    assert not timers.has_token("2", "t")
    assert not timers.cancel("2", "t")
    assert fired(timers, 10) == ["a"]


def test_a_token_is_free_after_firing_and_after_cancelling() -> None:
    timers = Timers(Table(TIMERS, ""))
    timers.add(10, "t", from_sender("1", "a"), 1)
    assert fired(timers, 10) == ["a"]
    assert not timers.has_token("1", "t")
    timers.add(20, "t", from_sender("1", "b"), 2)
    timers.cancel("1", "t")
    timers.add(20, "t", from_sender("1", "c"), 3)

    assert fired(timers, 20) == ["c"]


def test_tokens_survive_a_restart() -> None:
    table = Table(TIMERS, "")
    Timers(table).add(10, "t", from_sender("1", "a"), 1)
    restored = Timers(table)
    restored.rebuild()

    assert restored.cancel("1", "t")
    assert table.live == {}


def test_row_keys_sort_like_their_ordinals() -> None:
    numbers = [0, 1, 9, 10, 255, 256, 2**40]
    assert sorted(map(ordinal_sub, reversed(numbers))) == [ordinal_sub(number) for number in numbers]
