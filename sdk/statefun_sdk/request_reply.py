"""``RequestReplyHandler``: answers one request of the remote protocol, bytes in and bytes out.

A request is a batch of messages for one address, with the states of that address. The answer
holds what the batch did, all together; when a function raises there is no answer, so a batch is
applied as a whole or not at all. Nothing is kept from one request to the next, and any web server
can stand in front: ``statefun_sdk.asgi`` is one way.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from statefun_sdk.address import split_typename
from statefun_sdk.batches import DONE, FAILED, join_answers, split_requests
from statefun_sdk.context import Context
from statefun_sdk.errors import StateFunError, UserTypeError, UserValueError
from statefun_sdk.functions import BoundFunction, StatefulFunctions
from statefun_sdk.messages import Message
from statefun_sdk.protocol import FromFunction, ToFunction
from statefun_sdk.specs import ValueSpec
from statefun_sdk.storage import StateTable, Storage

logger = logging.getLogger(__name__)

BLOCKING_THREADS_DEFAULT: Final = 32
"""Threads for ``blocking=True`` functions: they mostly wait, so more than there are cores."""

_MODIFY: Final = FromFunction.PersistedValueMutation.MODIFY
_EXPIRE_MODES: Final = {
    "none": FromFunction.ExpirationSpec.NONE,
    "after_write": FromFunction.ExpirationSpec.AFTER_WRITE,
    "after_call": FromFunction.ExpirationSpec.AFTER_INVOKE,
}
_split = lru_cache(maxsize=1024)(split_typename)


class MalformedRequestError(StateFunError, DecodeError):
    """The bytes are not a request of the remote protocol."""


class RequestReplyHandler:
    """Answers requests for the functions of one ``StatefulFunctions``.

    It may be used by many tasks and threads at a time. Requests for one address never overlap:
    the runtime sends the next one when the last is answered.
    """

    def __init__(
        self, functions: StatefulFunctions, *, blocking_threads: int = BLOCKING_THREADS_DEFAULT
    ) -> None:
        """Serve ``functions``; what is bound later is served as well.

        Args:
            functions: the functions to serve.
            blocking_threads: how many ``blocking=True`` functions ``handle_async`` runs at a time.

        Raises:
            UserValueError: no functions are given.
        """
        if functions is None:
            raise UserValueError("no functions were given; pass the StatefulFunctions to serve")
        self._functions = functions
        self._threads = blocking_threads
        self._pool: ThreadPoolExecutor | None = None

    async def handle_async(self, request_bytes: bytes) -> bytes:
        """Answer one request on the running event loop.

        An async function is awaited; a plain one runs here and holds the loop up while it does,
        unless it is bound with ``blocking=True``, which gives it a thread.

        Args:
            request_bytes: a serialized ``ToFunction``.

        Returns:
            A serialized ``FromFunction``; zero bytes if the batch has no effects.

        Raises:
            MalformedRequestError: the bytes are not a request.
            UnknownFunctionError: the target is not bound.
            Exception: what the function raises; nothing of the batch is to be applied.
        """
        answer, _ = await self.handle_and_tell_async(request_bytes)
        return answer

    async def handle_and_tell_async(self, request_bytes: bytes) -> tuple[bytes, bool]:
        """As ``handle_async``, and tell whether requests for this function may come many in one.

        They may for a plain function: one that waits would hold up the answers of all others.
        """
        batch = _Batch(self._functions, request_bytes)
        function = batch.function
        if not batch.missing:
            if function.is_async:
                await batch.run_async()
            elif function.blocking:
                await asyncio.get_running_loop().run_in_executor(self._thread_pool(), batch.run_in_thread)
            else:
                batch.run()
        return batch.answer(), not (function.is_async or function.blocking)

    async def handle_batch_async(self, body: bytes) -> bytes:
        """Answer many requests that came as one; see ``statefun_sdk.batches``.

        Plain functions are called one after another, async and blocking ones run beside each
        other. One that raises fails for itself.

        Raises:
            MalformedRequestError: the body is not a row of requests; a single one that is none
                fails for itself.
        """
        try:
            requests = split_requests(body)
        except ValueError as error:
            raise MalformedRequestError(f"the body is not a row of requests: {error}") from None
        answers: list[tuple[int, bytes]] = [(FAILED, b"")] * len(requests)
        waiting: list[Awaitable[None]] = []
        for place, request in enumerate(requests):
            try:
                batch = _Batch(self._functions, request)
                if batch.missing or not (batch.function.is_async or batch.function.blocking):
                    if not batch.missing:
                        batch.run()
                    answers[place] = DONE, batch.answer()
                else:
                    waiting.append(self._run_beside(batch, place, answers))
            except Exception as error:  # noqa: BLE001 - user code may raise anything; the item carries it
                answers[place] = FAILED, _failure(error)
        if waiting:
            await asyncio.gather(*waiting)
        return join_answers(answers)

    async def _run_beside(self, batch: _Batch, place: int, answers: list[tuple[int, bytes]]) -> None:
        try:
            if batch.function.is_async:
                await batch.run_async()
            else:
                await asyncio.get_running_loop().run_in_executor(self._thread_pool(), batch.run_in_thread)
            answers[place] = DONE, batch.answer()
        except Exception as error:  # noqa: BLE001 - user code may raise anything; the item carries it
            answers[place] = FAILED, _failure(error)

    def handle_sync(self, request_bytes: bytes) -> bytes:
        """Answer one request in the calling thread, as ``handle_async`` does.

        Plain functions, blocking ones too, are just called. An async one runs on an event loop of
        its own.

        Raises:
            RuntimeError: the function is async, and an event loop is running in this thread.
        """
        batch = _Batch(self._functions, request_bytes)
        if not batch.missing:
            if batch.function.is_async:
                _refuse_running_loop()
                asyncio.run(batch.run_async())
            else:
                batch.run()
        return batch.answer()

    def close(self) -> None:
        """Let go of the threads; calls that are blocked in a function are not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _thread_pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="blocking-function")
        return self._pool


