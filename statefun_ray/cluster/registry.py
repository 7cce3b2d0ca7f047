"""Notes in the home directory: which applications were started from this machine, and where.

Only a convenience for ``status`` and ``stop`` in another shell: a Ray that an application started
for itself has an address nobody could guess. What is true is asked of the cluster.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Note:
    """Where an application was started.

    Attributes:
        name: of the application.
        address: of its Ray cluster.
        pid: of the program that started it.
        local: that program started the Ray cluster too, and takes it down when it ends.
        url: of its HTTP ingress.
        storage: of its snapshots.
    """

    name: str
    address: str
    pid: int
    local: bool
    url: str
    storage: str


def home() -> Path:
    """Return the folder for everything kept per user: ``$STATEFUN_RAY_HOME`` or ``~/.statefun-ray``."""
    return Path(os.environ.get("STATEFUN_RAY_HOME") or Path.home() / ".statefun-ray")


def write_note(note: Note) -> None:
    """Remember a started application."""
    path = _path(note.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(asdict(note), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_note(name: str) -> Note | None:
    """Return the note on ``name``; None if there is none that can be read or that is still true."""
    try:
        note = Note(**json.loads(_path(name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # none, or of another version: the cluster is asked anyway
    if note.local and not _is_alive(note.pid):
        return None
    return note


def notes() -> list[Note]:
    """Return every note that is still true, by name."""
    names = sorted(path.stem for path in (home() / "running").glob("*.json"))
    return [note for name in names if (note := read_note(name)) is not None]


def wait_gone(note: Note, timeout_s: float) -> bool:
    """Wait for the end of the program that started an application; return whether it came."""
    deadline = time.monotonic() + timeout_s
    while _is_alive(note.pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def forget(name: str) -> None:
    """Remove the note on an application that has ended."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return home() / "running" / (re.sub(r"[^a-z0-9-]", "_", name) + ".json")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
