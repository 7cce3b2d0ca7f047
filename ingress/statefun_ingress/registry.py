"""What the ingress knows of the functions: their names, and which types they take.

From it follows what a body is: which typename an ``application/json`` body or an untyped
bulk line has, which types a function refuses (415), and what to suggest for a name that
does not exist (404).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from statefun_ingress.errors import RequestRefused
from statefun_ingress.values import BUILT_INS, JSON, Converter, base64_converter, json_text


@dataclass(frozen=True)
class FunctionInfo:
    """One function.

    Attributes:
        typename: ``namespace/type``.
        accepts: (typename, is it a JSON type) of each type it takes; empty means any.
        states: name of each state -> (typename, is it a JSON type).
    """

    typename: str
    accepts: Sequence[tuple[str, bool]] = ()
    states: Mapping[str, tuple[str, bool]] = field(default_factory=dict)


class Target:
    """A function as requests see it.

    Attributes:
        info: the function.
        typename: its name, the one object that all its events share.
    """

    def __init__(self, info: FunctionInfo) -> None:
        self.info = info
        self.typename = info.typename
        self._accepted = dict(info.accepts)
        self._converters: dict[str | None, tuple[str, Converter]] = {}
        self._untyped = self._resolve_untyped()

    def _resolve_untyped(self) -> str | RequestRefused:
        """Return the typename of JSON that does not say its own, or why it must."""
        if not self._accepted:
            return JSON
        json_types = [name for name, is_json in self._accepted.items() if is_json]
        candidates = json_types or [name for name in self._accepted if name in BUILT_INS]
        if len(candidates) == 1:
            return candidates[0]
        found = "several types that JSON could be" if candidates else "no type that JSON could be"
        return RequestRefused(
            415,
            "The type of the value is not clear",
            f"{self.typename} accepts {found}: {', '.join(self._accepted)}; "
            "name one, with content type application/vnd.<typename> and the value's bytes, "
            'or with "type" in a bulk line',
        )

    def check_accepts(self, typename: str) -> None:
        """Raise 415 unless the function takes values of ``typename``."""
        if self._accepted and typename not in self._accepted:
            raise RequestRefused(
                415,
                "The function does not accept this type",
                f"{self.typename} accepts {', '.join(self._accepted)}, not {typename}",
            )

    def is_json(self, typename: str) -> bool:
        """Return whether values of ``typename`` are JSON text."""
        return self._accepted.get(typename, typename == JSON)

    def from_json(self, typename: str | None) -> tuple[str, Converter]:
        """Return the typename of a value given as JSON, and how to make its bytes.

        Args:
            typename: as the request names it, or None.

        Raises:
            RequestRefused: 415, the type is not accepted or not clear.
        """
        known = self._converters.get(typename)
        if known is None:
            if typename is None:
                if isinstance(self._untyped, RequestRefused):
                    raise RequestRefused(415, self._untyped.title, self._untyped.detail)
                known = self._converter_of(self._untyped)
            else:
                self.check_accepts(typename)
                known = self._converter_of(typename)
            # Bounded: without `accepts` clients choose the names.
            if len(self._converters) < _CONVERTERS_MAX:
                self._converters[typename] = known
        return known

    def _converter_of(self, typename: str) -> tuple[str, Converter]:
        if self.is_json(typename):
            return typename, json_text
        return typename, BUILT_INS.get(typename) or base64_converter(typename)


class Registry:
    """The functions of an application.

    Args:
        functions: all that are known by name; names must differ.
        json_types: further types whose values are JSON, such as those of replies.
        namespaces: where any further function may exist: a service knows which, we do not.
    """

    def __init__(
        self,
        functions: Iterable[FunctionInfo],
        json_types: Iterable[str] = (),
        namespaces: Iterable[str] = (),
    ) -> None:
        self.targets: dict[str, Target] = {}
        self._namespaces = frozenset(namespaces)
        self._found: dict[str, Target] = {}
        self._json_types = {JSON, *json_types}
        for info in functions:
            if info.typename in self.targets:
                raise ValueError(f"function {info.typename} is registered twice")
            self.targets[info.typename] = Target(info)
            self._json_types.update(name for name, is_json in info.accepts if is_json)
            self._json_types.update(name for name, is_json in info.states.values() if is_json)

    def target(self, typename: str) -> Target:
        """Return a function.

        Raises:
            RequestRefused: 404, with the nearest names there are.
        """
        target = self.targets.get(typename) or self._found.get(typename)
        if target is None:
            namespace, _, name = typename.partition("/")
            if namespace not in self._namespaces or not name or "/" in name:
                raise self._unknown(typename)
            target = Target(FunctionInfo(typename))
            # Bounded: clients choose the names.
            if len(self._found) < _FOUND_MAX:
                self._found[typename] = target
        return target

    def is_json_type(self, typename: str) -> bool:
        """Return whether values of ``typename`` are known to be JSON."""
        return typename in self._json_types

    def _unknown(self, typename: str) -> RequestRefused:
        served = ", ".join(f"{namespace}/*" for namespace in sorted(self._namespaces)[:8])
        near = get_close_matches(typename[:200], self.targets, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif self.targets:
            names = sorted(self.targets)
            hint = f"there are {', '.join(names[:8])}" + (" and others" if len(names) > 8 else "")
        else:
            hint = f"only {served} is served" if served else "no functions are bound"
        if served and self.targets:
            hint += f"; all of {served} is served too"
        return RequestRefused(
            404, "There is no such function", f"no function {typename[:200]} is bound; {hint}"
        )


_CONVERTERS_MAX: Final = 256
_FOUND_MAX: Final = 4_096
