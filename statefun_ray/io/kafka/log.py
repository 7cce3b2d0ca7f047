"""Where librdkafka's own log goes: into ours, as often as somebody may want to read it.

A client that does not reach its broker says so at every attempt, for each of its connections, and there
are several clients in each worker. What is wrong comes up in the worker's trouble and in errors as well.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

SAY_AGAIN_S: Final = 30.0
"""Until the same line, but for its numbers, is written once more."""

TEXTS_MAX: Final = 1_000
"""Lines that are remembered."""

_NUMBERS: Final = re.compile(r"\d+")


class Seldom(logging.Filter):
    """Lets a line through once in a while, and says how many were left out."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._seen: dict[str, tuple[float, int]] = {}
        """Text without numbers -> when it was let through, and how many were left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written."""
        text = record.getMessage()
        kind = _NUMBERS.sub("0", text)
        now_s = self._now_s()
        last_s, left_out = self._seen.get(kind, (-SAY_AGAIN_S, 0))
        if now_s - last_s < SAY_AGAIN_S:
            self._seen[kind] = last_s, left_out + 1
            return False
        if len(self._seen) >= TEXTS_MAX:
            self._seen.clear()
        self._seen[kind] = now_s, 0
        if left_out:
            record.msg, record.args = f"{text} ({left_out} like it were left out)", ()
        return True


client_logger: Final = logging.getLogger("statefun_ray.io.kafka.client")
"""To be given to every client: without a logger, librdkafka writes to standard error."""
client_logger.addFilter(Seldom())
