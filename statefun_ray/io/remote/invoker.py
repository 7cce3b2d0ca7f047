"""Runs batches of functions that live elsewhere: one request each, two when states become known.

The first request of a function carries no states, because none are known: nothing waits for it but
its own batch. A service that misses states says which, without having run anything; they are
registered and the same batch is sent again. From then on all registered states of the address go
along.

Nothing here is awaited: a request calls back, and what became of its batch is kept until the
worker's next turn takes it, together with all others that have ended by then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from google.protobuf.message import DecodeError

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InvocationEffects, LaneSpec
from statefun_ray.core.metrics import Figure, label
from statefun_ray.core.state import Table
from statefun_ray.io.remote.client import OKHTTP_CONNECTIONS, AiohttpClient, Client
from statefun_ray.io.remote.codec import AnswerDecoder, Egresses, RequestEncoder
from statefun_ray.io.remote.endpoint import LATENCY_BUCKETS_MS, SUSPICIOUS_MAX, EndpointState, Metrics
from statefun_ray.io.remote.errors import (
    BadAnswer,
    CallTimedOut,
    InvocationPostponed,
    RemoteError,
    ServiceUnavailable,
)
from statefun_ray.io.remote.target import BadUrl, Target, target_of
from statefun_ray.io.remote.thin_client import ThinClient
from statefun_ray.module.model import (
    FUNCTION_NAME,
    AsyncTransport,
    Endpoint,
    Module,
    OkHttpTransport,
    Transport,
)
from statefun_sdk.protocol import FromFunction

logger = logging.getLogger(__name__)

ROUNDS_MAX: Final = 4
"""Requests for one batch: each further one must have brought a state that was not known."""

ENDPOINT_FIGURES: Final = (
    "statefun_remote_invocation_requests_total",
    "statefun_remote_invocation_failures_total",
    "statefun_remote_invocation_latency_ms",
)
FUNCTION_FIGURES: Final = (
    "statefun_function_remote_invocation_requests_total",
    "statefun_function_remote_invocation_failures_total",
    "statefun_function_remote_invocation_latency_ms",
)
"""Requests, those without a result, and the histogram of their time: per service, per function."""

STRICT_DELAY_MS: Final = 4
STRICT_DELAY_OKHTTP_MS: Final = 10
"""Before the second attempt of a strict application; doubled from then on. StateFun's figures."""

Outcome: TypeAlias = tuple[Invoke, InvocationEffects | None, Exception | None]
"""A batch, its effects, and what went wrong with it: ``InvocationPostponed`` if it could not be tried."""


