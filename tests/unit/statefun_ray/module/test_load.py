"""Files on a disk."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from statefun_ray.module import load as load_module
from statefun_ray.module.load import load
from tests.unit.statefun_ray.module.reading import document

PLAYGROUND = document("io.statefun.playground.v1/ingress", "port: 8090")


@pytest.mark.parametrize("prefix", ["", "file:", "file://", "file://localhost", "FILE:"])
def test_a_file_is_named_by_path_or_url(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "my module.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAYGROUND.encode())
    reading = load([f"{prefix}{quote(str(path))}" if prefix else str(path)])
    assert reading.problems == ()
    assert reading.module is not None
    assert reading.module.playground_ingress is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "classpath:module.yaml",
            "there is no class path here; give the path of the file, such as module.yaml",
        ),
        ("https://h/module.yaml", "not loaded over the network"),
        ("file://etc/module.yaml", "three slashes in front: file:///etc/module.yaml"),
    ],
)
def test_what_is_on_no_disk_here_is_said_to_be_so(name: str, words: str) -> None:
    assert words in load([name]).errors[0].text


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a: b\nc: \xe9\n", 2, "the byte 0xE9 at offset 8, which is not UTF-8"),
        (b"\xef\xbb\xbfa: \xe9\n", 1, "offset 6"),
        ("a: b\n".encode("utf-16"), 1, "which is not UTF-8"),
        ("a: b\n".encode("utf-16-le"), 1, "the character U+0000"),
    ],
)
def test_another_encoding_is_said_with_its_place(tmp_path: Path, data: bytes, line: int, words: str) -> None:
    path = tmp_path / "module.yaml"
    path.write_bytes(data)
    (error,) = load([str(path)]).errors
    assert error.place.line == line
    assert words in error.text
    assert "save the file as UTF-8" in error.text


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "module.yaml"
    path.write_text(PLAYGROUND, encoding="utf-8")
    again, otherwise = load([str(path), str(path), f"file:{path}"]).errors
    assert again.text == "found the same file again; expected each file once; name it once"
    assert otherwise.text.startswith(f"found the same file again, first as {path}")


def test_files_that_cannot_be_read_are_problems_among_others(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    (tmp_path / "wrong.yaml").write_text("kind: x\nspec: {}\n", encoding="utf-8")
    reading = load([str(tmp_path / name) for name in ("none.yaml", "latin.yaml", "wrong.yaml", "")])
    assert reading.module is None
    assert [Path(problem.place.source).name for problem in reading.problems] == [
        "none.yaml",
        "latin.yaml",
        tmp_path.name,
        "wrong.yaml",
    ]
    assert "No such file" in reading.problems[0].text


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "BYTES_MAX", 10)
    path = tmp_path / "module.yaml"
    path.write_text(PLAYGROUND, encoding="utf-8")
    assert "at most 10 are read" in load([str(path)]).errors[0].text
