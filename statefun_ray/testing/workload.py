"""What runs in the simulation: functions that follow command trees, and what must come of it.

A message carries a unique id and a list of commands: send on, send later, cancel, write egress,
reply, fail a few times. Every function keeps in *its own state* how often it ran, the XOR of the
ids it saw, and per sender the last sequence number: a message lost, doubled or overtaken shows
there, whatever rollbacks happened in between. What the counts must be follows from the trees
alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from statefun_sdk import (
    Context,
    IntType,
    LongType,
    Message,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)

COMMANDS: Final = make_json_type("simulation/commands")
BOOK: Final = make_json_type("simulation/book")
EGRESS: Final = "simulation/out"
INLINE: Final = "simulation/inline"
AWAITING: Final = "simulation/awaiting"
RELAY: Final = "simulation/relay"
"""Has no state and sends on what it gets, which may be nothing."""
POISON: Final = "simulation/poison"
"""Fails until it is mended, in the way its id says."""
AWAITING_POISON: Final = "simulation/awaiting-poison"
REASONS: Final = {"raises": "always", "doubles-token": "already pending"}
"""Ways to fail for good, and what their errors say."""
NO_MESSAGE: Final = "cannot be read"
"""Why a record never was a message; whatever is mended, it has no address."""
UNKNOWN: Final = "simulation/unknown"
"""No application has it before it is mended."""
OLD: Final = "old"
"""The id of records from before the application, which begins behind them."""
ONCE: Final = "anonymous"
"""The id of events from clients that do not number them and never repeat one."""
NEVER: Final = "never"
"""The id of messages that are cancelled before they are due."""
FAR_MS: Final = 3_600_000_000
"""Due long after any run, whatever the clocks say."""


_EXPIRING: Final = (
    (
        ValueSpec("fresh", IntType, expire_after_write=timedelta(milliseconds=80)),
        ValueSpec("warm", IntType, expire_after_call=timedelta(milliseconds=200)),
        ValueSpec("flag", IntType),
    ),
    (
        ValueSpec("fresh", IntType),
        ValueSpec("warm", IntType, expire_after_write=timedelta(milliseconds=300)),
        ValueSpec("flag", IntType, expire_after_write=timedelta(milliseconds=100)),
    ),
)
"""The states that may expire, in every second version of the functions."""


class SimulatedFailure(Exception):
    """A function that was told to fail."""


@dataclass
class Expected:
    """What one address must have seen in the end."""

    count: int = 0
    seen: int = 0
    """XOR of the unique ids."""


@dataclass(frozen=True)
class Poisoned:
    """A message that nobody takes before its function is mended."""

    kind: str
    id: str
    error: tuple[str, ...]
    """What its letter may give as the reason."""
    egress: int
    """The record that comes of it when it is taken."""


@dataclass
class Workload:
    """The events of one run and their expected outcome."""

    rng: Random
    ids: int = 6
    depth: int = 3
    flaky: float = 0.05
    """Share of the messages at which a function fails once or twice."""
    poison_share: float = 0.0
    """Share of the messages that send one that fails for good."""
    expected: dict[tuple[str, str], Expected] = field(default_factory=dict)
    egress: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    """Unique id -> failures left: outside all state, as a flaky dependency is."""
    poisoned: dict[int, Poisoned] = field(default_factory=dict)
    """Unique id -> message that fails for good."""
    is_mended: bool = False
    """Whether functions take what they failed on."""
    failed: int = 0
    """Invocations that have failed."""
    _unique: int = 0

    def unique(self) -> int:
        """Return a new id, spread over 30 bits so that XOR tells sums apart."""
        self._unique += 1
        return (self._unique * 2_654_435_761) % (1 << 30)

    def event(self, *, reply: bool = False) -> tuple[str, str, dict[str, Any]]:
        """Return ``(function type, id, command message)`` of one event and account for all it causes."""
        kind, id, message = self._message(self.depth)
        if reply:
            message["c"].append(["reply", self.rng.choice([0, 0, 0, 40])])
        return kind, id, message

    def event_for(self, kind: str, id: str) -> dict[str, Any]:
        """Return the command message of one event to this address and account for all it causes."""
        if kind == RELAY:
            # It has no state to count in, so its target does.
            return {"u": self._perhaps_flaky(), "c": [self._message(self.depth - 1)]}
        return self._message_for(kind, id, self.depth)

    def _message(self, depth: int) -> tuple[str, str, dict[str, Any]]:
        kind = AWAITING if self.rng.random() < 0.3 else INLINE
        id = f"n{self.rng.randrange(self.ids)}"
        return kind, id, self._message_for(kind, id, depth)

    def _message_for(self, kind: str, id: str, depth: int) -> dict[str, Any]:
        rng = self.rng
        unique = self._account(kind, id)
        commands: list[list[Any]] = []
        if self.poison_share and rng.random() < self.poison_share:
            commands.append(self._poisonous())
        for _ in range(rng.randrange(3) if depth else 0):
            choice = rng.random()
            if choice < 0.5:
                commands.append(["send", *self._message(depth - 1)])
            elif choice < 0.6:
                commands += self._burst()
            elif choice < 0.75:
                delay_ms, token = rng.randrange(0, 120), rng.choice(["", f"t{self.unique()}"])
                commands.append(["after", delay_ms, token, *self._message(depth - 1)])
            elif choice < 0.8:
                commands.append(self._relayed(depth))
            elif choice < 0.87:
                commands += self._cancelled(kind, id)
            else:
                self.egress.append(self.unique())
                commands.append(["egress", self.egress[-1]])
        self._maybe_flaky(unique)
        return {"u": unique, "c": commands}

    def poison(self, kind: str, id: str, how: str = "raises", *reasons: str) -> dict[str, Any]:
        """Return the command message of one that fails for good, and account for it.

        Args:
            kind: of its function.
            id: of its address.
            how: it fails: "raises" or "doubles-token".
            reasons: why it may be a dead letter besides.
        """
        unique = self.unique()
        error = "no function" if kind == UNKNOWN else REASONS[how]
        self.poisoned[unique] = Poisoned(kind, id, (error, *reasons), self.unique())
        return {"u": unique, "p": how, "c": [["egress", self.poisoned[unique].egress]]}

    def unfit(self, kind: str, place: str) -> dict[str, Any]:
        """Return the command message of a record that never is one, found at ``place``; account for its letter."""
        unique = self.unique()
        self.poisoned[unique] = Poisoned(kind, place, (NO_MESSAGE,), self.unique())
        return {"u": unique, "p": "raises", "c": [["egress", self.poisoned[unique].egress]]}

    def _poisonous(self) -> list[Any]:
        """Return a command that sends such a message, at once or later."""
        rng = self.rng
        kind, id = rng.choice([INLINE, AWAITING, UNKNOWN]), f"n{rng.randrange(self.ids)}"
        message = self.poison(kind, id, rng.choice(list(REASONS)))
        if rng.random() < 0.7:
            return ["send", kind, id, message]
        return ["after", rng.randrange(0, 120), "", kind, id, message]

    def _maybe_flaky(self, unique: int) -> None:
        if self.rng.random() < self.flaky:
            self.attempts[unique] = self.rng.randrange(1, 3)

    def _relayed(self, depth: int) -> list[Any]:
        unique = self._perhaps_flaky()
        nested = [self._message(depth - 1) for _ in range(self.rng.randrange(2))]
        return ["send", RELAY, f"r{self.rng.randrange(self.ids)}", {"u": unique, "c": nested}]

    def _perhaps_flaky(self) -> int:
        unique = self.unique()
        self._maybe_flaky(unique)
        return unique

    def _account(self, kind: str, id: str) -> int:
        unique = self.unique()
        account = self.expected.setdefault((kind, id), Expected())
        account.count += 1
        account.seen ^= unique
        return unique

    def _burst(self) -> Iterator[list[Any]]:
        # Several messages from one sender to one target: their order shows.
        kind, id = self.rng.choice([INLINE, AWAITING]), f"n{self.rng.randrange(self.ids)}"
        for _ in range(self.rng.randrange(2, 9)):
            yield ["send", kind, id, {"u": self._account(kind, id), "c": []}]

    def _cancelled(self, kind: str, id: str) -> Iterator[list[Any]]:
        # A delayed message that must never arrive: cancelled in the same step, or in a later one
        # of any function with the same id.
        token = f"t{self.unique()}"
        cancel = ["cancel", token]
        if self.rng.random() < 0.2:
            yield cancel  # there is nothing to cancel
        elif self.rng.random() < 0.4:
            yield ["after", 50, token, INLINE, NEVER, {"u": 0, "c": []}]
            yield cancel
        else:
            yield ["after", FAR_MS, token, INLINE, NEVER, {"u": 0, "c": []}]
            other = self.rng.choice([INLINE, AWAITING])
            yield ["send", other, id, {"u": self._account(other, id), "c": [cancel]}]

    def functions(self, version: int = 0, *, mistaken: bool = False) -> StatefulFunctions:
        """Return functions that follow the commands.

        Args:
            version: from 1 on they have a state more, and every second loses or gains expirations.
            mistaken: they lack a state that was there.
        """
        functions = StatefulFunctions()
        specs = [ValueSpec("book", BOOK), ValueSpec("count", LongType), *_EXPIRING[version % 2]]
        if version:
            specs.append(ValueSpec("late", IntType))
        if mistaken:
            del specs[0]

        @functions.bind(INLINE, specs)
        def inline(context: Context, message: Message) -> None:
            self.follow(context, message)

        @functions.bind(AWAITING, specs)
        async def awaiting(context: Context, message: Message) -> None:
            self.follow(context, message)

        @functions.bind(RELAY)
        def relay(context: Context, message: Message) -> None:
            commands = message.as_type(COMMANDS)
            for kind, id, nested in commands["c"]:
                context.send(message_builder(kind, id, value=nested, value_type=COMMANDS))
            self._fail_if_told(commands["u"])

        taking = [ValueSpec("book", BOOK)]

        @functions.bind(POISON, taking)
        def poison(context: Context, message: Message) -> None:
            self._take(context, message.as_type(COMMANDS))

        @functions.bind(AWAITING_POISON, taking)
        async def awaiting_poison(context: Context, message: Message) -> None:
            self._take(context, message.as_type(COMMANDS))

        if self.is_mended:

            @functions.bind(UNKNOWN, taking)
            def unknown(context: Context, message: Message) -> None:
                self._take(context, message.as_type(COMMANDS))

        return functions

    def _take(self, context: Context, commands: dict[str, Any]) -> None:
        """Run a message that fails for good: nothing of it stays before the functions are mended."""
        book = context.storage.book or new_book()
        book["taken"].append(commands["u"])
        context.storage.book = book
        for _, record in commands["c"]:
            context.send_egress(egress_message_builder(EGRESS, record, LongType))
        if self.is_mended:
            return
        self.failed += 1
        never = message_builder(INLINE, NEVER, value={"u": 0, "c": []}, value_type=COMMANDS)
        context.send(never)
        if commands["p"] == "raises":
            raise SimulatedFailure("always")
        for _ in range(2):
            context.send_after(timedelta(milliseconds=FAR_MS), never, "a token twice")
            context._tokens.clear()  # ours would refuse the second one in the call; other SDKs do not

    def follow(self, context: Context, message: Message) -> None:
        """Run one message's commands."""
        commands = message.as_type(COMMANDS)
        if "p" in commands:
            self._take(context, commands)
            return
        storage = context.storage
        book = storage.book or new_book()
        count = (storage.count or 0) + 1
        unique = commands["u"]
        sequence = commands.get("s")
        caller = context.caller
        # A record has no caller; its partition is what it must not overtake others of.
        sender = f"{caller.typename}/{caller.id}" if caller is not None else commands.get("f")
        if sequence is not None and sender is not None:
            last = book["last"].get(sender, 0)
            if sequence != last + 1:
                book["errors"].append(f"{sequence} after {last} from {sender}")
            book["last"][sender] = sequence
        book["seen"] ^= unique
        for command, *rest in commands["c"]:
            if command == "send":
                kind, id, nested = rest
                if "p" not in nested:  # what comes late or never has no place in an order
                    target = f"{kind}/{id}"
                    number = book["sent"][target] = book["sent"].get(target, 0) + 1
                    nested = {**nested, "s": number}
                context.send(message_builder(kind, id, value=nested, value_type=COMMANDS))
            elif command == "after":
                delay_ms, token, kind, id, nested = rest
                delayed = message_builder(kind, id, value=nested, value_type=COMMANDS)
                context.send_after(timedelta(milliseconds=delay_ms), delayed, token)
            elif command == "cancel":
                context.cancel_delayed_message(rest[0])
            elif command == "egress":
                context.send_egress(egress_message_builder(EGRESS, rest[0], LongType))
            elif caller is not None:
                book["replies"][f"{caller.typename}/{caller.id}"] = count
                reply = message_builder(caller.typename, caller.id, value=count, value_type=LongType)
                if rest[0]:
                    context.send_after(timedelta(milliseconds=rest[0]), reply)
                else:
                    context.send(reply)
        storage.fresh = count if not storage.fresh else storage.fresh + 1
        if storage.warm is None:
            storage.warm = count
        if count % 3 == 0:
            del storage.flag
        else:
            storage.flag = count
        storage.book = book
        storage.count = count
        self._fail_if_told(unique)

    def _fail_if_told(self, unique: int) -> None:
        if self.attempts.get(unique, 0) > 0:
            self.attempts[unique] -= 1
            self.failed += 1
            raise SimulatedFailure(f"attempt on {unique}")


def new_book() -> dict[str, Any]:
    """Return the book of an address that has seen nothing yet."""
    return {"seen": 0, "last": {}, "sent": {}, "replies": {}, "errors": [], "taken": []}


def encode_commands(message: dict[str, Any]) -> bytes:
    """Return a command message as the bytes of its value."""
    return json.dumps(message).encode()
