"""Functions that take their time: what counts from the end of a call does so within the turn as well."""

from __future__ import annotations

from statefun_checkpoints.model import StateSpec
from tests.unit.statefun_ray.core.staging import NOW, TEXT, Actor, Call, Script, message


def plays(call: Call) -> None:
    """``after <delay>``, ``put``, ``read``, ``work``."""
    command, _, rest = call.text.partition(" ")
    if command == "after":
        call.send_after(int(rest), "a/plain", call.id, "fired")
    elif command == "put":
        call.write("value")
    elif command == "read":
        call.egress(call.read())


class Clocked(Script):
    """Its functions work for 1,500 ms when they are told ``after``, ``put`` or ``work``."""

    def __init__(self, expire: str = "after_write", expire_ms: int = 1_000) -> None:
        states = {"a/expiring": {"state": StateSpec(type=TEXT, expire=expire, expire_ms=expire_ms)}}  # type: ignore[arg-type]
        super().__init__({"a/plain": self._works, "a/expiring": self._works}, states=states)
        self.clock_ms = NOW
        self.read: list[str] = []

    def _works(self, call: Call) -> None:
        if call.text.startswith(("after", "put", "work")):
            self.clock_ms += 1_500
        if call.text == "read":
            self.read.append(call.read())
        plays(call)


def begun(script: Clocked, *texts: tuple[str, str]) -> Actor:
    """Let messages for id 1 be processed in one turn that begins at ``NOW``."""
    actor = Actor(script).start()
    actor.admit(*(message(f"a/{name}", "1", text) for name, text in texts))
    actor.turn()
    return actor


def test_a_delay_counts_from_the_end_of_the_call() -> None:
    actor = begun(Clocked(), ("plain", "after 1000"))
    assert actor.core.next_due_ms == NOW + 2_500

    actor.now_ms = NOW + 2_499
    actor.turn()
    assert actor.texts() == ["after 1000"]
    actor.now_ms = NOW + 2_500
    actor.turn()
    assert actor.texts() == ["after 1000", "fired"]


def test_what_is_due_at_the_end_of_a_turn_is_work_for_the_next() -> None:
    script = Clocked()
    actor = Actor(script).start()
    actor.admit(message("a/plain", "1", "after 0"))

    assert actor.turn()


def test_a_value_ages_from_the_end_of_the_call_that_wrote_it() -> None:
    script = Clocked()
    actor = begun(script, ("expiring", "put"), ("expiring", "read"))
    assert script.read == ["value"]

    actor.now_ms = script.clock_ms = NOW + 2_499
    actor.admit(message("a/expiring", "1", "read"))
    actor.turn()
    actor.now_ms = script.clock_ms = NOW + 2_500
    actor.admit(message("a/expiring", "1", "read"))
    actor.turn()
    assert script.read == ["value", "value", ""]


def test_a_value_that_has_expired_while_others_worked_is_not_read_any_more() -> None:
    script = Clocked()
    begun(script, ("expiring", "put"), ("plain", "work"), ("expiring", "read"))

    assert script.read == [""]


def test_a_call_refreshes_from_when_it_begins() -> None:
    script = Clocked("after_call", 1_600)
    actor = begun(script, ("expiring", "put"), ("plain", "work"), ("expiring", "read"))
    assert script.read == ["value"]

    actor.now_ms = script.clock_ms = NOW + 3_000 + 1_599
    actor.admit(message("a/expiring", "1", "read"))
    actor.turn()
    assert script.read == ["value", "value"]


def test_a_clock_that_goes_back_takes_no_time_back() -> None:
    script = Clocked()
    script.clock_ms = NOW - 60_000
    actor = begun(script, ("plain", "after 1000"))

    assert actor.core.next_due_ms == NOW + 1_000


def test_functions_without_delays_and_expirations_do_not_look_at_the_clock() -> None:
    script = Clocked()
    begun(script, ("plain", "put"), ("plain", "read"), ("plain", "work"))

    assert script.clock_reads == 0
