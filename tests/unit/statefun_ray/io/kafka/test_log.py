"""librdkafka's own lines, in our log."""

from __future__ import annotations

import logging

from statefun_ray.io.kafka.log import SAY_AGAIN_S, Seldom


def test_a_line_that_comes_again_is_left_out_for_a_while_and_counted() -> None:
    now_s = 100.0
    seldom = Seldom(lambda: now_s)

    def line(text: str) -> str | None:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (text,), None)
        return record.getMessage() if seldom.filter(record) else None

    refused = "FAIL [rdkafka#producer-{0}] after {0}ms in state CONNECT"
    assert line(refused.format(1)) == refused.format(1)
    assert [line(refused.format(number)) for number in (2, 3)] == [None, None]
    assert line("another") == "another"
    now_s += SAY_AGAIN_S
    assert line(refused.format(4)) == refused.format(4) + " (2 like it were left out)"
    assert line(refused.format(5)) is None
