"""The side thread of a worker: heartbeats out, and the lease.

It has its own thread and its own connection, so it tells the truth about a loop that is stuck in
user code. The coordinator answers every heartbeat with its number; the lease counts from the
moment the *answered* heartbeat was sent, not from when the answer was read. So a process that was
frozen for a minute and finds a minute-old answer in its socket knows at once that it is fenced.

The lease is a matter of waste, not of safety: what a fenced worker writes can not be committed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from statefun_ray.io.handshake import HandshakeRefused, Hello
from statefun_ray.io.transport_blocking import BlockingConnection

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
"""A fifth of the coordinator's timeout: one late heartbeat is no death."""

LEASE_S: Final = 10.0
"""Silence of the coordinator after which a worker ends itself."""

EXIT_CODE_FENCED: Final = 70

_NUMBER_BYTES: Final = 8


def exit_process(reason: str) -> None:
    """End the process at once, without cleaning up: this worker has no say any more."""
    logger.error("worker ends: %s", reason)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(EXIT_CODE_FENCED)


def pack_heartbeat(number: int, body: bytes) -> bytes:
    """Return the frame of one numbered heartbeat."""
    return number.to_bytes(_NUMBER_BYTES, "big") + body


def unpack_heartbeat(frame: bytes) -> tuple[bytes, bytes]:
    """Return ``(answer, body)`` of a heartbeat frame: send the answer back as it is."""
    return frame[:_NUMBER_BYTES], frame[_NUMBER_BYTES:]


class HeartbeatThread:
    """Sends heartbeats and watches the lease until it is stopped, or the lease is lost."""

    def __init__(
        self,
        address: tuple[str, int],
        hello: Hello,
        *,
        beat: Callable[[], bytes],
        on_lease_lost: Callable[[str], None],
        secret: bytes | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        """Args:
        address: of the coordinator.
        beat: returns the body of the next heartbeat; called in this thread.
        on_lease_lost: called once in this thread, with the reason.
        """
        self._address = address
        self._hello = hello
        self._beat = beat
        self._on_lease_lost = on_lease_lost
        self._secret = secret
        self._heartbeat_s = heartbeat_s
        self._lease_s = lease_s
        self._leased_until = time.monotonic() + lease_s
        self._is_lost = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{hello.source}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, without losing the lease; may be called from any thread, returns at once."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end, at most ``timeout_s``."""
        self._thread.join(timeout_s)

    @property
    def is_leased(self) -> bool:
        """Whether the coordinator may still count on this worker. Any thread may ask, at any time."""
        return not self._is_lost and time.monotonic() < self._leased_until

    def _run(self) -> None:
        sent: dict[bytes, float] = {}
        connection: BlockingConnection | None = None
        number = 0
        try:
            while not self._stopped.is_set():
                try:
                    if connection is None:
                        connection = self._connect()
                    number += 1
                    frame = pack_heartbeat(number, self._beat())
                    sent_at = time.monotonic()
                    answer, _ = unpack_heartbeat(frame)
                    sent[answer] = sent_at
                    connection.send(frame)
                    self._listen(connection, sent, until=sent_at + self._heartbeat_s)
                except HandshakeRefused as error:
                    self._lose(f"the coordinator does not want this worker any more: {error.text}")
                    return
                except OSError as error:
                    if connection is not None:
                        connection.close()
                        connection = None
                    sent.clear()
                    if not self._stopped.wait(self._heartbeat_s / 4):
                        logger.warning("heartbeat connection broken, trying again: %s", error)
                if not self._stopped.is_set() and time.monotonic() >= self._leased_until:
                    self._lose(
                        f"nothing heard from the coordinator for {self._lease_s:g} s; the lease has ended"
                    )
                    return
        finally:
            if connection is not None:
                connection.close()

    def _connect(self) -> BlockingConnection:
        return BlockingConnection.open(
            *self._address,
            self._hello,
            secret=self._secret,
            timeout_s=min(self._lease_s, 4 * self._heartbeat_s),
        )

    def _listen(self, connection: BlockingConnection, sent: dict[bytes, float], until: float) -> None:
        while not self._stopped.is_set():
            # Short waits, so that `stop` is noticed soon.
            remaining_s = until - time.monotonic()
            if remaining_s <= 0:
                return
            answer = connection.receive(min(remaining_s, 0.1))
            if answer is not None and (sent_at := sent.pop(answer, None)) is not None:
                self._leased_until = max(self._leased_until, sent_at + self._lease_s)

    def _lose(self, reason: str) -> None:
        self._is_lost = True
        self._on_lease_lost(reason)
