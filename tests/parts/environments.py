"""The official SDKs, unmodified, each in an environment of its own, made once and kept.

They cannot live in ours: both Python SDKs install the package ``statefun``, and Apache's wants a
protobuf that nothing else here can use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

APACHE = ("apache-flink-statefun==3.3.0", "protobuf==6.33.1", "aiohttp==3.13.2")
"""Apache's SDK without its own pin of protobuf, which has no fast build for this Python."""

FORK = ("flink-statefun==3.5.0", "protobuf==6.33.1", "aiohttp==3.13.2")

JS = {"apache-flink-statefun": "3.3.0", "google-protobuf": "3.21.4"}

INSTALL_S = 240


def cache_folder() -> Path:
    """Return where environments are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "statefun-ray" / "parts"


def python_with(*packages: str) -> Path:
    """Return a Python interpreter that has ``packages``; the first without its dependencies."""
    folder = _folder("python", *packages)
    with _made_once(folder) as is_made:
        if not is_made:
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [
                str(folder / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            _run([*pip, "--no-deps", packages[0]])
            _run([*pip, *packages[1:]])
    return folder / "bin" / "python"


def node_with(packages: dict[str, str]) -> tuple[Path, Path]:
    """Return Node and a folder with ``packages``; skips the test where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed, so the official JavaScript SDK cannot run")
    folder = _folder("node", *(f"{name}@{version}" for name, version in packages.items()))
    with _made_once(folder) as is_made:
        if not is_made:
            folder.mkdir(parents=True, exist_ok=True)
            wanted = [f"{name}@{version}" for name, version in packages.items()]
            _run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", *wanted])
    return Path(node), folder


def _folder(kind: str, *wanted: str) -> Path:
    digest = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()[:12]
    return cache_folder() / f"{kind}-{digest}"


@contextmanager
def _made_once(folder: Path) -> Iterator[bool]:
    """Tell whether the environment is there; what is made inside is kept if nothing is raised."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            yield True
            return
        shutil.rmtree(folder, ignore_errors=True)
        yield False
        done.touch()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
