"""What the stories need of an application, whatever runs it, and the drivers that there are.

A story is written once against `Driver` and played on every driver in `DRIVERS`. A driver may
leave out what it cannot do; stories ask for it by name (`needs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from statefun_checkpoints.store import ObjectStore, open_store, run_store
from statefun_checkpoints.verify import verify
from statefun_ray.cluster.deployment import Tuning
from statefun_ray.local import LocalApplication
from tests.cluster.application import ClusterApplication
from tests.scenarios.simulated_driver import SimulatedApplication
from tests.scenarios.stories import functions


class Row(Protocol):
    """One published egress row."""

    @property
    def data(self) -> Any: ...


class Driver(Protocol):
    """A running application made of the functions in ``tests.scenarios.stories``."""

    def send(self, target: str, id: str, value: Any, *, producer: tuple[str, int] | None = None) -> None:
        """Send an event; it is durable on return."""

    def ask(self, target: str, id: str, value: Any, *, wait_s: float = 30.0) -> Any:
        """Send an event and return the committed reply."""

    def state(self, target: str, id: str) -> dict[str, Any]:
        """Return the live state of an address, without states that are not set."""

    def egress(self, egress: str) -> list[Any]:
        """Return what has been published, as objects with ``data``."""

    def status(self) -> dict[str, Any]:
        """Return the status as ``statefun-ray status --json`` shows it."""

    def snapshot(self) -> int:
        """Return the id of a snapshot that holds everything applied before the call."""

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30.0, what: str = "") -> None:
        """Wait for a condition, with a deadline."""

    def wait_idle(self) -> None:
        """Wait until all accepted events, and all that followed from them, are processed."""

    def kill_worker(self, worker: int) -> None:
        """End one worker as a crash would."""

    def crash(self) -> None:
        """End everything at once, as a power cut would; ``start`` begins again."""

    def start(self) -> Any:
        """Begin again from what is stored."""

    def stop(self) -> None:
        """End with a final snapshot; ``start`` begins again."""

    def restart(self, workers: int | None = None) -> None:
        """Stop with a final snapshot and start again, perhaps with another number of workers."""


@dataclass(frozen=True)
class Settings:
    """What a story asks of its application."""

    workers: int = 2
    snapshot_interval_s: float = 0.2
    store: ObjectStore | None = None
    """Instead of files in the test's directory; only where the driver can (``own_store``)."""
    worker: Mapping[str, Any] | None = None
    """Of `WorkerConfig`."""
    coordinator: Mapping[str, Any] | None = None
    """Of `CoordinatorConfig`."""


Launch = Callable[[Path, Settings], AbstractContextManager[Driver]]


@contextmanager
def launch_local(directory: Path, settings: Settings) -> Iterator[Driver]:
    """Everything in this process."""
    app = LocalApplication(
        functions,
        storage=settings.store or directory / "storage",
        log_dir=directory / "log",
        workers=settings.workers,
        snapshot_interval_s=settings.snapshot_interval_s,
        worker=settings.worker,
        coordinator={"backoff_ms_min": 10, **(settings.coordinator or {})},
    )
    try:
        yield app.start()
    finally:
        app.close()
    assert_verified(app.store)


@contextmanager
def launch_cluster(directory: Path, settings: Settings) -> Iterator[Driver]:
    """Every process a Ray actor, on the cluster of the session."""
    app = ClusterApplication(
        "tests.scenarios.stories:functions",
        directory,
        probe="story/total",
        workers=settings.workers,
        snapshot_interval=f"{settings.snapshot_interval_s * 1000:g}ms",
        tuning=Tuning(
            coordinator={"backoff_ms_min": 10, **(settings.coordinator or {})},
            worker={"core": dict(settings.worker or {})},
        ),
    )
    with app:
        yield app
    assert_verified(open_store(str(directory / "storage")))


@contextmanager
def launch_simulated(directory: Path, settings: Settings) -> Iterator[Driver]:
    """Every process simulated, in simulated time, on a store of real files."""
    app = SimulatedApplication(
        functions,
        store=settings.store or open_store(str(directory / "storage")),
        workers=settings.workers,
        snapshot_interval_s=settings.snapshot_interval_s,
        worker=settings.worker,
        coordinator={"backoff_ms_min": 10, **(settings.coordinator or {})},
    )
    try:
        yield app.start()
    finally:
        app.close()
    assert_verified(app.store)


def now_s(app: Driver) -> float:
    """Return the time that passes for ``app``, from an arbitrary beginning."""
    return app.now_s() if isinstance(app, SimulatedApplication) else time.monotonic()


def assert_verified(store: ObjectStore) -> None:
    """Check hashes, chain and conservation of what a story has left in storage."""
    report = run_store(store, verify())
    assert list(map(str, report.findings)) == []


@dataclass(frozen=True)
class Runner:
    """One way to run an application, and what it can do beyond the protocol."""

    name: str
    launch: Launch
    abilities: frozenset[str] = frozenset()


LOCAL = Runner("local", launch_local, frozenset({"own_store", "expiry", "files", "quick_restart"}))

CLUSTER = Runner("cluster", launch_cluster, frozenset({"files", "expiry"}))

SIMULATED = Runner(
    "simulated", launch_simulated, frozenset({"own_store", "expiry", "files", "quick_restart"})
)

DRIVERS: list[Any] = [LOCAL, SIMULATED, pytest.param(CLUSTER, marks=pytest.mark.cluster)]
