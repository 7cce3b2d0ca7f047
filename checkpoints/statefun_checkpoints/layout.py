"""Every object name, in one place. Pure.

::

    job.json                                     what is fixed for the application's life
    boundary.json                                where log slots start (absent: at 0)
    log/0000000042/0000000000000042017.json      slot 42017; a thousand slots to a folder
    data/g0000007/n0000000042/w003.delta.arrow   part of worker 3, snapshot 42, generation 7
    ingress/<log id>.json                        registration of an ingress log
    origin.json                                  where the program came from that started it last
    probe/<nonce>                                written and removed at start-up

Numbers are zero padded, so names sort as numbers do. A data name holds generation and
snapshot, so a process of an older generation can never overwrite a newer one's file.
"""

from __future__ import annotations

import re

import msgspec

from statefun_checkpoints.model import PartKind

JOB = "job.json"
BOUNDARY = "boundary.json"
ORIGIN = "origin.json"
LOG_PREFIX = "log/"
DATA_PREFIX = "data/"
INGRESS_PREFIX = "ingress/"
PROBE_PREFIX = "probe/"

SLOTS_PER_FOLDER = 1_000

_SLOT = re.compile(r"log/(\d{10})/(\d{19})\.json")
_PART = re.compile(r"data/g(\d{7,})/n(\d{10,})/w(\d{3,})\.(delta|base|transient)\.arrow")


def log_folder(slot: int) -> str:
    """Return the folder, ending in a slash, of the thousand slots around ``slot``."""
    return f"{LOG_PREFIX}{slot // SLOTS_PER_FOLDER:010d}/"


def slot_path(slot: int) -> str:
    """Return the name of commit-log entry ``slot``."""
    return f"{log_folder(slot)}{slot:019d}.json"


def parse_slot(path: str) -> int | None:
    """Return the slot of a commit-log entry's name, None for any other name."""
    match = _SLOT.fullmatch(path)
    if match is None or int(match[1]) != int(match[2]) // SLOTS_PER_FOLDER:
        return None
    return int(match[2])


def part_path(generation: int, snapshot: int, worker: int, kind: PartKind) -> str:
    """Return the name of the one file of its kind that ``worker`` writes for ``snapshot``."""
    return f"{DATA_PREFIX}g{generation:07d}/n{snapshot:010d}/w{worker:03d}.{kind}.arrow"


class PartName(msgspec.Struct, frozen=True):
    """A data object's name, taken apart."""

    generation: int
    snapshot: int
    worker: int
    kind: PartKind


def parse_part(path: str) -> PartName | None:
    """Take a data object's name apart; None for any other name."""
    match = _PART.fullmatch(path)
    if match is None:
        return None
    kind: PartKind = match[4]  # type: ignore[assignment]  # the pattern allows these words only
    return PartName(int(match[1]), int(match[2]), int(match[3]), kind)


def ingress_path(log_id: str) -> str:
    """Return the name of an ingress log's registration."""
    return f"{INGRESS_PREFIX}{log_id}.json"


def parse_ingress(path: str) -> str | None:
    """Return the log id of an ingress registration's name, None for any other name."""
    log_id = path.removeprefix(INGRESS_PREFIX).removesuffix(".json")
    return log_id if path == ingress_path(log_id) and log_id and "/" not in log_id else None


def probe_path(nonce: str) -> str:
    """Return the name of a start-up probe."""
    return f"{PROBE_PREFIX}{nonce}"
