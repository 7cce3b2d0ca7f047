"""``Memo``: what a function returned, by its argument, for the hottest of paths."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRIES_MAX: Final = 4096
"""What is kept comes from outside, names above all, so there may be any number."""


class Memo(dict[K, V]):
    """A dict that asks a function for what it does not hold.

    What it holds costs a third of a call that ``functools.lru_cache`` answers. When it is full it
    begins anew. What the function raises is raised, and not kept.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[K], V]) -> None:
        """Hold nothing yet."""
        super().__init__()
        self._function = function

    def __missing__(self, argument: K) -> V:
        value = self._function(argument)
        if len(self) >= ENTRIES_MAX:
            self.clear()
        self[argument] = value
        return value
