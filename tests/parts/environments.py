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

SOURCE = "STATEFUN_SOURCE"
"""Names a checkout of Apache's repository (flink-statefun, 3.3.0), for the Java and Go SDKs: neither is in a
registry that every machine of ours reaches. Debian has what else they take: openjdk-17-jdk-headless,
protobuf-compiler, libprotobuf-java and libgoogle-gson-java; golang-go and golang-google-protobuf-dev."""

JAVA_LIBRARIES = Path("/usr/share/java/protobuf.jar"), Path("/usr/share/java/gson.jar")
JAVA_SERVING = Path(__file__).parent / "services" / "java" / "Serving.java"
GO_LIBRARIES = Path("/usr/share/gocode/src/google.golang.org/protobuf")

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


def source_checkout() -> Path | None:
    """Return the checkout of Apache's repository, None without one."""
    source = os.environ.get(SOURCE)
    return Path(source).resolve() if source else None


def java_with(service: Path) -> list[str]:
    """Return a command that runs a Java file with Apache's SDK, built from its sources.

    Their build moves protobuf into a package of the SDK's own; here the code names it where it is.
    """
    source = source_checkout()
    assert source is not None, f"{SOURCE} is not set"
    for library in JAVA_LIBRARIES:
        assert library.exists(), f"{library} is missing: apt-get install libprotobuf-java libgoogle-gson-java"
    libraries = ":".join(map(str, JAVA_LIBRARIES))
    shaded = "org/apache/flink/statefun/sdk/shaded"
    sdk = source / "statefun-sdk-java/src/main/java"
    protobuf = source / "statefun-shaded/statefun-protobuf-shaded/src/main/java" / shaded
    protos = source / "statefun-sdk-protos/src/main/protobuf"
    folder = _folder("java", str(source), service.read_text(), JAVA_SERVING.read_text())
    with _made_once(folder) as is_made:
        if not is_made:
            for root in (sdk, protobuf):
                for file in root.rglob("*.java"):
                    copy = folder / "source" / file.relative_to(root)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_text(file.read_text().replace(shaded.replace("/", ".") + ".", ""))
            generated = [str(file) for file in protos.rglob("*.proto")]
            _run(["protoc", f"-I{protos}", f"--java_out={folder / 'source'}", *generated])
            sources = [str(file) for file in (folder / "source").rglob("*.java")]
            classes = ["-d", str(folder / "classes"), "-cp", libraries]
            _run(["javac", "-nowarn", *classes, *sources, str(JAVA_SERVING), str(service)])
    return ["java", "-cp", f"{folder / 'classes'}:{libraries}", service.stem]


def go_with(service: Path) -> list[str]:
    """Return a command that runs a Go file with Apache's SDK, built from its sources."""
    source = source_checkout()
    assert source is not None, f"{SOURCE} is not set"
    assert GO_LIBRARIES.exists(), f"{GO_LIBRARIES} is missing: apt-get install golang-google-protobuf-dev"
    folder = _folder("go", str(source), service.read_text())
    with _made_once(folder) as is_made:
        if not is_made:
            package = folder / "src/github.com/apache/flink-statefun/statefun-sdk-go"
            shutil.copytree(source / "statefun-sdk-go", package)
            paths = {"GOPATH": f"{folder}:{GO_LIBRARIES.parents[2]}", "GO111MODULE": "off", "GOFLAGS": ""}
            _run(["go", "build", "-o", str(folder / service.stem), str(service)], paths)
    return [str(folder / service.stem)]


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


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