class Core(Protocol):
    """What is asked of the worker."""

    def register_states(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> bool:
        """See ``core.worker.Worker``."""

    def move_lane(self, name: str, limit: int, *, is_down: bool = False) -> None:
        """See ``core.worker.Worker``."""

    def outcomes_ready(self) -> None:
        """Batches have ended; `RemoteInvoker.take_outcomes` has them. Called once until they are taken."""


class _Function:
    """One function of one endpoint."""

    __slots__ = ("decoder", "encoder", "endpoint", "metrics", "name", "tables", "target")

    def __init__(
        self,
        name: str,
        endpoint: _Endpoint,
        target: Target | BadUrl,
        tables: Sequence[Table],
        egresses: Egresses,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.target = target
        self.tables = tables
        self.encoder = RequestEncoder(name)
        self.decoder = AnswerDecoder(name, tables, egresses)
        self.metrics = Metrics()

    def know_states(self) -> None:
        """Take note of states that were registered since the last time: they only ever come."""
        prefix = len(self.name) + 1
        for table in self.tables[self.encoder.state_count :]:
            name = table.name[prefix:]
            self.decoder.indexes[name] = self.encoder.state_count
            self.encoder.declare(name, table.typename)


class _Endpoint:
    """One service: how to reach it, and what is known of it."""

    def __init__(self, name: str, transport: Transport, client: Client) -> None:
        self.name = name
        self.transport = transport
        self.client = client
        connections = transport.pool_size if isinstance(transport, AsyncTransport) else OKHTTP_CONNECTIONS
        self.state = EndpointState(name, connections)
        self.told: tuple[int, bool] = (self.state.limit(0), False)
        self.timer: asyncio.TimerHandle | None = None


def _client(spec: Endpoint) -> Client:
    transport = spec.transport
    if isinstance(transport, AsyncTransport) and spec.url_template.startswith("http://"):
        return ThinClient(transport)
    return AiohttpClient(transport)


class RemoteInvoker:
    """Runs the functions of all endpoints of a module, in one worker."""

    def __init__(self, module: Module, egresses: Egresses) -> None:
        """Args:
        module: says who serves what.
        egresses: of the application, see ``codec.Egresses``.

        Raises:
            UserValueError: certificates of a transport cannot be read.
        """
        self._module = module
        self._egresses = egresses
        self._clients = {endpoint.functions: _client(endpoint) for endpoint in module.endpoints}
        self._endpoints: dict[str, _Endpoint] = {}
        """By lane."""
        self._functions: dict[str, _Function] = {}
        self._core: Core | None = None
        self._outcomes: list[Outcome] = []
        self._call = _StrictCall if module.failure_policy.strict else _Call
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, core: Core) -> None:
        """Say which worker this is for; to be done before the first `start`."""
        self._core = core

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Say who serves a function; see ``core.invoker.Invoker``."""
        spec = self._module.endpoint_of(function_type)
        if spec is None:
            return None
        endpoint = self._endpoint(spec, function_type)
        return LaneSpec(endpoint.name, endpoint.told[0], spec.max_batch_requests)

    def _endpoint(self, spec: Endpoint, function_type: str) -> _Endpoint:
        # Where the host depends on the function, each function has a service of its own.
        host = spec.url_template.partition("://")[2].partition("/")[0]
        name = f"{spec.functions} ({function_type})" if FUNCTION_NAME in host else spec.functions
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            endpoint = _Endpoint(name, spec.transport, self._clients[spec.functions])
            self._endpoints[name] = endpoint
        return endpoint

    def bind(self, function_type: str, tables: Sequence[Table]) -> None:
        """Connect a function with its tables, none yet; see ``core.invoker.Invoker``."""
        spec = self._module.endpoint_of(function_type)
        assert spec is not None, "lane_of was asked before"
        target: Target | BadUrl
        try:
            target = target_of(spec, function_type)
        except BadUrl as error:
            target = error  # of this name only: said to every batch, as nothing else can be done with it
        endpoint = self._endpoint(spec, function_type)
        self._functions[function_type] = _Function(function_type, endpoint, target, tables, self._egresses)

    def start(self, invoke: Invoke) -> None:
        """Run a batch; what becomes of it is told by `take_outcomes`."""
        function = self._functions[invoke.function_type]
        if isinstance(function.target, BadUrl):
            self._ended(invoke, None, BadAnswer(str(function.target)))
            return
        troubled = function.endpoint.state.troubled
        is_alone = bool(troubled) and (invoke.function_type, invoke.id) in troubled
        call = self._call(self, invoke, function, function.target, is_alone)
        try:
            call.send()
        except Exception as error:  # noqa: BLE001 - one batch that cannot be sent is no reason to end the worker
            self._ended(invoke, None, error)

    def take_outcomes(self) -> list[Outcome]:
        """Return what has become of batches since the last time, in the order in which they ended.

        An error is one of these: ``InvocationPostponed``, the service is not there, or cannot just
        now; ``BadAnswer``, it has answered something that is no result, or too late;
        ``UserCodeError``, it declares its states otherwise than they are. Anything else is a bug.
        """
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _ended(self, invoke: Invoke, effects: InvocationEffects | None, error: Exception | None) -> None:
        self._outcomes.append((invoke, effects, error))
        if len(self._outcomes) == 1:
            assert self._core is not None, "connect comes before start"
            self._core.outcomes_ready()

    def _register(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> None:
        assert self._core is not None, "connect comes before start"
        self._core.register_states(function_type, id, specs)

    def _tell_limit(self, endpoint: _Endpoint, now_ms: float) -> None:
        """Let the worker know how many requests the service bears now, and again when a pause ends."""
        limit = endpoint.state.limit(now_ms), endpoint.state.is_down
        if limit != endpoint.told and self._core is not None:
            if limit[1] and not endpoint.told[1]:
                logger.warning(
                    "endpoint is down endpoint=%s cause=%s", endpoint.name, endpoint.state.last_error
                )
            elif endpoint.told[1] and not limit[1]:
                logger.info("endpoint is up again endpoint=%s", endpoint.name)
            endpoint.told = limit
            self._core.move_lane(endpoint.name, limit[0], is_down=limit[1])
        ends_ms = endpoint.state.pause_ends_ms(now_ms)
        if ends_ms is not None and endpoint.timer is None:
            loop = asyncio.get_running_loop()
            endpoint.timer = loop.call_later((ends_ms - now_ms) / 1000, self._pause_ends, endpoint)

    def _pause_ends(self, endpoint: _Endpoint) -> None:
        endpoint.timer = None
        self._tell_limit(endpoint, _now_ms())

    @property
    def trouble(self) -> str:
        """Which services do not answer right now, for people. Any thread may ask."""
        return "; ".join(
            f"endpoint {endpoint.name} is down: {endpoint.state.last_error}"
            for endpoint in list(self._endpoints.values())
            if endpoint.state.is_down
        )

    def figures(self) -> list[Figure]:
        """Return what Prometheus may know of the services."""
        result: list[Figure] = []
        for name, endpoint in self._endpoints.items():
            result += _figures_of(ENDPOINT_FIGURES, label("endpoint", name), endpoint.state.metrics)
        for name, function in self._functions.items():
            result += _figures_of(FUNCTION_FIGURES, label("function", name), function.metrics)
        return result

    def close(self) -> None:
        """Stop; connections are closed as the loop goes on."""
        for endpoint in self._endpoints.values():
            if endpoint.timer is not None:
                endpoint.timer.cancel()
        for client in self._clients.values():
            try:
                task = asyncio.get_running_loop().create_task(client.close())
            except RuntimeError:
                return  # the loop has ended, and with it every connection
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _figures_of(names: tuple[str, str, str], labels: str, metrics: Metrics) -> Iterator[Figure]:
    requests, failures, latency = names
    yield requests, labels, metrics.requests
    yield failures, labels, metrics.failures
    count = 0
    for bound_ms, in_bucket in zip((*LATENCY_BUCKETS_MS, "+Inf"), metrics.latency_buckets, strict=True):
        count += in_bucket
        yield f"{latency}_bucket", f'{labels},le="{bound_ms}"', count
    yield f"{latency}_sum", labels, metrics.latency_sum_ms
    yield f"{latency}_count", labels, count


class _Call:
    """One batch on its way: a request, and another as long as the service misses states that were not known."""

    __slots__ = (
        "_begun_in",
        "_begun_ms",
        "_function",
        "_invoke",
        "_owner",
        "_rounds",
        "_states_sent",
        "body",
        "function_type",
        "is_alone",
        "target",
    )

    def __init__(
        self, owner: RemoteInvoker, invoke: Invoke, function: _Function, target: Target, is_alone: bool
    ) -> None:
        self._owner = owner
        self._invoke = invoke
        self._function = function
        self._rounds = 0
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
        self.body = encoder.encode(id, [table.get(id) for table in tables], invoke.messages)
        self._rounds += 1
        function.metrics.requests += 1
        self._begun_in, self._begun_ms = function.endpoint.state.begun(), _now_ms()
        function.endpoint.client.start(self)

    def answered(self, answer: bytes) -> None:
        """See `client.Request`."""
        function, owner = self._function, self._owner
        now_ms = _now_ms()
        state, latency_ms = function.endpoint.state, now_ms - self._begun_ms
        state.succeeded(latency_ms)
        function.metrics.answered(latency_ms)
        if state.troubled:
            state.troubled.pop((self.function_type, self._invoke.id), None)
        owner._tell_limit(function.endpoint, now_ms)
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
            owner._ended(self._invoke, None, error)
        else:
            owner._ended(self._invoke, effects, None)

    def _register(self, missing: dict[str, StateSpec]) -> None:
        """Take what the service says about states that it was not given.

        Raises:
            BadAnswer: it was given them.
            UserCodeError: they are not as they are stored.
        """
        # States only come, in the order in which they were registered: those sent are the first ones.
        indexes, sent = self._function.decoder.indexes, self._states_sent
        if self._rounds == ROUNDS_MAX or all(indexes.get(name, sent) < sent for name in missing):
            raise BadAnswer(
                f"the service of {self.function_type} asks again for states that it was given: "
                f"{', '.join(sorted(missing)) or 'none'}; nothing was executed"
            )
        self._owner._register(self.function_type, self._invoke.id, missing)

    def failed(self, error: Exception) -> None:
        """See `client.Request`."""
        self._owner._ended(self._invoke, None, self._told(error))

    def _told(self, error: Exception) -> Exception:
        """Let the endpoint know of a failure; return what it means for the batch."""
        owner, endpoint = self._owner, self._function.endpoint
        state, now_ms = endpoint.state, _now_ms()
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
            state.timed_out(self._begun_in, now_ms - self._begun_ms, who)
            metrics.answered(now_ms - self._begun_ms)
        elif isinstance(error, BadAnswer):
            state.answered_badly(now_ms - self._begun_ms, who)
            metrics.answered(now_ms - self._begun_ms)
        else:
            state.abandoned()
        owner._tell_limit(endpoint, now_ms)
        return error


class _StrictCall(_Call):
    """One that is tried as in StateFun: again and again within ``call``, and then the application rolls back.

    An outage ends the generation as well. ``Retry-After`` and the limit of requests hold for others,
    which have not begun yet.
    """

    __slots__ = ("_attempts", "_is_over", "_is_sent", "_reason", "_timer")

    def __init__(
        self, owner: RemoteInvoker, invoke: Invoke, function: _Function, target: Target, is_alone: bool
    ) -> None:
        super().__init__(owner, invoke, function, target, is_alone)
        self._attempts = 0
        self._is_over = self._is_sent = False
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None

    def send(self) -> None:
        """Make a request with what is known now; the first one starts the clock."""
        super().send()
        self._is_sent = True
        if self._timer is None:
            call_s = self._function.endpoint.transport.call_ms / 1000
            self._timer = asyncio.get_running_loop().call_later(call_s, self._give_up)

    def answered(self, answer: bytes) -> None:
        """See `client.Request`."""
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
        self._is_sent = False
        super().answered(answer)
        if not self._is_sent:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def failed(self, error: Exception) -> None:
        """See `client.Request`."""
        if self._is_over:
            return
        self._told(error)
        is_okhttp = isinstance(self._function.endpoint.transport, OkHttpTransport)
        if not isinstance(error, RemoteError):
            self._end()
            self._owner._ended(self._invoke, None, error)  # a bug
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
        self._rounds -= 1
        self.send()

    def _give_up(self, why: str = "") -> None:
        self._end()
        call_ms = self._function.endpoint.transport.call_ms
        reason = self._reason or f"{self.target.url} did not answer"
        why = why or f"that was attempt {max(1, self._attempts)}, and the {call_ms} ms of call are over"
        self._owner._ended(self._invoke, None, BadAnswer(f"{reason}; {why}"))


def _now_ms() -> float:
    return time.monotonic() * 1000
