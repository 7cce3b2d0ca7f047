"""What the smoke suite sends, and what must come of it: the generator and the model of StateFun's own suite.

A command tree is walked twice: by functions, through every kind of message there is, and here, on
plain counters. If the counters agree in the end, nothing was lost and nothing was done twice.
Algorithm and weights are those of StateFun 3.3; the encoding is JSON, so that every SDK reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
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
    """Names and defaults are those of the original, but for ``number_of_function_instances``: it has 1,000 by
    default and 128 in its own tests, and both optional kinds of commands are off by default, as its
    interpreters for other languages do not know them; ours do."""

    number_of_function_instances: int = 128
    command_depth: int = 10
    message_count: int = 100_000
    max_commands_per_depth: int = 3
    state_modifications_pr: float = 0.4
    send_pr: float = 0.9
    send_after_pr: float = 0.1
    send_after_with_cancellation_pr: float = 0.1
    async_send_pr: float = 0.1
    noop_pr: float = 0.2
    send_egress_pr: float = 0.03
    async_op_supported: bool = True
    delay_cancellation_op_supported: bool = True

    def __post_init__(self) -> None:
        for name in (
            "number_of_function_instances",
            "command_depth",
            "message_count",
            "max_commands_per_depth",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        weights = {name: getattr(self, name) for name in self.__slots__ if name.endswith("_pr")}
        for name, weight in weights.items():
            if not 0 <= weight < inf:
                raise ValueError(f"{name} is {weight}; a weight is 0 or more")
        if not any(weights.values()):
            raise ValueError(f"one of {', '.join(weights)} must be more than 0")


@dataclass
class Generator:
    """Makes source commands, and counts what each does."""

    random: Random
    parameters: Parameters = field(default_factory=Parameters)
    expected: list[int] = field(init=False)
    tokens: int = 0

    def __post_init__(self) -> None:
        parameters = self.parameters
        self.expected = [0] * parameters.number_of_function_instances
        chosen: list[tuple[float, Callable[[int], list[Command]]]] = [
            (parameters.state_modifications_pr, lambda _: [{"increment": {}}]),
            (parameters.send_pr, self._send),
            (parameters.send_after_pr, self._send_after),
            (parameters.async_send_pr * parameters.async_op_supported, self._async),
            (parameters.noop_pr, lambda _: []),
            (parameters.send_egress_pr, lambda _: [{"send_egress": {}}]),
            (
                parameters.send_after_with_cancellation_pr * parameters.delay_cancellation_op_supported,
                self._cancelled,
            ),
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
        return self.random.randrange(self.parameters.number_of_function_instances)

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
        # Whether the operation fails makes no difference to what follows it.
        failure = self.random.random() < 0.5
        return [{"async_operation": {"failure": failure, "commands": self._commands(depth - 1)}}]

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
