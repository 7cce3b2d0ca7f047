"""Request-reply and state reads, with a worker that speaks the real protocol."""

from __future__ import annotations

import asyncio

import pytest

from statefun_ingress.feed import Query, Reply, State
from statefun_ingress.values import BOOL, DOUBLE, INT, STRING
from tests.ingress.conftest import Ingress, Start, until
from tests.ingress.fake_worker import FakeWorker
from tests.ingress.faulty_files import FaultyFiles
from tests.ingress.test_http_events import problem

REPLIES: list[tuple[str, bytes | None, str, bytes]] = [
    (STRING, b"\x0a\x03h\xc3\xa9", "text/plain; charset=utf-8", "hé".encode()),
    (STRING, b"", "text/plain; charset=utf-8", b""),
    (INT, b"\x0d\x2a\0\0\0", "application/json", b"42"),
    (INT, b"", "application/json", b"0"),
    (BOOL, b"\x08\x01", "application/json", b"true"),
    (DOUBLE, b"", "application/json", b"0.0"),
    ("t/j", b'{"a":1}', "application/json", b'{"a":1}'),
    ("statefun-ray.types/json", b"[]", "application/json", b"[]"),
    ("t/x", b"\0\1", "application/vnd.t/x", b"\0\1"),
    ("t/x", None, "application/vnd.t/x", b""),
    (INT, b"not an int", f"application/vnd.{INT}", b"not an int"),
    ("t/bad\r\nname", b"x", "application/octet-stream", b"x"),
]


async def test_the_reply_is_the_answer_in_the_form_of_its_type(
    ingress: Ingress, subtests: pytest.Subtests
) -> None:
    worker = await ingress.worker()
    for typename, value, content_type, content in REPLIES:
        with subtests.test(typename=typename, value=value):
            worker.reply = lambda event, reply=(typename, value): reply  # type: ignore[misc]

            response = await ingress.put("n/any/k", b"1", prefer="wait=10")

            assert response.status_code == 200
            assert response.headers["content-type"] == content_type
            assert response.headers["preference-applied"] == "wait=10"
            assert response.content == content
    await worker.wait(lambda worker: len(worker.acked) == len(REPLIES))


async def test_the_event_carries_the_reply_address_of_this_incarnation(ingress: Ingress) -> None:
    worker = await ingress.worker()
    worker.reply = lambda event: (STRING, b"")

    await ingress.put("n/any/k", prefer="respond-async, wait=10; foo")

    assert worker.events[0][3:5] == ("statefun-ray.reply/l.1", "1")


async def test_without_a_reply_in_time_the_event_is_accepted_all_the_same(ingress: Ingress) -> None:
    worker = await ingress.worker()

    response = await ingress.put("n/any/k", prefer="wait=0.2")

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=0.2"
    answer = response.json()
    detail = answer.pop("detail")
    assert answer == {"accepted": 1, "log": "l", "sequence": 0, "reply": None}
    assert detail.startswith("no reply came within 0.2 s (a reply is a message to context.caller;")
    assert detail.endswith("the event is durable and will be applied exactly once: do not send it again")
    assert len(ingress.service.core.pending) == 0
    worker.reply = lambda event: (STRING, b"")
    assert (await ingress.put("n/any/k", prefer="wait=10")).status_code == 200


async def test_without_a_worker_the_event_is_accepted_all_the_same(ingress: Ingress) -> None:
    assert (await ingress.put("n/any/k", prefer="wait=0.1")).status_code == 202


async def test_without_a_wait_nothing_is_said_of_a_reply(ingress: Ingress) -> None:
    assert (await ingress.put("n/any/k")).json() == {"accepted": 1, "log": "l", "sequence": 0}


async def test_no_wait_is_no_request_for_a_reply(ingress: Ingress) -> None:
    worker = await ingress.worker()
    for prefer in ("wait=0", "return=minimal", ""):
        response = await ingress.put("n/any/k", prefer=prefer)
        assert response.status_code == 202
        assert "preference-applied" not in response.headers
    await worker.wait(lambda worker: len(worker.events) == 3)
    assert {event[3] for event in worker.events} == {""}


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait=nan", "wait=inf", "wait"])
async def test_a_wait_that_is_no_number_is_refused(ingress: Ingress, prefer: str) -> None:
    assert "expected seconds" in problem(await ingress.put("n/any/k", prefer=prefer), 400)


async def test_a_wait_is_bounded(start: Start) -> None:
    ingress = await start(wait_s_max=0.1)

    response = await ingress.put("n/any/k", prefer="wait=1000")

    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=0.1")


async def test_the_first_reply_wins(ingress: Ingress) -> None:
    worker = await ingress.worker()
    worker.reply = lambda event: (STRING, b"\x0a\x01" + str(len(worker.acked)).encode())
    responses = await asyncio.gather(*[ingress.put(f"n/any/{i}", prefer="wait=10") for i in range(20)])

    assert all(response.status_code == 200 for response in responses)
    assert ingress.service.core.replies_dropped == 0


async def test_requests_that_wait_are_bounded(start: Start) -> None:
    ingress = await start(pending_replies_max=1)
    first = asyncio.create_task(ingress.put("n/any/k", prefer="wait=10"))
    worker = await ingress.worker()
    await worker.wait(lambda worker: len(worker.events) == 1)

    assert "1 requests already wait" in problem(await ingress.put("n/any/k", prefer="wait=10"), 503)
    assert (await ingress.put("n/any/k")).status_code == 202
    await ingress.service.stop()  # answers the one that waits
    assert (await first).status_code == 202
    assert "the ingress stopped before a reply came; the event is durable" in (await first).json()["detail"]


