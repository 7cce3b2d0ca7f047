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
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from statefun_sdk.answers import effects_answer, missing_answer
from statefun_sdk.batches import DONE, FAILED, join_answers, split_requests
from statefun_sdk.context import Context
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.functions import BoundFunction, StatefulFunctions
from statefun_sdk.messages import Message
from statefun_sdk.requests import MalformedRequestError as MalformedRequestError
from statefun_sdk.requests import States, read_request
from statefun_sdk.specs import ValueSpec
from statefun_sdk.storage import StateTable, Storage

logger = logging.getLogger(__name__)

BLOCKING_THREADS_DEFAULT: Final = 32
"""Threads for ``blocking=True`` functions: they mostly wait, so more than there are cores."""


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

    __slots__ = ("_calls", "_context", "_id", "_storage", "function", "missing")

    def __init__(self, functions: StatefulFunctions, request_bytes: bytes) -> None:
        typename, self._id, states, self._calls = read_request(request_bytes)
        function = self.function = functions.for_typename(typename)
        self.missing: list[ValueSpec] = []
        self._storage: Storage = function.storage_class(self._tables(states))
        self._context = Context(function.typename, self._storage)

    def _tables(self, states: States) -> list[StateTable]:
        """Return what storage reads, and note missing states. A state nobody asked for is left."""
        tables: list[StateTable] = []
        for spec in self.function.specs:
            if spec.name not in states:
                self.missing.append(spec)
                continue
            state = states[spec.name]
            if state is None:
                tables.append({})
            elif state[0] == spec.type.typename:
                tables.append({self._id: state[1]})
            else:
                tables.append(_OtherType(self.function, spec, state[0]))
        return tables

    def run(self) -> None:
        """Call a plain function with every message."""
        call, typename, id = self.function.fun, self.function.typename, self._id
        context, message_of = self._context, Message._of
        begin = context._begin
        try:
            for caller_type, caller_id, value_typename, value in self._calls:
                begin(id, caller_type, caller_id)
                returned = call(context, message_of(typename, id, value_typename, value))
                if returned is not None:
                    _refuse_coroutine(typename, returned)
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
        call, typename, id = self.function.fun, self.function.typename, self._id
        context = self._context
        try:
            for caller_type, caller_id, value_typename, value in self._calls:
                context._begin(id, caller_type, caller_id)
                await call(context, Message._of(typename, id, value_typename, value))
        except Exception as error:
            self._add_note(error)
            raise

    def _add_note(self, error: Exception) -> None:
        error.add_note(
            f"raised by function {self.function.typename}, id {self._id!r}, in a batch of {len(self._calls)}"
        )

    def answer(self) -> bytes:
        """Return the serialized ``FromFunction``."""
        if self.missing:
            return missing_answer(self.missing)
        context = self._context
        return effects_answer(
            self.function.specs, self._storage._writes, context._sends, context._delayed, context._egress
        )


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
