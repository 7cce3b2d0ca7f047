"""What the architecture tests look at: the source files, their imports, the tracked files."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Import package -> the folder that holds it.
PACKAGES = {
    "statefun_sdk": ROOT / "sdk",
    "statefun_ingress": ROOT / "ingress",
    "statefun_checkpoints": ROOT / "checkpoints",
    "statefun_ray": ROOT,
}


@dataclass(frozen=True)
class SourceModule:
    """One Python file of the four packages."""

    name: str  # dotted
    path: Path

    @property
    def package(self) -> str:
        """The dotted package the module lies in."""
        return self.name.rpartition(".")[0]

    @property
    def stem(self) -> str:
        """The file's own name without ``.py``."""
        return self.path.stem


@cache
def source_modules() -> tuple[SourceModule, ...]:
    """Every module of the four packages, packages themselves included, in name order."""
    modules = []
    for package, folder in PACKAGES.items():
        for path in (folder / package).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            modules.append(SourceModule(".".join(parts), path))
    return tuple(sorted(modules, key=lambda module: module.name))


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Every dotted module a file imports, wherever in it, type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(_imports(tree))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.orelse:
            yield from _imports(statement)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def imports_any_of(path: Path, forbidden: frozenset[str]) -> list[str]:
    """The imports of a file whose top-level package is forbidden, sorted."""
    return sorted(name for name in imported_names(path) if name.split(".")[0] in forbidden)


@cache
def project() -> dict[str, Any]:
    """``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contract(identifier: str) -> dict[str, Any]:
    """One import-linter contract of ``pyproject.toml``."""
    for candidate in project()["tool"]["importlinter"]["contracts"]:
        if candidate["id"] == identifier:
            found: dict[str, Any] = candidate
            return found
    raise KeyError(f"pyproject.toml has no import contract {identifier!r}")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file git knows or would add, so that ignored ones stay out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in listing.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def tracked_text_files() -> Iterator[tuple[Path, str]]:
    """Tracked files that are text, with their content."""
    for path in tracked_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # golden binary files
