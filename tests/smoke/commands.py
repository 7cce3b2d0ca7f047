"""What the smoke suite sends, and what must come of it: the generator and the model of StateFun's own suite.

A command tree is walked twice: by functions, through every kind of message there is, and here, on
plain counters. If the counters agree in the end, nothing was lost and nothing was done twice.
Algorithm and weights are those of StateFun 3.3; the encoding is JSON, so that every SDK reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

NAMESPACE: Final = "statefun.smoke.e2e"
FUNCTION: Final = f"{NAMESPACE}/command-interpreter-fn"
SOURCE_COMMAND: Final = f"{NAMESPACE}/source-command"
COMMANDS: Final = f"{NAMESPACE}/commands"
RESULT: Final = f"{NAMESPACE}/verification-result"
DISCARD_EGRESS: Final = f"{NAMESPACE}/discard-sink"
RESULTS_EGRESS: Final = f"{NAMESPACE}/verification-sink"

Command: TypeAlias = dict[str, Any]
"""One kind -> its fields, such as ``{"send": {"target": 3, "commands": [...]}}``."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Names and defaults are those of the original, which runs 128 instances in its own tests."""

    instances: int = 128
    command_depth: int = 10
    max_commands_per_depth: int = 3
    state_modifications_pr: float = 0.4
    send_pr: float = 0.9
    send_after_pr: float = 0.1
    send_after_with_cancellation_pr: float = 0.1
    async_send_pr: float = 0.1
    noop_pr: float = 0.2
    send_egress_pr: float = 0.03


@dataclass
class Generator:
    """Makes source commands, and counts what each does."""

    random: Random
    parameters: Parameters = field(default_factory=Parameters)
    expected: list[int] = field(init=False)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.expected = [0] * self.parameters.instances
        chosen: list[tuple[float, Callable[[int], list[Command]]]] = [
            (self.parameters.state_modifications_pr, lambda _: [{"increment": {}}]),
            (self.parameters.send_pr, self._send),
            (self.parameters.send_after_pr, self._send_after),
            (self.parameters.async_send_pr, self._async),
            (self.parameters.noop_pr, lambda _: []),
            (self.parameters.send_egress_pr, lambda _: [{"send_egress": {}}]),
            (self.parameters.send_after_with_cancellation_pr, self._cancelled),
        ]
        self._weights = [weight for weight, _ in chosen]
        self._kinds = [kind for _, kind in chosen]

    def next(self) -> tuple[int, list[Command]]:
        """Return a target and its commands."""
        depth = self.random.randrange(self.parameters.command_depth)
        target = self._target()
        commands = self._commands(depth)
        self._count(target, commands)
        return target, commands

    def _target(self) -> int:
        return self.random.randrange(self.parameters.instances)

    def _commands(self, depth: int) -> list[Command]:
        if depth <= 0:
            return [{"increment": {}}]
        commands: list[Command] = []
        for _ in range(self.random.randrange(self.parameters.max_commands_per_depth)):
            [kind] = self.random.choices(self._kinds, self._weights)
            commands += kind(depth)
        return commands or [{"increment": {}}]

    def _send(self, depth: int) -> list[Command]:
        return [{"send": {"target": self._target(), "commands": self._commands(depth - 1)}}]

    def _send_after(self, depth: int) -> list[Command]:
        return [{"send_after": {"target": self._target(), "commands": self._commands(depth - 1)}}]

    def _async(self, depth: int) -> list[Command]:
        return [{"async_operation": {"commands": self._commands(depth - 1)}}]

    def _cancelled(self, _depth: int) -> list[Command]:
        # A leaf: whether the cancellation wins makes no difference.
        self.tokens += 1
        token = f"token-{self.tokens}"
        delayed = {"target": self._target(), "commands": [], "token": token}
        return [{"send_after": delayed}, {"cancel_send_after": {"token": token}}]

    def _count(self, address: int, commands: list[Command]) -> None:
        for command in commands:
            for kind, fields in command.items():
                if kind == "increment":
                    self.expected[address] += 1
                elif kind in ("send", "send_after"):
                    self._count(fields["target"], fields["commands"])
                elif kind == "async_operation":
                    self._count(address, fields["commands"])
