"""States of functions that live elsewhere: declared by their service when it is called, not before.

Nothing is registered when a generation begins. A service that misses a state says so, with type and
expiration; from then on the state belongs to every request of its function. What a restored
snapshot says about such states is only *remembered* until then: their values are kept, age, and
are part of further snapshots, whether anybody asks for them or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from statefun_checkpoints.model import FunctionSpec, StateSpec, state_table
from statefun_ray.core.errors import StateNameTaken, StateTypeChanged, TooManyStates
from statefun_ray.core.state import KeyedStore, Table

STATES_MAX: Final = 10_000
"""States of one function, which StateFun does not bound: all of them travel with each of its requests
(90 KB and a millisecond without any value) and stand in the entry of every snapshot, so a service that
makes up names as it goes would fill both."""


class RemoteStates:
    """What one worker knows of the states of functions that live elsewhere."""

    def __init__(self, store: KeyedStore) -> None:
        self._store = store
        self._specs: dict[str, dict[str, StateSpec]] = {}
        """By function type and state: registered, or else as the restored snapshot has it."""
        self._bound: dict[str, tuple[list[Table], list[Table]]] = {}
        """By function type: tables of its registered states, and those that an invocation refreshes."""
        self._owners: dict[str, str] = {}
        """Name of a table -> function type that registered it: ``a/b.c`` with state ``d`` has the table
        of ``a/b`` with state ``c.d``."""

    def recorded(self, saved: Mapping[str, FunctionSpec], embedded: Mapping[str, FunctionSpec]) -> None:
        """Remember what a snapshot says about the states of functions that are not embedded (any more)."""
        for function_type, function in saved.items():
            if function_type not in embedded:
                self._specs[function_type] = dict(function.states)
                for states in (*function.differing.values(), function.states):
                    for name, spec in states.items():
                        self._store.remembered[state_table(function_type, name), spec.type] = spec

    def bind(self, function_type: str) -> tuple[list[Table], list[Table]]:
        """Return the tables of the function, and those refreshed by a call; both grow by `register`."""
        self._specs.setdefault(function_type, {})
        return self._bound.setdefault(function_type, ([], []))

    def register(self, function_type: str, specs: Mapping[str, StateSpec]) -> bool:
        """Add states to a bound function, all or none; return whether any was not registered yet.

        Raises:
            StateTypeChanged: a state is known, or has values, with another type.
            StateNameTaken: another function has a state whose table has the same name.
            TooManyStates: more than ``STATES_MAX``.
        """
        tables, refreshed = self._bound[function_type]
        registered = {table.name: table for table in tables}
        fresh: dict[str, StateSpec] = {}
        for name, spec in specs.items():
            table_name = state_table(function_type, name)
            if self._owners.get(table_name, function_type) != function_type or any(
                not table.is_dynamic for table in self._store.tables_named(table_name)
            ):
                raise StateNameTaken(function_type, name, table_name)
            stored = self._stored_type(function_type, name, spec.type, registered.get(table_name))
            if stored is not None:
                raise StateTypeChanged(function_type, name, stored, spec.type)
            if table_name not in registered:
                fresh[name] = spec
        if len(tables) + len(fresh) > STATES_MAX:
            raise TooManyStates(function_type, len(tables) + len(fresh), STATES_MAX)
        for name, spec in fresh.items():
            table = self._store.dynamic(state_table(function_type, name), spec.type)
            table.change_expiration(spec.expire_ms, on_call=spec.expire == "after_call")
            tables.append(table)
            if table.on_call:
                refreshed.append(table)
            self._specs[function_type][name] = spec
            self._owners[table.name] = function_type
        return bool(fresh)

    def _stored_type(
        self, function_type: str, state: str, declared: str, registered: Table | None
    ) -> str | None:
        """Return a type other than ``declared`` that the state has by now; None if it has none."""
        known = self._specs[function_type].get(state)
        if registered is not None:
            return None if registered.typename == declared else registered.typename
        if known is not None and known.type != declared:
            return known.type
        for table in self._store.tables_named(state_table(function_type, state)):
            if table.live and table.typename != declared:
                return table.typename
        return None

    def knows(self, function_type: str) -> bool:
        """Whether states of this function are registered or remembered."""
        return function_type in self._specs

    def tables(self, function_type: str) -> list[Table]:
        """Return all tables with values of the function's states, registered or not, for reading."""
        return [
            table
            for name in self._specs.get(function_type, ())
            for table in self._store.tables_named(state_table(function_type, name))
        ]

    def specs(self) -> dict[str, FunctionSpec]:
        """Return the functions known here with those of their states that have values.

        A state without values, or with none that has not expired, is left out, so that its type may be
        changed.
        """
        return {
            function_type: FunctionSpec(
                {name: spec for name, spec in states.items() if self._has_values(function_type, name)},
                remote=True,
            )
            for function_type, states in self._specs.items()
        }

    def _has_values(self, function_type: str, state: str) -> bool:
        return any(table.has_values for table in self._store.tables_named(state_table(function_type, state)))
