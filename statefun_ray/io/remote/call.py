"""One batch on its way to a service and back: a request, or more while states become known.

What it needs of the invoker is `Owner`; what is shared by the batches of a function or a service is
`Function` and `Service`. Nothing here is awaited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from google.protobuf.message import DecodeError

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InvocationEffects
from statefun_ray.core.message import Message
from statefun_ray.core.state import Table
from statefun_ray.io.remote.codec import AnswerDecoder, Egresses, Prepared, RequestEncoder
from statefun_ray.io.remote.endpoint import SUSPICIOUS_MAX, EndpointState
from statefun_ray.io.remote.errors import (
    BadAnswer,
    CallTimedOut,
    InvocationPostponed,
    RemoteError,
    ServiceUnavailable,
)
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.metrics import Metrics
from statefun_ray.io.remote.target import BadUrl, Target
from statefun_ray.module.model import OkHttpTransport, Transport
from statefun_sdk.protocol import FromFunction

STRICT_DELAY_MS: Final = 4
STRICT_DELAY_OKHTTP_MS: Final = 10
"""Before the second attempt of a strict application; doubled from then on. StateFun's figures."""

PREPARED_MAX: Final = 4_096
"""Addresses of one function whose next batch is encoded ahead: more than requests are ever in flight."""

Outcome: TypeAlias = tuple[Invoke, InvocationEffects | None, Exception | None]
"""A batch, its effects, and what went wrong with it: ``InvocationPostponed`` if it could not be tried."""


