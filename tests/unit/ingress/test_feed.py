from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ingress.errors import CorruptLog
from statefun_ingress.feed import (
    Credit,
    EventsFrame,
    Feed,
    Feeds,
    FrameSplitter,
    Hello,
    IngressFrame,
    Refused,
    Trim,
    Welcome,
    decode_ingress_frame,
)
from statefun_ingress.key_groups import key_group_of
from statefun_ingress.log import IngressLog
from statefun_ingress.record import Events
from statefun_ingress.segment import segment_name
from tests.ingress.faulty_files import FaultyFiles

GROUPS = 8


def new_feeds(*, segment_bytes: int = 2_000, tail_events_max: int = 50) -> tuple[Feeds, IngressLog]:
    log = IngressLog.open(FaultyFiles(), "l", segment_bytes=segment_bytes)
    feeds = Feeds(log, app_name="app", key_group_count=GROUPS, tail_events_max=tail_events_max)
    return feeds, log


def append(feeds: Feeds, log: IngressLog, *ids: str, publish: bool = True) -> None:
    events = Events.empty()
    for id in ids:
        events.append("n/t", id, "", "", "t/x", id.encode())
    log.append(events, received_at_ms=0)
    if publish:
        commit(feeds, log)


def commit(feeds: Feeds, log: IngressLog) -> None:
    batch = log.take_batch()
    if batch is not None:
        log.write_batch(batch)
        log.batch_synced(batch)
        feeds.publish(batch.chunks)


def hello(
    feeds: Feeds,
    positions: list[tuple[int, int, int]],
    *,
    generation: int = 1,
    index: int = 0,
    count: int = 1,
    credit: int = 1_000_000,
) -> Feed:
    feed = feeds.open()
    feeds.say_hello(feed, Hello("app", generation, index, count, positions, credit))
    return feed


def sent(feed: Feed) -> list[IngressFrame]:
    splitter = FrameSplitter()
    return [decode_ingress_frame(body) for data in feed.take_outgoing() for body in splitter.receive(data)]


def pump(feeds: Feeds, feed: Feed) -> None:
    while feeds.pump(feed):
        pass


def fed(feeds: Feeds, feed: Feed) -> list[int]:
    """Pump a feed and return the sequences it was given."""
    pump(feeds, feed)
    feeds.advance_idle()
    return [seq for frame in sent(feed) if isinstance(frame, EventsFrame) for seq in frame.seqs]


def test_a_worker_is_welcomed_and_given_the_events_of_its_key_groups_only() -> None:
    feeds, log = new_feeds()
    ids = [f"id{i}" for i in range(40)]
    append(feeds, log, *ids)

    lower = hello(feeds, [(0, 4, 0)], index=0, count=2)
    upper = hello(feeds, [(4, 8, 0)], index=1, count=2)

    assert sent(lower)[0] == Welcome("l", "l.1", 40)
    assert fed(feeds, lower) == [i for i, id in enumerate(ids) if key_group_of(id, GROUPS) < 4]
    assert fed(feeds, upper) == [i for i, id in enumerate(ids) if key_group_of(id, GROUPS) >= 4]


def test_events_arrive_as_they_were_accepted() -> None:
    feeds, log = new_feeds()
    feed = hello(feeds, [(0, GROUPS, 0)])
    sent(feed)
    log.append(Events.of_one("n/t", "a", "c/t", "7", "t/x", None), received_at_ms=0)
    commit(feeds, log)

    pump(feeds, feed)

    assert sent(feed) == [EventsFrame(0, 1, [0], ["n/t"], ["a"], ["c/t"], ["7"], ["t/x"], [None])]


def test_nothing_is_fed_before_it_is_durable() -> None:
    feeds, log = new_feeds()
    feed = hello(feeds, [(0, GROUPS, 0)])
    append(feeds, log, "a", publish=False)

    assert fed(feeds, feed) == []
    commit(feeds, log)
    assert fed(feeds, feed) == [0]


