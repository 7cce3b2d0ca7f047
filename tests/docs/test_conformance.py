"""The tests that the conformance table names exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.test_code_blocks import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


CHECKLIST = "tests/conformance/test_checklist.py"
ROW = re.compile(r"^\| (\d+) \| .* \| `(test_\d\d_\w+)` \|", re.MULTILINE)


def named() -> list[tuple[str, str]]:
    return NAMED.findall((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8"))


def test_every_row_names_a_test() -> None:
    assert len(named()) == 20


@pytest.mark.parametrize(("file", "name"), sorted(set(named())))
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions


def test_every_row_has_its_test_in_the_checklist() -> None:
    rows = ROW.findall((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8"))
    tree = ast.parse((ROOT / CHECKLIST).read_text(encoding="utf-8"))
    tests = [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [name for _, name in rows] == tests
    assert [(number, name[5:7]) for number, name in rows] == [(str(n), f"{n:02d}") for n in range(1, 21)]
