"""What one worker tells of itself: figures, and the addresses in trouble that a heartbeat names.

A figure is ``(name, labels, value)``, with labels as Prometheus writes them. Names follow those of
StateFun: ``in`` is ``statefun_function_in_total`` here. Messages are counted once each, when they
are applied; StateFun counts a remote one at least twice.

Counting costs every message, so only what has happened is counted. What is the case now, such as the
backlog of a function, is looked up when figures are asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, TypeAlias

from statefun_ray.core.addresses import BusyAddress, Phase
from statefun_ray.core.lanes import Lane

ADDRESSES_LOOKED_AT_MAX: Final = 5_000
"""Busy addresses looked at for one set of figures, those that have been busy for longest: that takes about
2 ms, once a second. Where more are busy, backlog and blocked addresses of functions are lower bounds."""

PARKED_REPORTED_MAX: Final = 100
"""Parked addresses named in a heartbeat; all are counted."""

RETRYING_REPORTED_MAX: Final = 20
"""Likewise of addresses that are tried again: enough to see what is wrong."""

FUNCTIONS_APART_MAX: Final = 1_000
"""Functions with figures of their own, the first of a generation: about 2 MB of them for each worker. Where an
endpoint is for a whole namespace, names come from outside. Likewise of endpoints and lanes, which may be as many."""

OTHERS: Final = "others"
"""The label of all that came later, together. It is no typename."""

Figure: TypeAlias = tuple[str, str, float]


class FunctionMetrics:
    """Of one function type, since the generation started."""

    __slots__ = ("failures", "out_egress", "out_local", "out_remote", "received")

    def __init__(self) -> None:
        self.received = 0
        """Messages whose effects were applied."""
        self.out_local = 0
        """Messages to addresses of the same worker."""
        self.out_remote = 0
        """Messages to addresses of other workers."""
        self.out_egress = 0
        self.failures = 0
        """Attempts that had no effects: what was tried again counts again."""


def metrics_for(function_type: str, known: dict[str, FunctionMetrics]) -> FunctionMetrics:
    """Return where to count for a function that is new, and add it to those known."""
    name = function_type if len(known) < FUNCTIONS_APART_MAX else OTHERS
    return known.setdefault(name, FunctionMetrics())


def label(name: str, value: str) -> str:
    """Return one label in Prometheus' text format."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def function_figures(functions: Mapping[str, FunctionMetrics]) -> Iterator[Figure]:
    """Yield the figures of all functions."""
    for function_type, metrics in functions.items():
        labels = label("function", function_type)
        yield "statefun_function_in_total", labels, metrics.received
        yield "statefun_function_out_local_total", labels, metrics.out_local
        yield "statefun_function_out_remote_total", labels, metrics.out_remote
        yield "statefun_function_out_egress_total", labels, metrics.out_egress
        yield "statefun_function_failures_total", labels, metrics.failures


def waiting_figures(
    function_types: Iterable[str], busy: Iterable[BusyAddress], in_flight: Iterable[BusyAddress]
) -> Iterator[Figure]:
    """Yield what waits for each function, and what is being run of it.

    Args:
        function_types: those with figures of their own, and `OTHERS` if there are more.
        busy: addresses, those that have been busy for longest first.
        in_flight: addresses with an invocation in flight.
    """
    apart = dict.fromkeys(function_types)
    backlog: defaultdict[str, int] = defaultdict(int)
    blocked: defaultdict[str, int] = defaultdict(int)
    parked = Phase.PARKED
    for address in islice(busy, ADDRESSES_LOOKED_AT_MAX):
        # What is parked waits for a person and not for the function.
        if address.phase is not parked:
            name = address.function_type if address.function_type in apart else OTHERS
            backlog[name] += len(address.waiting) - address.in_flight
            if address.is_full:
                blocked[name] += 1
    running = Counter(
        address.function_type if address.function_type in apart else OTHERS for address in in_flight
    )
    for function_type in apart:
        labels = label("function", function_type)
        yield "statefun_function_num_backlog", labels, backlog[function_type]
        yield "statefun_function_num_blocked_address", labels, blocked[function_type]
        yield "statefun_function_inflight_async_ops", labels, running[function_type]


def lane_figures(lanes: Iterable[Lane]) -> Iterator[Figure]:
    """Yield the figures of all lanes."""
    rows = [(lane.name, lane.in_flight, lane.limit, len(lane.full), int(lane.is_down)) for lane in lanes]
    if len(rows) > FUNCTIONS_APART_MAX:
        _, *columns = zip(*rows[FUNCTIONS_APART_MAX:], strict=True)
        in_flight, limit, full, down = (sum(column) for column in columns)
        rows[FUNCTIONS_APART_MAX:] = [(OTHERS, in_flight, limit, full, down)]
    for name, in_flight, limit, full, down in rows:
        labels = label("lane", name)
        yield "statefun_lane_inflight_async_ops", labels, in_flight
        yield "statefun_lane_limit", labels, limit
        yield "statefun_lane_num_blocked_address", labels, full
        yield "statefun_lane_is_down", labels, down


def parked_rows(parked: Mapping[tuple[str, str], BusyAddress]) -> list[tuple[str, str, str, int]]:
    """Return the first parked addresses, as `Heartbeat` has them. Another thread may ask."""
    # Copied in one step of the interpreter: the turn may change it.
    return [
        (address.function_type, address.id, address.error, len(address.waiting))
        for address in list(parked.values())[:PARKED_REPORTED_MAX]
    ]


def retrying_rows(
    retrying: Mapping[tuple[str, str], BusyAddress],
) -> list[tuple[str, str, int, int, int, str]]:
    """Return the first addresses that are tried again, as `Heartbeat` has them. Another thread may ask."""
    # Copied in one step, as above.
    return [
        (
            address.function_type,
            address.id,
            address.attempts,
            address.first_failed_ms,
            address.retry_at_ms if address.phase is Phase.BACKOFF else 0,
            address.error,
        )
        for address in list(islice(retrying.values(), RETRYING_REPORTED_MAX))
    ]