def test_a_worker_behind_the_tail_catches_up_from_the_log_and_goes_on_in_the_tail() -> None:
    feeds, log = new_feeds(tail_events_max=20)
    for i in range(100):
        append(feeds, log, f"a{i}", f"b{i}")
    feed = hello(feeds, [(0, GROUPS, 3)])

    assert fed(feeds, feed) == list(range(3, 200))
    append(feeds, log, "x")
    assert fed(feeds, feed) == [200]
    assert feed._reader is None


def test_positions_within_one_worker_are_skipped_per_interval() -> None:
    feeds, log = new_feeds()
    ids = [f"id{i}" for i in range(60)]
    append(feeds, log, *ids)

    feed = hello(feeds, [(0, 2, 10), (2, 5, 30), (5, 8, 55)])

    start = {group: 10 if group < 2 else 30 if group < 5 else 55 for group in range(GROUPS)}
    assert fed(feeds, feed) == [i for i, id in enumerate(ids) if i >= start[key_group_of(id, GROUPS)]]


def test_credit_counts_events_and_is_absolute() -> None:
    feeds, log = new_feeds()
    append(feeds, log, *[f"id{i}" for i in range(30)])
    feed = hello(feeds, [(0, GROUPS, 0)], credit=4)

    assert fed(feeds, feed) == [0, 1, 2, 3]
    feeds.grant(feed, Credit(10))
    assert fed(feeds, feed) == [4, 5, 6, 7, 8, 9]
    feeds.grant(feed, Credit(10))
    feeds.grant(feed, Credit(9))
    assert fed(feeds, feed) == []


def test_a_paused_connection_is_not_fed() -> None:
    feeds, log = new_feeds()
    append(feeds, log, "a")
    feed = hello(feeds, [(0, GROUPS, 0)])

    feed.is_paused = True
    assert fed(feeds, feed) == []
    feed.is_paused = False
    assert fed(feeds, feed) == [0]


def test_an_idle_worker_is_moved_past_the_events_of_others_but_not_at_each_event() -> None:
    feeds, log = new_feeds(tail_events_max=100_000)
    mine = next(f"id{i}" for i in range(99) if key_group_of(f"id{i}", GROUPS) == 0)
    other = next(f"id{i}" for i in range(99) if key_group_of(f"id{i}", GROUPS) == 5)
    feed = hello(feeds, [(0, 1, 0)], count=2)
    sent(feed)

    append(feeds, log, *[other] * 500)
    pump(feeds, feed)
    assert sent(feed) == []
    feeds.advance_idle()
    feeds.advance_idle()
    assert sent(feed) == [EventsFrame(0, 500, [], [], [], [], [], [], [])]
    append(feeds, log, other, mine, other)
    pump(feeds, feed)
    assert sent(feed) == [EventsFrame(500, 503, [501], ["n/t"], [mine], [""], [""], ["t/x"], [mine.encode()])]
    append(feeds, log, *[other] * 30_000)
    pump(feeds, feed)
    assert 1 <= len(sent(feed)) <= 3


def test_a_newer_generation_closes_the_older_and_a_lower_one_is_refused() -> None:
    feeds, _ = new_feeds()
    old = hello(feeds, [(0, GROUPS, 0)], generation=4)
    new = hello(feeds, [(0, 4, 0)], generation=5, index=1, count=2)
    late = hello(feeds, [(0, GROUPS, 0)], generation=4)

    assert isinstance(sent(old)[-1], Refused)
    assert old.closing == "generation 5 has taken over from 4"
    assert new.is_serving
    assert sent(late) == [Refused("generation 4 is over, 5 has connected")]
    assert feeds.serving == [new]


