"""Flink's durations, as the reference gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.module.flink_duration import parse_flink_duration_ms

UNITS_MS = {
    86_400_000: ["d", "day", "days"],
    3_600_000: ["h", "hour", "hours"],
    60_000: ["m", "min", "minute", "minutes"],
    1_000: ["s", "sec", "secs", "second", "seconds"],
    1: ["", "ms", "milli", "millis", "millisecond", "milliseconds"],
}
SMALL_UNITS_PER_MS = {
    1_000: ["µs", "micro", "micros", "microsecond", "microseconds"],
    1_000_000: ["ns", "nano", "nanos", "nanosecond", "nanoseconds"],
}


@pytest.mark.parametrize(("unit", "ms"), [(unit, ms) for ms, units in UNITS_MS.items() for unit in units])
@pytest.mark.parametrize("gap", ["", " ", "   "])
def test_every_unit_counts_with_and_without_blanks(unit: str, ms: int, gap: str) -> None:
    assert parse_flink_duration_ms(f"7{gap}{unit}") == 7 * ms


@pytest.mark.parametrize(
    ("unit", "per_ms"), [(unit, per_ms) for per_ms, units in SMALL_UNITS_PER_MS.items() for unit in units]
)
def test_what_is_less_than_a_millisecond_is_cut_off(unit: str, per_ms: int) -> None:
    assert parse_flink_duration_ms(f"{3 * per_ms - 1} {unit}") == 2
    assert parse_flink_duration_ms(f"{per_ms - 1}{unit}") == 0


@pytest.mark.parametrize("text", ["1 DAY", "1Day", " 1 day ", "86400S"])
def test_case_and_outer_blanks_do_not_count(text: str) -> None:
    assert parse_flink_duration_ms(text) == 86_400_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1s",
        "+1s",
        "1.5s",
        "1,5s",
        "1s 500ms",
        "1 fortnight",
        "1_000",
        "٣ s",
        "1e3",
        "0x10",
        "1 s x",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_flink_duration_ms(text)


@pytest.mark.parametrize("text", [str(2**63), "9" * 400, "9223372036854775807 days"])
def test_more_than_64_bits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than"):
        parse_flink_duration_ms(text)
    assert parse_flink_duration_ms(str(2**63 - 1)) == 2**63 - 1


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        ms = parse_flink_duration_ms(text)
    except ValueError:
        return
    assert ms >= 0
