"""The worker: everything that happens to the addresses of one range of key groups.

Synchronous and single-threaded; the driver calls a method for whatever happens, then performs the
effects taken with :meth:`Worker.take_effects`. Between two calls the worker is consistent, so a
cut needs no further care: it is one method call.

A message has one place at a time: mailbox, queue of a busy address (in flight included), timer,
channel buffer, or the recording of an open snapshot. Not here: what becomes of a cut (``cuts``). This
module says what the worker holds at that moment, beside the rows of the keyed store.

Invariants: I3 (channels without gaps) is asserted in ``InChannel``; I9 (order per sender and target)
follows from FIFO everywhere a message can be; I10 (conservation) is counted in :class:`Counters`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from statefun_checkpoints.model import INFLIGHT, OUTBOX, Entry, PartDescriptor, Rows, StateSpec
from statefun_ingress import frames
from statefun_ray.core.addresses import Addresses, BusyAddress, Phase
from statefun_ray.core.channel import InChannel, OutChannel
from statefun_ray.core.control import Abort, Committed, Heartbeat, Pulse, ToWorker, Trigger
from statefun_ray.core.counters import Counters
from statefun_ray.core.cuts import Cuts, Instant
from statefun_ray.core.dead_letters import DeadLetters, Rejected, letter_of
from statefun_ray.core.effects import Die, EgressAcknowledged, Invoke, SendFrame, WorkerEffect
from statefun_ray.core.errors import UserCodeError
from statefun_ray.core.feeds import LogFeeds
from statefun_ray.core.functions import Functions
from statefun_ray.core.invoker import Delayed, InlineCall, InvocationEffects, Invoker
from statefun_ray.core.key_groups import (
    key_group_of,
    owner_table,
    shard_bounds,
    shard_table,
    worker_ranges,
)
from statefun_ray.core.lanes import INLINE, Lane
from statefun_ray.core.message import DEAD_LETTERS, REPLY_PREFIX, Message, unpack_message
from statefun_ray.core.metrics import (
    Figure,
    function_figures,
    lane_figures,
    parked_rows,
    retrying_rows,
    waiting_figures,
)
from statefun_ray.core.outbox import Outbox
from statefun_ray.core.splits import Splits
from statefun_ray.core.state import KeyedStore
from statefun_ray.core.timers import Timers
from statefun_ray.core.worker_config import WorkerConfig

READ_FIRST: Final = 4
"""Messages read for each invocation that begins, while there is more to read."""

UPCOMING_MIN: Final = 32
"""Messages of a batch that are worth encoding ahead."""

UPCOMING_MAX: Final = 64
"""Batches in flight of which the next one is looked at: those that began first, as their answers are due."""

STALLED_MS: Final = 100
"""Between two times that messages are counted whose address is stalled: there may be many such addresses."""


class Worker:
    """The core of one worker process."""

    def __init__(self, config: WorkerConfig, invoker: Invoker) -> None:
        self.config = config
        key_groups = {"key_group_count": config.key_group_count, "shard_count": config.shard_count}
        self._range = worker_ranges(worker_count=config.worker_count, **key_groups)[config.worker]
        self._owners = owner_table(worker_count=config.worker_count, **key_groups)
        self._shards = shard_table(**key_groups)
        self._shard_bounds = shard_bounds(**key_groups)
        self._clock = invoker.now_ms
        self._store = KeyedStore(config.key_group_count)
        self._timers = Timers(self._store.timers)
        self._functions = Functions(config, invoker, self._store)
        # The same dictionaries, near at hand: they are looked at for every message.
        self._bound = self._functions.bound
        self._lanes = self._functions.lanes
        self._metrics = self._functions.metrics
        self.counters = Counters()
        self._letters = DeadLetters(self._store.dead, self.counters)
        self._addresses = Addresses(self._store.queue, self._store.failures, self._functions.lane_of)
        self._outbox = Outbox(config.eager_egresses)
        self._feeds = LogFeeds(
            app=config.app,
            generation=config.generation,
            worker=config.worker,
            worker_count=config.worker_count,
            key_groups=self._range,
            key_group_count=config.key_group_count,
            window=config.feed_window,
            outbox=self._outbox,
            emit=self._emit,
        )
        self._splits = Splits(
            worker=config.worker, worker_count=config.worker_count, key_group_count=config.key_group_count
        )
        peers = [peer for peer in range(config.worker_count) if peer != config.worker]
        self._out: list[OutChannel] = [OutChannel() for _ in range(config.worker_count)]
        self._in = {peer: InChannel(peer) for peer in peers}
        self._cuts = Cuts(
            config,
            store=self._store,
            outbox=self._outbox,
            feeds=self._feeds,
            channels={peer: self._out[peer] for peer in peers},
            shard_bounds=self._shard_bounds,
            emit=self._emit,
        )
        self._mailbox: deque[Message] = deque()
        self._invocations: dict[int, BusyAddress] = {}
        self._invocation_next = 0
        self._ordinal = 0
        self._paused = False
        self._now_ms = 0
        self._stalled = 0
        self._stalled_at_ms = 0
        self._started = False
        self._effects: list[WorkerEffect] = []
        self.current: tuple[Any, ...] | None = None
        """The message whose function runs now, for the heartbeat."""

    def move_lane(self, name: str, limit: int, *, is_down: bool = False) -> None:
        """Let up to ``limit`` invocations of a lane be in flight from now on; those that are go on."""
        lane = self._lanes[name]
        lane.limit, lane.is_down = limit, is_down
        self._stalled_at_ms = 0

    def is_held(self, name: str) -> bool:
        """Whether the limit of a lane kept invocations from beginning all the time since this was last asked."""
        lane = self._lanes[name]
        is_held, lane.is_held = lane.is_held, True
        return is_held

    def register_states(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> bool:
        """Take what a function that lives elsewhere says about its states; return whether anything is new.

        Their tables join the sequence that ``Invoker.bind`` got for the function. To be called
        while an invocation of the address is in flight, outside any other call of the worker. That
        invocation is going to be run with them, so it counts as a call for those that expire after one.

        Raises:
            StateTypeChanged: values of another type are stored, here or as far as the restored
                snapshot knows; nothing was registered or changed.
        """
        self._look_at_clock()
        return self._functions.register_states(function_type, id, specs)

    # --- life -------------------------------------------------------------------------------------

    def load(self, state: Rows, transient: Rows, entry: Entry | None, now_ms: int) -> int:
        """Take what a snapshot holds for this worker's key groups; return the number of rows.

        Args:
            state: rows of the keyed store, deltas applied and tombstones removed.
            transient: rows of ``~inflight`` and ``~outbox``, in the order they were written.
            entry: the restored commit-log entry; None for an application without a snapshot.
            now_ms: wall-clock time.
        """
        self._now_ms = now_ms
        lifetimes = self._functions.restore(entry) if entry is not None else {}
        count = self._store.load(state, now_ms, lifetimes)
        inflight = transient.of_table(INFLIGHT)
        for value in inflight.value:
            assert value is not None, "a message in flight has a value"
            self._mailbox.append(unpack_message(value))
        self._outbox.load(transient.of_table(OUTBOX))
        if entry is not None:
            low, high = self._range
            self._cuts.restore(entry, self._range)
            self._ordinal = entry.timer_next
            self._outbox.next_sequence = {
                int(shard): sequence
                for shard, sequence in entry.out_seq.items()
                if low <= self._shard_bounds[int(shard)] < high
            }
            self._feeds.restore(entry.positions)
            self._splits.restore(entry.positions)
        self._timers.rebuild()
        self._addresses.rebuild(retry_parked=entry is not None and entry.kind == "stop")
        return count + len(transient)

    def start(self, now_ms: int) -> None:
        """Begin to process: everything is loaded, and every channel of every worker is open."""
        self._now_ms = now_ms
        self._started = True
        self._cuts.start()

    def take_effects(self) -> list[WorkerEffect]:
        """Return what the driver has to do since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def _emit(self, effect: WorkerEffect) -> None:
        self._effects.append(effect)

    # --- messages in ------------------------------------------------------------------------------

    def channel_frame(self, peer: int, frame: bytes) -> None:
        """Take a frame from the channel of ``peer``; a marker is handled now, whatever waits before it.

        Raises:
            ProtocolViolation: the channel lost, repeated or garbled a frame.
        """
        received = self._in[peer].receive(frame)
        if isinstance(received, list):
            self._cuts.record(peer, received)
            self._mailbox.extend(received)
            return
        snapshot_id, rhythm, committed = received
        self._cut(snapshot_id, rhythm, committed)
        self._cuts.marker(peer, snapshot_id)

    def control(self, message: ToWorker, now_ms: int) -> None:
        """Take what the coordinator says; messages of other generations change nothing."""
        self._now_ms = now_ms
        if message.generation != self.config.generation:
            return
        match message:
            case Trigger():
                self._cut(message.snapshot_id, message.rhythm, message.committed)
            case Committed():
                self._cuts.committed(message.snapshot_id)
                self._feeds.trim(message.trim)
            case Abort():
                self._cuts.aborted(message.snapshot_id)
            case Pulse():
                self._paused = message.paused

    # --- ingress ----------------------------------------------------------------------------------

    def feed_opened(self, log_id: str) -> None:
        """A connection to this log's feed exists."""
        self._feeds.opened(log_id)

    def feed_closed(self, log_id: str) -> None:
        """The feed's connection is gone."""
        self._feeds.closed(log_id)

    def feed_frame(self, log_id: str, frame: bytes, now_ms: int) -> None:
        """Take a frame from an ingress log's feed.

        Raises:
            ProtocolViolation: the feed left a gap or sent another worker's events.
        """
        self._now_ms = now_ms
        match frames.decode_ingress_frame(frame):
            case frames.EventsFrame() as events:
                messages = self._feeds.admit(log_id, events)
                self.counters.admitted += len(messages)
                self._mailbox.extend(messages)
            case frames.Welcome() as welcome:
                self._feeds.welcomed(log_id, welcome.incarnation, self._cuts.last_committed)
            case frames.ReplyAck() as ack:
                self._feeds.acknowledged(ack.ack_id)
            case frames.EgressAck() as egress_ack:
                self._effects.append(EgressAcknowledged(egress_ack.ack_id))
            case frames.Query() as query:
                self._query(log_id, query)
            case frames.Refused() as refused:
                self._effects.append(Die(f"ingress log {log_id} refused this worker: {refused.text}"))

    def _query(self, log_id: str, query: frames.Query) -> None:
        kind, _, of_function = query.function_type.partition("#")
        is_cut = False
        if kind == DEAD_LETTERS:
            states, is_cut = self._letters.listed(query.id, of_function)
        else:
            states = self._functions.states_of(query.function_type, query.id or "", self._now_ms)
        found = any(value is not None for _, _, value in states)
        if query.wait_commit:
            answer = frames.State(query.query_id, self.config.generation, 0, found, states, is_cut)
            self._feeds.answer_committed(log_id, answer, self._cuts.last_cut)
        else:
            committed = self._cuts.last_committed
            answer = frames.State(query.query_id, self.config.generation, committed, found, states)
            self._feeds.answer(log_id, answer)

    # --- sources that workers read by themselves --------------------------------------------------

    @property
    def splits(self) -> Splits:
        """Which splits this worker reads, and from where."""
        return self._splits

    def split_records(
        self, split: str, next_position: int, messages: list[Message], rejected: list[Rejected]
    ) -> None:
        """Take what became of a split's records below ``next_position``; any worker may own it.

        Args:
            split: its name.
            next_position: behind the last record.
            messages: of records that are messages, in order.
            rejected: those that are not, for the dead letters.

        Raises:
            ValueError: the source went back, or the split was never opened.
        """
        if rejected and self.config.strict:
            target_type, id, _, _, why = rejected[0]
            self._effects.append(
                Die(
                    f"a record of {split} below {next_position} can be no message to {target_type}/{id}, and that "
                    f"ends the generation: {why}"
                )
            )
            return
        self._splits.advance(split, next_position)
        self.counters.admitted += len(messages) + len(rejected)
        for message in messages:
            self._route(message)
        for record in rejected:
            self._route(letter_of(record))

    @property
    def takes_input(self) -> bool:
        """Whether sources may go on: neither paused, nor is too much waiting here."""
        if self._paused or self._is_held_back():
            return False
        backlog, backlog_max = self.backlog, self.config.backlog_max
        return backlog < backlog_max or backlog - self._stalled_count() < backlog_max

    def _stalled_count(self) -> int:
        if not 0 <= self._now_ms - self._stalled_at_ms < STALLED_MS:
            self._stalled = self._addresses.stalled(self._lanes.values(), self.config.stalled_max)
            self._stalled_at_ms = self._now_ms
        return self._stalled

    # --- processing -------------------------------------------------------------------------------

    def turn(self, now_ms: int, limit: int) -> bool:
        """Process up to ``limit`` messages, then send what they caused.

        Returns:
            Whether more work is ready at once.
        """
        if not self._started:
            return False
        self._now_ms = now_ms
        self._store.set_now(now_ms)
        self._fire_timers(now_ms, limit)
        self._addresses.release_due(now_ms)
        self._run_mailbox(limit)
        # After the mailbox: a message for a function that lives elsewhere need not wait for the next turn.
        self._run_ready(limit)
        self.current = None
        self._flush()
        if self.takes_input:
            self._feeds.grant()
        self._cuts.want_snapshot()
        self._cuts.schedule_base()
        due_ms = self._timers.next_due_ms()
        return bool(self._mailbox) or self._can_start() or (due_ms is not None and due_ms <= self._now_ms)

    def _look_at_clock(self) -> None:
        """Let it be as late as it is: functions may have taken long since the turn began."""
        now_ms = self._clock()
        if now_ms > self._now_ms:
            self._now_ms = now_ms
            self._store.set_now(now_ms)

    def upcoming(self) -> Iterator[tuple[str, str, list[Message]]]:
        """Yield function type, id and messages of batches that follow the oldest in flight, if they are large."""
        for address in islice(self._invocations.values(), UPCOMING_MAX):
            if len(address.waiting) - address.in_flight >= UPCOMING_MIN:
                messages = address.waiting[address.in_flight : address.in_flight + address.batch_max]
                yield address.function_type, address.id, messages

    def start_ready(self, now_ms: int, limit: int) -> None:
        """Begin what is ready, up to ``limit`` addresses of each lane.

        A turn does that as well, but at its end. To be called when invocations have ended, so that a
        service that could go on does not wait for a turn's worth of other messages.
        """
        if self._started:
            self._now_ms = now_ms
            self._store.set_now(now_ms)
            self._run_ready(limit)

    @property
    def next_due_ms(self) -> int | None:
        """When :meth:`turn` has to be called at the latest: a timer or a retry is due, or sources may go on."""
        due = [at for at in (self._timers.next_due_ms(), self._addresses.next_retry_ms()) if at is not None]
        held = [at for lane in self._lanes.values() if (at := lane.held_until_ms()) > self._now_ms]
        return min(due + held, default=None)

    def _fire_timers(self, now_ms: int, limit: int) -> None:
        for _ in range(limit):
            message = self._timers.pop_due(now_ms)
            if message is None:
                return
            self.counters.timers_fired += 1
            target_type, target_id, _, sender_id, value_type, value = message
            if target_type not in self._bound and target_type.startswith(REPLY_PREFIX):
                self._reply(sender_id, target_type, target_id, value_type, value)
                self.counters.timers_replied += 1
            else:
                self._route(message)

    def _reply(
        self, sender_id: str, target_type: str, request_id: str, value_type: str, value: bytes | None
    ) -> None:
        reply = (target_type[len(REPLY_PREFIX) :], request_id, value_type, value)
        self._outbox.add_reply(key_group_of(sender_id, self.config.key_group_count), reply)
        self.counters.replies += 1

    def _route(self, message: Message) -> None:
        owner = self._owners[key_group_of(message[1], self.config.key_group_count)]
        if owner == self.config.worker:
            self._mailbox.append(message)
        else:
            self._out[owner].buffer.append(message)

    def _can_start(self) -> bool:
        return any(lane.can_start for lane in self._lanes.values())

    def _is_held_back(self) -> bool:
        return any(lane.held_until_ms() > self._now_ms for lane in self._lanes.values())

    def _run_ready(self, limit: int) -> None:
        # Where there is more to read than time, what is read joins batches that wait and makes them cheaper.
        starts = max(1, limit // READ_FIRST) if self._mailbox else limit
        # A list: an inline call may be the first to address a function of another lane.
        for lane in list(self._lanes.values()):
            self._run_lane(lane, limit if lane.name == INLINE else starts)

    def _run_lane(self, lane: Lane, limit: int) -> None:
        ready, bound = lane.ready, self._bound
        for _ in range(limit):
            if not ready:
                lane.is_held = False
                return
            if lane.in_flight >= lane.limit:
                return
            address = ready.popleft()
            function = bound.get(address.function_type)
            if function is None:
                address.error = f"no function {address.function_type!r} in this application; it has {self._functions.in_words()}"
                address.in_flight = 0
                self._give_up(address)
                continue
            call, _, refreshed, _, expires = function
            if expires or refreshed:
                self._look_at_clock()
            for table in refreshed:
                table.refresh(address.id)
            if call is None:
                self._invoke(address)
            else:
                address.batch_max = 1
                [message] = self._addresses.begin(address)
                if self._call(call, message, address):
                    self._succeeded(address)
        lane.is_held = False

    def _succeeded(self, address: BusyAddress) -> None:
        count = self._addresses.succeeded(address)
        self.counters.applied += count
        self._bound[address.function_type][3].received += count

    def _failed(self, address: BusyAddress, error: str) -> None:
        self._bound[address.function_type][3].failures += 1
        is_over = self._addresses.failed(address, error, self._now_ms, self.config.retry_deadline_ms)
        if is_over or self.config.strict:
            self._give_up(address)

    def _give_up(self, address: BusyAddress) -> None:
        """Nobody will take the first message of this address: do what the policy says."""
        match "fail" if self.config.strict else self.config.on_failure:
            case "park":
                self._addresses.park(address)
            case "fail":
                place = f"{address.function_type}/{address.id}"
                self._effects.append(
                    Die(f"a message to {place} failed, and that ends the generation: {address.error}")
                )
            case _:
                attempts, error, first_ms = address.attempts, address.error, address.first_failed_ms
                message = self._addresses.bury(address)
                self._ordinal += 1
                self._letters.bury(
                    message, self._ordinal, attempts, error, first_ms or self._now_ms, self._now_ms
                )
                # It is done with, as far as the books go; redriven, it comes to be once more.
                self.counters.applied += 1

    def _obey(self, message: Message) -> None:
        self._ordinal += 1
        redriven = self._letters.obey(message, self._ordinal, self._now_ms)
        self.counters.applied += 1
        if redriven is not None:
            self.counters.emitted += 1
            self._mailbox.append(redriven)

    def _invoke(self, address: BusyAddress) -> None:
        messages = self._addresses.begin(address)
        address.lane.in_flight += 1
        self._invocation_next += 1
        self._invocations[self._invocation_next] = address
        self._effects.append(Invoke(self._invocation_next, address.function_type, address.id, messages))

    def _call(self, call: InlineCall, message: Message, address: BusyAddress) -> bool:
        self.current = message
        try:
            effects = call(message[1], message[2], message[3], message[4], message[5])
            if effects is not None and effects[2]:
                self._check(message[1], effects[2])
        except Exception as error:  # noqa: BLE001 - user code may raise anything; the address carries it
            self._failed(address, describe_error(error))
            return False
        if effects is not None:
            self._apply(message[0], message[1], effects)
        return True

    def _run_mailbox(self, limit: int) -> None:
        # The hot path: one dictionary look-up and one call per message, no object but the message.
        mailbox, busy, bound = self._mailbox, self._addresses.busy, self._bound
        applied = 0
        for _ in range(limit):
            if not mailbox:
                break
            message = mailbox.popleft()
            target_type, id, caller_type, caller_id, value_type, value = message
            function = bound.get(target_type)
            if function is None or function[0] is None or (busy and (target_type, id) in busy):
                if target_type == DEAD_LETTERS and not caller_type:
                    self._obey(message)
                    continue
                self._ordinal += 1
                self._addresses.enqueue(message, self._ordinal)
                continue
            if function[4]:
                self._look_at_clock()
                for table in function[2]:
                    table.refresh(id)
            self.current = message
            try:
                effects = function[0](id, caller_type, caller_id, value_type, value)
                if effects is not None and effects[2]:
                    self._check(id, effects[2])
            except Exception as error:  # noqa: BLE001 - user code may raise anything; the address carries it
                self._ordinal += 1
                address = self._addresses.hold(message, self._ordinal)
                self._failed(address, describe_error(error))
                continue
            if effects is not None:
                self._apply(target_type, id, effects)
            function[3].received += 1
            applied += 1
        self.counters.applied += applied

    def _apply(self, function_type: str, id: str, effects: InvocationEffects) -> None:
        # All or nothing: what can be wrong was checked before, so that an exception in here is a bug of
        # ours and ends the worker. Taken for a failure of the function, half the effects would stay.
        writes, sends, delayed, egress = effects
        bound = self._bound
        _, tables, _, metrics, expires = bound[function_type]
        if delayed or (expires and writes):
            self._look_at_clock()
        if sends:
            key_group_count = self.config.key_group_count
            owners, worker, out, mailbox = self._owners, self.config.worker, self._out, self._mailbox
            for target_type, target_id, value_type, value in sends:
                if target_type not in bound and target_type.startswith(REPLY_PREFIX):
                    self._reply(id, target_type, target_id, value_type, value)
                    continue
                self.counters.emitted += 1
                owner = owners[xxh3_64_intdigest(target_id.encode()) % key_group_count]
                message = (target_type, target_id, function_type, id, value_type, value)
                if owner == worker:
                    metrics.out_local += 1
                    mailbox.append(message)
                else:
                    metrics.out_remote += 1
                    out[owner].buffer.append(message)
        if delayed:
            self._apply_delayed(function_type, id, delayed)
        if egress:
            shard = self._shards[key_group_of(id, self.config.key_group_count)]
            self.counters.egress_rows += len(egress)
            metrics.out_egress += len(egress)
            for typename, value_type, value in egress:
                self._outbox.add_egress(shard, typename, value_type, value)
        for index, data in writes.items():
            if data is None:
                tables[index].delete(id)
            else:
                tables[index].put(id, data)

    def _check(self, id: str, delayed: list[Delayed]) -> None:
        changed: dict[str, bool] = {}
        for kind, *rest in delayed:
            token = rest[0] if kind == "cancel" else rest[1]
            if kind == "send" and token and changed.get(token, self._timers.has_token(id, token)):
                raise UserCodeError(
                    f"cancellation token {token!r} of id {id!r} is already pending; cancel it first or use another"
                )
            changed[token] = kind == "send"

    def _apply_delayed(self, function_type: str, id: str, delayed: list[Delayed]) -> None:
        for kind, *rest in delayed:
            if kind == "cancel":
                self.counters.timers_cancelled += self._timers.cancel(id, rest[0])
            else:
                delay_ms, token, target_type, target_id, value_type, value = rest
                self._ordinal += 1
                message = (target_type, target_id, function_type, id, value_type, value)
                self._timers.add(self._now_ms + delay_ms, token, message, self._ordinal)
                self.counters.timers_set += 1

    def invocation_postponed(self, invocation_id: int, delay_ms: int, now_ms: int) -> None:
        """An ``Invoke`` effect could not be tried: nobody answers. The same messages again in ``delay_ms``."""
        self._now_ms = now_ms
        address = self._invocations.pop(invocation_id)
        address.lane.in_flight -= 1
        self._addresses.postponed(address, now_ms, delay_ms)

    def invocation_done(
        self, invocation_id: int, effects: InvocationEffects | None, error: str | None, now_ms: int
    ) -> None:
        """Take the outcome of an ``Invoke`` effect: its effects (None for none), or what went wrong."""
        self._now_ms = now_ms
        self._store.set_now(now_ms)
        address = self._invocations.pop(invocation_id)
        address.lane.in_flight -= 1
        assert address.phase is Phase.IN_FLIGHT, (
            f"invocation {invocation_id} of an address in phase {address.phase}"
        )
        if error is None and effects is not None and effects[2]:
            try:
                self._check(address.id, effects[2])
            except UserCodeError as refused:
                error = describe_error(refused)
        if error is None:
            if effects is not None:
                self._apply(address.function_type, address.id, effects)
            self._succeeded(address)
        else:
            self._failed(address, error)

    def _flush(self) -> None:
        for peer, channel in enumerate(self._out):
            if channel.buffer:
                self._effects.extend(SendFrame(peer, frame) for frame in channel.flush())

    # --- snapshots --------------------------------------------------------------------------------

    def _cut(self, snapshot_id: int, rhythm: str, committed: int) -> None:
        """Cut now, unless a trigger or a marker of this snapshot came before."""
        if self._cuts.wants_cut(snapshot_id):
            self._cuts.cut(snapshot_id, rhythm, committed, self._instant())

    def _instant(self) -> Instant:
        self._store.set_now(self._now_ms)
        return Instant(
            now_ms=self._now_ms,
            mailbox=list(self._mailbox),
            waiting_count=self._addresses.waiting_count,
            ordinal=self._ordinal,
            positions=self._feeds.positions() + self._splits.rows(),
            counters=msgspec.structs.asdict(self.counters),
            functions=self._functions.remote_specs(),
        )

    def part_written(self, snapshot_id: int, kind: str, descriptor: PartDescriptor | None) -> None:
        """A ``WritePart`` effect is done; ``descriptor`` is None when there were no rows."""
        self._cuts.part_written(snapshot_id, kind, descriptor)

    def published(self, shard: int, epoch: int) -> None:
        """A ``Publish`` effect is done: the sink has the rows for good."""
        self._outbox.published(shard, epoch)

    # --- observation ------------------------------------------------------------------------------

    def figures(self) -> list[Figure]:
        """Return what Prometheus may know of this worker."""
        return [
            *function_figures(self._metrics),
            *waiting_figures(self._metrics, self._addresses.busy.values(), self._invocations.values()),
            *lane_figures(self._lanes.values()),
            ("statefun_worker_backlog", "", self.backlog),
            ("statefun_worker_parked_addresses", "", len(self._addresses.parked)),
            ("statefun_worker_retrying_addresses", "", self.retrying_count),
            ("statefun_worker_dead_letters", "", len(self._letters)),
            ("statefun_worker_dead_letters_total", "", self.counters.buried),
            ("statefun_worker_delayed_messages", "", len(self._timers)),
            ("statefun_worker_keys", "", self._store.key_count()),
            ("statefun_worker_snapshot_id", "", self._cuts.last_committed),
            ("statefun_worker_generation", "", self.config.generation),
        ]

    @property
    def backlog(self) -> int:
        """Messages in mailbox and queues that are going to be processed; those of parked addresses are not."""
        return len(self._mailbox) + self._addresses.waiting_count - self._addresses.parked_messages

    def is_quiet(self, log_id: str, end_sequence: int) -> bool:
        """Whether nothing is left to do for events of ``log_id`` below ``end_sequence``, parked addresses aside."""
        return (
            self._feeds.next_sequence(log_id) >= end_sequence
            and not self.backlog
            and not len(self._timers)
            and self._outbox.is_empty
        )

    @property
    def retrying_count(self) -> int:
        """Addresses whose first message keeps failing and is tried again."""
        return len(self._addresses.retrying)

    def retrying(self) -> list[tuple[str, str, int, int, int, str]]:
        """Return the first of them, as `Heartbeat` has them. Another thread may ask."""
        return retrying_rows(self._addresses.retrying)

    def heartbeat(self, tick_age_ms: int) -> Heartbeat:
        """Return how this worker fares. Another thread may ask."""
        current = self.current
        return Heartbeat(
            generation=self.config.generation,
            worker=self.config.worker,
            tick_age_ms=tick_age_ms,
            busy_with=f"{current[0]}/{current[1]}" if current is not None else "",
            backlog=self.backlog,
            processed=self.counters.applied,
            parked=parked_rows(self._addresses.parked),
            parked_count=len(self._addresses.parked),
            retrying=self.retrying(),
            retrying_count=self.retrying_count,
            dead_letters=len(self._letters),
        )


def describe_error(error: BaseException) -> str:
    """Return an exception as one line: its type and text."""
    return f"{type(error).__name__}: {error}"
