from __future__ import annotations

import pytest

from statefun_ingress.errors import TooManyPendingReplies
from statefun_ingress.pending import PendingReplies, ReplyValue


def test_the_first_reply_wins_and_later_ones_are_dropped() -> None:
    pending, got = PendingReplies("l.1"), list[ReplyValue | None]()
    request_id = pending.open(got.append, 100)

    assert pending.complete("l.1", request_id, "t/x", b"first")
    assert not pending.complete("l.1", request_id, "t/x", b"second")
    assert got == [ReplyValue("t/x", b"first")]
    assert len(pending) == 0


def test_replies_to_gone_incarnations_and_unknown_requests_are_dropped() -> None:
    pending, got = PendingReplies("l.2"), list[ReplyValue | None]()
    request_id = pending.open(got.append, 100)

    assert not pending.complete("l.1", request_id, "t/x", b"")
    assert not pending.complete("l.2", "77", "t/x", b"")
    assert got == []


def test_a_request_is_given_up_at_its_deadline() -> None:
    pending, got = PendingReplies("l.1"), list[ReplyValue | None]()
    request_id = pending.open(got.append, 100)

    assert pending.expire(99) == 0
    assert pending.expire(100) == 1
    assert got == [None]
    assert not pending.complete("l.1", request_id, "t/x", b"late")
    assert pending.expire(1_000) == 0


def test_a_repeated_request_shares_the_reply_with_its_own_deadline() -> None:
    pending = PendingReplies("l.1")
    first, second = list[ReplyValue | None](), list[ReplyValue | None]()
    request_id = pending.open(first.append, 100)

    assert pending.join(request_id, second.append, 200)
    assert pending.expire(150) == 1
    assert (first, second) == ([None], [])
    assert pending.complete("l.1", request_id, "t/x", None)
    assert (first, second) == ([None], [ReplyValue("t/x", None)])
    assert not pending.join(request_id, second.append, 300)


def test_a_discarded_request_is_not_called() -> None:
    pending, got = PendingReplies("l.1"), list[ReplyValue | None]()
    pending.discard(pending.open(got.append, 100))

    assert pending.expire(100) == 0
    assert got == []


def test_the_number_of_waiting_requests_is_bounded() -> None:
    pending = PendingReplies("l.1", pending_max=1)
    pending.open(lambda reply: None, 100)

    with pytest.raises(TooManyPendingReplies, match="1 requests already wait"):
        pending.open(lambda reply: None, 100)


def test_stopping_gives_up_everyone() -> None:
    pending, got = PendingReplies("l.1"), list[ReplyValue | None]()
    pending.open(got.append, 100)
    pending.open(got.append, 100)

    pending.abandon()

    assert got == [None, None]
    assert len(pending) == 0
