"""The tests that the conformance table names exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.test_code_blocks import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


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
