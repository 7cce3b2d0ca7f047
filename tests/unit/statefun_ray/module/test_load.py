"""Files on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from statefun_ray.module import load as load_module
from statefun_ray.module.load import load
from tests.unit.statefun_ray.module.reading import document

PLAYGROUND = document("io.statefun.playground.v1/ingress", "port: 8090")


@pytest.mark.parametrize("prefix", ["", "file:", "file://"])
def test_a_file_is_named_by_path_or_url(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "module.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAYGROUND.encode())
    reading = load([f"{prefix}{path}"])
    assert reading.problems == ()
    assert reading.module is not None
    assert reading.module.playground_ingress is not None


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