def _failure(error: Exception) -> bytes:
    logger.error("a batch failed and has no effects; the runtime tries it again", exc_info=error)
    return f"{type(error).__name__}: {error}".encode()


class _Batch:
    """One request on its way to an answer.

    Attributes:
        function: what it is for.
        missing: specs of states the request does not hold; if any, nothing may run.
    """

    __slots__ = ("_context", "_id", "_invocations", "_storage", "function", "missing")

    def __init__(self, functions: StatefulFunctions, request_bytes: bytes) -> None:
        try:
            request = ToFunction.FromString(request_bytes)
        except DecodeError as error:
            raise MalformedRequestError(f"the request is not a ToFunction message: {error}") from None
        if not request.HasField("invocation"):
            raise MalformedRequestError("the request holds no invocation")
        batch = request.invocation
        target = batch.target
        typename = f"{target.namespace}/{target.type}"
        function = self.function = functions.for_typename(typename)
        self._id = target.id
        self._invocations = batch.invocations
        self.missing: list[ValueSpec] = []
        tables = self._tables(batch.state) if function.specs else []
        self._storage: Storage = function.storage_class(tables)
        self._context = Context(typename, self._storage)

    def _tables(self, states: Any) -> list[StateTable]:
        """Return what storage reads, and note missing states. A state nobody asked for is left."""
        values = {state.state_name: state.state_value for state in states}
        tables: list[StateTable] = []
        for spec in self.function.specs:
            value = values.get(spec.name)
            if value is None:
                self.missing.append(spec)
            elif not value.has_value:
                tables.append({})
            elif value.typename == spec.type.typename:
                tables.append({self._id: value.value})
            else:
                tables.append(_OtherType(self.function, spec, value.typename))
        return tables

    def run(self) -> None:
        """Call a plain function with every message."""
        call, context = self.function.fun, self._context
        try:
            for message in self._messages():
                returned = call(context, message)
                if returned is not None:
                    _refuse_coroutine(self.function.typename, returned)
        except Exception as error:
            self._add_note(error)
            raise

    def run_in_thread(self) -> None:
        """Call a plain function for a future, which cannot carry a ``StopIteration``."""
        try:
            self.run()
        except StopIteration as error:
            raise RuntimeError(f"function {self.function.typename} raised StopIteration") from error

    async def run_async(self) -> None:
        """Await an async function with every message, one after another."""
        call, context = self.function.fun, self._context
        try:
            for message in self._messages():
                await call(context, message)
        except Exception as error:
            self._add_note(error)
            raise

    def _messages(self) -> Iterator[Message]:
        """Yield the messages, with the context turned to each."""
        begin, message_of = self._context._begin, Message._of
        typename, id = self.function.typename, self._id
        for invocation in self._invocations:
            if invocation.HasField("caller"):
                caller = invocation.caller
                begin(id, f"{caller.namespace}/{caller.type}", caller.id)
            else:
                begin(id, "", "")
            argument = invocation.argument
            value = argument.value if argument.has_value else None
            yield message_of(typename, id, argument.typename, value)

    def _add_note(self, error: Exception) -> None:
        error.add_note(
            f"raised by function {self.function.typename}, id {self._id!r}, "
            f"in a batch of {len(self._invocations)}"
        )

    def answer(self) -> bytes:
        """Return the serialized ``FromFunction``."""
        answer = FromFunction()
        if self.missing:
            answer.incomplete_invocation_context.missing_values.extend(
                _wire_spec(spec) for spec in self.missing
            )
        else:
            self._fill(answer)
        return answer.SerializeToString()

    def _fill(self, answer: FromFunction) -> None:
        context, writes = self._context, self._storage._writes
        if writes:
            specs, add_mutation = self.function.specs, answer.invocation_result.state_mutations.add
            for index, data in sorted(writes.items()):
                spec = specs[index]
                mutation = add_mutation()
                mutation.state_name = spec.name
                if data is not None:
                    mutation.mutation_type = _MODIFY
                    _fill_value(mutation.state_value, spec.type.typename, data)
        if context._sends:
            add_message = answer.invocation_result.outgoing_messages.add
            for target_typename, target_id, value_typename, value in context._sends:
                message = add_message()
                _fill_address(message.target, target_typename, target_id)
                _fill_value(message.argument, value_typename, value)
        if context._delayed:
            add_delayed = answer.invocation_result.delayed_invocations.add
            for entry in context._delayed:
                delayed = add_delayed()
                if len(entry) == 2:
                    delayed.is_cancellation_request = True
                    delayed.cancellation_token = entry[1]
                else:
                    _, delay_ms, token, target_typename, target_id, value_typename, value = entry
                    delayed.delay_in_ms = delay_ms
                    delayed.cancellation_token = token
                    _fill_address(delayed.target, target_typename, target_id)
                    _fill_value(delayed.argument, value_typename, value)
        if context._egress:
            add_egress = answer.invocation_result.outgoing_egresses.add
            for typename, value_typename, value in context._egress:
                egress = add_egress()
                egress.egress_namespace, egress.egress_type = _split(typename)
                _fill_value(egress.argument, value_typename, value)


