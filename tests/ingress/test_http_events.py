"""The HTTP contract of one event and of bulk, over a real server with a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from statefun_ingress.producers import Producers
from tests.ingress.conftest import Ingress, Start
from tests.ingress.faulty_files import FaultyFiles


def problem(response: httpx.Response, status: int) -> str:
    """Check that the answer is a problem; return its text."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    if status in (429, 503):
        assert int(response.headers["retry-after"]) > 0
    return str(body["detail"])


async def test_an_event_is_accepted_and_reaches_its_worker(ingress: Ingress) -> None:
    worker = await ingress.worker()

    response = await ingress.put("n/int/k1", b"42")

    assert response.status_code == 202
    assert response.json() == {"accepted": 1, "log": "l", "sequence": 0}
    await worker.wait(lambda worker: len(worker.events) == 1)
    assert worker.events == [(0, "n/int", "k1", "", "", "io.statefun.types/int", b"\x0d\x2a\0\0\0")]
    assert (await ingress.client.post("/v1/functions/n/int/k1", json=1)).json()["sequence"] == 1


BODIES: list[tuple[str, str, bytes, str, bytes]] = [
    ("n/any/k", "application/json", b' {"a": 1} ', "statefun-ray.types/json", b'{"a": 1}'),
    ("n/any/k", "text/plain", "héllo".encode(), "io.statefun.types/string", b"\x0a\x06h\xc3\xa9llo"),
    ("n/any/k", "text/plain; charset=UTF-8", b"", "io.statefun.types/string", b""),
    ("n/any/k", "application/vnd.t/x", b"\0\xff", "t/x", b"\0\xff"),
    ("n/any/k", "application/vnd.com.Example/T", b"", "com.Example/T", b""),
    ("n/int/k", "application/json", b"0", "io.statefun.types/int", b""),
    ("n/text/k", "application/json", b'"a"', "io.statefun.types/string", b"\x0a\x01a"),
    ("n/json/k", "application/json", b"[1]", "t/j", b"[1]"),
    ("n/json/k", "application/vnd.t/j", b"[1]", "t/j", b"[1]"),
    ("n/json/k", "application/vnd.t/x", b"[", "t/x", b"["),
]


async def test_bodies_become_values_by_their_content_type(
    ingress: Ingress, subtests: pytest.Subtests
) -> None:
    worker = await ingress.worker()
    for path, content_type, body, value_type, value in BODIES:
        with subtests.test(path=path, content_type=content_type):
            response = await ingress.put(path, body, content_type)

            assert response.status_code == 202, response.text
            sequence = response.json()["sequence"]
            await worker.wait(lambda worker: len(worker.events) > sequence)  # noqa: B023 - awaited here
            assert worker.events[sequence][5:] == (value_type, value)


IDS: list[tuple[str, str]] = [
    ("a%2Fb", "a/b"),
    ("%C3%A9%20x", "é x"),
    ("a+b", "a+b"),
    ("%25", "%"),
    ("%3Fa%23", "?a#"),
    ("%00", "\0"),
    ("..", ".."),
    ("a:b@c,d;e=f!", "a:b@c,d;e=f!"),
]


async def test_ids_may_be_anything_percent_encoded(ingress: Ingress, subtests: pytest.Subtests) -> None:
    worker = await ingress.worker()
    for count, (raw_id, id) in enumerate(IDS):
        with subtests.test(raw_id=raw_id, id=id):
            status, _ = await raw_request(
                ingress,
                f"PUT /v1/functions/n/any/{raw_id} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                "content-length: 1\r\nconnection: close\r\n\r\n1".encode(),
            )

            assert status == 202
            await worker.wait(lambda worker: len(worker.events) > count)  # noqa: B023 - awaited here
            assert worker.events[count][2] == id


