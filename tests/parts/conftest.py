from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.environments import (
    APACHE,
    FORK,
    JS,
    go_with,
    java_with,
    node_with,
    python_with,
    source_checkout,
)
from tests.parts.processes import ServiceProcess

SERVICES = Path(__file__).parent / "services"

KINDS = ("ours", "apache", "fork", "js", *(("java", "go") if source_checkout() else ()))
"""Our SDK, Apache's Python SDK, its maintained fork, Apache's JavaScript SDK; Apache's Java and Go SDKs where
their sources are."""


def service_of(kind: str, log: Path) -> ServiceProcess:
    """Return a service of one kind, not started; ``ours-apart`` takes no requests that hold many."""
    if kind in ("ours", "ours-apart"):
        apart = {"STATEFUN_APART": "1"} if kind == "ours-apart" else None
        return ServiceProcess([sys.executable, str(SERVICES / "ours.py")], log, env=apart)
    if kind == "js":
        node, folder = node_with(JS)
        return ServiceProcess(
            [str(node), str(SERVICES / "official.js")], log, env={"NODE_PATH": str(folder / "node_modules")}
        )
    if kind == "java":
        return ServiceProcess(java_with(SERVICES / "java" / "Services.java"), log)
    if kind == "go":
        return ServiceProcess(go_with(SERVICES / "go" / "services.go"), log)
    python = python_with(*(APACHE if kind == "apache" else FORK))
    return ServiceProcess([str(python), str(SERVICES / "official.py")], log)


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceProcess]:
    """The same functions, served by each SDK."""
    made = service_of(request.param, tmp_path / "service.log")
    made.start()
    yield made
    made.kill()