class _OtherType:
    """A state whose value is not of the declared type: it cannot be read, only overwritten."""

    __slots__ = ("_found", "_function", "_spec")

    def __init__(self, function: BoundFunction, spec: ValueSpec, found: str) -> None:
        self._function, self._spec, self._found = function, spec, found

    def get(self, id: str, /) -> bytes | None:
        """Refuse to read.

        Raises:
            UserTypeError: always.
        """
        raise UserTypeError(
            f"state {self._spec.name!r} of {self._function.typename} id {id!r} holds a value of type "
            f"{self._found!r}, declared is {self._spec.type.typename!r}; declare the stored type, "
            f"or give the new one another name"
        )


def _fill_address(address: Any, typename: str, id: str) -> None:
    address.namespace, address.type = _split(typename)
    address.id = id


def _fill_value(typed_value: Any, typename: str, value: bytes | None) -> None:
    typed_value.typename = typename
    if value is not None:
        typed_value.has_value = True
        typed_value.value = value


def _wire_spec(spec: ValueSpec) -> FromFunction.PersistedValueSpec:
    # The expiration is said even where there is none, as the official Python SDK does.
    return FromFunction.PersistedValueSpec(
        state_name=spec.name,
        type_typename=spec.type.typename,
        expiration_spec=FromFunction.ExpirationSpec(
            mode=_EXPIRE_MODES[spec.expire_mode], expire_after_millis=spec.duration
        ),
    )


def _refuse_coroutine(typename: str, returned: object) -> None:
    """Refuse a coroutine: its body has not run, so its effects would be missing."""
    if inspect.iscoroutine(returned):
        returned.close()
        raise UserTypeError(
            f"{typename} returned a coroutine that nobody awaits; make the registered function an `async def`"
        )


def _refuse_running_loop() -> None:
    """Say what to do before ``asyncio.run`` leaves a coroutine behind that was never awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("an event loop is running in this thread; await handle_async(...) instead")
