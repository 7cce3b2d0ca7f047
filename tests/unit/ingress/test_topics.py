from __future__ import annotations

import json
import logging

import pytest

from statefun_ingress.topics import EGRESS_RECORD, PlaygroundTopics, egress_problem


def record(topic: str, payload: str) -> bytes:
    return json.dumps({"topic": topic, "payload": payload}).encode()


def test_each_topic_is_a_queue() -> None:
    topics = PlaygroundTopics(["b", "a"])
    topics.publish(3, [(0, EGRESS_RECORD, record("a", "1")), (1, EGRESS_RECORD, record("b", "2"))])
    topics.publish(4, [(0, EGRESS_RECORD, record("a", "3"))])
    assert topics.topics == ["a", "b"]
    assert [topics.take("a"), topics.take("a"), topics.take("a")] == ["1", "3", None]
    assert topics.take("b") == "2"
    with pytest.raises(KeyError):
        topics.take("c")


def test_rows_that_are_published_again_are_known_by_shard_and_sequence() -> None:
    topics = PlaygroundTopics(["a"])
    rows = [(5, EGRESS_RECORD, record("a", "1")), (7, EGRESS_RECORD, record("a", "2"))]
    topics.publish(0, rows)
    topics.publish(0, [*rows, (8, EGRESS_RECORD, record("a", "3"))])
    topics.publish(1, rows[:1])
    assert [topics.take("a") for _ in range(5)] == ["1", "2", "3", "1", None]


def test_a_full_topic_drops_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    topics = PlaygroundTopics(["a"], records_max=2)
    with caplog.at_level(logging.WARNING):
        topics.publish(0, [(n, EGRESS_RECORD, record("a", str(n))) for n in range(4)])
    assert topics.dropped == 2
    assert "holds 2 unread records" in caplog.text
    assert [topics.take("a") for _ in range(3)] == ["0", "1", None]


def test_a_row_that_fits_no_more_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    topics = PlaygroundTopics(["a"])
    with caplog.at_level(logging.WARNING):
        topics.publish(0, [(0, EGRESS_RECORD, record("gone", "1")), (1, EGRESS_RECORD, record("a", "2"))])
    assert "no topic 'gone'" in caplog.text
    assert topics.take("a") == "2"


@pytest.mark.parametrize(
    ("typename", "value", "said"),
    [
        ("io.statefun.types/string", b"x", EGRESS_RECORD),
        (EGRESS_RECORD, b"not json", "as JSON"),
        (EGRESS_RECORD, None, "as JSON"),
        (EGRESS_RECORD, b'{"topic": "a"}', "payload"),
        (EGRESS_RECORD, b'{"topic": "a", "payload": 1}', "payload"),
        (EGRESS_RECORD, b'{"topic": "a", "payload": "x", "key": "y"}', "key"),
        (EGRESS_RECORD, record("b", "x"), "no topic 'b'; it has a"),
    ],
)
def test_what_is_no_record_of_the_playground_is_told(typename: str, value: bytes | None, said: str) -> None:
    problem = egress_problem(["a"], typename, value)
    assert problem is not None
    assert said in problem


def test_a_record_that_no_frame_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statefun_ingress.topics.RECORD_BYTES_MAX", 30)
    assert egress_problem(["a"], EGRESS_RECORD, record("a", "x")) is None
    problem = egress_problem(["a"], EGRESS_RECORD, record("a", "x" * 30))
    assert problem is not None
    assert "at most 30 bytes" in problem


def test_a_record_has_no_problem() -> None:
    assert egress_problem(["a"], EGRESS_RECORD, record("a", "ä")) is None
