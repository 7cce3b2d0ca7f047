"""Output waits for its snapshot, keeps its place if that is aborted, and stays until it is taken."""

from __future__ import annotations

from collections.abc import Iterable

from statefun_checkpoints.model import Rows
from statefun_ray.core.outbox import Outbox, first_rows
from statefun_ray.core.state import SLICE_ROWS

BOUNDS = [0, 8, 16]


def put(outbox: Outbox, *texts: str, shard: int = 0) -> None:
    for text in texts:
        outbox.add_egress(shard, "out/put", "t", text.encode())


def epochs(
    outbox: Outbox, after: int = 0, until: int = 99
) -> list[tuple[int, int, list[tuple[int, bytes | None]]]]:
    return [
        (shard, epoch, [(row[0], row[3]) for row in rows])
        for shard, epoch, rows in outbox.epochs(after, until)
    ]


def joined(slices: Iterable[Rows]) -> Rows:
    rows = Rows()
    for portion in slices:
        rows.extend(portion)
    return rows


def test_rows_belong_to_the_epoch_that_the_next_cut_ends() -> None:
    outbox = Outbox()
    put(outbox, "a", "b")
    outbox.cut(1)
    put(outbox, "c")

    assert epochs(outbox) == [(0, 1, [(0, b"a"), (1, b"b")])], "the open epoch is nobody's yet"
    outbox.cut(2)
    assert epochs(outbox, after=1) == [(0, 2, [(2, b"c")])]


def test_a_reopened_epoch_comes_before_what_was_emitted_since() -> None:
    outbox = Outbox()
    put(outbox, "a")
    outbox.add_reply(3, ("log.1", "r1", "t", b"a"))
    outbox.cut(1)
    put(outbox, "b")
    put(outbox, "x", shard=1)
    outbox.add_reply(3, ("log.1", "r2", "t", b"b"))

    outbox.reopen(1)
    assert outbox.is_awaited
    outbox.cut(2)

    assert epochs(outbox) == [(0, 2, [(0, b"a"), (1, b"b")]), (1, 2, [(0, b"x")])]
    assert [reply[1] for reply in outbox.released(1, 2)["log.1"]] == ["r1", "r2"]


def test_an_epoch_with_nothing_new_reopens_as_well() -> None:
    outbox = Outbox()
    put(outbox, "a")
    outbox.cut(1)
    outbox.reopen(1)
    outbox.cut(2)

    assert epochs(outbox) == [(0, 2, [(0, b"a")])]


def test_sequences_are_free_of_gaps_per_shard() -> None:
    outbox = Outbox()
    put(outbox, "a", "b")
    put(outbox, "x", shard=1)
    outbox.cut(1)
    put(outbox, "c")

    assert outbox.next_sequence == {0: 3, 1: 1}


def test_published_rows_are_forgotten_and_others_kept() -> None:
    outbox = Outbox()
    put(outbox, "a")
    put(outbox, "x", shard=1)
    outbox.cut(1)

    outbox.published(0, 1)
    assert epochs(outbox) == [(1, 1, [(0, b"x")])]
    assert not outbox.is_empty
    outbox.published(1, 1)
    assert outbox.is_empty


def test_replies_are_dropped_by_incarnation_and_request() -> None:
    outbox = Outbox()
    for incarnation, request in [("log.1", "r1"), ("log.1", "r2"), ("log.2", "r1")]:
        outbox.add_reply(3, (incarnation, request, "t", b""))
    outbox.cut(1)

    outbox.drop_replies("log.1", {"r1", "unknown"})
    assert {name: [reply[1] for reply in found] for name, found in outbox.released(0, 1).items()} == {
        "log.1": ["r2"],
        "log.2": ["r1"],
    }
    outbox.drop_replies("log.1", {"r2"})
    outbox.drop_replies("log.2", {"r1"})
    assert outbox.is_empty


def test_a_capture_holds_ended_epochs_only_and_does_not_change_any_more() -> None:
    outbox = Outbox()
    put(outbox, "a", "b")
    put(outbox, "x", shard=1)
    outbox.add_reply(9, ("log.1", "r1", "t", None))
    outbox.cut(1)
    captured = outbox.capture(BOUNDS)

    put(outbox, "later")
    outbox.published(0, 1)
    outbox.drop_replies("log.1", {"r1"})

    rows = joined(captured)
    assert rows.key_group == [0, 0, 8, 9], "a row goes where its shard goes, a reply with its sender"
    restored = Outbox()
    restored.load(rows)
    assert epochs(restored) == [(0, 1, [(0, b"a"), (1, b"b")]), (1, 1, [(0, b"x")])]
    assert restored.released(0, 1) == {"log.1": [("log.1", "r1", "t", None)]}


def test_epochs_of_several_workers_come_in_order_after_a_restore() -> None:
    done, late = Outbox(), Outbox()
    put(done, "a")
    put(late, "x", shard=1)
    for outbox in (done, late):
        outbox.cut(1)
    done.published(0, 1)
    put(done, "b")
    put(late, "y", shard=1)
    for outbox in (done, late):
        outbox.cut(2)

    restored = Outbox()  # of one worker where there were two
    restored.load(joined([*done.capture(BOUNDS), *late.capture(BOUNDS)]))

    assert epochs(restored) == [(1, 1, [(0, b"x")]), (0, 2, [(1, b"b")]), (1, 2, [(1, b"y")])]


def test_a_large_capture_comes_in_slices() -> None:
    outbox = Outbox()
    put(outbox, *("x" for _ in range(SLICE_ROWS)))
    for number in range(SLICE_ROWS + 1):
        outbox.add_reply(0, ("log.1", str(number), "t", b""))
    outbox.cut(1)

    slices = list(outbox.capture(BOUNDS))

    assert max(len(rows) for rows in slices) <= SLICE_ROWS
    assert sum(len(rows) for rows in slices) == 2 * SLICE_ROWS + 1


def test_rows_of_an_eager_egress_are_awaited_until_a_cut_takes_them() -> None:
    outbox = Outbox(frozenset({"shop/now"}))
    seen: list[bool] = []

    def look() -> None:
        seen.append(outbox.is_awaited)

    outbox.add_egress(0, "shop/later", "a/b", b"")
    look()
    outbox.add_egress(0, "shop/now", "a/b", b"")
    look()
    outbox.cut(1)
    look()
    outbox.reopen(1)
    look()
    assert seen == [False, True, False, True]


def test_the_first_rows_of_each_egress_and_shard_are_found_in_a_snapshot() -> None:
    outbox = Outbox()
    for egress, count in (("a/x", 2), ("a/y", 1), ("a/x", 1)):
        for _ in range(count):
            outbox.add_egress(3, egress, "t", b"")
    outbox.add_egress(5, "a/y", "t", b"")
    outbox.add_reply(3, ("log.1", "r1", "t", b""))
    outbox.cut(1)
    rows = Rows()
    for part in outbox.capture(list(range(8))):
        rows.extend(part)
    assert first_rows(rows) == {("a/x", 3): 0, ("a/y", 3): 2, ("a/y", 5): 0}
