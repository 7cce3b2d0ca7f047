"""Runs the bound Python functions of one worker: the only place where runtime and SDK meet.

A synchronous function is called inside the worker's turn, against one context and storage that
serve all its addresses, reading the worker's tables directly. An async or blocking one gets a
context of its own per invocation and may read its state at any time, because its address is
locked until the effects are applied.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from statefun_checkpoints.model import FunctionSpec, StateSpec
from statefun_ray.core.effects import Invoke
from statefun_ray.core.errors import UserCodeError
from statefun_ray.core.invoker import Egress, InlineCall, InvocationEffects, LaneSpec
from statefun_ray.core.message import Message as MessageTuple
from statefun_ray.core.state import Table
from statefun_ray.io.clock import wall_ms
from statefun_ray.io.record_checks import RecordCheck
from statefun_sdk.context import Context
from statefun_sdk.functions import BoundFunction, StatefulFunctions
from statefun_sdk.messages import Message

logger = logging.getLogger(__name__)

BLOCKING_THREADS_DEFAULT: Final = 32
"""Threads for ``blocking=True`` functions: enough to wait in, few enough to share two cores."""


FAILURE_LOG_S_MIN: Final = 0.05
FAILURE_LOG_S_MAX: Final = 30.0
"""Between two lines about one fault: half of what the core waits between two attempts, so the retries
of one address are a line each, and those of a thousand addresses are not a thousand."""

FAULT_FORGOTTEN_S: Final = 600.0
"""A fault that was not seen for so long is over, and new when it comes back."""

FAULTS_MAX: Final = 1_000
"""Faults remembered, those seen last."""


class FunctionExited(Exception):
    """A function raised what would have ended its whole process."""

    def __init__(self, typename: str, raised: str) -> None:
        super().__init__(typename, raised)
        self.typename, self.raised = typename, raised

    def __str__(self) -> str:
        return f"function {self.typename} raised {self.raised}; it must not end the process, raise an error instead"


@dataclass(slots=True)
class _Fault:
    """What is known of one place at which a function fails."""

    seen_s: float
    next_line_s: float
    distance_s: float
    left_out: int = 0


class FailureLog:
    """Logs what user functions raise: a fault with its traceback once, then a line ever more rarely.

    A fault is a function type, the type of what it raises, and the line of code that does. Other
    addresses that fail in the same way share its lines; ``statefun-ray status`` names them.
    """

    def __init__(self) -> None:
        self._faults: OrderedDict[tuple[str, str, str, int], _Fault] = OrderedDict()

    def report(self, typename: str, id: str, error: BaseException, *, traceback: bool = True) -> None:
        """Note one failed invocation; the address will try again.

        Without ``traceback`` the error's text says it all: it was not raised by code of the user's here.
        """
        now_s = time.monotonic()
        key = (typename, type(error).__name__, *(_place_of(error) if traceback else ("", 0)))
        fault = self._faults.pop(key, None)
        if fault is not None and now_s - fault.seen_s >= FAULT_FORGOTTEN_S:
            fault = None
        is_new = fault is None
        if fault is None:
            fault = _Fault(now_s, now_s, FAILURE_LOG_S_MIN)
        self._faults[key] = fault
        if len(self._faults) > FAULTS_MAX:
            self._faults.popitem(last=False)
        fault.seen_s = now_s
        if now_s < fault.next_line_s:
            fault.left_out += 1
            return
        logger.warning(
            "function %s will be tried again address=%s/%s cause=%s unlogged=%d",
            "failed and" if is_new else "fails still and",
            typename,
            id,
            f"{type(error).__name__}: {error}",
            fault.left_out,
            exc_info=error if traceback and is_new else None,
        )
        fault.left_out = 0
        fault.next_line_s = now_s + fault.distance_s
        fault.distance_s = min(FAILURE_LOG_S_MAX, fault.distance_s * 2)


def _place_of(error: BaseException) -> tuple[str, int]:
    """Return file and line that raised ``error``."""
    place, frame = ("", 0), error.__traceback__
    while frame is not None:
        place, frame = (frame.tb_frame.f_code.co_filename, frame.tb_lineno), frame.tb_next
    return place


def describe_functions(functions: StatefulFunctions) -> dict[str, FunctionSpec]:
    """Return the functions and their states as a commit-log entry records them."""
    return {
        typename: FunctionSpec(
            {
                spec.name: StateSpec(
                    type=spec.type.typename,
                    expire="after_call" if spec.after_call else "after_write" if spec.after_write else "none",
                    expire_ms=spec.duration if spec.after_call or spec.after_write else 0,
                    json=spec.type.is_json,
                )
                for spec in function.specs
            }
        )
        for typename, function in functions.functions.items()
    }


class EmbeddedInvoker:
    """Invoker of the functions in one :class:`StatefulFunctions`."""

    now_ms = staticmethod(wall_ms)
    """See ``core.invoker.Invoker``."""

    def __init__(
        self,
        functions: StatefulFunctions,
        *,
        threads: int = BLOCKING_THREADS_DEFAULT,
        record_checks: Mapping[str, RecordCheck | None] | None = None,
    ) -> None:
        """Args:
        functions: to run.
        threads: for those that block.
        record_checks: by egress, what checks its records; None for nothing. Any other egress
            takes whatever it is given.
        """
        self._record_checks = {
            name: check for name, check in (record_checks or {}).items() if check is not None
        }
        self._bound: Mapping[str, BoundFunction] = functions.functions
        self._specs = describe_functions(functions)
        self._tables: dict[str, Sequence[Table]] = {}
        self._threads = threads
        self._failures = FailureLog()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def functions(self) -> Mapping[str, FunctionSpec]:
        """The functions and their states."""
        return self._specs

    def bind(self, function_type: str, tables: Sequence[Table]) -> InlineCall | None:
        """Connect a function with its tables; see ``core.invoker.Invoker``."""
        self._tables[function_type] = tables
        function = self._bound[function_type]
        if function.is_async or function.blocking:
            return None
        return _inline_call(function, _views(tables), self._failures, self._record_checks)

    def lane_of(self, function_type: str) -> LaneSpec | None:
        """Nobody but these functions is known here."""
        return None

    @property
    def elsewhere(self) -> Sequence[str]:
        """None."""
        return ()

    async def run(self, invoke: Invoke) -> InvocationEffects | None:
        """Run an awaiting invocation to its end.

        Raises:
            Exception: what the function raised; its effects, and those of the whole batch, are void.
        """
        function = self._bound[invoke.function_type]
        storage = function.storage_class(_views(self._tables[invoke.function_type]))
        context = Context._of(function.typename, storage)
        if function.blocking:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="blocking-function")
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._pool, _run_blocking, function, context, invoke.messages)
        else:
            for message in invoke.messages:
                context._begin(message[1], message[2], message[3])
                await function.fun(context, Message._of(message[0], message[1], message[4], message[5]))
        if context._egress:
            _check_records(context._egress, self._record_checks)
        return storage._Writes, context._sends, context._delayed, context._egress

    def close(self) -> None:
        """Let go of the thread pool; calls that are blocked in user code are not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _views(tables: Sequence[Table]) -> list[Any]:
    # A table without expiration is read at the speed of a dictionary.
    return [table if table.is_stamped else table.live for table in tables]


