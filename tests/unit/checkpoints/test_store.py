"""One behaviour suite for all stores, and what only the local one can get wrong."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from statefun_checkpoints.errors import StoreRefused, StoreUnavailable, StoreUnsuitable, UnsafePath
from statefun_checkpoints.store import LocalStore, MemoryStore, open_store, probe_store
from statefun_checkpoints.store_requests import (
    Create,
    Delete,
    Get,
    List,
    ObjectStore,
    Put,
    StoreSteps,
    perform,
    run_store,
)

# --- all stores --------------------------------------------------------------------------


def test_absent_object_is_none(store: ObjectStore) -> None:
    assert store.get("data/none") is None


def test_put_replaces(store: ObjectStore) -> None:
    store.put("data/a", b"one")
    store.put("data/a", b"two")
    assert store.get("data/a") == b"two"


def test_create_refuses_what_exists(store: ObjectStore) -> None:
    assert store.create("log/1", b"first") is True
    assert store.create("log/1", b"second") is False
    assert store.get("log/1") == b"first"


def test_empty_and_large_objects_come_back(store: ObjectStore) -> None:
    large = os.urandom(1 << 20)
    store.put("data/empty", b"")
    store.put("data/large", large)
    assert store.get("data/empty") == b""
    assert store.get("data/large") == large


def test_one_of_many_creators_wins(store: ObjectStore) -> None:
    store.put("warm/up", b"")
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        return store.create("log/slot", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert sum(won) == 1
    assert store.get("log/slot") == str(won.index(True)).encode()


def test_list_is_sorted_and_starts_after(store: ObjectStore) -> None:
    names = ["a/1", "a/2", "a/b/1", "a/b/2", "a/c", "ab/1", "b"]
    for name in reversed(names):
        store.put(name, b"")
    assert store.list("") == names
    assert store.list("a/") == names[:5]
    assert store.list("a") == names[:6]
    assert store.list("a/b") == ["a/b/1", "a/b/2"]
    assert store.list("", "a/2") == names[2:]
    assert store.list("a/", "a/b/1") == ["a/b/2", "a/c"]
    assert store.list("a/", "a/b") == ["a/b/1", "a/b/2", "a/c"]
    assert store.list("a/", "z") == []
    assert store.list("none/") == []
    assert store.list("b/") == []


def test_delete_is_idempotent(store: ObjectStore) -> None:
    store.put("data/x/a", b"1")
    store.delete("data/x/a")
    store.delete("data/x/a")
    assert store.get("data/x/a") is None
    assert store.list("data/") == []
    store.put("data/x/b", b"2")
    assert store.list("data/") == ["data/x/b"]


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "../up", "a/../../b", "a//b", "a/", "a/.hidden", "a\\b", "a\0"]
)
def test_unsafe_names_are_refused(store: ObjectStore, path: str) -> None:
    for operation in (
        lambda: store.get(path),
        lambda: store.put(path, b""),
        lambda: store.create(path, b""),
        lambda: store.delete(path),
    ):
        with pytest.raises(UnsafePath):
            operation()


def test_unsafe_prefixes_are_refused(store: ObjectStore) -> None:
    with pytest.raises(UnsafePath, match=r"'\.\.' is not a name"):
        store.list("../")


def test_probe_passes_and_leaves_nothing(store_uri: str) -> None:
    store = open_store(store_uri, probe=True)
    assert store.list("") == []


def test_reopening_finds_the_objects(store: ObjectStore, store_uri: str) -> None:
    store.put("a", b"1")
    assert open_store(store_uri).get("a") == b"1"
    assert open_store(store.uri).get("a") == b"1"


# --- procedures --------------------------------------------------------------------------


def test_procedure_is_answered_and_returns() -> None:
    def steps() -> StoreSteps[list[object]]:
        return [
            (yield Create("a", b"1")),
            (yield Create("a", b"2")),
            (yield Put("b", b"3")),
            (yield Get("a")),
            (yield List("", "a")),
            (yield Delete("a")),
            (yield Get("a")),
        ]

    assert run_store(MemoryStore(), steps()) == [True, False, None, b"1", ["b"], None, None]


def test_failures_are_thrown_into_the_procedure() -> None:
    def steps() -> StoreSteps[str]:
        try:
            yield Get("../x")
        except UnsafePath as error:
            return error.operation
        return "not refused"

    assert run_store(MemoryStore(), steps()) == "get"


def test_probe_refuses_a_store_that_overwrites() -> None:
    class Overwriting(MemoryStore):
        def create(self, path: str, data: bytes) -> bool:
            self.put(path, data)
            return True

    with pytest.raises(StoreUnsuitable, match="If-None-Match"):
        probe_store(Overwriting())


# --- URIs --------------------------------------------------------------------------------


def test_uris_name_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("some/where").uri == (tmp_path / "some/where").as_uri()
    assert open_store(f"file://{tmp_path}/a%20b").uri == (tmp_path / "a b").as_uri()
    assert open_store("memory://one") is open_store("memory://one")


@pytest.mark.parametrize("uri", ["ftp://x/y", "file://host/x", "file://", "s3://"])
def test_wrong_uris_say_so(uri: str) -> None:
    with pytest.raises(ValueError, match=r"URI|scheme"):
        open_store(uri)


# --- the local store ---------------------------------------------------------------------


def create_in_process(root: str, start: object, results: object, number: int) -> None:
    store = LocalStore(Path(root))
    start.wait()  # type: ignore[attr-defined]
    won = [slot for slot in range(50) if store.create(f"log/{slot}", str(number).encode())]
    results.put(won)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_processes_never_both_win(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=create_in_process, args=(str(tmp_path), start, results, number))
        for number in range(2)
    ]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert sorted(won[0] + won[1]) == list(range(50))


def test_crash_leftovers_are_not_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("log/1", b"1")
    (tmp_path / "log" / ".2.0123456789abcdef.tmp").write_bytes(b"torn")
    assert store.list("") == ["log/1"]
    assert store.create("log/2", b"2")


def test_nothing_is_left_beside_an_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("log/1", b"1")
    store.create("log/1", b"2")
    store.put("log/1", b"3")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["1"]


def test_a_failed_write_leaves_nothing_and_is_unanswered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.put("log/0", b"0")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match=r"create log/1.*No space left"):
        store.create("log/1", b"1")
    assert store.list("") == ["log/0"]
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["0"]


def test_a_name_taken_between_look_and_link_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    real_link = os.link

    def slow_link(source: Path, target: Path) -> None:
        target.write_bytes(b"another's")
        real_link(source, target)

    monkeypatch.setattr(os, "link", slow_link)
    assert store.create("log/1", b"ours") is False
    assert store.get("log/1") == b"another's"


def test_data_and_directories_are_synced_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        synced.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    LocalStore(tmp_path / "root").create("log/1", b"1")
    assert synced[:2] == [tmp_path.name, "root"]  # each new directory is made durable in its parent
    assert synced[2].startswith(".1.")
    assert synced[3:] == ["link", "log"]


def test_emptied_folders_go(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("data/g1/n1/a", b"1")
    store.put("data/g1/n2/b", b"1")
    store.delete("data/g1/n1/a")
    assert [path.name for path in (tmp_path / "data/g1").iterdir()] == ["n2"]
    store.delete("data/g1/n2/b")
    assert list(tmp_path.iterdir()) == []


def test_an_object_where_a_folder_is_meant_holds_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    assert store.get("a/b") is None
    store.delete("a/b")
    with pytest.raises(StoreUnavailable):
        store.put("a/b", b"")


def test_a_place_that_can_be_no_store_is_named_not_our_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable) as caught:
        LocalStore(tmp_path / "file" / "x" / "y").put("a", b"")
    assert caught.value.cause == f"{tmp_path}/file is not a folder"
    with pytest.raises(StoreUnavailable) as caught:
        LocalStore(Path("/proc/none/x")).put("a", b"")
    assert caught.value.cause == "the folder /proc/none cannot be made: No such file or directory"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", ".a.tmp")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable) as caught:
        LocalStore(tmp_path).put("a", b"")
    assert caught.value.cause == "No space left on device"


def test_a_forbidden_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", forbidden)
    with pytest.raises(StoreRefused, match="cannot put a"):
        LocalStore(tmp_path).put("a", b"")


def test_what_cannot_be_read_is_unanswered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("log/a", b"1")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    monkeypatch.setattr(os, "scandir", broken)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: broken())
    for operation in (lambda: store.get("log/a"), lambda: store.list("log/"), lambda: store.delete("log/a")):
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            operation()


def test_memory_store_answers_requests() -> None:
    assert perform(MemoryStore(), Create("a", b"")) is True