def test_a_worker_that_connects_again_replaces_its_connection() -> None:
    feeds, log = new_feeds()
    append(feeds, log, "a")
    old = hello(feeds, [(0, GROUPS, 0)])
    new = hello(feeds, [(0, GROUPS, 0)])

    assert (old.is_serving, new.is_serving) == (False, True)
    feeds.closed(old)
    assert fed(feeds, new) == [0]


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Hello("other", 1, 0, 1, [(0, 8, 0)], 1), "serves application 'app', not 'other'"),
        (Hello("app", 1, 2, 2, [(0, 8, 0)], 1), "worker 2 of 2"),
        (Hello("app", 1, 0, 1, [(0, 9, 0)], 1), "lie outside"),
        (Hello("app", 1, 0, 1, [(0, 5, 0), (4, 8, 0)], 1), "overlap"),
        (Hello("app", 1, 0, 1, [(0, 8, 3)], 1), "acknowledged events are missing"),
    ],
)
def test_a_hello_that_cannot_be_served_is_refused_with_the_reason(frame: Hello, text: str) -> None:
    feeds, log = new_feeds()
    append(feeds, log, "a", "b")
    feed = feeds.open()

    feeds.say_hello(feed, frame)

    (refused,) = sent(feed)
    assert isinstance(refused, Refused)
    assert text in refused.text
    assert feed.closing == refused.text


def test_two_workers_of_one_generation_cannot_own_the_same_key_groups() -> None:
    feeds, _ = new_feeds()
    hello(feeds, [(0, 5, 0)], count=2)

    second = hello(feeds, [(4, 8, 0)], index=1, count=2)

    assert second.closing == "key groups [4, 8) belong to worker 0 in this generation"


def test_a_position_that_was_trimmed_is_refused() -> None:
    feeds, log = new_feeds(segment_bytes=300)
    for i in range(50):
        append(feeds, log, f"id{i}")
    log.remove_segments(log.trim(30))

    feed = hello(feeds, [(0, GROUPS, 2)])

    assert feed.closing is not None
    assert "older than the retained ones" in feed.closing


def test_the_log_is_trimmed_to_the_lowest_of_all_workers() -> None:
    feeds, log = new_feeds()
    append(feeds, log, *[f"id{i}" for i in range(60)])
    first = hello(feeds, [(0, 4, 0)], index=0, count=2)
    second = hello(feeds, [(4, 8, 0)], index=1, count=2)

    assert feeds.let_go(first, Trim(50)) is None  # the other has not spoken
    assert feeds.let_go(second, Trim(20)) == 20
    assert feeds.let_go(second, Trim(20)) is None
    assert feeds.let_go(second, Trim(10)) is None  # never back
    assert feeds.let_go(second, Trim(60)) == 50
    third = hello(feeds, [(0, 8, 55)], generation=2)
    assert feeds.let_go(first, Trim(60)) is None  # of an older generation
    assert feeds.let_go(third, Trim(55)) == 55


def test_the_lag_counts_from_the_slowest_worker_also_while_it_is_gone() -> None:
    feeds, log = new_feeds()
    append(feeds, log, *[f"id{i}" for i in range(60)])
    assert feeds.position_min() == 0

    first = hello(feeds, [(0, 4, 0)], index=0, count=2)
    pump(feeds, first)
    feeds.advance_idle()
    assert feeds.position_min() == 0  # worker 1 has never connected
    second = hello(feeds, [(4, 8, 20)], index=1, count=2)
    assert feeds.position_min() == 20
    pump(feeds, second)
    feeds.advance_idle()
    assert feeds.position_min() == 60
    feeds.closed(first)
    append(feeds, log, "x", "y")
    pump(feeds, second)
    feeds.advance_idle()
    assert feeds.position_min() == 60


def test_damage_found_while_catching_up_closes_the_feed_and_is_raised() -> None:
    feeds, log = new_feeds(tail_events_max=1)
    append(feeds, log, "a", "b", "c")
    feed = hello(feeds, [(0, GROUPS, 0)])
    files = log.files
    files.overwrite(segment_name(0), files.size(segment_name(0)) - 1, b"\xff")

    with pytest.raises(CorruptLog):
        feeds.pump(feed)
    assert feed.closing is not None
    assert segment_name(0) in feed.closing


