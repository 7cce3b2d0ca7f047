"""The conformance table names the tests of the checklist, all of them and in their order."""

from __future__ import annotations

import ast
import re

from tests.docs.test_code_blocks import ROOT

CHECKLIST = ROOT / "tests" / "conformance" / "test_checklist.py"
NAMED = re.compile(r"^\| \d+ \|.*\| `(test_\w+)` \|$", re.MULTILINE)


CHECKLIST = "tests/conformance/test_checklist.py"
ROW = re.compile(r"^\| (\d+) \| .* \| `(test_\d\d_\w+)` \|", re.MULTILINE)


def named() -> list[str]:
    return NAMED.findall((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8"))


def test_every_row_names_a_test_of_the_checklist() -> None:
    tree = ast.parse(CHECKLIST.read_text(encoding="utf-8"))
    functions = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert len(named()) == 20
    assert named() == functions
