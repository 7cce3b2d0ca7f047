from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ingress.bulk import BulkParser
from statefun_ingress.errors import RequestRefused
from statefun_ingress.record import CHUNK_EVENTS_MAX, Events, decode_chunk
from statefun_ingress.registry import FunctionInfo, Registry
from statefun_ingress.values import INT, STRING

REGISTRY = Registry(
    [
        FunctionInfo("n/any"),
        FunctionInfo("n/int", [(INT, False)]),
        FunctionInfo("n/json", [("t/j", True), ("t/opaque", False)]),
    ]
)


def parse(*pieces: bytes, line_bytes_max: int = 10_000) -> list[tuple[str, str, str, str, str, bytes | None]]:
    parser = BulkParser(REGISTRY, line_bytes_max, id_bytes_max=4_096)
    for piece in pieces:
        parser.receive(piece)
    rows = []
    for events, encoded in parser.finish():
        assert decode_chunk(encoded).rows() == events.rows()
        assert len({id(column) for column in columns(events)}) == 6
        rows += events.rows()
    assert parser.event_count == len(rows)
    return rows


def columns(events: Events) -> list[object]:
    return [getattr(events, name) for name in Events.__slots__]


def refused(*pieces: bytes, line_bytes_max: int = 10_000) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        parse(*pieces, line_bytes_max=line_bytes_max)
    return caught.value


def test_lines_become_events_by_the_types_of_their_functions() -> None:
    body = (
        b'{"target":"n/any","id":"a","value":{"x": 1}}\n'
        b'{"id":"b","target":"n/int","value":5}\r\n'
        b"\n"
        b'{"target":"n/json","id":"c","type":"t/opaque","value":"AAE="}\n'
        b'{"target":"n/any","id":"\xc3\xa9","type":"io.statefun.types/string","value":"hi"}'
    )

    assert parse(body) == [
        ("n/any", "a", "", "", "statefun-ray.types/json", b'{"x": 1}'),
        ("n/int", "b", "", "", INT, b"\x0d\x05\0\0\0"),
        ("n/json", "c", "", "", "t/opaque", b"\0\1"),
        ("n/any", "é", "", "", STRING, b"\x0a\x02hi"),
    ]


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_pieces_a_body_arrives_in_do_not_matter(size: int, count: int) -> None:
    body = b"".join(b'{"target":"n/int","id":"%d","value":%d}\n' % (i, i + 1) for i in range(count))

    rows = parse(*[body[at : at + size] for at in range(0, len(body), size)])

    assert [row[1] for row in rows] == [str(i) for i in range(count)]


def test_many_events_come_in_bounded_chunks() -> None:
    parser = BulkParser(REGISTRY, 10_000, 4_096)
    parser.receive(b'{"target":"n/int","id":"i","value":1}\n' * (2 * CHUNK_EVENTS_MAX + 1))

    assert [len(events) for events, _ in parser.finish()] == [CHUNK_EVENTS_MAX, CHUNK_EVENTS_MAX, 1]


GOOD = b'{"target":"n/int","id":"i","value":1}\n'


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        (b"nonsense", 400, "line 4: "),
        (b'{"target":"n/int","id":"i","value":1', 400, "line 4: "),
        (b'{"target":"n/int","id":"i"}', 400, "line 4: Object missing required field `value`"),
        (b'{"target":"n/int","id":7,"value":1}', 400, "line 4: Expected `str`, got `int`"),
        (
            b'{"target":"n/int","id":"i","value":1,"key":2}',
            400,
            "line 4: Object contains unknown field `key`",
        ),
        (b'{"target":"n/int","id":"","value":1}', 400, "line 4: an address needs an id"),
        (b'{"target":"n/any","id":"i","value":"\xff"}', 400, "line 4: "),
        (b'{"target":"n/any","id":"\\ud800","value":1}', 400, "line 4: "),
        (b'{"target":"n/any","id":"i","value":%s}' % (b"[" * 2000 + b"]" * 2000), 400, "line 4: "),
        (
            b'{"target":"n/inf","id":"i","value":1}',
            404,
            "line 4: no function n/inf is bound; did you mean n/int",
        ),
        (b'{"target":"n/int","id":"i","type":"t/j","value":1}', 415, "line 4: n/int accepts"),
        (b'{"target":"n/int","id":"i","value":"x"}', 422, "line 4: "),
        (b'{"target":"n/json","id":"i","type":"t/opaque","value":"!"}', 422, "line 4: "),
        (GOOD[:-1] + GOOD[:-1], 400, "line 4: "),
    ],
)
@pytest.mark.parametrize("split", [1, 50, 10_000])
def test_a_bad_line_is_named_with_the_reason(line: bytes, status: int, text: str, split: int) -> None:
    body = GOOD + b"\n" + GOOD + line + b"\n" + GOOD

    error = refused(*[body[at : at + split] for at in range(0, len(body), split)])

    assert (error.status, error.detail[: len(text)]) == (status, text)


def test_a_bad_line_far_into_the_body_is_numbered_from_the_start() -> None:
    body = (GOOD * 5_000) + b'{"target":"n/int","id":"i","value":null}\n'

    error = refused(*[body[at : at + 4096] for at in range(0, len(body), 4096)])

    assert error.detail.startswith("line 5001: ")


def test_a_line_longer_than_an_event_may_be_is_refused_before_it_ends() -> None:
    error = refused(GOOD, b'{"target":"n/any","id":"i","value":"' + b"x" * 300, line_bytes_max=200)

    assert error.status == 413
    assert error.detail.startswith(
        "line 2 has more than 200 bytes, the limit for one event; raise bodyBytesMax, with"
    )


def test_a_value_too_large_within_one_piece_is_refused() -> None:
    line = json.dumps({"target": "n/any", "id": "i", "value": "x" * 300}).encode() + b"\n"

    error = refused(GOOD + line, line_bytes_max=200)

    assert error.status == 413
    assert error.detail.startswith("line 2: the value has 302 bytes")


def test_an_id_too_long_is_refused() -> None:
    line = json.dumps({"target": "n/any", "id": "é" * 4_096, "value": 1}).encode()

    detail = refused(line, line_bytes_max=100_000).detail
    assert "takes 8192 bytes, at most 4096" in detail
    assert "--http-limit idBytesMax=BYTES" in detail


@pytest.mark.parametrize("body", [b"", b"\n\n", b"   \n"])
def test_a_body_without_events_is_refused(body: bytes) -> None:
    assert refused(body).detail.startswith("send one JSON object per line")