@dataclass
class Model:
    """Workers of one generation, each keeping what it was given like a real one."""

    feeds: Feeds
    log: IngressLog
    generation: int = 0
    workers: list[Feed] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=lambda: [0] * GROUPS)  # per key group
    granted: list[int] = field(default_factory=list)
    got: list[list[int]] = field(default_factory=lambda: [[] for _ in range(GROUPS)])
    snapshot: tuple[list[int], list[list[int]]] = ([0] * GROUPS, [[] for _ in range(GROUPS)])
    ids: list[str] = field(default_factory=list)

    def append(self, ids: list[str]) -> None:
        self.ids += ids
        append(self.feeds, self.log, *ids)

    def restart(self, cuts: list[int]) -> None:
        """Begin a generation from the last snapshot, with other workers."""
        self.generation += 1
        self.positions = list(self.snapshot[0])
        self.got = [list(seqs) for seqs in self.snapshot[1]]
        bounds = [0, *sorted(set(cuts)), GROUPS]
        self.ranges = list(pairwise(bounds))
        self.workers = []
        self.granted = []
        for index, (first, end) in enumerate(self.ranges):
            positions = [(group, group + 1, self.positions[group]) for group in range(first, end)]
            feed = hello(
                self.feeds,
                positions,
                generation=self.generation,
                index=index,
                count=len(self.ranges),
                credit=3,
            )
            assert feed.is_serving, feed.closing
            self.workers.append(feed)
            self.granted.append(3)

    def receive(self, index: int) -> None:
        first, end = self.ranges[index]
        for frame in sent(self.workers[index]):
            if not isinstance(frame, EventsFrame):
                continue
            assert len(frame.seqs) == len(frame.ids)
            for seq, id in zip(frame.seqs, frame.ids, strict=True):
                group = key_group_of(id, GROUPS)
                assert first <= group < end, "an event of another worker"
                assert seq >= self.positions[group], "an event twice"
                assert self.ids[seq] == id
                self.got[group].append(seq)
            for group in range(first, end):
                self.positions[group] = max(self.positions[group], frame.to_seq)

    def step(self, index: int, credit: int) -> None:
        if not self.workers:
            return
        index %= len(self.workers)
        self.granted[index] += credit
        self.feeds.grant(self.workers[index], Credit(self.granted[index]))
        self.feeds.pump(self.workers[index])
        self.receive(index)

    def take_snapshot(self) -> None:
        self.snapshot = (list(self.positions), [list(seqs) for seqs in self.got])
        for index, (first, end) in enumerate(self.ranges):
            if self.workers:
                lowest = min(self.positions[first:end])
                trim_to = self.feeds.let_go(self.workers[index], Trim(lowest))
                if trim_to is not None:
                    self.log.remove_segments(self.log.trim(trim_to))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from([f"id{i}" for i in range(30)]), max_size=12)),
        st.tuples(st.just("restart"), st.lists(st.integers(1, GROUPS - 1), max_size=3)),
        st.tuples(st.just("step"), st.tuples(st.integers(0, 3), st.integers(0, 9))),
        st.tuples(st.just("idle"), st.just(None)),
        st.tuples(st.just("snapshot"), st.just(None)),
    ),
    max_size=60,
)


@given(actions, st.integers(1, 40))
def test_every_worker_gets_exactly_its_events_in_order_whatever_happens(
    actions: list[tuple[str, object]], tail_events_max: int
) -> None:
    feeds, log = new_feeds(segment_bytes=400, tail_events_max=tail_events_max)
    model = Model(feeds, log)
    for name, argument in actions:
        if name == "append" and argument:
            model.append(argument)  # type: ignore[arg-type]
        elif name == "restart":
            model.restart(argument)  # type: ignore[arg-type]
        elif name == "step":
            model.step(*argument)  # type: ignore[misc]
        elif name == "idle":
            feeds.advance_idle()
        elif name == "snapshot":
            model.take_snapshot()

    model.restart([3])
    for index in range(len(model.workers)):
        feeds.grant(model.workers[index], Credit(10_000))
        pump(feeds, model.workers[index])
    feeds.advance_idle()
    for index in range(len(model.workers)):
        model.receive(index)

    for group in range(GROUPS):
        assert model.got[group] == [i for i, id in enumerate(model.ids) if key_group_of(id, GROUPS) == group]
    assert model.positions == [len(model.ids)] * GROUPS
    assert feeds.position_min() == len(model.ids)
