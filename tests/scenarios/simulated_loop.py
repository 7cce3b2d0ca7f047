"""An event loop in simulated time, for functions that really wait or block.

Tasks, futures, sleeps and timeouts are asyncio's own; only the loop under them is ours. A blocking
function runs in a thread that hands over whenever it sleeps, so one thread runs at a time and
nothing depends on the machine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, SupportsIndex, cast

from statefun_ray.core.effects import Invoke
from statefun_ray.core.invoker import InvocationEffects
from statefun_ray.testing.service import SimulatedInvokers
from statefun_ray.testing.world import Process, World

Done = Callable[[InvocationEffects | None, BaseException | None], None]


class SimulatedLoop:
    """The loop of one process, as far as asyncio asks it for anything here."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._ready: deque[asyncio.Handle] = deque()
        self._threads: list[SimulatedThread] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._self = cast(asyncio.AbstractEventLoop, self)

    def invoke(self, invoker: SimulatedInvokers, effect: Invoke, done: Done) -> None:
        """Run an invocation, up to its first wait now and from there as time goes by."""
        task = self.create_task(invoker.run(effect))
        self._tasks.add(task)

        def finished(task: asyncio.Task[InvocationEffects | None]) -> None:
            self._tasks.discard(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            done(task.result() if error is None else None, error)

        task.add_done_callback(finished)
        self.run_ready()

    def run_ready(self) -> None:
        """Run everything that can go on."""
        asyncio._set_running_loop(self._self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    # Not by `_run`, which hides what a callback of the simulation raises.
                    with suppress(SystemExit):  # of a function: its task holds it
                        handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(None)

    def abandon(self) -> None:
        """The process is dead: nothing goes on."""
        self._ready.clear()
        for thread in self._threads:
            thread.abandon()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    # --- what asyncio asks of a loop --------------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return self._world.time_ms / 1000

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self._self, context)

        def due() -> None:
            self._ready.append(handle)
            self.run_ready()

        self._world.after(max(0.0, delay * 1000), self._process, due)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is passed over when it is due

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._world.note(f"{self._process.name}: {context}")

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        thread = SimulatedThread(lambda: func(*args))
        self._threads.append(thread)

        def go_on() -> None:
            thread.go_on()
            if not thread.is_done:
                self._world.after(thread.sleep_ms, self._process, go_on)
                return
            self._threads.remove(thread)
            if thread.error is not None:
                future.set_exception(thread.error)
            else:
                future.set_result(thread.result)
            self.run_ready()

        self._world.after(0, self._process, go_on)
        return future


class SimulatedThread:
    """A thread that runs only while `go_on` waits for it to sleep or to end."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._may_run = threading.Semaphore(0)
        self._has_paused = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._main, name="simulated-blocking", daemon=True)
        self._is_abandoned = False
        self.is_done = False
        self.sleep_ms = 0.0
        self.result: Any = None
        self.error: BaseException | None = None

    def go_on(self) -> None:
        """Let it run until it sleeps or ends."""
        if self._thread.ident is None:
            self._thread.start()
        self._may_run.release()
        self._has_paused.acquire()

    def abandon(self) -> None:
        """End it where it sleeps."""
        self._is_abandoned = True
        if self._thread.ident is not None and not self.is_done:
            self.go_on()
            self._thread.join()

    def sleep(self, seconds: float) -> None:
        """What ``time.sleep`` is in this thread."""
        self.sleep_ms = seconds * 1000
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise SystemExit

    def _main(self) -> None:
        _current.thread = self
        self._may_run.acquire()
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits it
            self.error = error
        self.is_done = True
        self._has_paused.release()


_current = threading.local()
_real_sleep = time.sleep


def _sleep(seconds: float | SupportsIndex, /) -> None:
    thread: SimulatedThread | None = getattr(_current, "thread", None)
    if thread is None:
        _real_sleep(seconds)
    else:
        thread.sleep(float(seconds))


@contextmanager
def simulated_sleep() -> Iterator[None]:
    """Let ``time.sleep`` take simulated time in simulated threads."""
    time.sleep = _sleep
    try:
        yield
    finally:
        time.sleep = _real_sleep
