"""The twins against the independent group-by, without a runtime."""

from __future__ import annotations

from typing import Any, cast

import pytest

from examples.flights import data, expected
from examples.flights.data import Flight, FlightEvent
from examples.flights.functions import AIRCRAFT, AIRPORT, FLIGHT, functions
from examples.flights.producers import batches, ndjson
from tests.examples.stage import Stage


def flight(**changes: Any) -> Flight:
    values: dict[str, Any] = {
        "carrier": "UA",
        "number": 1545,
        "origin": "EWR",
        "destination": "IAH",
        "scheduled_at": 22_617_255,
        "departure_delay": 2,
        "arrival_delay": 11,
        "air_minutes": 227,
        "distance_miles": 1_400,
    }
    return cast(Flight, values | changes)


def rows(stage: Stage, function_type: str) -> expected.Table:
    return {id: twin.state for id, twin in stage.instances(function_type).items()}


def known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def test_a_flight_counts_at_its_aircraft_and_both_airports() -> None:
    stage = Stage(functions)

    stage.tell(AIRCRAFT, "N14228", flight(), FLIGHT)

    assert known(rows(stage, AIRCRAFT)["N14228"]) == {
        "carrier": "UA",
        "flights": 1,
        "departure_delay_minutes": 2,
        "arrival_delay_minutes": 11,
        "air_minutes": 227,
        "distance_miles": 1_400,
        "last_departure_at": 22_617_257,
    }
    assert known(rows(stage, AIRPORT)["EWR"])["departures"] == 1
    assert known(rows(stage, AIRPORT)["IAH"])["longest_arrival_delay_minutes"] == 11


def test_a_cancelled_flight_reaches_no_destination() -> None:
    stage = Stage(functions)

    stage.tell(AIRCRAFT, "N1", flight(departure_delay=None, arrival_delay=None, air_minutes=None), FLIGHT)

    assert known(rows(stage, AIRCRAFT)["N1"]) == {"carrier": "UA", "flights": 1, "cancelled": 1}
    assert list(rows(stage, AIRPORT)) == ["EWR"]


def test_a_diverted_flight_departs_but_does_not_arrive() -> None:
    stage = Stage(functions)

    stage.tell(AIRCRAFT, "N1", flight(arrival_delay=None, air_minutes=None), FLIGHT)

    assert known(rows(stage, AIRPORT)["IAH"]) == {"diverted": 1}
    assert rows(stage, AIRCRAFT)["N1"]["distance_miles"] is None


def test_the_shortest_turnaround_is_kept() -> None:
    stage = Stage(functions)

    for scheduled_at in (1_000, 1_900, 2_200, 4_000):
        stage.tell(AIRCRAFT, "N1", flight(scheduled_at=scheduled_at, departure_delay=0), FLIGHT)

    twin = rows(stage, AIRCRAFT)["N1"]
    assert (twin["turnarounds"], twin["shortest_turnaround_minutes"]) == (3, 300)


def test_a_difference_names_row_and_column() -> None:
    found = expected.differences(
        {"N1": {"flights": 2}, "N2": {"flights": 1}}, {"N1": {"flights": 3}, "N3": {"flights": 1}}
    )

    assert found == [
        "N1.flights: expected 2, found 3",
        "N2: the row is missing",
        "N3: there should be no such row",
    ]


def test_missing_data_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(data.DataMissing, match="make setup"):
        data.data_file()


def test_a_bulk_request_is_one_line_for_each_event() -> None:
    events = [FlightEvent("N1", flight()), FlightEvent("N2", flight())]

    lines = ndjson(events).decode().splitlines()

    assert len(lines) == 2
    assert lines[0].startswith('{"target":"flights/aircraft","id":"N1","type":"flights.types/flight"')


def test_batches_keep_the_order_and_forget_nothing() -> None:
    events = [FlightEvent(str(number), flight()) for number in range(1_234)]

    assert [event for batch in batches(events) for event in batch] == events


@pytest.mark.slow
def test_the_file_is_the_one_the_demo_promises() -> None:
    events = data.flight_events()

    assert len(events) == data.FLIGHT_COUNT
    assert sum(event.flight["departure_delay"] is None for event in events) == 8_255
    assert sum(event.tail_number == data.UNASSIGNED for event in events) == 2_512


@pytest.mark.slow
def test_twins_of_the_first_flights_match_the_group_by() -> None:
    limit = 5_000
    stage = Stage(functions)

    for event in data.flight_events(limit):
        stage.tell(AIRCRAFT, event.tail_number, event.flight, FLIGHT)

    flights = expected.read_flights(limit)
    assert expected.differences(expected.expected_aircraft(flights), rows(stage, AIRCRAFT)) == []
    assert expected.differences(expected.expected_airports(flights), rows(stage, AIRPORT)) == []
