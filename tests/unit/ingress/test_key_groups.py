from __future__ import annotations

import pytest

from statefun_ingress.key_groups import key_group_of


@pytest.mark.parametrize(
    ("id", "key_group"),
    [("a", 543), ("N14228", 678), ("k", 29), ("ключ", 734), ("42", 401)],
)
def test_key_groups_are_those_of_every_other_package(id: str, key_group: int) -> None:
    assert key_group_of(id, 1024) == key_group


def test_every_key_group_lies_in_range() -> None:
    assert {key_group_of(str(i), 7) for i in range(1000)} == set(range(7))
