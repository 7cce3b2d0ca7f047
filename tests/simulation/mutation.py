"""Runs the simulator on production code of which one line has been changed.

The change happens on import, in a forked process, so the files stay as they are and nothing
else notices. The harness knows nothing of the mutants: those are listed in ``mutants``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "sdk", ROOT / "ingress", ROOT / "checkpoints")
SEEDS_MAX = 2_000
OURS = ("statefun_",)


class Mutant(NamedTuple):
    """A one-line change that breaks the product.

    Attributes:
        name: what is forgotten, as a test id.
        file: relative to the root of the repository.
        line: the text to replace; as much around the changed line as makes it unique.
        changed: what replaces it; differs in one line.
        harm: what goes wrong because of it.
        start: the seed to begin with; the runner wraps around, so a mutant that no seed kills
            survives all the same.
    """

    name: str
    file: str
    line: str
    changed: str
    harm: str
    start: int = 0


class Verdict(NamedTuple):
    """What the simulator found. ``seed`` is None for a survivor."""

    name: str
    seed: int | None
    tried: int
    problem: str
    seconds: float


def mutated_source(mutant: Mutant) -> str:
    """Return the file's source with the mutant's change.

    Raises:
        ValueError: the line is not there exactly once.
    """
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    count = source.count(mutant.line)
    if count != 1:
        raise ValueError(f"mutant {mutant.name}: its line is {count} times in {mutant.file}, expected once")
    return source.replace(mutant.line, mutant.changed)


def module_name(file: str) -> str:
    """Return the module that lives in ``file``."""
    path = ROOT / file
    base = max((root for root in SOURCES if path.is_relative_to(root)), key=lambda root: len(root.parts))
    return ".".join(path.relative_to(base).with_suffix("").parts)


class _MutatingLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._module = module_name(mutant.file)
        self._path = str(ROOT / mutant.file)
        self._source = mutated_source(mutant)

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Take over the import of one module."""
        if fullname != self._module:
            return None
        loader: Loader = _MutatingLoader(fullname, self._path, self._source)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def hunt(mutant: Mutant | None, seeds: int = SEEDS_MAX) -> Verdict:
    """Import the product with the mutant in it and run seeds until one fails.

    To be called once, in a process that has imported nothing of ours.
    """
    imported = [name for name in sys.modules if name.startswith(OURS)]
    assert not imported, f"imported too early: {imported}"
    logging.disable(logging.CRITICAL)
    sys.path[:0] = [str(root) for root in SOURCES]
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    began_s = time.monotonic()
    start = mutant.start if mutant is not None else 0
    name = mutant.name if mutant is not None else "none"
    seed: int | None = None
    tried = 0
    problem = ""
    try:
        from statefun_ray.testing.simulator import Simulation

        while tried < seeds and not problem:
            seed = (start + tried) % seeds
            tried += 1
            found = Simulation(seed).run()
            problem = found[0] if found else ""
    except NameError as error:
        # It would "be found" for its own mistake, whatever the simulator does.
        raise ValueError(f"mutant {name} is no program: {error}") from error
    except BaseException as error:  # whatever else the mutant leads to counts as found
        if isinstance(error, AttributeError) and error.obj is not None:
            raise ValueError(f"mutant {name} is no program: {error}") from error
        where = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}:{where.lineno})"
    seconds = time.monotonic() - began_s
    return Verdict(
        name, seed if problem else None, tried, problem.splitlines()[0] if problem else "", seconds
    )


def hunt_all(mutants: Iterable[Mutant], seeds: int = SEEDS_MAX, jobs: int = 2) -> Iterator[Verdict]:
    """Hunt every mutant in a fork of its own, ``jobs`` at a time; yield verdicts as they come.

    This process must have imported nothing of ours and must have no threads: a fork of one that
    has can wait for a lock that nobody holds any more.
    """
    running: dict[int, tuple[Mutant, int]] = {}
    waiting = list(mutants)[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                pid, reader = _fork(mutant, seeds)
                running[pid] = (mutant, reader)
            pid, _ = os.wait()
            mutant, reader = running.pop(pid)
            with os.fdopen(reader, encoding="utf-8") as pipe:
                answer = pipe.read()
            if not answer:
                raise RuntimeError(f"the hunt for {mutant.name} died; run it alone to see why")
            name, seed, tried, problem, seconds = answer.split("\0")
            yield Verdict(name, None if seed == "None" else int(seed), int(tried), problem, float(seconds))
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _fork(mutant: Mutant, seeds: int) -> tuple[int, int]:
    """Begin a hunt; return the process and where its verdict, far smaller than a pipe, can be read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        verdict = hunt(mutant, seeds)
        fields = (
            verdict.name,
            verdict.seed,
            verdict.tried,
            verdict.problem[:1_000],
            f"{verdict.seconds:.3f}",
        )
        os.write(writer, "\0".join(map(str, fields)).encode())
    except BaseException:  # noqa: BLE001 - nothing may get out of the fork
        traceback.print_exc()
    finally:
        os._exit(0)
