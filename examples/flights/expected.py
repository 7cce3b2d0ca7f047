"""What the tables must hold: a group-by with pandas over the same file.

Nothing here is shared with ``functions.py`` but the file itself: other code, other library,
whole columns instead of one event after the other. Nulls mean what they mean there: nothing
ever happened that would have given the state a value.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from examples.flights.data import UNASSIGNED, data_file

Row = dict[str, Any]
Table = dict[str, Row]

SUMMED_OF_AIRCRAFT = {
    "departure_delay_minutes": "dep_delay",
    "arrival_delay_minutes": "arr_delay",
    "air_minutes": "air_time",
    "distance_miles": "flown_distance",
}


def read_flights(limit: int | None = None) -> Any:
    """The file as a data frame in the order the flights happened, with what is derived."""
    frame = pd.read_csv(data_file(), dtype={"tailnum": "str"})
    frame["tailnum"] = frame["tailnum"].fillna(UNASSIGNED)
    frame["cancelled"] = frame["dep_time"].isna()
    frame["diverted"] = frame["arr_delay"].isna() & ~frame["cancelled"]
    frame["arrived"] = ~frame["arr_delay"].isna()

    hour = pd.to_datetime(frame["time_hour"], utc=True)
    epoch = pd.Timestamp("1970-01-01", tz="UTC")
    scheduled = (hour - epoch) // pd.Timedelta(minutes=1) + frame["minute"]
    frame["departed_at"] = scheduled + frame["dep_delay"]  # null when cancelled
    frame["flown_distance"] = frame["distance"].where(frame["arrived"])

    frame["happened_at"] = frame["departed_at"].fillna(scheduled)
    frame = frame.sort_values("happened_at", kind="stable")
    return frame if limit is None else frame.head(limit)


def expected_aircraft(flights: Any) -> Table:
    """Tail number -> the row its twin must have."""
    by_tail = flights.groupby("tailnum", sort=True)
    table = pd.DataFrame(
        {
            "carrier": by_tail["carrier"].last(),
            "flights": by_tail.size(),
            "cancelled": by_tail["cancelled"].sum(),
            "diverted": by_tail["diverted"].sum(),
            **{name: by_tail[column].sum(min_count=1) for name, column in SUMMED_OF_AIRCRAFT.items()},
        }
    )

    departed = flights[~flights["cancelled"]]
    departures = departed.groupby("tailnum")["departed_at"]
    gaps = departures.diff()
    gaps_by_tail = gaps.groupby(departed["tailnum"])
    table["last_departure_at"] = departures.last()
    table["turnarounds"] = gaps_by_tail.count()
    table["shortest_turnaround_minutes"] = gaps_by_tail.min()
    return _rows(table, counts=("flights", "cancelled", "diverted", "turnarounds"))


def expected_airports(flights: Any) -> Table:
    """Airport code -> the row its twin must have."""
    departed = flights[~flights["cancelled"]].groupby("origin")["dep_delay"]
    arrived = flights[flights["arrived"]].groupby("dest")["arr_delay"]
    table = pd.DataFrame(
        {
            "departures": departed.size(),
            "cancelled": flights[flights["cancelled"]].groupby("origin").size(),
            "arrivals": arrived.size(),
            "diverted": flights[flights["diverted"]].groupby("dest").size(),
            "departure_delay_minutes": departed.sum(),
            "arrival_delay_minutes": arrived.sum(),
            "longest_departure_delay_minutes": departed.max(),
            "longest_arrival_delay_minutes": arrived.max(),
        }
    )
    return _rows(table, counts=("departures", "cancelled", "arrivals", "diverted"))


def _rows(table: Any, *, counts: tuple[str, ...]) -> Table:
    """Plain rows; a count of zero and a missing value are both a state never written."""
    rows: Table = {}
    for identifier, values in table.iterrows():
        row: Row = {}
        for column, value in values.items():
            if isinstance(value, str):
                row[column] = value
            elif pd.isna(value) or (column in counts and value == 0):
                row[column] = None
            else:
                row[column] = int(value)
        rows[str(identifier)] = row
    return rows


def differences(expected: Table, actual: Table, *, at_most: int = 20) -> list[str]:
    """Every row and column in which two tables differ, as sentences; empty when equal.

    Args:
        at_most: so many sentences are enough to see what is wrong.
    """
    found: list[str] = []
    for identifier in sorted(expected.keys() | actual.keys()):
        if identifier not in actual:
            found.append(f"{identifier}: the row is missing")
        elif identifier not in expected:
            found.append(f"{identifier}: there should be no such row")
        else:
            found += [
                f"{identifier}.{column}: expected {value!r}, found {actual[identifier].get(column)!r}"
                for column, value in expected[identifier].items()
                if actual[identifier].get(column) != value
            ]
        if len(found) >= at_most:
            return [*found[:at_most], "… and maybe more"]
    return found