class Owner(Protocol):
    """What a batch tells about itself."""

    def ended(self, invoke: Invoke, effects: InvocationEffects | None, error: Exception | None) -> None:
        """It has ended, with this outcome."""

    def register(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> None:
        """Its service misses these states. Raises `UserCodeError` where they are not as they are stored."""

    def tell_limit(self, service: Service, now_ms: float) -> None:
        """Something was learnt of its service."""


class Function:
    """One function of one endpoint."""

    __slots__ = ("decoder", "encoder", "metrics", "name", "prepared", "service", "tables", "target")

    def __init__(
        self,
        name: str,
        service: Service,
        target: Target | BadUrl,
        tables: Sequence[Table],
        egresses: Egresses,
    ) -> None:
        self.name = name
        self.service = service
        self.target = target
        self.tables = tables
        self.encoder = RequestEncoder(name)
        self.decoder = AnswerDecoder(name, tables, egresses)
        self.metrics = Metrics()
        self.prepared: dict[str, Prepared] = {}
        """By id: of what will be its next batch."""

    def prepare(self, id: str, messages: Sequence[Message], most: int) -> int:
        """Encode up to ``most`` further messages of what will be the next batch of an address; return how many."""
        if len(self.prepared) >= PREPARED_MAX:
            self.prepared.clear()  # addresses that were not asked for since: they fail, or are parked
        self.prepared[id], count = self.encoder.prepare(messages, self.prepared.get(id), most)
        return count

    def know_states(self) -> None:
        """Take note of states that were registered since the last time: they only ever come."""
        prefix = len(self.name) + 1
        for table in self.tables[self.encoder.state_count :]:
            name = table.name[prefix:]
            self.decoder.indexes[name] = self.encoder.state_count
            self.encoder.declare(name, table.typename)


class Service:
    """One service: how to reach it, and what is known of it."""

    def __init__(self, name: str, transport: Transport, client: HttpClient) -> None:
        self.name = name
        self.transport = transport
        self.client = client
        self.state = EndpointState(name, client.manners.connections_max)
        self.told: tuple[int, bool] = (self.state.limit(0), False)
        self.timer: asyncio.TimerHandle | None = None
        self.others = Metrics()
        """Of its functions that have no figures of their own."""


class Call:
    """One batch on its way: a request, and another as long as the service misses states that were not known."""

    __slots__ = (
        "_begun_in",
        "_begun_ms",
        "_function",
        "_invoke",
        "_owner",
        "_states_sent",
        "body",
        "function_type",
        "is_alone",
        "target",
    )

    def __init__(
        self, owner: Owner, invoke: Invoke, function: Function, target: Target, is_alone: bool
    ) -> None:
        self._owner = owner
        self._invoke = invoke
        self._function = function
        self.target = target
        self.function_type = invoke.function_type
        self.is_alone = is_alone

    def send(self) -> None:
        """Make a request with what is known now."""
        function, invoke = self._function, self._invoke
        tables, encoder = function.tables, function.encoder
        if len(tables) != encoder.state_count:
            function.know_states()
        self._states_sent = len(tables)
        id = invoke.id
        prepared = function.prepared.pop(id, None) if function.prepared else None
        self.body = encoder.encode(id, [table.get(id) for table in tables], invoke.messages, prepared)
        function.metrics.requests += 1
        self._begun_in, self._begun_ms = function.service.state.begun(), clock_ms()
        function.service.client.start(self)

    def answered(self, answer: bytes) -> None:
        """See `request.Request`."""
        function, owner = self._function, self._owner
        state = function.service.state
        state.succeeded(len(self._invoke.messages))
        function.metrics.answered(clock_ms() - self._begun_ms)
        if state.troubled:
            state.troubled.pop((self.function_type, self._invoke.id), None)
        effects: InvocationEffects | None = None
        try:
            if len(function.tables) != function.encoder.state_count:
                function.know_states()
            decoded = function.decoder.decode(answer)
            if isinstance(decoded, dict):
                self._register(decoded)
                self.send()
                return
            effects = decoded
        except Exception as error:  # noqa: BLE001 - the address carries it and tries again
            owner.ended(self._invoke, None, error)
        else:
            owner.ended(self._invoke, effects, None)

    def _register(self, missing: dict[str, StateSpec]) -> None:
        """Take what the service says about states that it was not given, in any number of rounds.

        Each brings a state that the request did not have, so the largest number of states is the
        largest number of rounds.

        Raises:
            BadAnswer: it was given all of them, or names none.
            UserCodeError: they are not as they are stored, or too many.
        """
        if not missing:
            raise BadAnswer(
                f"the service of {self.function_type} says that states are missing, and names none; "
                "nothing was executed"
            )
        # States only come, in the order in which they were registered: those sent are the first ones.
        indexes, sent = self._function.decoder.indexes, self._states_sent
        if all(indexes.get(name, sent) < sent for name in missing):
            raise BadAnswer(
                f"the service of {self.function_type} asks again for states that it was given: "
                f"{', '.join(sorted(missing))}; nothing was executed"
            )
        self._owner.register(self.function_type, self._invoke.id, missing)

    def failed(self, error: Exception) -> None:
        """See `request.Request`."""
        self._owner.ended(self._invoke, None, self._told(error))

    def _told(self, error: Exception) -> Exception:
        """Let the endpoint know of a failure; return what it means for the batch."""
        owner, service = self._owner, self._function.service
        state, now_ms = service.state, clock_ms()
        metrics = self._function.metrics
        metrics.failures += isinstance(error, ServiceUnavailable | CallTimedOut | BadAnswer)
        who = self.function_type, self._invoke.id
        if isinstance(error, ServiceUnavailable):
            if error.answered:
                delay_ms = state.refused(self._begun_in, now_ms, error.retry_after_ms, error.reason, who)
            else:
                delay_ms = state.unreachable(self._begun_in, now_ms, error.reason, who)
            if delay_ms is None:
                error = BadAnswer(
                    f"{error.reason}; so it was {SUSPICIOUS_MAX} times in a row or more, while other addresses "
                    f"had results: see what the service, or a gateway before it, does with this one"
                )
            else:
                error = InvocationPostponed(error.reason, delay_ms)
        elif isinstance(error, CallTimedOut):
            state.timed_out(self._begun_in, who)
            metrics.answered(now_ms - self._begun_ms)
        elif isinstance(error, BadAnswer):
            state.answered_badly(who)
            metrics.answered(now_ms - self._begun_ms)
        else:
            state.abandoned()
        owner.tell_limit(service, now_ms)
        return error


class StrictCall(Call):
    """One that is tried as in StateFun: again and again within ``call``, and then the application rolls back.

    An outage ends the generation as well. ``Retry-After`` and the limit of requests hold for others,
    which have not begun yet.
    """

    __slots__ = ("_attempts", "_is_over", "_is_sent", "_reason", "_timer")

    def __init__(
        self, owner: Owner, invoke: Invoke, function: Function, target: Target, is_alone: bool
    ) -> None:
        super().__init__(owner, invoke, function, target, is_alone)
        self._attempts = 0
        self._is_over = self._is_sent = False
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None

    def send(self) -> None:
        """Make a request with what is known now; the first one, and that of a new round, starts the clock."""
        super().send()
        self._is_sent = True
        if self._timer is None:
            call_s = self._function.service.transport.call_ms / 1000
            self._timer = asyncio.get_running_loop().call_later(call_s, self._give_up)

    def answered(self, answer: bytes) -> None:
        """See `request.Request`."""
        if self._is_over:
            return
        try:
            FromFunction.FromString(answer)
        except DecodeError as error:
            text = (
                f"the service of {self.function_type} answered {len(answer)} bytes that are no FromFunction"
            )
            self.failed(BadAnswer(f"{text}: {error}", True))
            return
        # What may follow is another request, with the time and the attempts of one.
        self._is_sent, self._attempts, self._reason = False, 0, ""
        self._stop_clock()
        super().answered(answer)
        if not self._is_sent:
            self._end()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._is_over = True
        self._stop_clock()

    def failed(self, error: Exception) -> None:
        """See `request.Request`."""
        if self._is_over:
            return
        self._told(error)
        is_okhttp = isinstance(self._function.service.transport, OkHttpTransport)
        if not isinstance(error, RemoteError):
            self._end()
            self._owner.ended(self._invoke, None, error)  # a bug
            return
        self._attempts += 1
        self._reason = error.reason
        if is_okhttp and isinstance(error, BadAnswer) and error.is_final:
            self._give_up("StateFun's okhttp transport does not try again after that")
            return
        # With okhttp it may have been the silence that was too long, of which `call` may hold several.
        if not is_okhttp and isinstance(error, CallTimedOut):
            self._give_up()
            return
        self.is_alone = True
        delay_ms = (STRICT_DELAY_OKHTTP_MS if is_okhttp else STRICT_DELAY_MS) << min(self._attempts - 1, 20)
        asyncio.get_running_loop().call_later(delay_ms / 1000, self._try_again)

    def _try_again(self) -> None:
        if self._is_over:
            return
        self.send()

    def _give_up(self, why: str = "") -> None:
        self._end()
        call_ms = self._function.service.transport.call_ms
        reason = self._reason or f"{self.target.url} did not answer"
        why = why or f"that was attempt {max(1, self._attempts)}, and the {call_ms} ms of call are over"
        self._owner.ended(self._invoke, None, BadAnswer(f"{reason}; {why}"))


def clock_ms() -> float:
    """Return milliseconds of the clock that all of this goes by."""
    return time.monotonic() * 1000
