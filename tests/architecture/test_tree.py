"""The test tree mirrors the source tree, and every package says that it is typed."""

from __future__ import annotations

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, imported_names, source_modules

UNIT = ROOT / "tests" / "unit"

# A test folder may be called like the source folder instead of the package in it.
FOLDERS = {"sdk": "statefun_sdk", "ingress": "statefun_ingress", "checkpoints": "statefun_checkpoints"}

# Modules whose tests lie elsewhere, each with the reason.
TESTED_ELSEWHERE = {
    "statefun_ray.api": "tests/scenarios and tests/cluster: it only starts drivers",
}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_package_is_typed(package: str) -> None:
    assert (PACKAGES[package] / package / "py.typed").is_file()


def test_every_unit_test_names_the_module_it_tests() -> None:
    # tests/unit/<folder>/test_<module>.py or test_<module>_<aspect>.py, the folder being the
    # last part of the package's name.
    strays = []
    for path in UNIT.rglob("test_*.py"):
        folder = path.parent.name
        subject = path.stem.removeprefix("test_")
        package = FOLDERS.get(folder, folder)
        siblings = {module.stem for module in source_modules() if module.package.split(".")[-1] == package}
        if not any(subject == stem or subject.startswith(stem + "_") for stem in siblings):
            strays.append(str(path.relative_to(ROOT)))
    assert strays == [], "no module of that name in the package of that name"


def test_every_module_is_imported_by_some_test() -> None:
    imported: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        imported |= imported_names(path)
    reached = {module.name for module in source_modules() if module.name in imported}
    # A module counts as tested when a test reaches it through one that re-exports it.
    frontier = set(reached)
    by_name = {module.name: module for module in source_modules()}
    while frontier:
        frontier = {
            name
            for found in frontier
            for name in imported_names(by_name[found].path)
            if name in by_name and name not in reached
        }
        reached |= frontier
    packages = {module.package for module in source_modules()}
    untested = set(by_name) - reached - packages - set(TESTED_ELSEWHERE)
    assert untested == set()


def test_no_relative_path_escapes_the_tree() -> None:
    assert all(module.path.is_relative_to(ROOT) for module in source_modules())
