"""Workers on a stage: functions made of a few lines, channels held by hand, snapshots that are really stored.

Time is whatever a story says; nothing runs unless it is told to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from statefun_checkpoints import layout, reader, writer
from statefun_checkpoints.coordinator import SnapshotCoordinator, WorkerPart
from statefun_checkpoints.entry_format import encode
from statefun_checkpoints.model import Entry, FunctionSpec, PartDescriptor, Rhythm, Rows, StateSpec
from statefun_checkpoints.store import MemoryStore
from statefun_checkpoints.store_requests import run_store
from statefun_ingress import frames
from statefun_ray.core.control import Abort, Ack, Committed, Pulse, SnapshotWanted, ToCoordinator, Trigger
from statefun_ray.core.effects import (
    Die,
    FeedFrame,
    Invoke,
    Publish,
    SendFrame,
    Tell,
    WritePart,
)
from statefun_ray.core.invoker import InlineCall, InvocationEffects, LaneSpec
from statefun_ray.core.key_groups import key_group_of, owner_table, worker_ranges
from statefun_ray.core.message import Message
from statefun_ray.core.state import Table
from statefun_ray.core.worker import Worker
from statefun_ray.core.worker_config import WorkerConfig

T = TypeVar("T")

KEY_GROUPS = 64
SHARDS = 8
TEXT = "io.statefun.types/string"
NOW = 1_000_000


class Call:
    """What a scripted function sees and asks for."""

    def __init__(self, id: str, caller: tuple[str, str], value: bytes | None, tables: Sequence[Any]) -> None:
        self.id = id
        self.caller = caller
        self.text = "" if value is None else value.decode()
        self._tables = tables
        self.writes: dict[int, bytes | None] = {}
        self.sends: list[tuple[str, str, str, bytes | None]] = []
        self.delayed: list[tuple[Any, ...]] = []
        self.egressed: list[tuple[str, str, bytes | None]] = []

    def read(self, index: int = 0) -> str:
        data = self.writes[index] if index in self.writes else self._tables[index].get(self.id)
        return "" if data is None else data.decode()

    def write(self, text: str | None, index: int = 0) -> None:
        self.writes[index] = None if text is None else text.encode()

    def send(self, target: str, id: str, text: str) -> None:
        self.sends.append((target, id, TEXT, text.encode()))

    def send_after(self, delay_ms: int, target: str, id: str, text: str, token: str = "") -> None:
        self.delayed.append(("send", delay_ms, token, target, id, TEXT, text.encode()))

    def cancel(self, token: str) -> None:
        self.delayed.append(("cancel", token))

    def reply(self, text: str) -> None:
        self.send(*self.caller, text)

    def egress(self, text: str, name: str = "out/put") -> None:
        self.egressed.append((name, TEXT, text.encode()))

    def effects(self) -> InvocationEffects:
        return self.writes, self.sends, self.delayed, self.egressed


Play = Callable[[Call], None]


def _nothing(call: Call) -> None:
    """What an awaiting function does when it is called: its story answers for it."""


class Script:
    """An invoker of scripted functions; those in ``awaiting`` are run by the story itself.

    So are all functions whose types begin with a key of ``remote``, and they have no states until
    the story registers some.
    """

    def __init__(
        self,
        plays: Mapping[str, Play] | None = None,
        *,
        awaiting: Sequence[str] = (),
        remote: Mapping[str, LaneSpec] | None = None,
        states: dict[str, dict[str, StateSpec]] | None = None,
    ) -> None:
        self.plays: dict[str, Play] = {**(plays or {}), **dict.fromkeys(awaiting, _nothing)}
        self._awaiting = awaiting
        self._remote = remote or {}
        self.tables: dict[str, Sequence[Table]] = {}
        """Of functions that are run through effects."""
        declared = {name: StateSpec(type=TEXT) for name in ("state",)}
        self.functions = {name: FunctionSpec((states or {}).get(name, declared)) for name in self.plays}
        self.calls: list[tuple[str, str, str]] = []
        """``(function type, id, text)`` of every call that was begun."""
        self.clock_ms = 0
        """What time it is, for stories whose functions take some; else it is what their workers were told."""
        self.clock_reads = 0

    def now_ms(self) -> int:
        self.clock_reads += 1
        return self.clock_ms

    def lane_of(self, function_type: str) -> LaneSpec | None:
        return next((lane for prefix, lane in self._remote.items() if function_type.startswith(prefix)), None)

    @property
    def elsewhere(self) -> Sequence[str]:
        return [f"{prefix}*" for prefix in self._remote]

    def bind(self, function_type: str, tables: Sequence[Table]) -> InlineCall | None:
        if function_type in self._awaiting or function_type not in self.functions:
            self.tables[function_type] = tables
            return None

        def run(
            id: str, caller_type: str, caller_id: str, value_type: str, value: bytes | None
        ) -> InvocationEffects | None:
            call = Call(id, (caller_type, caller_id), value, tables)
            self.calls.append((function_type, id, call.text))
            self.plays[function_type](call)
            return call.effects()

        return run


class Actor:
    """One worker with its effects sorted by kind."""

    def __init__(self, script: Script, *, worker: int = 0, worker_count: int = 1, **config: Any) -> None:
        self.script = script
        self.index = worker
        ranges = worker_ranges(worker_count=worker_count, key_group_count=KEY_GROUPS, shard_count=SHARDS)
        self.key_groups = ranges[worker]
        given: dict[str, Any] = {
            "app": "app",
            "generation": 1,
            "worker": worker,
            "worker_count": worker_count,
            "key_group_count": KEY_GROUPS,
            "shard_count": SHARDS,
            "on_failure": "park",
        }
        self.core = Worker(WorkerConfig(**{**given, **config}), script)
        self.now_ms = NOW
        self.out: dict[int, deque[bytes]] = {peer: deque() for peer in range(worker_count)}
        self.told: list[ToCoordinator] = []
        self.invokes: list[Invoke] = []
        self.parts: list[WritePart] = []
        self.published: list[Publish] = []
        self.feed: list[tuple[str, frames.WorkerFrame]] = []
        self.deaths: list[str] = []

    def start(self) -> Actor:
        self.core.start(self.now_ms)
        self.perform()
        return self

    def perform(self) -> None:
        for effect in self.core.take_effects():
            match effect:
                case SendFrame(peer, frame):
                    self.out[peer].append(frame)
                case Tell(message):
                    self.told.append(message)
                case Invoke():
                    self.invokes.append(effect)
                case WritePart():
                    self.parts.append(effect)
                case Publish():
                    self.published.append(effect)
                case FeedFrame(log_id, frame):
                    self.feed.append((log_id, frames.decode_worker_frame(frame[4:])))
                case Die(reason):
                    self.deaths.append(reason)

    # --- what happens to it ---------------------------------------------------------------------

    def turn(self, limit: int = 1_000) -> bool:
        has_more = self.core.turn(self.now_ms, limit)
        self.perform()
        return has_more

    def run(self) -> None:
        while self.turn():
            pass

    def later(self, ms: int) -> None:
        self.now_ms += ms
        self.run()

    def open_feed(self, log_id: str = "log", incarnation: str = "log.1") -> None:
        self.core.feed_opened(log_id)
        self.hear(frames.Welcome(log_id, incarnation, 0), log_id)

    def hear(self, frame: frames.IngressFrame, log_id: str = "log") -> None:
        self.core.feed_frame(log_id, frames.encode_frame(frame)[4:], self.now_ms)
        self.perform()

    def events(self, first: int, *messages: Message, to: int | None = None, log_id: str = "log") -> None:
        """Let the feed hand over ``messages`` with sequences from ``first`` on."""
        columns = [list(column) for column in zip(*messages, strict=True)] or [[], [], [], [], [], []]
        sequences = list(range(first, first + len(messages)))
        end = first + len(messages) if to is None else to
        types, ids, caller_types, caller_ids, value_types, values = columns
        self.hear(
            frames.EventsFrame(
                first, end, sequences, types, ids, caller_types, caller_ids, value_types, values
            ),
            log_id,
        )

    def admit(self, *messages: Message) -> None:
        """Hand over messages from a log that the stage opens by itself."""
        position = self.core._feeds._positions.get("log")
        if position is None:
            self.open_feed()
            position = self.core._feeds._positions["log"]
        self.events(position.next_sequence, *messages)

    def finish(self, effects: InvocationEffects | None = None, error: str | None = None) -> Invoke:
        """Answer the oldest invocation."""
        invoke = self.invokes.pop(0)
        self.core.invocation_done(invoke.invocation_id, effects, error, self.now_ms)
        self.perform()
        return invoke

    def trigger(self, snapshot_id: int, rhythm: str = "periodic", committed: int = 0) -> None:
        self.core.control(Trigger(1, snapshot_id, rhythm, committed), self.now_ms)
        self.perform()

    def committed(self, snapshot_id: int, trim: dict[str, int] | None = None) -> None:
        self.core.control(Committed(1, snapshot_id, trim or {}), self.now_ms)
        self.perform()

    def abort(self, snapshot_id: int) -> None:
        self.core.control(Abort(1, snapshot_id), self.now_ms)
        self.perform()

    def pulse(self, *, paused: bool) -> None:
        self.core.control(Pulse(1, paused), self.now_ms)
        self.perform()

    def write_parts(self, store: MemoryStore | None = None) -> list[tuple[WritePart, Rows]]:
        """Write all parts that were asked for and say so; return them with their rows."""
        written = []
        while self.parts:
            effect = self.parts.pop(0)
            rows = Rows()
            for portion in effect.slices:
                rows.extend(portion)
            encoded = writer.encode(
                rows,
                kind=effect.kind,  # type: ignore[arg-type]
                level=effect.level or None,  # type: ignore[arg-type]
                generation=1,
                snapshot=effect.snapshot_id,
                worker=self.index,
                key_groups=self.key_groups,
            )
            self.core.part_written(
                effect.snapshot_id,
                effect.kind,
                run_store(store or MemoryStore(), writer.write(encoded)) if encoded else None,
            )
            self.perform()
            written.append((effect, rows))
        return written

    # --- what it has done -------------------------------------------------------------------------

    def take(self, kind: type[T]) -> list[T]:
        """Return and forget what was told to the coordinator, of one kind."""
        taken: list[T] = [message for message in self.told if isinstance(message, kind)]
        self.told = [message for message in self.told if not isinstance(message, kind)]
        return taken

    def fed(self, kind: type[T]) -> list[T]:
        """Return and forget what was said to feeds, of one kind."""
        taken: list[T] = [frame for _, frame in self.feed if isinstance(frame, kind)]
        self.feed = [(log_id, frame) for log_id, frame in self.feed if not isinstance(frame, kind)]
        return taken

    def texts(self, function_type: str | None = None, id: str | None = None) -> list[str]:
        """Return the texts of the calls so far, in order."""
        return [
            text
            for called, address, text in self.script.calls
            if function_type in (None, called) and id in (None, address)
        ]

    def state(self, function_type: str, id: str, name: str = "state") -> str | None:
        value = self.core._store.tables[f"{function_type}.{name}"].get(id)
        return None if value is None else value.decode()

    def acknowledged(self) -> Ack:
        [ack] = self.take(Ack)
        return ack

    def wants_snapshot(self) -> bool:
        return bool(self.take(SnapshotWanted))


class Stage:
    """Some workers, the channels between them, and a coordinator that stores what they write."""

    def __init__(
        self,
        script: Script,
        worker_count: int = 1,
        *,
        restored: Entry | None = None,
        store: MemoryStore | None = None,
        now_ms: int = NOW,
        **config: Any,
    ) -> None:
        self.script = script
        self.store = store or MemoryStore()
        self.actors = [
            Actor(script, worker=worker, worker_count=worker_count, **config)
            for worker in range(worker_count)
        ]
        self.slot = restored.slot if restored is not None else 0
        self.snapshots = SnapshotCoordinator(
            key_groups=[actor.key_groups for actor in self.actors],
            functions=script.functions,
            restored=restored,
        )
        for actor in self.actors:
            actor.now_ms = now_ms
            if restored is not None:
                loaded = run_store(self.store, reader.load(restored, actor.key_groups))
                actor.core.load(loaded.state, loaded.transient, restored, now_ms)
        for actor in self.actors:
            actor.start()

    def restarted(self, worker_count: int | None = None, *, entry: Entry, **config: Any) -> Stage:
        """Return a stage of the next generation, restored from ``entry``."""
        count = len(self.actors) if worker_count is None else worker_count
        return Stage(self.script, count, restored=entry, store=self.store, **config)

    @property
    def now_ms(self) -> int:
        return self.actors[0].now_ms

    def owner(self, id: str) -> Actor:
        """Return the worker of an id."""
        owners = owner_table(worker_count=len(self.actors), key_group_count=KEY_GROUPS, shard_count=SHARDS)
        return self.actors[owners[key_group_of(id, KEY_GROUPS)]]

    def admit(self, *messages: Message) -> None:
        """Hand each message to the worker of its target."""
        for message in messages:
            self.owner(message[1]).admit(message)

    def deliver(self, sender: int, receiver: int, count: int | None = None) -> None:
        """Let frames arrive that wait on one channel, all by default."""
        channel = self.actors[sender].out[receiver]
        for _ in range(len(channel) if count is None else count):
            self.actors[receiver].core.channel_frame(sender, channel.popleft())
            self.actors[receiver].perform()

    def deliver_all(self) -> bool:
        """Let everything arrive; return whether there was anything."""
        pairs = [(a.index, b) for a in self.actors for b in a.out if a.out[b]]
        for sender, receiver in pairs:
            self.deliver(sender, receiver)
        return bool(pairs)

    def run(self) -> None:
        """Let everybody work and everything arrive until nothing is left to do."""
        while True:
            for actor in self.actors:
                actor.run()
            if not self.deliver_all():
                return

    def trigger(self, rhythm: Rhythm = "periodic") -> int:
        """Begin a snapshot at every worker; nothing arrives yet."""
        committed = self.snapshots.committed_id
        opened = self.snapshots.begin(rhythm, self.now_ms)
        for actor in self.actors:
            actor.trigger(opened.snapshot_id, rhythm, committed)
        return opened.snapshot_id

    def commit(self) -> Entry:
        """Let everything of the open snapshot arrive and be written, and commit it."""
        entry = self.commit_unheard()
        for actor in self.actors:
            actor.committed(entry.snapshot_id)
        return entry

    def commit_unheard(self) -> Entry:
        """Commit the open snapshot without telling anybody."""
        while self.deliver_all():
            pass
        for actor in self.actors:
            actor.write_parts(self.store)
            for ack in actor.take(Ack):
                self.snapshots.acknowledge(actor.index, ack.snapshot_id, _part_of(ack))
        self.slot += 1
        entry = msgspec.structs.replace(
            self.snapshots.entry(now_ms=self.now_ms), slot=self.slot, generation=1, nonce="n"
        )
        self.store.put(layout.slot_path(entry.slot), encode(entry))
        self.snapshots.committed(entry)
        return entry

    def snapshot(self, rhythm: Rhythm = "periodic") -> Entry:
        """Take a whole snapshot."""
        self.trigger(rhythm)
        return self.commit()

    def abort(self) -> None:
        """Give the open snapshot up."""
        snapshot_id = self.snapshots.abort()
        assert snapshot_id is not None
        for actor in self.actors:
            actor.parts = [part for part in actor.parts if part.snapshot_id != snapshot_id]
            actor.abort(snapshot_id)

    def state(self, function_type: str, id: str) -> str | None:
        return self.owner(id).state(function_type, id)

    def counters(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for actor in self.actors:
            for name, count in msgspec.structs.asdict(actor.core.counters).items():
                total[name] = total.get(name, 0) + count
        return total

    def waiting(self) -> int:
        return sum(actor.core.backlog for actor in self.actors)


def _part_of(ack: Ack) -> WorkerPart:
    return WorkerPart(
        parts=ack.parts,
        based_on=ack.based_on,
        positions=ack.positions,
        out_seq=ack.out_seq,
        counters=ack.counters,
        in_flight=ack.in_flight,
        timer_next=ack.timer_next,
        cut_ms=ack.cut_ms,
        functions=ack.functions,
    )


def message(target: str, id: str, text: str, caller: tuple[str, str] = ("", "")) -> Message:
    return (target, id, *caller, TEXT, text.encode())


def ids_of(worker: int, worker_count: int) -> Iterator[str]:
    """Yield ids that ``worker`` of ``worker_count`` owns."""
    owners = owner_table(worker_count=worker_count, key_group_count=KEY_GROUPS, shard_count=SHARDS)
    number = 0
    while True:
        if owners[key_group_of(f"id-{number}", KEY_GROUPS)] == worker:
            yield f"id-{number}"
        number += 1


def id_of(worker: int, worker_count: int) -> str:
    """Return an id that ``worker`` of ``worker_count`` owns."""
    return next(ids_of(worker, worker_count))


def part_rows(parts: list[PartDescriptor], kind: str) -> int:
    return sum(part.rows for part in parts if part.kind == kind)
