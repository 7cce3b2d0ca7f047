"""Ctrl-C, SIGTERM and SIGHUP, from the first import until an application has ended.

While an application starts, the first signal interrupts whatever is done, so that it can be taken down;
once it is ready, signals are noted, and `watch` decides. Python may be interrupted nearly anywhere, but
not inside of ``ray.init``: that has ended in a segmentation fault. `held` keeps them for a moment.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SAME_SIGNAL_S: Final = 0.5
"""One Ctrl-C or ``ray job stop`` may reach this process by more than one way."""

STOPPED: Final = "stopped while starting; nothing was lost, the next start goes on"

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_starting: list[Signals] = []
"""Of the application that this program starts, if it does."""


class Signals:
    """Those that came, and whether the next one interrupts."""

    def __init__(self) -> None:
        self.count = 0
        self.is_starting = True
        """Whether a signal means that the start is given up; else whoever looks at `count` decides."""
        self._last_s = 0.0

    def only_count(self) -> None:
        """Interrupt nothing from now on: the application is ready."""
        self.is_starting = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Count a signal; the first one of a start interrupts it.

        Raises:
            KeyboardInterrupt: the application is starting. Once: taking it down is not interrupted.
        """
        now_s = time.monotonic()
        if self.count and now_s - self._last_s < SAME_SIGNAL_S:
            return
        self.count, self._last_s = self.count + 1, now_s
        if self.is_starting and self.count == 1:
            raise KeyboardInterrupt


@contextmanager
def caught() -> Iterator[Signals]:
    """Have signals come to the `Signals` returned, for the duration of the block.

    A start that one has interrupted ends there, as it was told to: with a sentence and no error.
    """
    signals = Signals()
    before = _handle_with(signals.note)
    _starting.append(signals)
    try:
        yield signals
    except BaseException:
        # Whatever the interruption has become on its way: processes that got the signal too are missing.
        if not (signals.is_starting and signals.count):
            raise
        print(STOPPED, flush=True)
    finally:
        _starting.remove(signals)
        _restore(before)


@contextmanager
def held(give_up_s: float | None = None) -> Iterator[None]:
    """Let no signal interrupt the block; those that came are delivered when it is done.

    Args:
        give_up_s: end the program, with nothing further, if the block takes so long after a signal:
            what it waits for may have got the signal too.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if give_up_s is not None and len(came) == 1:
            giving_up.start()

    giving_up = threading.Timer(give_up_s or 0.0, lambda: _give_up(came[0]))
    giving_up.daemon = True
    before = _handle_with(note)
    try:
        yield
    finally:
        giving_up.cancel()
        _restore(before)
        for number in came:
            signal.raise_signal(number)


def _give_up(number: int) -> None:
    if not _starting:
        os._exit(128 + number)
    print(STOPPED, flush=True)
    os._exit(0)


def _handle_with(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread may; the program around us decides
    return {number: signal.signal(number, handler) for number in _SIGNALS}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # None: it was not set by Python, and cannot be set again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
