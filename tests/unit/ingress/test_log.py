"""One behaviour suite of the log: on files in memory that lose and tear, and on real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ingress.errors import CorruptLog, LogFailed, LogLocked, LogTrimmed
from statefun_ingress.files import OsLogFiles
from statefun_ingress.log import Appended, IngressLog, LogFiles, encode_events
from statefun_ingress.producers import Answer
from statefun_ingress.record import CHUNK_EVENTS_MAX, NO_PRODUCER, Events
from statefun_ingress.segment import META_NAME, segment_name
from tests.ingress.faulty_files import FaultyFiles


def events_of(count: int, text: str = "v") -> Events:
    events = Events.empty()
    for i in range(count):
        events.append("n/t", f"{text}{i}", "", "", "t/x", text.encode())
    return events


def commit(log: IngressLog) -> list[Appended]:
    """Take, write and sync what has been appended."""
    batch = log.take_batch()
    assert batch is not None
    log.write_batch(batch)
    return log.batch_synced(batch)


def append(log: IngressLog, *counts: int, producer: str = "", start: int = 0) -> None:
    """Append one record per count, each in a batch of its own."""
    for sequence, count in enumerate(counts, start):
        number = sequence if producer else NO_PRODUCER
        log.append(events_of(count), received_at_ms=1, producer_id=producer, producer_sequence=number)
        commit(log)


def seqs(log: IngressLog, from_seq: int = 0) -> list[int]:
    reader = log.read(from_seq)
    found: list[int] = []
    while (chunk := reader.read()) is not None:
        assert len(chunk.events) <= CHUNK_EVENTS_MAX
        found += range(chunk.first_seq, chunk.end_seq)
    assert reader.read() is None
    return [seq for seq in found if seq >= from_seq]


@pytest.fixture(params=["memory", "disk"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogFiles]:
    opened: LogFiles = FaultyFiles() if request.param == "memory" else OsLogFiles(str(tmp_path / "log"))
    yield opened
    opened.close()


def reopened(files: LogFiles, log: IngressLog | None = None, *, segment_bytes: int = 1 << 20) -> IngressLog:
    """Open the log again, as after the death of the process."""
    if isinstance(files, OsLogFiles):
        files.close()
        files.__init__(files.directory)  # type: ignore[misc] # the same fixture object, opened again
    return IngressLog.open(files, "other", segment_bytes=segment_bytes)


def test_a_new_log_is_empty_and_counts_its_boots(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc")

    assert (log.log_id, log.incarnation, log.end_seq, log.first_seq) == ("abc", "abc.1", 0, 0)
    assert seqs(log) == []
    again = reopened(files)
    assert (again.log_id, again.incarnation) == ("abc", "abc.2")


def test_nothing_is_durable_or_readable_before_its_batch_is_synced(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc")

    assert log.append(events_of(3), received_at_ms=1) == 0
    assert log.append(events_of(2), received_at_ms=1) == 3
    batch = log.take_batch()
    assert batch is not None
    assert log.append(events_of(1), received_at_ms=1) == 5
    assert log.take_batch() is None  # one at a time
    log.write_batch(batch)
    assert (log.end_seq, log.durable_seq, seqs(log)) == (6, 0, [])
    assert [record.answer for record in log.batch_synced(batch)] == [Answer(0, 3), Answer(3, 2)]
    assert (log.durable_seq, seqs(log)) == (5, [0, 1, 2, 3, 4])
    assert [record.answer for record in commit(log)] == [Answer(5, 1)]
    assert log.take_batch() is None


def test_events_come_back_as_they_were(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc")
    events = Events.of_one("n/t", "id", "statefun-ray.reply/abc.1", "7", "t/x", None)
    log.append(events, received_at_ms=1)
    commit(log)

    for opened in (log, reopened(files)):
        chunk = opened.read(0).read()
        assert chunk is not None
        assert chunk.events.rows() == [("n/t", "id", "statefun-ray.reply/abc.1", "7", "t/x", None)]


def test_reading_starts_anywhere_and_crosses_segments(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=600)
    append(log, 1, 7, 1200, 1, 1, 30, 1)

    end = 1241
    for opened in (log, reopened(files, segment_bytes=600)):
        assert opened.end_seq == end
        for start in (0, 1, 5, 8, 9, 700, 1208, 1209, 1210, 1239, 1240, end):
            assert seqs(opened, start) == list(range(start, end))


def test_a_reader_goes_on_with_what_is_appended_later(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    reader = log.read(0)
    found: list[int] = []
    for _ in range(10):
        append(log, 2)
        while (chunk := reader.read()) is not None:
            found += range(chunk.first_seq, chunk.end_seq)
        assert reader.next_seq == log.durable_seq

    assert found == list(range(20))


def test_records_larger_than_a_read_come_back(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc")
    big = Events.of_one("n/t", "id", "", "", "t/x", bytes(700_000))
    log.append(big, received_at_ms=1)
    append(log, 2)

    assert seqs(log) == [0, 1, 2]
    assert seqs(reopened(files), 1) == [1, 2]


def test_chunks_are_bounded_by_bytes_too() -> None:
    events = Events.empty()
    for i in range(10):
        events.append("n/t", str(i), "", "", "t/x", bytes(100_000))

    assert [len(part) for part, _ in encode_events(events)] == [3, 3, 3, 1]


def test_trimming_removes_whole_segments_below(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[2] * 20)
    before = set(files.list())

    names = log.trim(21)
    log.remove_segments(names)

    assert names
    assert set(files.list()) == before - set(names)
    assert 0 < log.first_seq <= 21
    with pytest.raises(LogTrimmed, match=f"starts at sequence {log.first_seq}, but 0 was asked"):
        log.read(0)
    assert seqs(log, 21) == list(range(21, 40))
    again = reopened(files, segment_bytes=300)
    assert again.first_seq == log.first_seq
    assert seqs(again, 21) == list(range(21, 40))
    assert again.trim(21) == []


def test_trimming_never_removes_the_last_segment(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[2] * 20)

    log.remove_segments(log.trim(1_000))

    assert reopened(files).end_seq == 40


def test_producers_survive_a_reopen_and_the_trimming_of_their_records(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[1] * 30, producer="p")
    append(log, 1, producer="q", start=2)
    log.remove_segments(log.trim(30))

    again = reopened(files, segment_bytes=300)

    assert again.first_seq > 0
    assert again.producers.dump() == [("p", 30, []), ("q", 0, [2])]
    assert again.producers.find("p", 3, 1) == Answer(-1, 1)
    assert again.producers.find("q", 2, 1) is not None
    assert again.producers.find("q", 1, 1) is None


@pytest.mark.parametrize("is_last_batch_large", [False, True])
def test_a_tail_torn_at_any_byte_is_cut_off(is_last_batch_large: bool) -> None:
    files = FaultyFiles()
    log = IngressLog.open(files, "abc")
    append(log, 1, 2, producer="p")
    name = segment_name(0)
    durable = files.size(name)
    for sequence in range(2, 5 if is_last_batch_large else 3):
        log.append(events_of(1), received_at_ms=1, producer_id="p", producer_sequence=sequence)
    batch = log.take_batch()
    assert batch is not None
    files.append(name, b"".join(batch.data))  # written, never synced
    first_record = durable + len(batch.data[0])

    for kept in range(files.size(name) - durable + 1):
        after = files.crash(kept)
        again = IngressLog.open(after, "abc")
        complete = sum(kept >= sum(len(data) for data in batch.data[: n + 1]) for n in range(len(batch.data)))
        assert again.end_seq == 3 + complete, kept
        assert seqs(again) == list(range(3 + complete))
        assert again.producers.dump() == [("p", 2 + complete, [])]
        append(again, 1)
        assert seqs(IngressLog.open(after.crash(), "abc")) == list(range(4 + complete))
    assert first_record > durable


def test_a_torn_batch_whose_later_half_survived_is_cut_off() -> None:
    files = FaultyFiles()
    log = IngressLog.open(files, "abc")
    append(log, 1)
    for _ in range(3):
        log.append(events_of(1), received_at_ms=1)
    batch = log.take_batch()
    assert batch is not None
    # Pages reach the disk in any order: the first record of the batch did not.
    torn = bytes(len(batch.data[0])) + batch.data[1] + batch.data[2]
    files.append(segment_name(0), torn)

    again = IngressLog.open(files.crash(len(torn)), "abc")

    assert seqs(again) == [0]


@pytest.mark.parametrize("record", [0, 1, 2])
def test_damage_to_an_acknowledged_record_is_named_not_cut_off(files: LogFiles, record: int) -> None:
    log = IngressLog.open(files, "abc")
    offsets = []
    for _ in range(4):
        offsets.append(files.size(segment_name(0)))
        append(log, 1)
    at = offsets[record] + 40
    files.overwrite(segment_name(0), at, bytes([files.read(segment_name(0), at, 1)[0] ^ 1]))

    with pytest.raises(CorruptLog, match="had been durable") as caught:
        reopened(files)
    assert (caught.value.name, caught.value.offset) == (segment_name(0), offsets[record])


def test_damage_in_an_earlier_segment_is_named(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[2] * 20)
    name = segment_name(0)
    files.overwrite(name, files.size(name) - 1, b"\xff")

    with pytest.raises(CorruptLog) as caught:
        reopened(files)
    assert caught.value.name == name


def test_a_missing_segment_is_named(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[2] * 20)
    names = sorted(name for name in files.list() if name != META_NAME)
    files.remove(names[1])

    with pytest.raises(CorruptLog, match=f"should be {names[1]}"):
        reopened(files)


def test_a_shortened_earlier_segment_is_named(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=250)
    append(log, *[2] * 20)
    name = segment_name(0)
    files.truncate(name, log._segments[0].index[0][1])

    with pytest.raises(CorruptLog, match=f"{name} is damaged .* expected"):
        reopened(files)


def test_a_missing_last_segment_is_noticed_after_a_clean_close(files: LogFiles) -> None:
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[2] * 20)
    log.close()
    if isinstance(files, OsLogFiles):
        files.__init__(files.directory)  # type: ignore[misc] # the same fixture object, opened again
    files.remove(max(name for name in files.list() if name != META_NAME))

    with pytest.raises(CorruptLog, match="had been durable up to 40"):
        IngressLog.open(files, "abc")


def test_a_lost_description_is_not_taken_for_a_new_log(files: LogFiles) -> None:
    append(IngressLog.open(files, "abc"), 1)
    files.remove(META_NAME)

    with pytest.raises(CorruptLog, match=META_NAME):
        reopened(files)


def test_a_log_without_segments_is_not_taken_for_a_new_one(files: LogFiles) -> None:
    append(IngressLog.open(files, "abc"), 1)
    files.remove(segment_name(0))

    with pytest.raises(CorruptLog, match="no segment left"):
        reopened(files)


def test_a_segment_begun_and_never_synced_is_dropped_with_its_producers() -> None:
    files = FaultyFiles()
    log = IngressLog.open(files, "abc", segment_bytes=300)
    append(log, *[1] * 3, producer="p")
    while log._written_bytes < 300:
        append(log, 1)
    end = log.end_seq
    log.append(events_of(1), received_at_ms=1, producer_id="p", producer_sequence=3)
    batch = log.take_batch()
    assert batch is not None
    assert batch.segment_header
    data = batch.segment_header + b"".join(batch.data)
    for kept in range(len(data)):
        after = files.crash()
        after.append(batch.segment_name, data[:kept])
        after.directory.add(batch.segment_name)
        again = IngressLog.open(after, "abc", segment_bytes=300)
        assert again.end_seq == end
        assert again.producers.find("p", 3, 1) is None, "a retry must be accepted: its event is lost"
        assert again.producers.find("p", 2, 1) is not None


def test_a_crash_during_creation_leaves_a_log_that_opens() -> None:
    class Crashing(FaultyFiles):
        remaining = 0

        def step(self) -> None:
            self.remaining -= 1
            if self.remaining < 0:
                raise OSError("crash")

        def append(self, name: str, data: bytes) -> None:
            self.step()
            super().append(name, data)

        def sync(self, name: str) -> None:
            self.step()
            super().sync(name)

        def sync_directory(self) -> None:
            self.step()
            super().sync_directory()

        def replace(self, name: str, data: bytes) -> None:
            self.step()
            super().replace(name, data)

    for steps in range(5):
        files = Crashing()
        files.remaining = steps
        with pytest.raises(OSError, match="crash"):
            IngressLog.open(files, "abc")
        for after in (files.crash(), files.crash(1000), files.crash(keep_directory=True), files.kill()):
            log = IngressLog.open(after, "abc")
            append(log, 1)
            assert seqs(log) == [0]


@pytest.mark.parametrize("operation", ["fail_sync", "fail_append"])
def test_a_failed_write_is_final(operation: str) -> None:
    files = FaultyFiles()
    log = IngressLog.open(files, "abc")
    append(log, 1, producer="p")
    log.append(events_of(1), received_at_ms=1, producer_id="p", producer_sequence=1)
    setattr(files, operation, lambda name: True)
    batch = log.take_batch()
    assert batch is not None
    log.write_batch(batch)
    setattr(files, operation, lambda name: False)
    before = list(files.operations)

    with pytest.raises(LogFailed, match="stopped accepting"):
        log.batch_synced(batch)
    with pytest.raises(LogFailed):
        log.append(events_of(1), received_at_ms=1)
    assert log.take_batch() is None
    assert log.failure is not None
    assert files.operations == before, "nothing is retried"
    assert log.durable_seq == 1
    assert log.producers.find("p", 1, 1) is None
    assert seqs(log) == [0]


def test_what_a_failed_sync_left_in_the_cache_is_made_durable_when_reopened() -> None:
    files = FaultyFiles()
    log = IngressLog.open(files, "abc")
    append(log, 1)
    log.append(events_of(1), received_at_ms=1)
    files.fail_sync = lambda name: True
    batch = log.take_batch()
    assert batch is not None
    log.write_batch(batch)

    # The process dies, the machine goes on: the second record can be read, but is not on disk.
    survivor = files.kill()
    again = IngressLog.open(survivor, "abc")
    assert seqs(again) == [0, 1]
    assert seqs(IngressLog.open(survivor.crash(), "abc")) == [0, 1]


def test_every_crash_keeps_what_was_acknowledged() -> None:
    """At each step between append and acknowledgement, with every amount of loss."""
    for stage in ("appended", "taken", "written", "synced"):
        files = FaultyFiles()
        log = IngressLog.open(files, "abc", segment_bytes=200)
        append(log, 2, 1, 1, producer="p")
        log.append(events_of(2), received_at_ms=1, producer_id="p", producer_sequence=3)
        acknowledged = 4
        if stage != "appended":
            batch = log.take_batch()
            assert batch is not None
            if stage == "written":
                files.append(batch.segment_name, batch.segment_header + b"".join(batch.data))
            if stage == "synced":
                log.write_batch(batch)
                acknowledged = log.batch_synced(batch)[-1].answer.first_seq + 2
        for after in (files.crash(), files.crash(50), files.crash(10_000), files.kill()):
            again = IngressLog.open(after, "abc", segment_bytes=200)
            assert again.end_seq >= acknowledged
            assert seqs(again) == list(range(again.end_seq))
            is_known = again.producers.find("p", 3, 2) is not None
            assert is_known == (again.end_seq == 6), "known exactly if it is in the log"


def test_a_second_live_process_is_kept_out(tmp_path: Path) -> None:
    files = OsLogFiles(str(tmp_path / "log"))

    with pytest.raises(LogLocked, match="another live process"):
        OsLogFiles(str(tmp_path / "log"))
    files.close()
    OsLogFiles(str(tmp_path / "log")).close()
