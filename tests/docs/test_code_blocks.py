"""Every Python block of the documents runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


def blocks() -> Iterator[Any]:
    for document in DOCUMENTS:
        for number, code in enumerate(BLOCK.findall(document.read_text(encoding="utf-8")), start=1):
            yield pytest.param(code, id=f"{document.relative_to(ROOT)}-{number}")


@pytest.mark.docs
@pytest.mark.parametrize("code", list(blocks()))
def test_block_runs(code: str) -> None:
    tree = ast.parse(code)
    if "file:///" in code or "s3://" in code:
        return  # reads a snapshot the reader has and we have not; it parses
    namespace: dict[str, Any] = {"__name__": "block"}
    exec(compile(tree, "block", "exec"), namespace)
    for name, value in list(namespace.items()):
        if name.startswith("test_"):
            value()
