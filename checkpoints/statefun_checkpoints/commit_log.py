"""The commit log: numbered, create-once objects that are the only authority. Pure.

*Claiming* a generation and *committing* a snapshot are the same move: create the next slot if
absent. Whoever creates slot k owns k; everyone else sees it taken. So

- generations never decrease along the log, and after a claim of g+1 nothing of g can be
  committed any more: its owner runs into the claim's slot and stops;
- an owner knows that nobody else committed since its own last entry, without locks or leases.

The store may fail to answer, and then the write may or may not have happened. We never guess:
the slot is read again and the nonce tells ours from another's (`_create`). Should slots ever be
deleted, a stalled writer could re-create an old one; so after winning a slot the owner lists
what lies behind it, and anything there means that it is stale (`_stale`).

Methods are generators of store requests (`store_requests`), so this one class runs on a file
system, on S3 and in the simulator. No clock or chance inside: time and nonces are arguments.
After any exception out of `claim` or `commit` the outcome is unknown: drop the log, open anew.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from statefun_checkpoints import entry_format, layout
from statefun_checkpoints.errors import (
    CheckpointError,
    ClaimContended,
    JobMismatch,
    MissingEntry,
    NoApplication,
    StoreUnavailable,
)
from statefun_checkpoints.model import Entry, Job
from statefun_checkpoints.store_requests import Create, Get, List, StoreRequest, StoreSteps

ATTEMPTS_MAX = 5  # of one request, or of creating one slot, without a definite answer
CLAIMS_MAX = 16  # slots lost in a row while claiming; each was won by another coordinator


class Committed(msgspec.Struct, frozen=True):
    """The entry is in the log: effects that depend on it may happen."""

    entry: Entry


class Fenced(msgspec.Struct, frozen=True):
    """Another owner has been here: stop before any effect.

    Attributes:
        by: the entry that says so.
    """

    by: Entry


Outcome: TypeAlias = Committed | Fenced


class LogReader:
    """Reads a commit log. Writes nothing, so any number may look on.

    Attributes:
        job: what job.json says; set by `open`.
        first_slot: where slots start.
        newest_slot: the last slot known, ``first_slot - 1`` in an empty log.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        self.first_slot = 0
        self.newest_slot = -1

    def open(self) -> StoreSteps[Job]:
        """Read job.json and the boundary, and find the newest slot.

        Raises:
            NoApplication: there is no job.json.
            CorruptEntry, UnsupportedFormat: job.json or boundary.json cannot be read.
        """
        data = yield from self._ask(Get(layout.JOB))
        if data is None:
            raise NoApplication("")
        self.job = entry_format.decode_job(data, layout.JOB)
        yield from self._find_newest()
        return self.job

    def refresh(self) -> StoreSteps[int]:
        """Look for slots behind the newest known and return the newest."""
        names = yield from self._names_behind(self.newest_slot)
        self.newest_slot = max((_slot_of(name) for name in names), default=self.newest_slot)
        return self.newest_slot

    def read(self, slot: int) -> StoreSteps[Entry]:
        """Return the entry at ``slot``.

        Raises:
            MissingEntry: the slot is empty.
            CorruptEntry, UnsupportedFormat: it cannot be read.
        """
        path = layout.slot_path(slot)
        data = yield from self._ask(Get(path))
        if data is None:
            raise MissingEntry(
                path, f"the commit log, which reaches from slot {self.first_slot} to {self.newest_slot},"
            )
        return entry_format.decode_entry(data, path)

    def entries(self, *, before: int | None = None, count: int) -> StoreSteps[list[Entry | CheckpointError]]:
        """Return up to ``count`` entries, newest first; an unreadable one as its error.

        Args:
            before: start below this slot; at the newest by default.
            count: how many at most, unreadable ones included.
        """
        start = self.newest_slot if before is None else before - 1
        found: list[Entry | CheckpointError] = []
        for slot in range(start, max(start - count, self.first_slot - 1), -1):
            try:
                found.append((yield from self.read(slot)))
            except CheckpointError as error:
                found.append(error)
        return found

    def workers_since(self, slot: int) -> StoreSteps[int]:
        """Return the largest number of workers of any generation from ``slot`` on.

        So many may still be running somewhere without knowing that they were replaced.

        Raises:
            CorruptEntry, MissingEntry: an entry cannot be read.
        """
        largest = 0
        for number in range(max(slot, self.first_slot), self.newest_slot + 1):
            largest = max(largest, (yield from self.read(number)).worker_count)
        return largest

    def latest_snapshot(self) -> StoreSteps[Entry | None]:
        """Return the newest entry one can restore from, None if there is none.

        Raises:
            CorruptEntry, MissingEntry: an entry at or above it cannot be read. Falling back to an
                older one is a decision for a person: outputs may have gone beyond it.
        """
        for slot in range(self.newest_slot, self.first_slot - 1, -1):
            entry = yield from self.read(slot)
            if entry.is_snapshot:
                return entry
        return None

    def _find_newest(self) -> StoreSteps[None]:
        """Find the newest slot with a few small reads, however long the log.

        Slots have no gaps, so "folder f holds its first slot" is true up to the newest folder and
        false after: gallop, then bisect, then list from that folder on. A plain LIST of the log would
        grow with the application's age.
        """
        data = yield from self._ask(Get(layout.BOUNDARY))
        if data is not None:
            self.first_slot = entry_format.decode_boundary(data, layout.BOUNDARY).first_slot
        low = self.first_slot // layout.SLOTS_PER_FOLDER
        step = 1
        while (yield from self._folder_begun(low + step)):
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if (yield from self._folder_begun(middle)):
                low = middle
            else:
                high = middle
        # From there on, and not that folder alone: a lost first slot must not look like the end.
        names = yield from self._names_behind(low * layout.SLOTS_PER_FOLDER - 1)
        self.newest_slot = max(map(_slot_of, names), default=self.first_slot - 1)

    def _folder_begun(self, folder: int) -> StoreSteps[bool]:
        data = yield from self._ask(Get(layout.slot_path(folder * layout.SLOTS_PER_FOLDER)))
        return data is not None

    def _names_behind(self, slot: int) -> StoreSteps[list[str]]:
        start_after = layout.slot_path(slot) if slot >= 0 else ""
        names: list[str] = yield from self._ask(List(layout.LOG_PREFIX, start_after))
        return names

    def _ask(self, request: StoreRequest) -> StoreSteps[Any]:
        """Make a request that changes nothing, a few times if there is no answer."""
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return (yield request)
            except StoreUnavailable:
                continue
        return (yield request)


