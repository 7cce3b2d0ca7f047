"""The functions of one worker: how each is called, which tables it has, and in which lane it runs.

Embedded functions are bound from the start. One that lives elsewhere is bound when a message for it
is seen first, and its states are declared by its service later (``remote_states``). A type that
nobody serves is never bound, and belongs to the lane of inline functions.

Not here: what is called when (``worker``), and the code of the functions (``invoker``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from statefun_checkpoints.model import Entry, FunctionSpec, StateSpec
from statefun_ray.core.expiry import lifetimes_of
from statefun_ray.core.invoker import InlineCall, Invoker
from statefun_ray.core.key_groups import owner_table
from statefun_ray.core.lanes import AWAITING, INLINE, Lane
from statefun_ray.core.metrics import FunctionMetrics, metrics_for
from statefun_ray.core.remote_states import RemoteStates
from statefun_ray.core.state import KeyedStore, Table, tables_of
from statefun_ray.core.worker_config import WorkerConfig

Bound: TypeAlias = tuple[InlineCall | None, list[Table], list[Table], FunctionMetrics, bool]
"""``(call, tables, tables that an invocation refreshes, metrics, whether embedded and with states that
expire)``; ``call`` is None for a function that is run through an ``Invoke`` effect. A tuple, as it is taken
apart for every message."""

NAMES_SHOWN: Final = 20
"""Function types in a text: it is kept with every message that none of them takes."""


class Functions:
    """All functions that the worker has met."""

    __slots__ = (
        "_batch_max",
        "_invoker",
        "_lane_by_type",
        "_remote",
        "_shard_count",
        "_store",
        "bound",
        "lanes",
        "metrics",
    )

    def __init__(self, config: WorkerConfig, invoker: Invoker, store: KeyedStore) -> None:
        """The tables of embedded functions are added to ``store``."""
        self._batch_max = config.batch_max
        self._shard_count = config.shard_count
        self._invoker = invoker
        self._store = store
        self._remote = RemoteStates(store)
        # What never runs through an ``Invoke`` effect is bounded by the turn alone.
        inline = Lane(INLINE, 1, batch_max=1)
        awaiting = Lane(AWAITING, config.invocations_max, batch_max=config.batch_max)
        self.lanes = {lane.name: lane for lane in (inline, awaiting)}
        self._lane_by_type: dict[str, Lane] = {}
        self.bound: dict[str, Bound] = {}
        """By function type."""
        self.metrics: dict[str, FunctionMetrics] = {}
        """Of all that are bound; many may be one together."""
        for name, spec in invoker.functions.items():
            tables = [store.add(table) for table in tables_of(name, spec)]
            refreshed = [table for table in tables if table.on_call]
            call = self._bind(name, tables, refreshed)
            self._lane_by_type[name] = self.lanes[AWAITING if call is None else INLINE]

    def _bind(self, function_type: str, tables: list[Table], refreshed: list[Table]) -> InlineCall | None:
        call = self._invoker.bind(function_type, tables)
        metrics = metrics_for(function_type, self.metrics)
        expires = any(table.is_stamped for table in tables)
        self.bound[function_type] = (call, tables, refreshed, metrics, expires)
        return call

    def lane_of(self, function_type: str) -> Lane:
        """Return the lane of a function type, which is bound now if somebody serves it."""
        lane = self._lane_by_type.get(function_type)
        return self._resolve(function_type) if lane is None else lane

    def _resolve(self, function_type: str) -> Lane:
        # Only for a type that is seen for the first time, or that nobody serves.
        spec = self._invoker.lane_of(function_type)
        if spec is None:
            return self.lanes[INLINE]
        lane = self.lanes.get(spec.name)
        if lane is None:
            # Who lets more messages of an address wait wants them to be run together.
            batch_max = max(self._batch_max, spec.waiting_max)
            lane = Lane(spec.name, spec.limit, batch_max=batch_max, waiting_max=spec.waiting_max)
            self.lanes[spec.name] = lane
        self._lane_by_type[function_type] = lane
        tables, refreshed = self._remote.bind(function_type)
        self._bind(function_type, tables, refreshed)
        return lane

    def in_words(self) -> str:
        """Return what is served here and elsewhere, for people."""
        names = [*self._invoker.functions, *self._invoker.elsewhere]
        more = len(names) - NAMES_SHOWN
        return (", ".join(names[:NAMES_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")

    # --- states -----------------------------------------------------------------------------------

    def register_states(self, function_type: str, id: str, specs: Mapping[str, StateSpec]) -> bool:
        """Add states to a function that lives elsewhere, on a call of ``id``; see ``Worker.register_states``."""
        is_new = self._remote.register(function_type, specs)
        for table in self.bound[function_type][2]:
            table.refresh(id)
        return is_new

    def restore(self, entry: Entry) -> dict[tuple[str, str], list[int]]:
        """Remember what a snapshot says about functions that are not embedded (any more).

        Returns:
            For how long values in it were stamped, see `lifetimes_of`.
        """
        self._remote.recorded(entry.functions, self._invoker.functions)
        owners = owner_table(
            worker_count=entry.worker_count,
            key_group_count=entry.key_group_count,
            shard_count=self._shard_count,
        )
        return lifetimes_of(entry.functions, owners)

    def remote_specs(self) -> dict[str, FunctionSpec]:
        """Return what a snapshot is to say about functions that live elsewhere."""
        return self._remote.specs()

    def states_of(self, function_type: str, id: str, now_ms: int) -> list[tuple[str, str, bytes | None]]:
        """Return ``(state, typename, value)`` of an address; nothing for a function that is not known."""
        if self._remote.knows(function_type):
            tables = self._remote.tables(function_type)
        elif function_type in self.bound:
            tables = self.bound[function_type][1]
        else:
            return []
        self._store.set_now(now_ms)
        prefix = len(function_type) + 1
        return [(table.name[prefix:], table.typename, table.get(id)) for table in tables]
