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
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from statefun_checkpoints.model import StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InvocationEffects, LaneSpec
from statefun_ray.core.message import Message
from statefun_ray.core.metrics import FUNCTIONS_APART_MAX, OTHERS, Figure, label
from statefun_ray.core.state import Table
from statefun_ray.io.remote.call import Call, Function, Outcome, Service, StrictCall, clock_ms
from statefun_ray.io.remote.codec import Egresses
from statefun_ray.io.remote.errors import BadAnswer
from statefun_ray.io.remote.http_client import HttpClient
from statefun_ray.io.remote.metrics import ENDPOINT_FIGURES, FUNCTION_FIGURES, figures_of, total
from statefun_ray.io.remote.target import BadUrl, Target, target_of
from statefun_ray.module.model import FUNCTION_NAME, Endpoint, Module

logger = logging.getLogger(__name__)

PREPARE_MAX: Final = 500
"""Messages encoded ahead in one turn."""


class Core(Protocol):
    """What is asked of the worker."""

    def register_states(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> bool:
        """See ``core.worker.Worker``."""

    def move_lane(self, name: str, limit: int, *, is_down: bool = False) -> None:
        """See ``core.worker.Worker``."""

    def is_held(self, name: str) -> bool:
        """See ``core.worker.Worker``."""

    def outcomes_ready(self) -> None:
        """Batches have ended; `RemoteInvoker.take_outcomes` has them. Called once until they are taken."""


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
        self._clients = {endpoint.functions: HttpClient(endpoint.transport) for endpoint in module.endpoints}
        self._endpoints: dict[str, Service] = {}
        """By lane."""
        self._functions: dict[str, Function] = {}
        self._core: Core | None = None
        self._outcomes: list[Outcome] = []
        self._call = StrictCall if module.failure_policy.strict else Call
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, core: Core) -> None:
        """Say which worker this is for; to be done before the first `start`."""
        self._core = core

    @property
    def elsewhere(self) -> Sequence[str]:
        """What the endpoints serve; see ``core.invoker.Invoker``."""
        return [endpoint.functions for endpoint in self._module.endpoints]

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Say who serves a function; see ``core.invoker.Invoker``."""
        spec = self._module.endpoint_of(function_type)
        if spec is None:
            return None
        endpoint = self._endpoint(spec, function_type)
        return LaneSpec(endpoint.name, endpoint.told[0], spec.max_batch_requests)

    def _endpoint(self, spec: Endpoint, function_type: str) -> Service:
        # Where host or socket depend on the function, each function has a service of its own.
        scheme, _, rest = spec.url_template.partition("://")
        place = rest.rpartition(".sock")[0] if scheme.lower() == "http+unix" else rest.partition("/")[0]
        name = f"{spec.functions} ({function_type})" if FUNCTION_NAME in place else spec.functions
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            endpoint = Service(name, spec.transport, self._clients[spec.functions])
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
        function = Function(function_type, endpoint, target, tables, self._egresses)
        if len(self._functions) >= FUNCTIONS_APART_MAX:
            function.metrics = endpoint.others
        self._functions[function_type] = function

    def start(self, invoke: Invoke) -> None:
        """Run a batch; what becomes of it is told by `take_outcomes`."""
        function = self._functions[invoke.function_type]
        if isinstance(function.target, BadUrl):
            self.ended(invoke, None, BadAnswer(str(function.target)))
            return
        troubled = function.service.state.troubled
        is_alone = bool(troubled) and (invoke.function_type, invoke.id) in troubled
        call = self._call(self, invoke, function, function.target, is_alone)
        try:
            call.send()
        except Exception as error:  # noqa: BLE001 - one batch that cannot be sent is no reason to end the worker
            self.ended(invoke, None, error)

    def prepare(self, upcoming: Iterable[tuple[str, str, list[Message]]]) -> bool:
        """Encode batches ahead of their turn, as there is time and services are busy.

        Args:
            upcoming: function type, id and messages of each.

        Returns:
            Whether there is more to do: it is some tenths of a millisecond each time.
        """
        left = PREPARE_MAX
        for function_type, id, messages in upcoming:
            function = self._functions.get(function_type)
            if function is None:
                continue  # an embedded one
            left -= function.prepare(id, messages, left)
            if left <= 0:
                return True
        return False

    def take_outcomes(self) -> list[Outcome]:
        """Return what has become of batches since the last time, in the order in which they ended.

        An error is one of these: ``InvocationPostponed``, the service is not there, or cannot just
        now; ``BadAnswer``, it has answered something that is no result, or too late;
        ``UserCodeError``, it declares its states otherwise than they are. Anything else is a bug.
        """
        outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            self._look()
        return outcomes

    def _look(self) -> None:
        assert self._core is not None, "connect comes before start"
        now_ms = clock_ms()
        for name, endpoint in self._endpoints.items():
            endpoint.state.looked(now_ms, has_more=self._core.is_held(name))
            self.tell_limit(endpoint, now_ms)

    def ended(self, invoke: Invoke, effects: InvocationEffects | None, error: Exception | None) -> None:
        """A batch has ended; see `call.Owner`."""
        self._outcomes.append((invoke, effects, error))
        if len(self._outcomes) == 1:
            assert self._core is not None, "connect comes before start"
            self._core.outcomes_ready()

    def register(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> None:
        """A service misses states; see `call.Owner`."""
        assert self._core is not None, "connect comes before start"
        self._core.register_states(function_type, id, specs)

    def tell_limit(self, endpoint: Service, now_ms: float) -> None:
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

    def _pause_ends(self, endpoint: Service) -> None:
        endpoint.timer = None
        self.tell_limit(endpoint, clock_ms())

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
        functions = {
            name: function.metrics for name, function in islice(self._functions.items(), FUNCTIONS_APART_MAX)
        }
        served = {name: [endpoint.others] for name, endpoint in self._endpoints.items()}
        for name, metrics in functions.items():
            served[self._functions[name].service.name].append(metrics)
        if len(self._functions) > FUNCTIONS_APART_MAX:
            functions[OTHERS] = total(endpoint.others for endpoint in self._endpoints.values())
        endpoints = {name: total(served[name]) for name in islice(served, FUNCTIONS_APART_MAX)}
        if len(served) > FUNCTIONS_APART_MAX:
            endpoints[OTHERS] = total(
                each for name in islice(served, FUNCTIONS_APART_MAX, None) for each in served[name]
            )
        result: list[Figure] = []
        for name, metrics in endpoints.items():
            result += figures_of(ENDPOINT_FIGURES, label("endpoint", name), metrics)
        for name, metrics in functions.items():
            result += figures_of(FUNCTION_FIGURES, label("function", name), metrics)
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
