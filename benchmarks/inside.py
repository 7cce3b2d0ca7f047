"""Figures that need a look inside the process: run as processes of their own by ``__main__``.

* ``loop KEYS``: how late the worker's loop is while snapshots of KEYS keys are taken;
* ``cost INTERVAL``: invocations per second with snapshots every INTERVAL seconds;
* ``memory KEYS``: resident bytes per key with one int state.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
import urllib.request

from benchmarks.application import NDJSON, lines
from benchmarks.functions import functions
from statefun_ray.core.worker import Worker
from statefun_ray.core.worker_config import WorkerConfig
from statefun_ray.io.invoke_local import EmbeddedInvoker
from statefun_ray.local import LocalApplication
from statefun_sdk import message_builder

TOKENS = 1_000


def _preload(app: LocalApplication, keys: int) -> None:
    for at in range(0, keys, 2_000):
        _post(app, lines("bench/counter", [f"k{at + offset}" for offset in range(2_000)], 1))
    app.wait_idle(300)


def _post(app: LocalApplication, body: bytes) -> None:
    call = urllib.request.Request(f"{app.url}/v1/events", data=body, headers=NDJSON, method="POST")
    with urllib.request.urlopen(call, timeout=60):
        pass


def loop_lateness(keys: int, seconds: float = 15) -> dict[str, float]:
    """Return percentiles of how late a timer of the worker's loop fires, in ms."""
    with LocalApplication(functions, workers=1, snapshot_interval_s=1.0) as app:
        _preload(app, keys)
        late_ms: list[float] = []
        stop = threading.Event()

        async def probe() -> None:
            while not stop.is_set():
                asked = time.perf_counter()
                await asyncio.sleep(0.001)
                late_ms.append((time.perf_counter() - asked - 0.001) * 1_000)

        assert app._loop is not None, "the application runs"
        before = app.status()["last_snapshot"]["id"]
        asyncio.run_coroutine_threadsafe(probe(), app._loop)
        for token in range(0, 10_000, 500):
            app.send("bench/relay", str(token), 2_000_000)
        time.sleep(seconds)
        stop.set()
        snapshots = app.status()["last_snapshot"]["id"] - before
        ordered = sorted(late_ms)
        app.crash()
        return {
            "p50_ms": ordered[len(ordered) // 2],
            "p99_ms": ordered[int(len(ordered) * 0.99)],
            "max_ms": ordered[-1],
            "snapshots": snapshots,
        }


def throughput(interval_s: float, tokens: int = TOKENS, hops: int = 1_000) -> dict[str, float]:
    """Return invocations per second of the relay, one worker, one process, and the snapshots taken."""
    with LocalApplication(functions, workers=1, snapshot_interval_s=interval_s) as app:
        begun = time.perf_counter()
        _post(app, lines("bench/relay", [str(at * 10) for at in range(tokens)], hops))
        app.wait_until(lambda: app.state("bench/done", "all").get("count") == tokens, 300, "all tokens home")
        elapsed = time.perf_counter() - begun
        last = app.status()["last_snapshot"]
        app.crash()
    return {"per_second": tokens * (hops + 2) / elapsed, "snapshots": last["id"] if last else 0}


def memory(keys: int) -> dict[str, float]:
    """Return resident bytes per key of a worker with one int state per key."""
    worker = Worker(WorkerConfig("bench", 1, 0, 1), EmbeddedInvoker(functions))
    worker.start(0)
    event = message_builder("bench/counter", "k", int_value=1)
    gc.collect()
    before = _resident_bytes()
    for at in range(0, keys, 1_000):
        worker._mailbox.extend(
            ("bench/counter", f"k{at + offset}", "", "", event._value_typename, event._value)
            for offset in range(1_000)
        )
        while worker.turn(1, 1_000):
            pass
    worker._store.freeze()
    worker._store.committed(periodic=True)  # the layers of dirty keys go with a snapshot
    gc.collect()
    return {"bytes_per_key": (_resident_bytes() - before) / keys}


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run one measurement and print it as JSON."""
    name, argument = sys.argv[1:3]
    measure = {"loop": loop_lateness, "memory": memory}.get(name)
    result = throughput(float(argument)) if measure is None else measure(int(argument))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
