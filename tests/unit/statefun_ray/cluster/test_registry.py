from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from statefun_ray.cluster.registry import Note, forget, home, notes, read_note, started_of, write_note


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path))


def note(name: str, pid: int = os.getpid(), local: bool = True) -> Note:
    return Note(name, "10.0.0.1:6379", pid, local, "http://127.0.0.1:8080", "file:///s")


def test_a_note_is_read_back() -> None:
    write_note(note("shop"))
    assert read_note("shop") == note("shop")
    assert notes() == [note("shop")]


def test_a_local_cluster_is_gone_with_its_program() -> None:
    write_note(note("shop", pid=2**22 + 1))
    write_note(note("far", pid=2**22 + 1, local=False))
    assert read_note("shop") is None
    assert [other.name for other in notes()] == ["far"]


def test_another_program_of_the_same_number_is_not_it() -> None:
    own = os.getpid()
    write_note(replace(note("shop"), started=started_of(own)))
    write_note(replace(note("before"), started=str(int(started_of(own)) - 1)))
    assert [other.name for other in notes()] == ["shop"]


def test_a_forgotten_note_is_gone() -> None:
    write_note(note("shop"))
    forget("shop")
    forget("shop")
    assert read_note("shop") is None


@pytest.mark.parametrize("text", ["", "[]", '{"name": "shop"}', "{"])
def test_a_note_that_cannot_be_read_is_no_note(text: str) -> None:
    path = home() / "running" / "shop.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_note("shop") is None
    assert notes() == []


def test_the_home_is_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATEFUN_RAY_HOME")
    assert home() == Path.home() / ".statefun-ray"
