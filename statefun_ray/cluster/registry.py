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
from typing import Final

RESERVED: Final = frozenset({"ray-token", "running"})
"""What lies in `home` beside the folders of applications: none can be called so."""


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
        started: when that program was, as `started_of` says: a pid alone may be another program's by now,
            and in a container every program is process 1.
    """

    name: str
    address: str
    pid: int
    local: bool
    url: str
    storage: str
    started: str = ""


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
    if note.local and not _is_alive(note):
        return None
    return note


def notes() -> list[Note]:
    """Return every note that is still true, by name."""
    names = sorted(path.stem for path in (home() / "running").glob("*.json"))
    return [note for name in names if (note := read_note(name)) is not None]


def wait_gone(note: Note, timeout_s: float) -> bool:
    """Wait for the end of the program that started an application; return whether it came."""
    deadline = time.monotonic() + timeout_s
    while _is_alive(note):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def forget(name: str) -> None:
    """Remove the note on an application that has ended."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return home() / "running" / (re.sub(r"[^a-z0-9-]", "_", name) + ".json")


def started_of(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; empty where that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # Behind the name, which may hold anything, comes field 3; the start is field 22.
    return stat.rpartition(")")[2].split()[19]


def _is_alive(note: Note) -> bool:
    try:
        os.kill(note.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not note.started or note.started == started_of(note.pid)
