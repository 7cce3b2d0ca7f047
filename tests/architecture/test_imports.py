"""Who may import whom. import-linter proves the graph; these read the files themselves,
so an import inside a function counts as well."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.source_tree import (
    PACKAGES,
    ROOT,
    contract,
    imported_names,
    imports_any_of,
    source_modules,
    tracked_files,
)

PICKLES = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"})


def test_only_the_cluster_driver_imports_ray() -> None:
    offenders = {
        module.name: found
        for module in source_modules()
        if not module.name.startswith("statefun_ray.cluster")
        and (found := imports_any_of(module.path, frozenset({"ray"})))
    }
    assert offenders == {}


def test_pure_modules_import_nothing_that_touches_the_world() -> None:
    assert _offenders("pure") == {}


def test_the_core_does_not_know_the_sdk() -> None:
    assert _offenders("core-sdk") == {}


def _offenders(identifier: str) -> dict[str, list[str]]:
    """What modules of a contract import all the same."""
    rule = contract(identifier)
    forbidden = frozenset(rule["forbidden_modules"])
    return {
        module.name: found
        for module in source_modules()
        if any(module.name == name or module.name.startswith(name + ".") for name in rule["source_modules"])
        and (found := imports_any_of(module.path, forbidden))
    }


def test_every_module_named_in_a_contract_exists() -> None:
    existing = {module.name for module in source_modules()}
    missing = {name for name in contract("pure")["source_modules"] if name not in existing}
    assert missing == set()


def test_the_three_lower_packages_know_neither_each_other_nor_the_runtime() -> None:
    offenders = {}
    for module in source_modules():
        own = module.name.split(".")[0]
        if own == "statefun_ray":
            continue
        others = frozenset(PACKAGES) - {own}
        if found := imports_any_of(module.path, others):
            offenders[module.name] = found
    assert offenders == {}


def test_the_sdk_needs_protobuf_and_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "google", "statefun_sdk"}
    offenders = {}
    for module in source_modules():
        if module.name.split(".")[0] == "statefun_sdk":
            roots = {name.split(".")[0] for name in imported_names(module.path)}
            if roots - allowed:
                offenders[module.name] = sorted(roots - allowed)
    assert offenders == {}


def test_nothing_is_pickled() -> None:
    python_files = [path for path in tracked_files() if path.suffix == ".py"]
    offenders = {
        str(path.relative_to(ROOT)): found
        for path in python_files
        if (found := imports_any_of(path, PICKLES)) and "tests" not in path.parts
    }
    assert offenders == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("statefun_sdk", {"ray", "pyarrow", "msgspec", "xxhash", "asyncio"}),
        ("statefun_ray", {"ray", "pyarrow", "statefun_sdk", "asyncio"}),
        ("statefun_ray.core", {"ray", "pyarrow", "statefun_sdk"}),
        ("statefun_checkpoints", {"ray", "pyarrow", "s3fs"}),
        ("statefun_ingress", {"ray", "pyarrow", "fastapi"}),
    ],
)
def test_importing_a_package_stays_light(module: str, unwanted: set[str]) -> None:
    folders = [str(folder) for folder in PACKAGES.values()]
    program = f"import sys; sys.path[:0] = {folders!r}; import {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert unwanted & set(loaded) == set()
