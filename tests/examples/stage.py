"""Plays several functions together: delivers their messages, keeps their timers.

Only what stories need: one message at a time, in the order sent, no failures. What the
runtime does with the same functions is tested in tests/scenarios.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Any

from statefun_sdk import EgressMessage, Message, SdkAddress, StatefulFunctions, Type, message_builder
from statefun_sdk.testing import Cancellation, DelayedMessage, FunctionTester

CLIENT = SdkAddress.of("test/client", "somebody")


class Stage:
    """Instances of functions, made when first addressed.

    Attributes:
        replies: what was sent to the waiting client, oldest first.
        egress: what was handed to egresses, oldest first.
    """

    def __init__(self, functions: StatefulFunctions) -> None:
        self._functions = functions
        self._testers: dict[tuple[str, str], FunctionTester] = {}
        self._queue: deque[tuple[Message, SdkAddress | None]] = deque()
        self._delayed: list[tuple[timedelta, DelayedMessage, SdkAddress]] = []
        self._now = timedelta()
        self.replies: list[Message] = []
        self.egress: list[EgressMessage] = []

    def instance(self, typename: str, id: str) -> FunctionTester:
        """The instance at an address."""
        key = (typename, id)
        if key not in self._testers:
            self._testers[key] = FunctionTester(self._functions, typename, id)
        return self._testers[key]

    def instances(self, typename: str) -> dict[str, FunctionTester]:
        """Every instance of a function, by id."""
        return {id: tester for (type_, id), tester in self._testers.items() if type_ == typename}

    def tell(self, typename: str, id: str, value: Any, value_type: Type[Any]) -> None:
        """Send an event without waiting, and let everything it causes happen."""
        self._post(message_builder(typename, id, value=value, value_type=value_type), None)
        self._play()

    def ask(self, typename: str, id: str, value: Any, value_type: Type[Any], answer_type: Type[Any]) -> Any:
        """Send an event, let everything happen, and return the one reply."""
        before = len(self.replies)
        self._post(message_builder(typename, id, value=value, value_type=value_type), CLIENT)
        self._play()
        [reply] = self.replies[before:]
        return reply.as_type(answer_type)

    def wait(self, duration: timedelta) -> None:
        """Let time pass; delayed messages that are due are delivered."""
        self._now += duration
        due = [entry for entry in self._delayed if entry[0] <= self._now]
        self._delayed = [entry for entry in self._delayed if entry[0] > self._now]
        for _, delayed, sender in sorted(due, key=lambda entry: entry[0]):
            self._post(delayed.message, sender)
        self._play()

    @property
    def pending_timers(self) -> int:
        """Delayed messages that are neither delivered nor cancelled."""
        return len(self._delayed)

    def _post(self, message: Message, caller: SdkAddress | None) -> None:
        self._queue.append((message, caller))

    def _play(self) -> None:
        while self._queue:
            message, caller = self._queue.popleft()
            if message.target_typename == CLIENT.typename:
                self.replies.append(message)
                continue
            instance = self.instance(message.target_typename, message.target_id)
            effects = instance.invoke(message, caller=caller)
            self.egress += effects.egress
            for sent in effects.messages:
                self._post(sent, instance.address)
            for entry in effects.timeline:
                self._apply(entry, instance.address)

    def _apply(self, entry: DelayedMessage | Cancellation, sender: SdkAddress) -> None:
        if isinstance(entry, DelayedMessage):
            self._delayed.append((self._now + entry.delay, entry, sender))
            return
        self._delayed = [
            kept
            for kept in self._delayed
            if (kept[2].id, kept[1].cancellation_token) != (sender.id, entry.cancellation_token)
        ]
