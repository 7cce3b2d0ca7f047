"""The manifests and the Dockerfile of examples/kubernetes, read for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "kubernetes"
FILES = tuple(sorted((EXAMPLE / "manifests").glob("*.yaml")))

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Return every document of every file."""
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def manifest(kind: str, name: str) -> Manifest:
    """Return one of them."""
    [found] = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def workloads() -> list[Manifest]:
    """Return those that make pods."""
    return [each for each in manifests() if "template" in each.get("spec", {})]


def pod(workload: Manifest) -> Manifest:
    """Return the spec of a workload's pods."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    """Return a pod's only container."""
    [only] = pod(workload)["containers"]
    found: Manifest = only
    return found


def options(workload: Manifest) -> dict[str, str]:
    """Return the arguments of the form ``--name=value``."""
    return dict(word.split("=", 1) for word in container(workload)["args"] if "=" in word)


class Image:
    """What the Dockerfile says about one target, that of its base images included."""

    def __init__(self, target: str) -> None:
        self.lines = [line for stage in _stages_of(target) for line in stage]

    def values(self, instruction: str) -> list[str]:
        """Return what follows an instruction, in order."""
        return [rest for word, rest in self.lines if word == instruction]

    @property
    def command(self) -> list[str]:
        """What it runs when nothing else is said."""
        command: list[str] = json.loads(self.values("CMD")[-1])
        return command


def copied() -> set[str]:
    """Return every path of the repository that an image needs."""
    return {
        source
        for word, rest in _instructions()
        if word == "COPY"
        for source in rest.split()[:-1]
        if not source.startswith("--")
    }


def _instructions() -> Iterator[tuple[str, str]]:
    text = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def _stages_of(target: str) -> list[list[tuple[str, str]]]:
    stages: dict[str, list[tuple[str, str]]] = {}
    bases: dict[str, str] = {}
    for word, rest in _instructions():
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            bases[name], stages[name] = base, []
        else:
            stages[name].append((word, rest))
    chain = []
    while target in stages:
        chain.append(stages[target])
        target = bases[target]
    return chain[::-1]
