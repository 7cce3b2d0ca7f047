"""An application with much in flight is restored: its service is not flooded."""

from __future__ import annotations

from pathlib import Path

import pytest

from statefun_ray.io.remote.endpoint import LIMIT_START
from statefun_ray.local import LocalApplication
from tests.remote.gateway import gateway
from tests.remote.test_end_to_end import functions, module

BUSY = 2_000
"""Addresses with a message that waits for the service."""


@pytest.mark.slow
def test_a_service_is_not_flooded_by_what_waited_for_it_at_the_restore(tmp_path: Path) -> None:

    def application(url: str) -> LocalApplication:
        return LocalApplication(
            module=module(url), name="shop", workers=1, storage=tmp_path / "storage", log_dir=tmp_path / "log"
        )

    with gateway(functions) as gone:
        url = gone.url
    with application(url) as app:
        app.client.send_many(
            {"target": "shop/counter", "id": f"id{n}", "type": "io.statefun.types/string", "value": "x"}
            for n in range(BUSY)
        )
        app.wait_until(lambda: app.status()["backlog"] == BUSY)
    with (
        gateway(functions, pause_s=0.05) as service,
        application(service.url) as app,
    ):
        app.wait_until(lambda: app.status()["backlog"] == 0 and len(set(service.requests)) == BUSY)
        # One more for each answer at most: it doubles with every round trip.
        assert all(
            at_once <= LIMIT_START + answered
            for at_once, answered in zip(service.at_once, service.answered, strict=True)
        )
        assert max(service.at_once) > 4 * LIMIT_START, "a service that bears more gets more"
