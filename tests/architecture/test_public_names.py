"""The public surface is a checked-in list, so every addition is seen in review."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest

PUBLIC_MODULES = ("statefun_sdk", "statefun_sdk.testing", "statefun_ray", "statefun_ray.testing")
NAMES_FILE = Path(__file__).with_name("public_names.txt")


def checked_in_names() -> dict[str, list[str]]:
    """Module -> names, from lines ``module: name``."""
    names: dict[str, list[str]] = {module: [] for module in PUBLIC_MODULES}
    for line in NAMES_FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            module, _, name = line.partition(": ")
            names[module].append(name)
    return names


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_public_names_are_the_checked_in_ones(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert sorted(module.__all__) == sorted(checked_in_names()[module_name]), (
        f"the public names of {module_name} changed; if that is meant, change {NAMES_FILE.name} "
        "and add a file to changelog.d"
    )


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_every_public_name_can_be_had(module_name: str) -> None:
    module = importlib.import_module(module_name)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_everything_a_function_author_needs_comes_from_statefun_ray() -> None:
    names = checked_in_names()
    assert set(names["statefun_sdk"]) - {"__version__"} <= set(names["statefun_ray"]) | {
        name for name in names["statefun_sdk"] if name.endswith("Error")
    }
