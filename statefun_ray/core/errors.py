"""What can be wrong with the answer of a function, as far as the core decides it."""

from __future__ import annotations


class UserCodeError(Exception):
    """The effects of an invocation cannot be applied; the text says which and why."""


class StateTypeChanged(UserCodeError):
    """A function that lives elsewhere declares a state with another type than its values have."""

    def __init__(self, function_type: str, state: str, stored: str, declared: str) -> None:
        super().__init__(function_type, state, stored, declared)
        self.function_type, self.state, self.stored, self.declared = function_type, state, stored, declared

    def __str__(self) -> str:
        return (
            f"state {self.state!r} of {self.function_type} has values of type {self.stored}, and its service "
            f"declares {self.declared}; nothing was changed. Declare it as {self.stored} again, or give the "
            f"state of type {self.declared} another name"
        )


class TooManyStates(UserCodeError):
    """A function that lives elsewhere declares more states than one may have."""

    def __init__(self, function_type: str, count: int, count_max: int) -> None:
        super().__init__(function_type, count, count_max)
        self.function_type, self.count, self.count_max = function_type, count, count_max

    def __str__(self) -> str:
        return (
            f"{self.function_type} declares {self.count} states, more than {self.count_max}, all of which would "
            "travel with each of its requests. Declare names that are fixed, and keep what varies within a value "
            "or under an id of its own; or share the states out among several functions"
        )


class StateNameTaken(UserCodeError):
    """Two functions' states would be stored in one table."""

    def __init__(self, function_type: str, state: str, table: str) -> None:
        super().__init__(function_type, state, table)
        self.function_type, self.state, self.table = function_type, state, table

    def __str__(self) -> str:
        return (
            f"state {self.state!r} of {self.function_type} would be stored as {self.table}, as is a state of "
            "another function; rename one of them, without a dot"
        )
