"""Before anything is started: the ingress logs that a storage knows of, and the one that is at hand.

A registration says that its log may hold events which no snapshot has read. The ingress takes it back
when it closes a log that was read to its end; after a crash that shows only in the log itself. A log
that is needed and not at hand is named, with what is known of it, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from statefun_checkpoints.commit_log import LogReader
from statefun_checkpoints.errors import JobMismatch, NoApplication
from statefun_checkpoints.layout import INGRESS_PREFIX, ORIGIN, ingress_path, parse_ingress
from statefun_checkpoints.model import Entry
from statefun_checkpoints.retention import trim_positions
from statefun_checkpoints.store import ObjectStore, run_store
from statefun_ingress.errors import LogError, LogLocked
from statefun_ingress.log import IngressLog
from statefun_ingress.look import held_log, log_id_in
from statefun_ray.core.splits import is_log
from statefun_sdk.errors import StateFunError

HELD: Final = "a living process has it open"
"""What is said of a log that somebody serves."""


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A registered ingress log.

    Attributes:
        log_id: of the log.
        node, directory: where it was when it was registered; empty if that cannot be read.
        next_seq: everything below is in the newest snapshot.
    """

    log_id: str
    node: str
    directory: str
    next_seq: int

    def look(self, stack: contextlib.ExitStack) -> tuple[int | None, str]:
        """Look for the log where it was, on this machine, and hold it until ``stack`` is left.

        Returns:
            Its end, None if that is not known; and what is to be said of its events.
        """
        try:
            if self.directory and log_id_in(self.directory) == self.log_id:
                log: IngressLog = stack.enter_context(held_log(self.directory))
                unread = max(0, log.end_seq - self.next_seq)
                if not unread:
                    return log.end_seq, "all its events are in the newest snapshot"
                return log.end_seq, (
                    f"{unread:,} accepted {'event is' if unread == 1 else 'events are'} in it and in no snapshot, "
                    f"from sequence {self.next_seq} to {log.end_seq - 1}"
                )
        except LogLocked:
            return None, HELD
        except (LogError, OSError) as error:
            return None, f"it cannot be read there: {error}"
        return None, (
            f"events in it from sequence {self.next_seq} on, if any were accepted, are in no snapshot"
            if self.next_seq
            else "events in it, if any were accepted, may be in no snapshot"
        )

    @property
    def where(self) -> str:
        """The folder it was in."""
        return f"{self.directory or 'a folder that is not known'}{f' on {self.node}' if self.node else ''}"


class LogsMissing(StateFunError):
    """A storage knows of ingress logs that are not in the folder given.

    Args:
        name: of the application.
        storage: URI of the storage.
        log_dir: the folder given.
        found: id of the log in it; empty if there is none.
        missing: by log, the folder where it was, its machine too, and what is known of its events.
    """

    def __init__(
        self,
        name: str,
        storage: str,
        log_dir: str,
        found: str,
        missing: tuple[tuple[str, str, str, str], ...],
    ) -> None:
        super().__init__(name, storage, log_dir, found, missing)
        self.name, self.storage, self.log_dir, self.found, self.missing = (
            name,
            storage,
            log_dir,
            found,
            missing,
        )

    def __str__(self) -> str:
        holds = f"log {self.found}" if self.found else "no log"
        lines = "".join(
            f"\n  - ingress log {log_id}, which was in {where}: {events}"
            for log_id, _, where, events in self.missing
        )
        log_id, directory, where, _ = self.missing[0]
        advice = (
            f"start with --log-dir {directory}, on the machine that has it" if directory else f"find {where}"
        )
        advice += f"; a log that is gone for good is given up with: statefun-ray logs {self.storage} --give-up {log_id}"
        if any(events == HELD for *_, events in self.missing):
            advice = (
                "an application runs on this storage: end that one, or give this one a --storage of its own"
            )
        return (
            f"{self.name} is not started, and nothing was changed: {self.log_dir} holds {holds}, and the storage "
            f"{self.storage} needs{lines}\n{advice}"
        )


