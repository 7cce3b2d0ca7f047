"""What an application must not start from is named, and a superseded one stops."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statefun_checkpoints.commit_log import CommitLog
from statefun_checkpoints.model import Job
from statefun_checkpoints.store import run_store
from statefun_ray.local import ApplicationFailed, LocalApplication
from statefun_sdk import Context, IntType, Message, StatefulFunctions, StringType, ValueSpec
from tests.scenarios.stories import functions

pytestmark = pytest.mark.slow


@contextmanager
def application(
    directory: Path, *, with_functions: StatefulFunctions = functions
) -> Iterator[LocalApplication]:
    app = LocalApplication(
        with_functions,
        storage=directory / "storage",
        log_dir=directory / "log",
        snapshot_interval_s=0.1,
        start_timeout_s=15,
    )
    try:
        yield app
    finally:
        app.close()


def stored(directory: Path, pattern: str) -> list[Path]:
    return sorted((directory / "storage").rglob(pattern))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def damage_newest_file(directory: Path, damage: Callable[[Path], object]) -> str:
    [*_, part] = stored(directory, "*.delta.arrow")
    damage(part)
    return part.name


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink], ids=["corrupted", "truncated", "missing"])
def test_a_damaged_part_is_named_and_nothing_is_restored(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    with application(tmp_path) as app:
        app.start()
        app.client.send_many(
            {"target": "story/forgetful", "id": f"id{i}", "value": {"remember": secrets.token_hex(2_000)}}
            for i in range(200)
        )
        app.wait_idle()
        app.stop()
        assert stored(tmp_path, "*.delta.arrow"), "the snapshot was meant to be too large to be inline"
        name = damage_newest_file(tmp_path, damage)

        with pytest.raises(
            ApplicationFailed, match=rf"can not be restored: data/.*{name}.*statefun-ray verify"
        ):
            app.start()


@pytest.mark.parametrize("damage", [flip, truncate], ids=["corrupted", "truncated"])
def test_a_damaged_entry_is_named_and_no_older_one_is_taken_instead(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    with application(tmp_path) as app:
        app.start()
        app.ask("story/counter", "a", {"event": 0})
        app.stop()
        [*_, newest] = stored(tmp_path, "0*.json")
        damage(newest)

        with pytest.raises(ApplicationFailed, match=rf"{newest.name}.*statefun-ray verify"):
            app.start()


def test_functions_that_would_lose_state_are_refused_with_a_diff(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        app.start()
        app.ask("story/counter", "a", {"event": 0})
        app.stop()

    other = StatefulFunctions()

    @other.bind("story/counter", specs=[ValueSpec("count", StringType), ValueSpec("added", IntType)])
    def counter(context: Context, message: Message) -> None:
        """Has another type for its count, and does not know what was seen."""

    with application(tmp_path, with_functions=other) as app, pytest.raises(ApplicationFailed) as failed:
        app.start()

    text = str(failed.value)
    assert (
        "state 'count' of story/counter was io.statefun.types/int and is now io.statefun.types/string" in text
    )
    assert "state 'seen' of story/counter is gone" in text
    assert "function story/alarm is gone" in text


def test_an_application_of_another_name_is_refused(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        app.start()
        app.stop()

    with application(tmp_path) as app:
        app.name = "other"
        with pytest.raises(ApplicationFailed, match=r"job\.json says name=local.*name=other"):
            app.start()


def test_a_superseded_application_stops(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        app.start()
        app.ask("story/counter", "a", {"event": 0})
        log = CommitLog(Job(name=app.name))
        run_store(app.store, log.open())

        run_store(app.store, log.claim("another", now_ms=0))

        with pytest.raises(ApplicationFailed, match="was superseded"):
            app.wait_until(lambda: app.status()["phase"] == "stopped")
