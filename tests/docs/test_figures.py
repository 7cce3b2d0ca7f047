"""The figures for Prometheus that documents name are those that the code has, and all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.docs.test_code_blocks import ROOT

NAME = re.compile(r"\bstatefun_(?:remote|lane|function|worker|ingress)_[a-z_]+\b")
QUOTED = re.compile(rf'"({NAME.pattern})"')
PARTS = ("_bucket", "_sum", "_count")  # of a histogram
GUIDES = ROOT / "docs" / "guide"
SOURCES = (
    ROOT / "statefun_ray" / "core",
    ROOT / "statefun_ray" / "io",
    ROOT / "ingress" / "statefun_ingress",
)


def names(files: Iterable[Path], pattern: re.Pattern[str]) -> set[str]:
    found = set()
    for file in files:
        for name in pattern.findall(file.read_text(encoding="utf-8")):
            whole = next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)
            found.add(whole)
    return found


def test_the_guides_name_every_figure_there_is_and_no_other() -> None:
    made = names((file for source in SOURCES for file in source.rglob("*.py")), QUOTED)

    assert names(GUIDES.glob("*.md"), NAME) == made
    assert len(made) > 20