def _check_records(records: Sequence[Egress], checks: Mapping[str, RecordCheck]) -> None:
    for egress, value_type, value in records:
        check = checks.get(egress)
        problem = check(value_type, value) if check is not None else None
        if problem is not None:
            raise UserCodeError(problem)


def _inline_call(
    function: BoundFunction,
    views: Sequence[Any],
    failures: FailureLog,
    record_checks: Mapping[str, RecordCheck],
) -> InlineCall:
    fun, typename = function.fun, function.typename
    storage = function.storage_class(views)
    context = Context._of(typename, storage)
    begin, discard, message_of = context._begin, context._discard, Message._of

    def call(
        id: str, caller_type: str, caller_id: str, value_type: str, value: bytes | None
    ) -> InvocationEffects | None:
        discard()
        begin(id, caller_type, caller_id)
        try:
            fun(context, message_of(typename, id, value_type, value))
            if context._egress and record_checks:
                _check_records(context._egress, record_checks)
        except Exception as error:
            failures.report(typename, id, error)
            raise
        except (SystemExit, asyncio.CancelledError) as error:
            # Neither may end the worker: the message would end the next one as well.
            failures.report(typename, id, error)
            raise FunctionExited(typename, repr(error)) from error
        if storage._Writes or context._sends or context._delayed or context._egress:
            return storage._Writes, context._sends, context._delayed, context._egress
        return None

    return call


def _run_blocking(function: BoundFunction, context: Context, messages: list[MessageTuple]) -> None:
    try:
        for message in messages:
            context._begin(message[1], message[2], message[3])
            function.fun(context, Message._of(message[0], message[1], message[4], message[5]))
    except StopIteration as error:
        # A future cannot carry it: the loop would wait for this invocation for ever.
        raise RuntimeError(f"function {function.typename} raised StopIteration") from error
