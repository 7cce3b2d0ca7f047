from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka.broker import Broker, noida


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the whole session; every test uses topics of its own."""
    with noida(tmp_path_factory.mktemp("broker")) as started:
        yield started
