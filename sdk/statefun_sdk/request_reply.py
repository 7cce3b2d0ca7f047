"""``RequestReplyHandler``: answers one request of the remote protocol, bytes in and bytes out.

A request is a batch of messages for one address, with the states of that address. The answer
holds what the batch did, all together; when a function raises there is no answer, so a batch is
applied as a whole or not at all. No request depends on one before it, and any web server can stand
in front: ``statefun_sdk.asgi`` is one way.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from sys import getrefcount
from typing import Final

from statefun_sdk.answers import effects_answer, missing_answer
from statefun_sdk.batches import DONE, FAILED, answer_item, split_requests
from statefun_sdk.context import Context
from statefun_sdk.errors import UserTypeError, UserValueError
from statefun_sdk.functions import BoundFunction, StatefulFunctions
from statefun_sdk.messages import Message
from statefun_sdk.requests import Call, States, read_request
from statefun_sdk.requests import MalformedRequestError as MalformedRequestError
from statefun_sdk.specs import ValueSpec
from statefun_sdk.storage import StateTable, Storage

logger = logging.getLogger(__name__)

BLOCKING_THREADS_DEFAULT: Final = 32
"""Threads for ``blocking=True`` functions: they mostly wait, so more than there are cores."""


class RequestReplyHandler:
    """Answers requests for the functions of one ``StatefulFunctions``.

    It may be used by many tasks and threads at a time. Requests for one address never overlap:
    the runtime sends the next one when the last is answered.

    Attributes:
        functions: that are served.
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
        if not functions:  # type: ignore[truthy-bool]
            raise UserValueError("no functions were given; pass the StatefulFunctions to serve")
        self.functions = functions
        self._threads = blocking_threads
        self._pool: ThreadPoolExecutor | None = None
        self._idle: defaultdict[BoundFunction, list[_Run]] = defaultdict(list)

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
        typename, id, states, calls = read_request(request_bytes)
        function = self.functions.for_typename(typename)
        if function.waits:
            return await self._answer_waiting(function, id, states, calls), False
        return self._answer_plain(function, id, states, calls), True

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
        answers = [b""] * len(requests)
        waiting: dict[int, Awaitable[bytes]] = {}
        for_typename = self.functions.for_typename
        for place, request_bytes in enumerate(requests):
            try:
                typename, id, states, calls = read_request(request_bytes)
                function = for_typename(typename)
                if function.waits:
                    waiting[place] = _item(self._answer_waiting(function, id, states, calls))
                else:
                    answers[place] = answer_item(DONE, self._answer_plain(function, id, states, calls))
            except Exception as error:  # noqa: BLE001 - user code may raise anything; the item carries it
                answers[place] = _failed_item(error)
        if waiting:
            for place, item in zip(waiting, await asyncio.gather(*waiting.values()), strict=True):
                answers[place] = item
        return b"".join(answers)

    async def _answer_waiting(
        self, function: BoundFunction, id: str, states: States, calls: list[Call]
    ) -> bytes:
        run = _Run(function)
        missing = run.load(id, states)
        if missing:
            return missing_answer(missing)
        if function.is_async:
            return await run.answer_async(id, calls)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread_pool(), run.answer_in_thread, id, calls)

    def _answer_plain(self, function: BoundFunction, id: str, states: States, calls: list[Call]) -> bytes:
        """Call a function here and now."""
        idle = self._idle[function]
        try:
            run = idle.pop()
        except IndexError:
            run = _Run(function)
        missing = run.load(id, states)
        if missing:
            return missing_answer(missing)
        answer = run.answer(id, calls)
        if run.is_free_again():
            idle.append(run)
        return answer

    def handle_sync(self, request_bytes: bytes) -> bytes:
        """Answer one request in the calling thread, as ``handle_async`` does.

        Plain functions, blocking ones too, are just called. An async one runs on an event loop of
        its own.

        Raises:
            RuntimeError: the function is async, and an event loop is running in this thread.
        """
        typename, id, states, calls = read_request(request_bytes)
        function = self.functions.for_typename(typename)
        if not function.is_async:
            return self._answer_plain(function, id, states, calls)
        _refuse_running_loop()
        return asyncio.run(self._answer_waiting(function, id, states, calls))

    def close(self) -> None:
        """Let go of the threads; calls that are blocked in a function are not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _thread_pool(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="blocking-function")
        return self._pool


async def _item(answer: Awaitable[bytes]) -> bytes:
    try:
        return answer_item(DONE, await answer)
    except Exception as error:  # noqa: BLE001 - user code may raise anything; the item carries it
        return _failed_item(error)


def _failed_item(error: Exception) -> bytes:
    logger.error("a batch failed and has no effects; the runtime tries it again", exc_info=error)
    return answer_item(FAILED, f"{type(error).__name__}: {error}".encode())


class _Run:
    """A function with the context it is called with, for one batch at a time.

    Making a context costs as much as a small function, so plain functions have idle runs for later
    batches. Whoever serves a batch takes one away, which keeps threads apart, and a function apart
    from one that it answers a request with. A run is given up when its batch failed, and when its
    context or storage is found to be referred to from elsewhere: what user code does with them after
    its call has no effect on any other batch.
    """

    __slots__ = ("_begin", "_context", "_fun", "_references", "_specs", "_states", "_storage", "_typename")

    def __init__(self, function: BoundFunction) -> None:
        self._typename = function.typename
        self._fun = function.fun
        self._specs = function.specs
        self._states = [(spec.name, spec.type.typename) for spec in function.specs]
        self._storage: Storage = function.storage_class(())
        self._context = Context._of(function.typename, self._storage)
        self._begin = self._context._begin
        self._references = getrefcount(self._context) + getrefcount(self._storage)

    def load(self, id: str, states: States) -> list[ValueSpec] | None:
        """Let storage read what the request holds. A state nobody asked for is left.

        Returns:
            The states that are missing; if any are, nothing may be called.
        """
        tables: list[StateTable] = []
        for name, typename in self._states:
            if name not in states:
                return [spec for spec in self._specs if spec.name not in states]
            value = states[name]
            if value is None:
                tables.append({})
            elif value[0] == typename:
                tables.append({id: value[1]})
            else:
                tables.append(_OtherType(self._typename, name, typename, value[0]))
        self._storage._Tables = tables
        return None

    def answer(self, id: str, calls: list[Call]) -> bytes:
        """Call a plain function with every message, and return the serialized ``FromFunction``."""
        fun, context, typename = self._fun, self._context, self._typename
        begin, message_of = self._begin, Message._of
        try:
            for caller_type, caller_id, value_typename, value in calls:
                begin(id, caller_type, caller_id)
                returned = fun(context, message_of(typename, id, value_typename, value))
                if returned is not None:
                    _refuse_coroutine(typename, returned)
        except Exception as error:
            self._add_note(error, id, calls)
            raise
        return self._effects()

    def answer_in_thread(self, id: str, calls: list[Call]) -> bytes:
        """As ``answer``, for a future: it cannot carry a ``StopIteration``."""
        try:
            return self.answer(id, calls)
        except StopIteration as error:
            raise RuntimeError(f"function {self._typename} raised StopIteration") from error

    async def answer_async(self, id: str, calls: list[Call]) -> bytes:
        """Await an async function with every message, one after another; else as ``answer``."""
        fun, context, typename = self._fun, self._context, self._typename
        try:
            for caller_type, caller_id, value_typename, value in calls:
                context._begin(id, caller_type, caller_id)
                await fun(context, Message._of(typename, id, value_typename, value))
        except Exception as error:
            self._add_note(error, id, calls)
            raise
        return self._effects()

    def _add_note(self, error: Exception, id: str, calls: list[Call]) -> None:
        error.add_note(f"raised by function {self._typename}, id {id!r}, in a batch of {len(calls)}")

    def _effects(self) -> bytes:
        """Return the serialized ``FromFunction`` of what was done."""
        context = self._context
        return effects_answer(
            self._specs, self._storage._Writes, context._sends, context._delayed, context._egress
        )

    def is_free_again(self) -> bool:
        """Forget the batch and say True, unless user code has kept context or storage."""
        if getrefcount(self._context) + getrefcount(self._storage) != self._references:
            return False
        self._context._discard()
        self._storage._Tables = ()  # they may be large
        return True


class _OtherType:
    """A state whose value is not of the declared type: it cannot be read, only overwritten."""

    __slots__ = ("_declared", "_found", "_name", "_typename")

    def __init__(self, typename: str, name: str, declared: str, found: str) -> None:
        self._typename, self._name, self._declared, self._found = typename, name, declared, found

    def get(self, id: str, /) -> bytes | None:
        """Refuse to read.

        Raises:
            UserTypeError: always.
        """
        raise UserTypeError(
            f"state {self._name!r} of {self._typename} id {id!r} holds a value of type "
            f"{self._found!r}, declared is {self._declared!r}; declare the stored type, "
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