def _slot_of(path: str) -> int:
    slot = layout.parse_slot(path)
    return -1 if slot is None else slot  # a stranger's object among ours decides nothing


class CommitLog(LogReader):
    """The log as its writer sees it. One per attempt to run the application.

    Call order: `open`, `claim`, then read what to restore, then `commit` as often as wanted.
    What to restore must be read *after* the claim: until then an older owner may still commit.

    Attributes:
        generation: the highest seen; after `claim`, ours.
    """

    def __init__(self, application: Job) -> None:
        """Args:
        application: what job.json must say; it is created if there is none yet.
        """
        super().__init__()
        self.application = application
        self.generation = 0

    def open(self) -> StoreSteps[Job]:
        """Create job.json or check it, and find the newest slot.

        Raises:
            JobMismatch: the storage belongs to an application set up differently.
            CorruptEntry, UnsupportedFormat: job.json or boundary.json cannot be read.
            StoreUnavailable: no answer, several times.
        """
        found = yield from self._create(layout.JOB, entry_format.encode(self.application))
        self.job = entry_format.decode_job(found, layout.JOB)
        for field in ("name", "key_group_count", "egress_shards", "key_hash"):
            ours, theirs = getattr(self.application, field), getattr(self.job, field)
            if ours != theirs:
                raise JobMismatch(field, str(theirs), str(ours))
        yield from self._find_newest()
        return self.job

    def claim(self, nonce: str, now_ms: int, worker_count: int = 0) -> StoreSteps[Entry]:
        """Begin the next generation and return its claim.

        Every older owner is fenced from here on. What an older owner committed before is in the
        log below the claim.

        Args:
            nonce: unique to this call.
            now_ms: wall clock, recorded for people.
            worker_count: of the generation; 0 if it will have none.

        Raises:
            ClaimContended: others kept winning.
            CorruptEntry, MissingEntry: the newest entry cannot be read, so its generation is unknown.
            StoreUnavailable: no answer, several times; the claim may stand.
        """
        for _ in range(CLAIMS_MAX):
            yield from self.refresh()
            if self.newest_slot >= self.first_slot:
                newest = yield from self.read(self.newest_slot)
                self.generation = max(self.generation, newest.generation)
            outcome = yield from self._append(
                Entry(
                    kind="claim",
                    slot=self.newest_slot + 1,
                    generation=self.generation + 1,
                    nonce=nonce,
                    created_at_ms=now_ms,
                    worker_count=worker_count,
                )
            )
            if isinstance(outcome, Committed):
                self.generation = outcome.entry.generation
                return outcome.entry
        raise ClaimContended(CLAIMS_MAX, self.newest_slot + 1)

    def commit(self, body: Entry, nonce: str) -> StoreSteps[Outcome]:
        """Make a snapshot exist, or learn that another owner has taken over.

        Args:
            body: the entry; its slot, generation and nonce are filled in here.
            nonce: unique to this call.

        Returns:
            `Committed` with the entry as it stands in the log, or `Fenced`. After `Fenced` this
            log has nothing more to say: stop.

        Raises:
            StoreUnavailable: no answer, several times. The entry may stand: treat it as fenced and
                let the next generation find out.
            CorruptEntry, UnsupportedFormat: what sits in the slot cannot be read.
        """
        assert body.is_snapshot, "a claim is not committed but claimed"
        slot = self.newest_slot + 1
        return (
            yield from self._append(
                msgspec.structs.replace(body, slot=slot, generation=self.generation, nonce=nonce)
            )
        )

    def _append(self, entry: Entry) -> StoreSteps[Outcome]:
        path = layout.slot_path(entry.slot)
        data = yield from self._create(path, entry_format.encode(entry))
        found = entry_format.decode_entry(data, path)
        if found.nonce != entry.nonce:
            return Fenced(found)
        newer = yield from self._stale(entry.slot)
        if newer is not None:
            return Fenced(newer)
        self.newest_slot = entry.slot
        return Committed(found)

    def _create(self, path: str, data: bytes) -> StoreSteps[bytes]:
        """Create an object if absent and return what is there then: ``data``, or what came first.

        A missing answer proves nothing, and neither does "it exists" (an earlier try of ours may
        have arrived), so both end in reading. Absent after that means that the write did not
        happen *yet*; trying again is safe because both tries write the same bytes.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                if (yield Create(path, data)):
                    return data
            except StoreUnavailable:
                pass  # perhaps it was created; reading tells
            try:
                found: bytes | None = yield Get(path)
            except StoreUnavailable:
                continue
            if found is not None:
                return found
        raise StoreUnavailable(path, "create", f"no definite answer in {ATTEMPTS_MAX} attempts")

    def _stale(self, slot: int) -> StoreSteps[Entry | None]:
        """Return the newest entry behind ``slot``, None if there is none, as it should be."""
        names = yield from self._names_behind(slot)
        newest = max(map(_slot_of, names), default=-1)
        return None if newest < 0 else (yield from self.read(newest))
