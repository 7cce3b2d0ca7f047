"""The turns of one running worker: core, effects, and what comes back from them.

A turn runs the core for about a millisecond and then gives way, so markers and control frames that
arrived meanwhile are handled before more messages. Effects are performed in the order of the list,
and what performing one leads to waits for those before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final

from statefun_checkpoints.model import KeyGroups, PartDescriptor, StateSpec
from statefun_checkpoints.store import ObjectStore
from statefun_ingress import frames
from statefun_ray.core.control import Abort, Committed, ToCoordinator, ToWorker
from statefun_ray.core.effects import (
    Die,
    EgressAcknowledged,
    FeedFrame,
    Invoke,
    Publish,
    SendFrame,
    SplitsCommitted,
    Tell,
    WorkerEffect,
    WritePart,
)
from statefun_ray.core.errors import UserCodeError
from statefun_ray.core.invoker import InvocationEffects
from statefun_ray.core.worker import Worker, describe_error
from statefun_ray.io.clock import wall_ms
from statefun_ray.io.egress import Publisher, RestoredShards
from statefun_ray.io.egress_playground import PlaygroundSink
from statefun_ray.io.feed_client import FeedClient
from statefun_ray.io.invoke_local import FailureLog
from statefun_ray.io.invokers import Invokers
from statefun_ray.io.mesh import Mesh
from statefun_ray.io.part_writer import PartWriter
from statefun_ray.io.remote.errors import InvocationPostponed, RemoteError
from statefun_ray.io.sinks import Owner, open_sinks
from statefun_ray.io.sources import Sources
from statefun_ray.module.model import Module

logger = logging.getLogger(__name__)

TURN_S: Final = 0.001
"""What a turn aims at: how long a marker may wait behind messages."""

LIMIT_FIRST: Final = 64
LIMIT_MIN: Final = 1
LIMIT_MAX: Final = 16_384
"""Messages per turn, adapted to ``TURN_S``."""

LOOK_AGAIN_S: Final = 1.0
"""How late a timer may fire after the wall clock was set forward."""

FIGURES_S: Final = 1.0
"""Between two times that figures for Prometheus are sent to the ingress."""

PUBLISH_LAST_S: Final = 5.0
"""For publications after the final snapshot; the coordinator waits a little longer."""

FLUSH_LAST_S: Final = 0.5
"""... and at least this for what a sink was given and does not wait for."""


class WorkerLoop:
    """Drives one loaded `Worker` until it is closed or fails."""

    def __init__(
        self,
        core: Worker,
        invoker: Invokers,
        *,
        mesh: Mesh,
        store: ObjectStore,
        executor: Executor,
        key_groups: KeyGroups,
        module: Module,
        sinks: Mapping[str, str],
        workers_since: int,
        restored: RestoredShards,
        may_publish: Callable[[], bool],
        tell: Callable[[ToCoordinator], None],
        fail: Callable[[str], None],
    ) -> None:
        """Args:
        executor: where parts and egress may block.
        module: says which egresses there are.
        workers_since: the largest number of workers that may still publish somewhere.
        restored: what the snapshot says of egress.
        may_publish: asked before every publication; false once the worker is fenced.
        tell: sends to the coordinator.
        fail: told why, when this worker can not go on; `close` follows.
        """
        self.core = core
        self.turned_at = time.monotonic()
        """When the last turn ended."""
        self._invoker = invoker
        invoker.remote.connect(self)
        self._executor = executor
        self._mesh = mesh
        self._tell = tell
        self._fail = fail
        self._parts = PartWriter(
            store,
            executor,
            generation=core.config.generation,
            worker=core.config.worker,
            key_groups=key_groups,
            on_written=self._part_written,
            on_failed=fail,
        )
        self._playground = PlaygroundSink(self._send_to_ingress)
        owner = Owner(
            core.config.app,
            core.config.generation,
            core.config.worker,
            core.config.worker_count,
            workers_since,
            core.config.shard_count,
            restored,
        )
        self._sinks = open_sinks(store, module, sinks, self._playground, owner)
        self._publisher = Publisher(
            self._sinks,
            executor=executor,
            may_publish=may_publish,
            on_published=self._published,
            on_failed=fail,
        )
        self._sources = Sources(module, core.splits, on_records=self._schedule_turn, on_failed=fail)
        self._failures = FailureLog()
        self._feeds: dict[str, FeedClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limit = LIMIT_FIRST
        self._is_open = True
        self._is_performing = False
        self._deferred: list[Callable[[Worker], None]] = []
        """Calls of the core that came up while its effects were being performed."""
        self._turn_handle: asyncio.Handle | None = None
        self._due_handle: asyncio.TimerHandle | None = None
        self._figures_handle: asyncio.TimerHandle | None = None

    # --- what happens ---------------------------------------------------------------------

    async def fence(self) -> None:
        """Keep the workers of earlier generations from publishing; to be done before any worker starts.

        Raises:
            SinkUnavailable: a sink gives no answer.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._sinks.open)

    def start(self, logs: Mapping[str, tuple[str, int]]) -> None:
        """Begin to process, and to read the ingress logs at these addresses."""
        self._guarded(lambda core: core.start(wall_ms()))
        self.connect_feeds(logs)
        self._sources.start()
        self._tell_figures()

    def connect_feeds(self, logs: Mapping[str, tuple[str, int]]) -> None:
        """Read these ingress logs, wherever they are served now."""
        for log_id, address in logs.items():
            feed = self._feeds.get(log_id)
            if feed is None:
                self._feeds[log_id] = FeedClient(
                    log_id,
                    address,
                    on_open=lambda log_id: self._guarded(lambda core: core.feed_opened(log_id)),
                    on_frame=lambda log_id, frame: self._guarded(
                        lambda core: core.feed_frame(log_id, frame, wall_ms())
                    ),
                    on_close=lambda log_id: self._guarded(lambda core: core.feed_closed(log_id)),
                )
            else:
                feed.move(address)

    def channel_frame(self, peer: int, frame: bytes) -> None:
        """Take a frame from the channel of ``peer``."""
        self._guarded(lambda core: core.channel_frame(peer, frame))

    def control(self, message: ToWorker) -> None:
        """Take what the coordinator says."""
        if isinstance(message, Committed | Abort):
            self._parts.drop(message.snapshot_id)
        self._guarded(lambda core: core.control(message, wall_ms()))

    async def leave(self) -> None:
        """Hand on what the final snapshot released: rows to their sinks, replies to the feeds, offsets to groups.

        Rows that do not make it stand in that snapshot and are published after the next start.
        """
        loop = asyncio.get_running_loop()
        deadline_s = time.monotonic() + PUBLISH_LAST_S
        sources_left = loop.run_in_executor(self._executor, self._sources.leave, PUBLISH_LAST_S)
        while self._publisher.backlog:
            if time.monotonic() > deadline_s:
                logger.warning(
                    "worker %d leaves %d publications to the next start",
                    self.core.config.worker,
                    self._publisher.backlog,
                )
                break
            await asyncio.sleep(0.005)
        left_s = max(FLUSH_LAST_S, deadline_s - time.monotonic())
        await loop.run_in_executor(self._executor, self._sinks.flush, left_s)
        await sources_left
        for feed in self._feeds.values():
            feed.leave()

    def halt(self) -> None:
        """Call the core no more: it, or what it relies on, is broken."""
        self._is_open = False

    def close(self) -> None:
        """Stop at once, and let go of everything."""
        self.halt()
        self._sources.close()
        for handle in (self._turn_handle, self._due_handle, self._figures_handle):
            if handle is not None:
                handle.cancel()
        for feed in self._feeds.values():
            feed.close()
        self._parts.close()
        self._publisher.close()
        for task in list(self._tasks):
            task.cancel()
        self._invoker.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here: no message, invocation, unsent frame or unpublished row."""
        return (
            self._is_open
            and self.core.backlog == 0
            and self._turn_handle is None
            and not self._mesh.unsent_bytes
            and self._publisher.backlog == 0
        )

    @property
    def trouble(self) -> str:
        """What is being tried again right now, for people. Any thread may ask."""
        return "; ".join(
            filter(
                None,
                (
                    self._publisher.last_error,
                    self._parts.last_error,
                    self._sources.trouble,
                    self._invoker.remote.trouble,
                ),
            )
        )

    # --- what remote functions tell -------------------------------------------------------

    def register_states(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> bool:
        """Take what a service says about its states; see ``Worker.register_states``."""
        return self.core.register_states(function_type, id, specs)

    def move_lane(self, name: str, limit: int, *, is_down: bool = False) -> None:
        """Let up to ``limit`` requests of an endpoint be in flight from now on."""
        self._guarded(lambda core: core.move_lane(name, limit, is_down=is_down))

    def is_held(self, name: str) -> bool:
        """Whether an endpoint's limit keeps requests from beginning; see ``Worker.is_held``."""
        return self.core.is_held(name)

    def outcomes_ready(self) -> None:
        """Services have answered: the next turn takes what they said."""
        self._schedule_turn()

    def _take_outcomes(self) -> None:
        outcomes = self._invoker.remote.take_outcomes()
        if not outcomes:
            return
        core, now_ms = self.core, wall_ms()
        for invoke, effects, error in outcomes:
            if error is None:
                core.invocation_done(invoke.invocation_id, effects, None, now_ms)
            elif isinstance(error, InvocationPostponed):
                core.invocation_postponed(invoke.invocation_id, error.delay_ms, now_ms)
            else:
                is_told = isinstance(error, RemoteError | UserCodeError)  # its text says it all
                self._failures.report(invoke.function_type, invoke.id, error, traceback=not is_told)
                text = str(error) if is_told else describe_error(error)
                core.invocation_done(invoke.invocation_id, None, text, now_ms)
        core.start_ready(now_ms, self._limit)
        self._perform()

    # --- turns ----------------------------------------------------------------------------

    def _guarded(self, call: Callable[[Worker], None]) -> None:
        """Call the core, perform what it asks for, and see that a turn follows."""
        if not self._is_open:
            return
        if self._is_performing:
            self._deferred.append(call)
            return
        try:
            call(self.core)
            self._perform()
        except Exception as error:
            logger.exception("worker %d failed", self.core.config.worker)
            self._fail(describe_error(error))
            return
        self._schedule_turn()

    def _schedule_turn(self) -> None:
        if self._turn_handle is None and self._is_open:
            self._turn_handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_handle = None
        if not self._is_open:
            return
        limit = self._limit
        began_s = time.perf_counter()
        try:
            self._take_outcomes()
            has_more = self.core.turn(wall_ms(), limit)
            self._perform()
            took_s = time.perf_counter() - began_s
            has_more = self._sources.read(self.core) or has_more
            parts_due_s = self._parts.step(is_busy=has_more)
        except Exception as error:
            logger.exception("worker %d failed", self.core.config.worker)
            self._fail(describe_error(error))
            return
        self.turned_at = time.monotonic()
        if took_s > TURN_S:
            self._limit = max(LIMIT_MIN, int(limit * max(0.25, TURN_S / took_s)))
        elif has_more and took_s < 0.8 * TURN_S:
            self._limit = min(LIMIT_MAX, limit + limit // 4 + 1)
        if has_more or parts_due_s == 0.0 or self._invoker.remote.prepare(self.core.upcoming()):
            self._schedule_turn()
        else:
            self._wake_when_due(parts_due_s)

    def _wake_when_due(self, parts_due_s: float | None) -> None:
        if self._due_handle is not None:
            self._due_handle.cancel()
            self._due_handle = None
        delays_s = [] if parts_due_s is None else [parts_due_s]
        if self.core.next_due_ms is not None:
            # A late timer is allowed, an early one is not: round up. The wall clock may be set
            # meanwhile, so it is looked at again soon.
            delays_s.append(min(LOOK_AGAIN_S, max(0.001, (self.core.next_due_ms - wall_ms() + 1) / 1000)))
        if delays_s:
            self._due_handle = asyncio.get_running_loop().call_later(min(delays_s), self._schedule_turn)

    # --- effects --------------------------------------------------------------------------

    def _perform(self) -> None:
        self._is_performing = True
        try:
            while True:
                for effect in self.core.take_effects():
                    self._perform_one(effect)
                self._mesh.flush()
                if not self._deferred:
                    return
                deferred, self._deferred = self._deferred, []
                for call in deferred:
                    call(self.core)
                self._schedule_turn()
        finally:
            self._is_performing = False

    def _perform_one(self, effect: WorkerEffect) -> None:
        match effect:
            case SendFrame():
                self._mesh.send(effect.peer, effect.frame)
            case FeedFrame():
                feed = self._feeds.get(effect.log_id)
                if feed is not None:
                    feed.send(effect.frame)
            case Tell():
                self._tell(effect.message)
            case Invoke():
                if self._invoker.is_embedded(effect.function_type):
                    self._spawn(self._invoke(effect))
                else:
                    self._invoker.remote.start(effect)
            case WritePart():
                self._parts.add(effect)
            case Publish():
                self._publisher.add(effect)
            case EgressAcknowledged():
                self._playground.acknowledged(effect.ack_id)
            case SplitsCommitted():
                self._sources.committed(effect.positions)
            case Die():
                self._fail(effect.reason)

    async def _invoke(self, effect: Invoke) -> None:
        effects: InvocationEffects | None = None
        error: str | None = None
        timeout_ms = self.core.config.invocation_timeout_ms
        limit = asyncio.timeout(timeout_ms / 1000)
        try:
            async with limit:
                effects = await self._invoker.run(effect)
        except UserCodeError as refused:
            self._failures.report(effect.function_type, effect.id, refused, traceback=False)
            error = str(refused)
        except asyncio.CancelledError as cancelled:
            if not self._is_open:
                raise
            # The function cancelled itself, or let a cancelled task of its own show.
            self._failures.report(effect.function_type, effect.id, cancelled)
            error = describe_error(cancelled)
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - reported below
            # User code may raise anything; the address carries it and tries again.
            self._failures.report(effect.function_type, effect.id, raised)
            error = describe_error(raised)
            if limit.expired():
                error = (
                    f"{effect.function_type}/{effect.id} was not done after invocation_timeout ({timeout_ms} ms); "
                    "its effects are discarded and it is tried again"
                )
        self._guarded(lambda core: core.invocation_done(effect.invocation_id, effects, error, wall_ms()))

    def _tell_figures(self) -> None:
        rows = [*self.core.figures(), *self._invoker.remote.figures()]
        figures = frames.Figures(rows, self.core.retrying_count, self.core.retrying())
        if self._send_to_ingress(frames.encode_frame(figures)):
            delay_s = FIGURES_S
        else:
            delay_s = FIGURES_S / 10  # the feed is being connected
        self._figures_handle = asyncio.get_running_loop().call_later(delay_s, self._tell_figures)

    def _send_to_ingress(self, frame: bytes) -> bool:
        for feed in self._feeds.values():
            if feed.is_open:
                feed.send(frame)
                return True
        return False

    def _part_written(self, snapshot_id: int, kind: str, descriptor: PartDescriptor | None) -> None:
        self._guarded(lambda core: core.part_written(snapshot_id, kind, descriptor))

    def _published(self, shard: int, epoch: int) -> None:
        self._guarded(lambda core: core.published(shard, epoch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("worker %d failed", self.core.config.worker, exc_info=error)
            self._fail(describe_error(error))
