"""A start needs the logs that may hold unread events, names one that is not there, and changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from statefun_ingress.files import OsLogFiles
from statefun_ingress.log import IngressLog
from statefun_ingress.look import log_id_in
from statefun_ray.cli import main
from statefun_ray.local import ApplicationFailed, LocalApplication
from tests.scenarios.stories import functions

pytestmark = pytest.mark.slow

Open = Callable[..., AbstractContextManager[LocalApplication]]


@pytest.fixture
def with_log(tmp_path: Path) -> Open:
    @contextmanager
    def opened(log: str, *, snapshot_interval_s: float = 0.1) -> Iterator[LocalApplication]:
        app = LocalApplication(
            functions,
            storage=tmp_path / "storage",
            log_dir=tmp_path / log,
            snapshot_interval_s=snapshot_interval_s,
            start_timeout_s=15,
        )
        try:
            yield app
        finally:
            app.close()

    return opened


def stored(directory: Path) -> dict[str, bytes]:
    root = directory / "storage"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def registered(directory: Path) -> list[str]:
    return sorted(path.stem for path in (directory / "storage" / "ingress").glob("*.json"))


def leave_unread(with_log: Open, log: str) -> None:
    """Accept an event, and end before any snapshot has it."""
    with with_log(log, snapshot_interval_s=60) as app:
        app.start()
        app.send("story/counter", "a", {"event": 0})
        app.crash()


def read_all(app: LocalApplication) -> None:
    """Wait for a snapshot that has read every accepted event."""

    def is_read() -> bool:
        status = app.status()
        last = status["last_snapshot"] or {"positions": {}}
        return bool(last["positions"].get(status["log_id"], 0) == status["accepted"] > 0)

    app.wait_until(is_read, what="all read")


def count(app: LocalApplication) -> object:
    return app.state("story/counter", "a")["count"]


def test_a_start_without_the_log_is_refused_and_changes_nothing(tmp_path: Path, with_log: Open) -> None:
    leave_unread(with_log, "right")
    before = stored(tmp_path)

    for _ in range(2):
        with with_log("wrong") as app, pytest.raises(ApplicationFailed) as failed:
            app.start()
        text = str(failed.value)
        assert f"{tmp_path / 'wrong'} holds no log" in text
        assert "1 accepted event is in it and in no snapshot, from sequence 0 to 0" in text
        assert f"start with --log-dir {tmp_path / 'right'}" in text
        assert f"--give-up {log_id_in(str(tmp_path / 'right'))}" in text
        assert stored(tmp_path) == before

    with with_log("right") as app:
        app.start()
        app.wait_until(lambda: app.state("story/counter", "a") != {}, what="the event")
        assert count(app) == 1


def test_a_start_without_the_log_leaves_the_running_application_alone(tmp_path: Path, with_log: Open) -> None:
    with with_log("right") as first:
        first.start()
        first.ask("story/counter", "a", {"event": 0})
        generation = first.status()["generation"]

        for log in ("wrong", "right"):
            with (
                with_log(log) as second,
                pytest.raises(ApplicationFailed, match=r"live process|living process"),
            ):
                second.start()

        assert first.ask("story/counter", "a", {"event": 1}) == 2
        assert first.status()["generation"] == generation


def test_a_log_that_was_read_to_its_end_is_not_needed_after_a_stop(tmp_path: Path, with_log: Open) -> None:
    for event, log in enumerate(["one", "two", "one"]):
        with with_log(log) as app:
            app.start()
            assert registered(tmp_path) == [log_id_in_use(app)]
            assert app.ask("story/counter", "a", {"event": event}) == event + 1
            read_all(app)
            app.stop()
        assert registered(tmp_path) == []


def test_a_log_on_this_machine_that_was_read_to_its_end_is_not_needed_after_a_crash(
    tmp_path: Path, with_log: Open
) -> None:
    with with_log("one") as app:
        app.start()
        app.ask("story/counter", "a", {"event": 0})
        read_all(app)
        app.crash()
    assert registered(tmp_path) == [log_id_in(str(tmp_path / "one"))]

    with with_log("two") as app:
        app.start()
        assert registered(tmp_path) == [log_id_in_use(app)]
        assert app.ask("story/counter", "a", {"event": 1}) == 2


def test_an_empty_log_that_a_failed_start_has_registered_is_not_needed(
    tmp_path: Path, with_log: Open
) -> None:
    leave_unread(with_log, "right")
    # A version before this one did that, and so does a start that is killed after it has registered.
    folder = tmp_path / "elsewhere"
    IngressLog.open(OsLogFiles(str(folder)), log_id := "empty").close()
    registration = {"format": 1, "log_id": log_id, "application": "local", "directory": str(folder)}
    (tmp_path / "storage" / "ingress" / f"{log_id}.json").write_text(json.dumps(registration))

    with with_log("right") as app:
        app.start()
        assert registered(tmp_path) == [log_id_in_use(app)]
        app.wait_until(lambda: app.state("story/counter", "a") != {}, what="the event")


def test_a_log_that_is_gone_is_needed_until_it_is_given_up(
    tmp_path: Path, with_log: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_unread(with_log, "right")
    [log_id] = registered(tmp_path)
    shutil.rmtree(tmp_path / "right")

    with with_log("new") as app, pytest.raises(ApplicationFailed) as failed:
        app.start()

    assert "events in it, if any were accepted, may be in no snapshot" in str(failed.value)
    assert f"statefun-ray logs {app.store.uri} --give-up {log_id}" in str(failed.value)

    assert main(["logs", app.store.uri, "--give-up", log_id]) == 0
    assert f"ingress log {log_id}, which was in {tmp_path / 'right'}, is given up" in capsys.readouterr().out
    with with_log("new") as app:
        app.start()
        assert app.ask("story/counter", "a", {"event": 1}) == 1


def test_two_logs_with_unread_events_are_read_one_after_the_other(tmp_path: Path, with_log: Open) -> None:
    leave_unread(with_log, "one")
    [one] = registered(tmp_path)
    storage = str(tmp_path / "storage")
    assert main(["logs", storage, "--give-up", one]) == 0

    with with_log("two") as app:
        app.start()
        assert app.ask("story/counter", "a", {"event": 1}) == 1
        assert main(["logs", storage, "--give-up", log_id_in_use(app)]) == 1, "it is in use"
        read_all(app)
        app.stop()

    with with_log("one") as app:
        app.start()
        app.wait_until(lambda: count(app) == 2, what="the event of the first log")
        read_all(app)
        app.stop()
    assert main(["logs", storage]) == 0


def log_id_in_use(app: LocalApplication) -> str:
    return str(app.status()["log_id"])