async def test_a_repeated_request_gets_the_reply_of_its_original(ingress: Ingress) -> None:
    worker = await ingress.worker()
    headers = {"prefer": "wait=10", "producer_id": "p", "producer_sequence": "1"}
    first = asyncio.create_task(ingress.put("n/any/k", **headers))
    await worker.wait(lambda worker: len(worker.events) == 1)
    again = asyncio.create_task(ingress.put("n/any/k", **headers))
    pending = ingress.service.core.pending
    await until(lambda: len(pending._deadlines) == 3)  # the repetition has joined its original
    event = worker.events[0]
    worker.send(Reply(1, "l.1", [(event[4], STRING, b"\x0a\x02ok")]))

    assert (await first).text == (await again).text == "ok"
    assert len(worker.events) == 1
    late = await ingress.put("n/any/k", **headers)
    assert (late.status_code, late.json()["sequence"], late.json()["reply"]) == (202, 0, None)
    assert "its reply is not awaited any more" in late.json()["detail"]


async def test_a_reply_for_a_gone_incarnation_is_dropped(start: Start) -> None:
    files = FaultyFiles()
    ingress = await start(files)
    await ingress.put("n/any/k", prefer="wait=0.05")
    again = await start(files.crash())
    worker = FakeWorker()
    worker.reply = lambda event: (STRING, b"")
    await again.worker(worker)

    await worker.wait(lambda worker: worker.acked == [1])

    assert again.service.core.replies_dropped == 1


# --- state ------------------------------------------------------------------------------


async def test_state_is_shown_by_its_types_with_what_it_builds_on(ingress: Ingress) -> None:
    asked: list[Query] = []

    def answer(query: Query) -> State:
        asked.append(query)
        states = [("seen", INT, b"\x0d\x05\0\0\0"), ("last", "t/j", b'{"a":1}'), ("raw", "t/x", b"\0\1")]
        return State(query.query_id, 3, 17, True, [*states])

    worker = FakeWorker()
    worker.state = answer
    await ingress.worker(worker)

    response = await ingress.client.get("/v1/state/n/any/a%2Fb")
    committed = await ingress.client.get("/v1/state/n/any/k?committed=true")

    assert response.json() == {
        "states": {"seen": 5, "last": {"a": 1}, "raw": "AAE="},
        "types": {"seen": INT, "last": "t/j", "raw": "t/x"},
    }
    assert response.headers["statefun-generation"] == "3"
    assert response.headers["statefun-snapshot-id"] == "17"
    assert committed.status_code == 200
    assert [(query.function_type, query.id, query.wait_commit) for query in asked] == [
        ("n/any", "a/b", False),
        ("n/any", "k", True),
    ]


async def test_state_that_is_not_set_is_null(ingress: Ingress) -> None:
    worker = FakeWorker()
    worker.state = lambda query: State(query.query_id, 3, 17, False, [("seen", INT, None)])
    await ingress.worker(worker)

    response = await ingress.client.get("/v1/state/n/any/k")

    assert response.json()["states"] == {"seen": None, "last": None, "raw": None}


async def test_states_are_asked_for_by_name_and_a_misspelt_one_is_told_those_there_are(
    ingress: Ingress,
) -> None:
    worker = FakeWorker()
    worker.state = lambda query: State(
        query.query_id, 3, 17, True, [("seen", INT, b"\x0d\x05\0\0\0"), ("found", INT, None)]
    )
    await ingress.worker(worker)
    get = ingress.client.get

    one = await get("/v1/state/n/any/k?state=seen")
    two = await get("/v1/state/n/any/k?state=last&state=found")
    wrong = problem(await get("/v1/state/n/any/k?state=seen&state=sene"), 404)
    strange = problem(await get("/v1/state/n/any/k?state=zzz"), 404)

    assert one.json() == {"states": {"seen": 5}, "types": {"seen": INT}}
    assert two.json() == {"states": {"last": None, "found": None}, "types": {"last": "t/j", "found": INT}}
    assert "n/any has no state 'sene'; did you mean seen? it has found, last, raw, seen" in wrong
    assert "n/any has no state 'zzz'; it has found, last, raw, seen" in strange


async def test_state_reads_that_cannot_be_answered_say_why(start: Start) -> None:
    ingress = await start(query_timeout_s=0.1)
    get = ingress.client.get

    assert "is starting or recovering" in problem(await get("/v1/state/n/any/k"), 503)
    await ingress.worker()  # never answers
    assert "no answer within 0.1 s" in problem(await get("/v1/state/n/any/k"), 503)
    assert "did you mean n/any" in problem(await get("/v1/state/n/ani/k"), 404)
    assert "at least one character" in problem(await get("/v1/state/n/any/"), 400)
    assert "committed" in problem(await get("/v1/state/n/any/k?committed=perhaps"), 400)


async def test_a_state_read_ends_when_its_worker_goes(ingress: Ingress) -> None:
    worker = FakeWorker()

    def leave(query: Query) -> None:
        worker._writer.close()

    worker.state = leave
    await ingress.worker(worker)

    assert "is starting or recovering" in problem(await ingress.client.get("/v1/state/n/any/k"), 503)
