"""Producers that number their requests and send each again until it is answered."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from statefun_ray.io.client import HttpClient, RequestFailed
from tests.cluster.story import SINKS

BULK_KEYS = 10
"""Keys of one producer; a bulk request holds one event for each."""

ASK_EVERY = 10
"""Bulk requests between two that wait for a committed reply."""

GIVE_UP_S = 60.0


class Producers:
    """Threads that send 1, 2, 3, … to every key, until told to stop."""

    def __init__(self, url: str, count: int = 3, pause_s: float = 0.002) -> None:
        self.url = url
        self.replies = 0
        self.resent = 0
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._sent: dict[str, int] = {}
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(count)
        ]

    def __enter__(self) -> Producers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> dict[str, int]:
        """Let every producer finish its request; return how many events each key was sent."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(GIVE_UP_S + 10)
        if self._errors:
            raise self._errors[0]
        return self._sent

    @property
    def events(self) -> int:
        """Accepted so far."""
        return sum(self._sent.values())

    def _run(self, index: int) -> None:
        try:
            self._produce(
                f"producer-{index}", [f"key-{index}-{key}" for key in range(BULK_KEYS)], f"asked-{index}"
            )
        except BaseException as error:
            self._errors.append(error)
            raise

    def _produce(self, producer: str, keys: list[str], asked: str) -> None:
        client = HttpClient(self.url, timeout_s=20.0)
        sequence = number = asks = 0
        while not self._stopping.is_set():
            number += 1
            sequence += 1
            bulk = [{"target": "story/source", "id": key, "value": number} for key in keys]
            self._until_accepted(
                lambda at=sequence, bulk=bulk: client.send_many(bulk, producer=(producer, at))
            )
            with self._lock:
                self._sent.update(dict.fromkeys(keys, number))
            if number % ASK_EVERY == 0:
                asks += 1
                sequence += 1
                self._ask(client, asked, asks, (producer, sequence))
            time.sleep(self._pause_s)
        client.close()

    def _ask(self, client: HttpClient, key: str, number: int, producer: tuple[str, int]) -> None:
        reply = self._until_accepted(
            lambda: client._put("story/source", key, number, None, {"prefer": "wait=15"}, producer)
        )
        with self._lock:
            self._sent[key] = number
            if reply.status == 200:  # 202 when the ingress that held the request was killed meanwhile
                assert reply.data == number, f"{key} was told {reply.data} as its count of {number}"
                self.replies += 1

    def _until_accepted(self, request: Any) -> Any:
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return request()
            except OSError:
                if time.monotonic() > deadline:
                    raise
            except RequestFailed as failure:
                if failure.status not in (429, 503) or time.monotonic() > deadline:
                    raise
            self.resent += 1
            time.sleep(0.1)


def sink_of(key: str) -> str:
    """Return the sink that a key's events go to."""
    return f"sink-{sum(key.encode()) % SINKS}"


def mistakes(
    sent: dict[str, int], sources: dict[str, dict[str, Any]], sinks: dict[str, dict[str, Any]]
) -> list[str]:
    """Compare states with what was accepted; return every difference as a sentence."""
    found = []
    for key, count in sent.items():
        state = sources.get(key, {})
        if state.get("count") != count or state.get("wrong"):
            found.append(f"{key} was sent {count}, its state is {state}")
        numbers = sinks.get(sink_of(key), {}).get("last") or {}
        # A table shows JSON as its text.
        last = (json.loads(numbers) if isinstance(numbers, str) else numbers).get(key)
        if last != count:
            found.append(f"{sink_of(key)} has {last} as the last of {key}, sent were {count}")
    found += [f"{id} has out of order {state}" for id, state in sinks.items() if state.get("wrong")]
    total = sum(state.get("count") or 0 for state in sinks.values())
    if total != sum(sent.values()):
        found.append(f"sinks have counted {total}, sent were {sum(sent.values())}")
    return found
