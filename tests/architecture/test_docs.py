"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")
TOP_LEVEL = (
    "sdk/",
    "ingress/",
    "checkpoints/",
    "statefun_ray/",
    "examples/",
    "tests/",
    "docs/",
    "benchmarks/",
)
SHORT_FORM = ("statefun_sdk/", "statefun_ingress/", "statefun_checkpoints/")


def named_paths(text: str) -> set[str]:
    """Paths of this repository that a document names in backticks."""
    found = set()
    for code in CODE.findall(text):
        word = code.split()[0] if code.split() else ""
        word = re.sub(r":\d+$", "", word.partition("::")[0])
        if word.startswith(TOP_LEVEL + SHORT_FORM) and not re.search(r"[<>{}*…=]|\.\.\.", word):
            found.add(word.rstrip(".,;:"))
    return found


def exists(name: str) -> bool:
    """Whether a named path lies in the tree, written in full or from its package on."""
    folders = {"statefun_sdk": "sdk", "statefun_ingress": "ingress", "statefun_checkpoints": "checkpoints"}
    folder = folders.get(name.split("/")[0])
    return (ROOT / folder / name).exists() if folder else (ROOT / name).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_named_exists(document: Path) -> None:
    missing = {name for name in named_paths(document.read_text(encoding="utf-8")) if not exists(name)}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    broken = {
        target
        for target in targets
        if "://" not in target and not (document.parent / target).resolve().exists()
    }
    assert broken == set()


def test_decision_records_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
