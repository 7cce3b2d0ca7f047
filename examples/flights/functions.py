"""Digital twins of aircraft and airports.

Every flight is one event to the aircraft that flew it. The aircraft keeps its own totals
and tells the two airports what happened there; they keep theirs. No twin remembers which
flights it has seen: that each event counts exactly once is the runtime's work.

A state that never got a value is absent, and null in the snapshot's table: an aircraft
none of whose flights was cancelled has no ``cancelled``.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict, cast

from examples.flights.data import Flight
from statefun_ray import (
    Context,
    IntType,
    LongType,
    Message,
    StatefulFunctions,
    StringType,
    ValueSpec,
    make_json_type,
    message_builder,
)

AIRCRAFT = "flights/aircraft"
AIRPORT = "flights/airport"

FLIGHT = make_json_type("flights.types/flight")
MOVEMENT = make_json_type("flights.types/movement")

functions = StatefulFunctions()


class Movement(TypedDict):
    """What an aircraft tells an airport."""

    kind: Literal["departed", "cancelled", "arrived", "diverted"]
    delay: int  # minutes; negative is early, 0 where none is known


@functions.bind(
    AIRCRAFT,
    specs=[
        ValueSpec("carrier", StringType),
        ValueSpec("flights", IntType),
        ValueSpec("cancelled", IntType),
        ValueSpec("diverted", IntType),
        ValueSpec("departure_delay_minutes", LongType),
        ValueSpec("arrival_delay_minutes", LongType),
        ValueSpec("air_minutes", LongType),
        ValueSpec("distance_miles", LongType),
        ValueSpec("last_departure_at", LongType),
        ValueSpec("turnarounds", IntType),
        ValueSpec("shortest_turnaround_minutes", LongType),
    ],
    accepts=[FLIGHT],
)
def aircraft(context: Context, message: Message) -> None:
    """Count one flight of this aircraft and tell its airports."""
    flight = cast(Flight, message.as_type(FLIGHT))
    twin = context.storage
    twin.carrier = flight["carrier"]
    add(twin, "flights", 1)

    departure_delay = flight["departure_delay"]
    if departure_delay is None:
        add(twin, "cancelled", 1)
        tell(context, flight["origin"], Movement(kind="cancelled", delay=0))
        return

    add(twin, "departure_delay_minutes", departure_delay)
    count_turnaround(twin, flight["scheduled_at"] + departure_delay)
    tell(context, flight["origin"], Movement(kind="departed", delay=departure_delay))

    arrival_delay = flight["arrival_delay"]
    if arrival_delay is None:
        add(twin, "diverted", 1)
        tell(context, flight["destination"], Movement(kind="diverted", delay=0))
        return

    add(twin, "arrival_delay_minutes", arrival_delay)
    add(twin, "air_minutes", flight["air_minutes"] or 0)
    add(twin, "distance_miles", flight["distance_miles"])
    tell(context, flight["destination"], Movement(kind="arrived", delay=arrival_delay))


@functions.bind(
    AIRPORT,
    specs=[
        ValueSpec("departures", IntType),
        ValueSpec("cancelled", IntType),
        ValueSpec("arrivals", IntType),
        ValueSpec("diverted", IntType),
        ValueSpec("departure_delay_minutes", LongType),
        ValueSpec("arrival_delay_minutes", LongType),
        ValueSpec("longest_departure_delay_minutes", IntType),
        ValueSpec("longest_arrival_delay_minutes", IntType),
    ],
    accepts=[MOVEMENT],
)
def airport(context: Context, message: Message) -> None:
    """Count one movement at this airport."""
    movement = cast(Movement, message.as_type(MOVEMENT))
    twin, delay = context.storage, movement["delay"]
    match movement["kind"]:
        case "departed":
            add(twin, "departures", 1)
            add(twin, "departure_delay_minutes", delay)
            raise_to(twin, "longest_departure_delay_minutes", delay)
        case "arrived":
            add(twin, "arrivals", 1)
            add(twin, "arrival_delay_minutes", delay)
            raise_to(twin, "longest_arrival_delay_minutes", delay)
        case "cancelled":
            add(twin, "cancelled", 1)
        case "diverted":
            add(twin, "diverted", 1)


def count_turnaround(twin: Any, departed_at: int) -> None:
    """A turnaround lasts from one departure from New York to the aircraft's next one.

    It depends on the order of the events, which the runtime keeps for each aircraft.
    """
    previous = twin.last_departure_at
    if previous is not None:
        add(twin, "turnarounds", 1)
        shortest = twin.shortest_turnaround_minutes
        minutes = departed_at - previous
        if shortest is None or minutes < shortest:
            twin.shortest_turnaround_minutes = minutes
    twin.last_departure_at = departed_at


def tell(context: Context, airport_code: str, movement: Movement) -> None:
    """Send a movement to an airport's twin."""
    context.send(message_builder(AIRPORT, airport_code, value=movement, value_type=MOVEMENT))


def add(twin: Any, state: str, amount: int) -> None:
    """Add to a number that starts at nothing."""
    setattr(twin, state, (getattr(twin, state) or 0) + amount)


def raise_to(twin: Any, state: str, value: int) -> None:
    """Keep the greatest number seen."""
    greatest = getattr(twin, state)
    if greatest is None or value > greatest:
        setattr(twin, state, value)