class LogNeeded(StateFunError):
    """A log that was to be given up is in use."""

    def __init__(self, log_id: str, directory: str) -> None:
        super().__init__(log_id, directory)
        self.log_id, self.directory = log_id, directory

    def __str__(self) -> str:
        return (
            f"ingress log {self.log_id} in {self.directory} is not given up: a living process has it open; "
            "stop that application, and start again with this --log-dir"
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a start goes on from.

    Attributes:
        newest: the newest snapshot, None if there is none.
        is_new_log: the folder has no log that the snapshot has read from, and there was another one.
    """

    newest: Entry | None
    is_new_log: bool


def known_logs(store: ObjectStore) -> tuple[str, Entry | None, list[KnownLog]]:
    """Return the application in a storage, its newest snapshot, and the registered ingress logs. Reads only.

    Raises:
        CheckpointError: something that is needed for it is damaged.
        StoreError: the store did not answer.
    """
    log = LogReader()
    try:
        name = run_store(store, log.open()).name
        newest = run_store(store, log.latest_snapshot())
    except NoApplication:
        name, newest = "", None
    positions = trim_positions([newest] if newest is not None else [])
    found = []
    for path in store.list(INGRESS_PREFIX):
        log_id = parse_ingress(path)
        if log_id is None:
            continue
        said = _texts(store.get(path))
        found.append(
            KnownLog(log_id, said.get("node", ""), said.get("directory", ""), positions.get(log_id, 0))
        )
    return name, newest, found


def adopt(store: ObjectStore, log_dir: str, name: str) -> Adoption:
    """See that a start with ``log_dir`` finds every log that it needs.

    A registered log that is elsewhere on this machine and was read to its end is not needed, and is
    forgotten; otherwise nothing is changed. Blocking.

    Raises:
        LogsMissing: another log is needed.
        LogLocked: a live process has the log in ``log_dir`` open.
        CorruptLog: that log cannot be read.
        CheckpointsError: the storage belongs to another application, or does not read.
    """
    stored_name, newest, known = known_logs(store)
    if stored_name not in ("", name):
        raise JobMismatch("name", stored_name, name)
    found = log_id_in(log_dir) if Path(log_dir).is_dir() else None
    missing: list[tuple[str, str, str, str]] = []
    with contextlib.ExitStack() as stack:
        read: list[str] = []
        for log in known:
            if log.log_id == found:
                continue
            end_seq, events = log.look(stack)
            if end_seq is not None and end_seq <= log.next_seq:
                read.append(log.log_id)
            else:
                missing.append((log.log_id, log.directory, log.where, events))
        if missing:
            raise LogsMissing(name, store.uri, log_dir, found or "", tuple(missing))
        # While the logs are held: nobody accepts anything in them meanwhile.
        for log_id in read:
            store.delete(ingress_path(log_id))
    read_before = (
        {row.log_id for row in newest.positions if is_log(row.log_id)} if newest is not None else set()
    )
    return Adoption(newest, bool(read_before) and found not in read_before)


def give_up(store: ObjectStore, log: KnownLog) -> str:
    """Forget a registered log, and return what that means. The log itself is left as it is.

    Raises:
        LogNeeded: a living process on this machine accepts events in it.
        StoreError: the store did not answer; it may be forgotten.
    """
    with contextlib.ExitStack() as stack:
        end_seq, events = log.look(stack)
        if end_seq is None and events == HELD:
            raise LogNeeded(log.log_id, log.directory)
        store.delete(ingress_path(log.log_id))
    return (
        f"ingress log {log.log_id}, which was in {log.where}, is given up: {events}.\n"
        f"Should it turn up, a start with its folder as --log-dir goes on in it at sequence {log.next_seq}."
    )


def last_origin(store: ObjectStore) -> str:
    """Return where the program came from that started the application last; empty if nobody has said so."""
    return _texts(store.get(ORIGIN)).get("origin", "")


def note_origin(store: ObjectStore, origin: str) -> None:
    """Say where the program comes from that has started the application."""
    store.put(ORIGIN, json.dumps({"format": 1, "origin": origin}, indent=1).encode())


def _texts(data: bytes | None) -> dict[str, str]:
    try:
        found = json.loads(data or b"")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}
