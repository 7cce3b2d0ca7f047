"""Messages that nobody could process: kept, delivered once more, dropped; and what strictness is."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_checkpoints.model import DEAD
from statefun_ray.core import dead_letters
from statefun_ray.core.dead_letters import Rejected, command, letter_of
from statefun_ray.core.message import DEAD_LETTERS, Message
from statefun_ray.core.splits import split_name
from statefun_ray.core.state import Table
from tests.unit.statefun_ray.core.staging import NOW, Actor, Call, Script, Stage, message

SICK: set[str] = set()


def keep(call: Call) -> None:
    if call.text in SICK:
        raise ValueError(f"{call.text} is poison")
    call.write(call.read() + call.text)


@pytest.fixture(autouse=True)
def sick() -> None:
    SICK.clear()
    SICK.add("p")


def actor(**config: Any) -> Actor:
    settings = {"on_failure": "dead-letter", "retry_deadline_ms": 0, **config}
    return Actor(Script({"a/keep": keep}), **settings).start()


def told(id: str, value: bytes) -> Message:
    return (DEAD_LETTERS, id, "", "", "", value)


def letters(worker: Actor, id: str | None = None) -> list[tuple[str, str]]:
    """Return ``(letter/id, function type)``."""
    return [(name, function) for name, function, _ in worker.core._letters.listed(id)[0]]


def test_only_the_message_that_fails_is_buried() -> None:
    worker = actor()
    worker.admit(*(message("a/keep", "1", text) for text in "abpcd"), message("a/keep", "2", "p"))
    worker.run()
    assert worker.state("a/keep", "1") == "abcd"
    assert [function for _, function in letters(worker)] == ["a/keep"] * 2
    assert len(letters(worker, "2")) == 1
    heartbeat = worker.core.heartbeat(0)
    assert (heartbeat.dead_letters, heartbeat.parked_count, heartbeat.backlog) == (2, 0, 0)
    counters = worker.core.counters
    assert (counters.admitted, counters.applied, counters.buried) == (6, 6, 2)


def test_a_letter_is_delivered_once_more_or_dropped() -> None:
    worker = actor()
    worker.admit(message("a/keep", "1", "p"), message("a/keep", "1", "p"), message("a/keep", "1", "a"))
    worker.run()
    first, second = (name.partition("/")[0] for name, _ in letters(worker))
    worker.admit(told("1", command("redrive", first)))
    worker.run()
    assert len(letters(worker)) == 2, "it fails again, and is a letter again"
    SICK.clear()
    third = next(name.partition("/")[0] for name, _ in letters(worker) if not name.startswith(second))
    worker.admit(told("1", command("redrive", third)), told("1", command("drop", second)))
    worker.admit(told("1", command("redrive", third)), told("1", command("drop", "nothing")))
    worker.run()
    assert letters(worker) == []
    assert worker.state("a/keep", "1") == "ap"
    counters = worker.core.counters
    assert counters.admitted + counters.emitted == counters.applied
    assert (counters.buried, counters.unburied) == (3, 3)


def test_a_function_that_nobody_has_buries_all_that_waits_for_it() -> None:
    worker = actor()
    worker.admit(*(message("no/where", "1", text) for text in "ab"))
    worker.run()
    assert [function for _, function in letters(worker)] == ["no/where"] * 2


def test_what_never_was_a_message_and_what_is_no_command_become_letters() -> None:
    worker = actor()
    worker.admit(
        letter_of(("a/keep", "t/0/7", "b/c", None, "no key")), told("x", b"\xc1"), told("y", b"\x91\x01")
    )
    worker.run()
    assert letters(worker, "t/0/7")[0][1] == "a/keep"
    assert [letters(worker, id)[0][1] for id in "xy"] == [DEAD_LETTERS] * 2
    assert worker.core.counters.buried == 3


def test_functions_cannot_command_the_letters() -> None:
    worker = actor()
    worker.admit(message("a/keep", "1", "p"))
    worker.run()
    [(name, _)] = letters(worker, "1")
    order = command("drop", name.partition("/")[0])
    worker.admit((DEAD_LETTERS, "1", "a/keep", "2", "", order))
    worker.run()
    assert [function for _, function in letters(worker, "1")] == ["a/keep", DEAD_LETTERS]


def test_a_letter_that_never_was_a_message_is_not_delivered_and_can_be_dropped() -> None:
    worker = actor()
    worker.admit(letter_of(("a/keep", "t/0/7", "b/c", b"x", "no key")))
    worker.run()
    [(name, _)] = letters(worker, "t/0/7")
    letter = name.partition("/")[0]
    worker.admit(told("t/0/7", command("redrive", letter)))
    worker.run()
    assert letters(worker, "t/0/7") == [(name, "a/keep")]
    assert worker.state("a/keep", "t/0/7") is None
    worker.admit(told("t/0/7", command("drop", letter)))
    worker.run()
    assert letters(worker) == []
    counters = worker.core.counters
    assert counters.admitted + counters.emitted == counters.applied


def test_letters_of_the_empty_id_are_asked_for_as_those_of_any_other() -> None:
    worker = actor()
    worker.admit(message("a/keep", "", "p"), message("a/keep", "1", "p"))
    worker.run()
    [(name, _)] = letters(worker, "")
    assert name.endswith("/")
    assert len(letters(worker)) == 2


def test_a_list_ends_before_it_is_too_large_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = actor()
    SICK.add("p" * 500)
    worker.admit(*(message("a/keep", str(number), "p" * 500) for number in range(3)))
    worker.run()
    listed = worker.core._letters.listed
    assert (len(listed(None)[0]), listed(None)[1]) == (3, False)
    monkeypatch.setattr(dead_letters, "LISTED_BYTES_MAX", 2_600)
    assert (len(listed(None)[0]), listed(None)[1]) == (2, True)
    monkeypatch.setattr(dead_letters, "LISTED_BYTES_MAX", 100)
    assert (len(listed(None)[0]), listed(None)[1]) == (1, True)  # one is said however large it is
    assert listed("2")[1] is False
    monkeypatch.setattr(dead_letters, "LISTED_MAX", 1)
    assert listed("2")[1] is False


def test_letters_are_in_the_snapshot() -> None:
    stage = Stage(Script({"a/keep": keep}), on_failure="dead-letter", retry_deadline_ms=0)
    stage.actors[0].admit(message("a/keep", "1", "p"))
    stage.actors[0].run()
    restored = stage.restarted(entry=stage.snapshot(), now_ms=NOW, on_failure="dead-letter")
    assert len(letters(restored.actors[0])) == 1
    table: Table = restored.actors[0].core._store.tables[DEAD]
    assert len(table.live) == 1


@pytest.mark.parametrize("config", [{"on_failure": "fail"}, {"strict": True, "retry_deadline_ms": 10_000}])
def test_strictness_ends_the_generation(config: dict[str, Any]) -> None:
    worker = actor(**config)
    worker.admit(message("a/keep", "1", "p"))
    worker.turn()
    assert "a/keep/1 failed, and that ends the generation: ValueError: p is poison" in worker.deaths[0]


def test_a_record_that_can_be_no_message_ends_the_generation_of_a_strict_application_too() -> None:
    rejected: list[Rejected] = [("a/keep", "topic/0/7", "", b"x", "Kafka record topic/0/7: it has no key")]
    split = split_name("a/in", "topic", 0)
    lenient, strict = actor(), actor(strict=True)
    for worker in (lenient, strict):
        worker.core.splits.open(split, 0)
        worker.core.split_records(split, 8, [], rejected)
        worker.run()

    assert len(letters(lenient)) == 1
    assert lenient.deaths == []
    assert letters(strict) == []
    [death] = strict.deaths
    assert "below 8" in death
    assert "ends the generation: Kafka record topic/0/7: it has no key" in death
