"""Runs batches of functions that live elsewhere: one request each, two when states become known.

The first request of a function carries no states, because none are known: nothing waits for it but
its own batch. A service that misses states says which, without having run anything; they are
registered and the same batch is sent again. From then on all registered states of the address go
along.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InvocationEffects, LaneSpec
from statefun_ray.core.metrics import Figure, label
from statefun_ray.core.state import Table
from statefun_ray.io.remote.client import OKHTTP_CONNECTIONS, AiohttpClient, Client
from statefun_ray.io.remote.codec import Egresses, RequestEncoder, decode_answer
from statefun_ray.io.remote.endpoint import LATENCY_BUCKETS_MS, EndpointState
from statefun_ray.io.remote.errors import BadAnswer, CallTimedOut, InvocationPostponed, ServiceUnavailable
from statefun_ray.io.remote.target import BadUrl, Target, target_of
from statefun_ray.io.remote.thin_client import ThinClient
from statefun_ray.module.model import FUNCTION_NAME, AsyncTransport, Endpoint, Module, Transport

logger = logging.getLogger(__name__)

ROUNDS_MAX: Final = 4
"""Requests for one batch: each further one must have brought a state that was not known."""


class Core(Protocol):
    """What is asked of the worker."""

    def register_states(self, function_type: str, specs: Mapping[str, StateSpec]) -> bool:
        """See ``core.worker.Worker``."""

    def move_lane(self, name: str, limit: int, *, is_down: bool = False) -> None:
        """See ``core.worker.Worker``."""


@dataclass(slots=True)
class _Function:
    """One function of one endpoint."""

    endpoint: _Endpoint
    target: Target | BadUrl
    tables: Sequence[Table]
    encoder: RequestEncoder
    name_offset: int
    """Where the name of a state begins in that of its table."""

    def states_of(self, id: str) -> list[tuple[str, str, bytes | None]]:
        """Return ``(name, type, value)`` of the registered states of an address."""
        offset = self.name_offset
        return [(table.name[offset:], table.typename, table.get(id)) for table in self.tables]


class _Endpoint:
    """One service: how to reach it, and what is known of it."""

    def __init__(self, name: str, transport: Transport, client: Client) -> None:
        self.name = name
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
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, core: Core) -> None:
        """Say which worker this is for; to be done before the first `run`."""
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
        self._functions[function_type] = _Function(
            self._endpoint(spec, function_type),
            target,
            tables,
            RequestEncoder(function_type),
            len(function_type) + 1,
        )

    async def run(self, invoke: Invoke) -> InvocationEffects | None:
        """Run a batch to its end.

        Raises:
            InvocationPostponed: the service is not there, or cannot just now.
            BadAnswer: it has answered something that is no result, or too late.
            UserCodeError: it declares its states otherwise than they are.
        """
        function = self._functions[invoke.function_type]
        if isinstance(function.target, BadUrl):
            raise BadAnswer(str(function.target))
        asked: list[str] = []
        for _ in range(ROUNDS_MAX):
            states = function.states_of(invoke.id)
            body = function.encoder.encode(invoke.id, states, invoke.messages)
            answer = await self._request(function.endpoint, function.target, body, invoke.function_type)
            decoded = decode_answer(answer, invoke.function_type, function.tables, self._egresses)
            if not isinstance(decoded, dict):
                return decoded
            asked = sorted(decoded)
            if not decoded.keys() - {name for name, _, _ in states}:
                break
            assert self._core is not None, "connect comes before run"
            self._core.register_states(invoke.function_type, decoded)
        raise BadAnswer(
            f"the service of {invoke.function_type} asks again for states that it was given: "
            f"{', '.join(asked) or 'none'}; nothing was executed"
        )

    async def _request(self, endpoint: _Endpoint, target: Target, body: bytes, function_type: str) -> bytes:
        state = endpoint.state
        begun_in, begun_ms = state.begun(), _now_ms()
        try:
            answer = await endpoint.client.post(target, body, function_type)
        except ServiceUnavailable as error:
            now_ms = _now_ms()
            if error.answered:
                delay_ms = state.refused(begun_in, now_ms, error.retry_after_ms, error.reason)
            else:
                delay_ms = state.unreachable(begun_in, now_ms, error.reason)
            raise InvocationPostponed(error.reason, delay_ms) from None
        except CallTimedOut:
            state.timed_out(begun_in, _now_ms() - begun_ms)
            raise
        except BadAnswer:
            state.answered_badly(_now_ms() - begun_ms)
            raise
        except BaseException:
            state.abandoned()
            raise
        else:
            state.succeeded(_now_ms() - begun_ms)
            return answer
        finally:
            self._tell_limit(endpoint)

    def _tell_limit(self, endpoint: _Endpoint) -> None:
        """Let the worker know how many requests the service bears now, and again when a pause ends."""
        now_ms = _now_ms()
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
        self._tell_limit(endpoint)

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
            metrics, labels = endpoint.state.metrics, label("endpoint", name)
            result.append(("statefun_remote_invocation_requests_total", labels, metrics.requests))
            result.append(("statefun_remote_invocation_failures_total", labels, metrics.failures))
            count = 0
            for bound_ms, in_bucket in zip(
                (*LATENCY_BUCKETS_MS, "+Inf"), metrics.latency_buckets, strict=True
            ):
                count += in_bucket
                bucket = f'{labels},le="{bound_ms}"'
                result.append(("statefun_remote_invocation_latency_ms_bucket", bucket, count))
            result.append(("statefun_remote_invocation_latency_ms_sum", labels, metrics.latency_sum_ms))
            result.append(("statefun_remote_invocation_latency_ms_count", labels, count))
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


def _now_ms() -> float:
    return time.monotonic() * 1000
