from __future__ import annotations

import pytest

from statefun_ray.durations import format_duration, parse_duration_ms
from statefun_sdk.errors import UserError


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("1s", 1_000), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000), (" 3 S ", 3_000)],
)
def test_a_number_and_a_unit_are_a_duration(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "1", "s", "1 day", "-1s", "1s 2s", "0.1ms", "0s", "1e3s"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UserError, match=r"500ms|shortest"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("ms", "text"), [(850, "850ms"), (1_500, "1.5s"), (60_000, "1m"), (5_400_000, "1.5h")]
)
def test_durations_are_written_short(ms: int, text: str) -> None:
    assert format_duration(ms) == text
