"""What a stop says that it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_ray.cluster.operate import _what_a_stop_waits_for


@pytest.mark.parametrize(
    ("phase", "worker", "said"),
    [
        ("stopping", {"busy_with": "shop/cart"}, "functions at work are waited for: shop/cart"),
        ("stopping", {"trouble": "egress shop/out: no answer"}, "egress shop/out: no answer"),
        ("stopping", {}, "the final snapshot is waited for"),
        ("running", {}, "the final snapshot is waited for"),
        ("stopped", {}, "handed to the sinks"),
        ("loading", {}, "it is 'loading', and its final snapshot comes after that"),
    ],
)
def test_a_stop_waits_for_functions_only_if_some_are_at_work(
    phase: str, worker: dict[str, Any], said: str
) -> None:
    processes = [
        {"role": "ingress"},
        {"role": "worker", "busy_with": "", "trouble": ""},
        {"role": "worker", **worker},
    ]
    assert said in _what_a_stop_waits_for({"phase": phase, "processes": processes})
