from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.scenarios.drivers import DRIVERS, Driver, Runner, Settings


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Play one variant of each story on a real cluster: the others differ in what any driver shows."""
    variants: dict[str, list[pytest.Item]] = {}
    for item in items:
        if "scenarios" in item.path.parts and "cluster" in item.name:
            variants.setdefault(f"{item.path}::{getattr(item, 'originalname', item.name)}", []).append(item)
    left_out = {
        id(item) for found in variants.values() for item in found if item is not found[len(found) // 2]
    }
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


class Play(Protocol):
    """Starts the application of a story; it ends with the test."""

    def __call__(self, **settings: Any) -> Driver: ...


@pytest.fixture(params=DRIVERS, ids=lambda runner: runner.name)
def runner(request: pytest.FixtureRequest) -> Runner:
    """The driver under which the story is played."""
    chosen: Runner = request.param
    needs = request.node.get_closest_marker("needs")
    missing = set(needs.args if needs is not None else ()) - chosen.abilities
    if missing:
        pytest.skip(f"the {chosen.name} driver has no {', '.join(sorted(missing))}")
    if chosen.name == "cluster":
        request.getfixturevalue("cluster")
    return chosen


class Times(Protocol):
    """Says how often a story does what it does again and again: half as often where processes have to start."""

    def __call__(self, number: int) -> int: ...


@pytest.fixture
def times(runner: Runner) -> Times:
    """Half of a number on a real cluster, where a recovery takes seconds; all of it elsewhere."""
    return lambda number: number // 2 if runner.name == "cluster" else number


@pytest.fixture
def play(runner: Runner, tmp_path: Path) -> Iterator[Play]:
    """Start an application under the driver: ``app = play(workers=3)``."""
    with ExitStack() as running:

        def start(**settings: Any) -> Driver:
            return running.enter_context(runner.launch(tmp_path, Settings(**settings)))

        yield start