async def raw_request(ingress: Ingress, data: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(*ingress.address)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return int(answer.split(b" ")[1]), answer


REFUSALS: list[tuple[str, str | None, bytes, int, str]] = [
    ("n/any/", "application/json", b"1", 400, "an address needs an id"),
    ("n/any/%ff", "application/json", b"1", 400, "percent-encode the UTF-8 bytes of the id"),
    ("n/any/k", "application/json", b"{", 400, "send one valid UTF-8 JSON value"),
    ("n/any/k", "application/json", b"[" * 1000 + b"]" * 1000, 400, "more than 128 deep"),
    ("n/json/k", "application/vnd.t/j", b"{", 400, "JSON"),
    ("n/any/k", "text/plain", b"\xff", 400, "send text as UTF-8"),
    ("n/inty/k", "application/json", b"1", 404, "did you mean n/int"),
    ("n/any", "application/json", b"1", 404, "expected /v1/functions/{namespace}/{type}/{id}"),
    ("n/any/a/b", "application/json", b"1", 404, "%2F"),
    ("n/any/k", None, b"1", 415, "found 'none'"),
    ("n/any/k", "application/x-www-form-urlencoded", b"1", 415, "application/vnd.<typename>"),
    ("n/any/k", "text/plain; charset=latin-1", b"1", 415, "text/plain (UTF-8)"),
    ("n/any/k", "application/vnd.", b"1", 415, "accepts any type"),
    ("n/int/k", "text/plain", b"1", 415, "accepts io.statefun.types/int, not io.statefun.types/string"),
    ("n/int/k", "application/vnd.t/x", b"1", 415, "n/int accepts io.statefun.types/int, not t/x"),
    ("n/two/k", "application/json", b"1", 415, "t/j, t/k"),
    ("n/int/k", "application/json", b'"x"', 422, 'io.statefun.types/int cannot be made from "x"'),
    ("n/int/k", "application/json", b"3000000000", 422, "from -2147483648 to 2147483647"),
]


async def test_what_cannot_be_accepted_is_refused_with_a_text_that_helps(
    ingress: Ingress, subtests: pytest.Subtests
) -> None:
    for path, content_type, body, status, text in REFUSALS:
        with subtests.test(path=path, content_type=content_type):
            assert text in problem(await ingress.put(path, body, content_type), status)
            assert ingress.service.core.log.end_seq == 0


async def test_a_broken_escape_is_refused_wherever_it_is(ingress: Ingress, subtests: pytest.Subtests) -> None:
    for target in (
        "PUT /v1/functions/n/any/x%zz",
        "PUT /v1/functions/n/an%y/x",
        "GET /v1/state/n/any/x%",
        "GET /v1/dead-letters?id=x%4",
    ):
        with subtests.test(target=target):
            head = f"{target} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 1\r\nconnection: close"
            status, answer = await raw_request(ingress, f"{head}\r\n\r\n1".encode())
            assert status == 400
            assert b"a percent sign itself is written %25" in answer
    assert ingress.service.core.log.end_seq == 0


async def test_other_methods_are_refused_naming_those_allowed(ingress: Ingress) -> None:
    response = await ingress.client.get("/v1/functions/n/any/k")

    assert "POST" in problem(response, 405)
    assert response.headers["allow"] == "PUT, POST"


# --- producer sequences -----------------------------------------------------------------


async def test_a_repeated_sequence_gets_the_same_answer_and_is_not_appended_again(ingress: Ingress) -> None:
    first = await ingress.put("n/any/k", producer_id="p", producer_sequence="1")
    again = await ingress.put("n/any/k", producer_id="p", producer_sequence="1")
    other = await ingress.put("n/any/k", producer_id="q", producer_sequence="1")

    assert first.json() == again.json() == {"accepted": 1, "log": "l", "sequence": 0}
    assert again.status_code == 202
    assert other.json()["sequence"] == 1
    assert ingress.service.core.log.end_seq == 2


async def test_repetitions_at_the_same_time_are_appended_once(ingress: Ingress) -> None:
    responses = await asyncio.gather(
        *[ingress.put(f"n/any/k{i % 20}", producer_id="p", producer_sequence=str(i % 20)) for i in range(60)]
    )

    assert {response.status_code for response in responses} == {202}
    assert ingress.service.core.log.end_seq == 20
    for i in range(20):
        assert responses[i].json() == responses[i + 20].json() == responses[i + 40].json()


async def test_a_repeated_sequence_is_known_after_a_crash(start: Start) -> None:
    files = FaultyFiles()
    ingress = await start(files)
    await ingress.put("n/any/k", producer_id="p", producer_sequence="1")
    await ingress.bulk(b'{"target":"n/any","id":"k","value":1}\n' * 3, producer_id="p", producer_sequence="2")

    again = await start(files.crash())

    single = await again.put("n/any/k", producer_id="p", producer_sequence="1")
    bulk = await again.bulk(
        b'{"target":"n/any","id":"k","value":1}\n' * 3, producer_id="p", producer_sequence="2"
    )
    assert single.json() == {"accepted": 1, "log": "l", "sequence": 0}
    assert bulk.json() == {"accepted": 3, "log": "l", "sequence": 1}
    assert again.service.core.log.end_seq == 4


async def test_a_number_used_for_another_request_is_refused_and_accepts_nothing(start: Start) -> None:
    line = b'{"target":"n/any","id":"k","value":1}\n'
    files = FaultyFiles()
    ingress = await start(files)
    await ingress.put("n/any/k", b"1", producer_id="p", producer_sequence="1")
    await ingress.bulk(line * 700, producer_id="p", producer_sequence="2")

    for _ in range(2):  # before and after a crash
        for path, body, prefer in (("n/any/k", b"2", ""), ("n/any/l", b"1", ""), ("n/any/k", b"2", "wait=9")):
            response = await ingress.put(path, body, producer_id="p", producer_sequence="1", prefer=prefer)
            assert "was not accepted: send it under a number of its own" in problem(response, 422)
        response = await ingress.bulk(line * 701, producer_id="p", producer_sequence="2")
        assert "'p' has used sequence 2 for a request with other events" in problem(response, 422)
        assert len(ingress.service.core.pending) == 0
        again = await ingress.put("n/any/k", b"1", producer_id="p", producer_sequence="1")
        assert (again.status_code, again.json()["sequence"]) == (202, 0)
        assert ingress.service.core.log.end_seq == 701
        ingress = await start(files.crash())


async def test_the_same_body_in_other_pieces_is_the_same_request(ingress: Ingress) -> None:
    body = b'{"target":"n/any","id":"k","value":"\xc3\xa9"}\n' * 1_500

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    answers = [
        (await ingress.bulk(pieces(size), producer_id="p", producer_sequence="1")).json()
        for size in (len(body), 1_000, 777)
    ]
    assert answers == [{"accepted": 1_500, "log": "l", "sequence": 0}] * 3


async def test_a_sequence_too_far_ahead_is_told_what_is_expected(ingress: Ingress) -> None:
    await ingress.put("n/any/k", producer_id="p", producer_sequence="1")

    response = await ingress.put("n/any/k", producer_id="p", producer_sequence="5000")

    assert "send 2 first" in problem(response, 409)


async def test_a_refused_request_does_not_use_up_its_sequence(ingress: Ingress) -> None:
    assert (await ingress.put("n/int/k", b'"x"', producer_id="p", producer_sequence="1")).status_code == 422
    assert (await ingress.put("n/int/k", b"1", producer_id="p", producer_sequence="1")).status_code == 202
    assert ingress.service.core.log.end_seq == 1


PRODUCER_HEADERS: list[tuple[dict[str, str], str]] = [
    ({"producer_id": "p"}, "found none, expected a number"),
    ({"producer_id": "p", "producer_sequence": "x"}, "found 'x', expected a number"),
    ({"producer_id": "p", "producer_sequence": "-1"}, "found '-1'"),
    ({"producer_id": "p", "producer_sequence": "9" * 30}, "expected a number"),
    ({"producer_id": "", "producer_sequence": "1"}, "use 1 to 128 ASCII characters"),
    ({"producer_id": "x" * 129, "producer_sequence": "1"}, "it has 129 characters"),
    ({"producer_sequence": "1"}, "needs a Producer-Id"),
]


async def test_producer_headers_that_cannot_be_used_are_refused(
    ingress: Ingress, subtests: pytest.Subtests
) -> None:
    for headers, text in PRODUCER_HEADERS:
        with subtests.test(headers=headers, text=text):
            assert text in problem(await ingress.put("n/any/k", **headers), 400)


async def test_the_number_of_producers_is_bounded(start: Start) -> None:
    ingress = await start(producers=Producers(producers_max=1))
    await ingress.put("n/any/k", producer_id="a", producer_sequence="0")

    response = await ingress.put("n/any/k", producer_id="b", producer_sequence="0")

    assert "already remembers 1 producers" in problem(response, 429)


# --- bulk -------------------------------------------------------------------------------


async def test_a_bulk_request_is_one_record_in_order(ingress: Ingress) -> None:
    worker = await ingress.worker(credit=100)
    body = b"".join(b'{"target":"n/int","id":"k%d","value":%d}\n' % (i % 7, i) for i in range(1_000))

    response = await ingress.bulk(body)

    assert response.json() == {"accepted": 1_000, "log": "l", "sequence": 0}
    await worker.wait(lambda worker: len(worker.events) == 1_000)
    assert [event[0] for event in worker.events] == list(range(1_000))
    assert [event[2] for event in worker.events] == [f"k{i % 7}" for i in range(1_000)]


async def test_a_bulk_request_with_one_bad_line_appends_nothing(ingress: Ingress) -> None:
    good = b'{"target":"n/int","id":"k","value":1}\n'

    response = await ingress.bulk(good * 10 + b'{"target":"n/int","id":"k","value":"x"}\n' + good)

    assert problem(response, 422).startswith("line 11: ")
    assert ingress.service.core.log.end_seq == 0
    assert (await ingress.bulk(good)).status_code == 202


async def test_a_bulk_body_may_come_in_chunks(ingress: Ingress) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(200):
            yield b'{"target":"n/int","id":"k%d",' % i
            yield b'"value":%d}\n' % i

    assert (await ingress.bulk(pieces())).json()["accepted"] == 200


NOT_NDJSON: list[str] = ["text/plain", "application/x-www-form-urlencoded", ""]


async def test_a_bulk_body_must_say_that_it_is_ndjson(ingress: Ingress, subtests: pytest.Subtests) -> None:
    for content_type in NOT_NDJSON:
        with subtests.test(content_type=content_type):
            response = await ingress.bulk(b"{}", content_type=content_type)

            assert "send application/x-ndjson" in problem(response, 415)


async def test_bodies_being_read_are_bounded(start: Start) -> None:
    ingress = await start(unread_bytes_max=1_000_000)
    line = b'{"target":"n/any","id":"k","value":"%s"}\n' % (b"x" * 500_000)
    large = b'"' + b"x" * 2_000_000 + b'"'

    for _ in range(3):
        assert "at most 1000000 may" in problem(await ingress.bulk(line * 5), 429)
        assert "at most 1000000 may" in problem(await ingress.put("n/any/k", large), 429)
        assert (await ingress.bulk(line)).status_code == 202
        assert (await ingress.put("n/any/k", large[:800_000] + b'"')).status_code == 202
    assert ingress.service.unread.size_bytes == 0


# --- size -------------------------------------------------------------------------------


async def test_a_body_that_announces_too_much_is_refused_and_the_client_can_read_why(start: Start) -> None:
    ingress = await start(body_bytes_max=1_000, bulk_bytes_max=3_000)

    body = problem(await ingress.put("n/any/k", b"x" * 1_001), 413)
    assert "has 1001 bytes, at most 1000" in body
    assert "--http-limit bodyBytesMax=BYTES of 'statefun-ray run'" in body
    bulk = problem(await ingress.bulk(b"x" * 2_000_000), 413)
    assert "at most 3000" in bulk
    assert "raise bulkBytesMax, with" in bulk
    assert (await ingress.put("n/any/k", b'"' + b"x" * 998 + b'"')).status_code == 202


async def test_an_id_is_as_long_as_its_limit_and_no_longer(start: Start) -> None:
    ingress = await start(id_bytes_max=5_000)

    assert (await ingress.put("n/any/" + "x" * 5_000)).status_code == 202
    detail = problem(await ingress.put("n/any/" + "x" * 5_001), 400)
    assert "takes 5001 bytes, at most 5000" in detail
    assert "raise idBytesMax, with" in detail


async def test_a_chunked_body_is_refused_once_it_is_too_large(start: Start) -> None:
    ingress = await start(body_bytes_max=1_000, bulk_bytes_max=3_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"\n" * 500

    assert "at most 1000" in problem(await ingress.put("n/any/k", pieces()), 413)
    assert "at most 3000" in problem(await ingress.bulk(pieces()), 413)


async def test_a_bulk_line_is_bounded_like_a_body(start: Start) -> None:
    ingress = await start(body_bytes_max=1_000)
    line = b'{"target":"n/any","id":"k","value":"%s"}\n' % (b"x" * 100_000)

    detail = problem(await ingress.bulk(line), 413)

    assert detail.startswith("line 1")
    assert "1000" in detail


# --- admission --------------------------------------------------------------------------


async def test_a_lag_beyond_the_limit_is_answered_429_until_workers_catch_up(start: Start) -> None:
    ingress = await start(lag_events_max=5)
    for _ in range(6):
        assert (await ingress.put("n/any/k")).status_code == 202

    assert "at most 5 may" in problem(await ingress.put("n/any/k"), 429)
    assert problem(await ingress.bulk(b"{}"), 429)
    worker = await ingress.worker()
    await worker.wait(lambda worker: len(worker.events) == 6)
    assert (await ingress.put("n/any/k")).status_code == 202


async def test_nothing_is_acknowledged_when_the_disk_fails(start: Start) -> None:
    files = FaultyFiles()
    ingress = await start(files)
    worker = await ingress.worker()
    assert (await ingress.put("n/any/k")).status_code == 202
    files.fail_sync = lambda name: True

    responses = await asyncio.gather(*[ingress.put("n/any/k") for _ in range(5)])
    files.fail_sync = lambda name: False

    for response in responses:
        assert "Input/output error" in problem(response, 503)
    assert "stopped accepting" in problem(await ingress.put("n/any/k"), 503)
    assert "stopped accepting" in problem(await ingress.client.get("/readyz"), 503)
    assert (await ingress.client.get("/healthz")).status_code == 503
    assert ingress.service.status()["state"] == "failed"
    await worker.wait(lambda worker: len(worker.events) == 1)
    assert worker.position == 1
