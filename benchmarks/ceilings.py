"""What the other side alone can do on this machine: each ceiling is a process of its own.

* ``sdk``: the relay function called through the SDK's objects on plain dictionaries, no runtime;
* ``mesh``: two bare processes that exchange columns of messages over TCP, a function without SDK;
* ``asgi``: a bare ASGI application on uvicorn that answers 202.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections import deque
from typing import Any

import msgspec
from xxhash import xxh3_64_intdigest


def sdk(seconds: float) -> float:
    """Return invocations per second of the relay function without a runtime."""
    from benchmarks.functions import functions
    from statefun_sdk import Context, Message, message_builder

    function = functions.functions["bench/relay"]
    table: dict[str, bytes] = {}
    storage = function.storage_class([table])
    context = Context._of("bench/relay", storage)
    token = message_builder("bench/relay", "0", int_value=2_000_000_000)
    value_type, value = token._value_typename, token._value
    queue = deque(("bench/relay", str(id), "", "", value_type, value) for id in range(0, 10_000, 10))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(1_000):
            _, id, caller_type, caller_id, value_type, value = queue.popleft()
            context._discard()
            context._begin(id, caller_type, caller_id)
            function.fun(context, Message._of("bench/relay", id, value_type, value))
            for target_type, target_id, sent_type, sent in context._sends:
                queue.append((target_type, target_id, "bench/relay", id, sent_type, sent))
            for written in storage._Writes.values():
                assert written is not None, "the relay deletes nothing"
                table[id] = written
        count += 1_000
    return count / (time.perf_counter() - started)


Columns = tuple[list[str], list[str], list[str], list[str], list[str], list[bytes]]


async def mesh(index: int, port: int, seconds: float) -> float:
    """Return invocations per second of one of two bare processes that send every message to the other.

    The shape is ours, without a runtime: six columns per message, a state of bytes that is decoded
    and encoded, a value likewise, the key group of every target.
    """
    state: dict[str, bytes] = {}
    mailbox: deque[tuple[str, str, str, str, str, bytes]] = deque()
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Columns)
    number = struct.Struct("<i")
    if index == 0:
        accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
        await asyncio.start_server(
            lambda reader, writer: accepted.set_result((reader, writer)), "127.0.0.1", port
        )
        reader, writer = await accepted
    else:
        reader, writer = await _connect(port)
    kind = "bench/relay"
    mailbox.extend(
        (kind, str(id), "", "", "int", number.pack(1_000_000_000)) for id in range(index, 10_000, 20)
    )
    count = 0

    async def receive() -> None:
        while True:
            length = int.from_bytes(await reader.readexactly(4), "big")
            mailbox.extend(zip(*decoder.decode(await reader.readexactly(length)), strict=True))

    task = asyncio.ensure_future(receive())
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        out: list[tuple[str, str, str, str, str, bytes]] = []
        for _ in range(min(1_000, len(mailbox))):
            _, id, _, _, value_type, value = mailbox.popleft()
            hops = number.unpack(value)[0]
            held = state.get(id)
            state[id] = number.pack((number.unpack(held)[0] if held is not None else 0) + 1)
            target = str((int(id) + 1) % 10_000)
            xxh3_64_intdigest(target.encode())
            out.append((kind, target, kind, id, value_type, number.pack(hops - 1)))
        count += len(out)
        if out:
            body = encoder.encode(list(zip(*out, strict=True)))
            writer.write(len(body).to_bytes(4, "big") + body)
        await asyncio.sleep(0)
    elapsed = time.perf_counter() - started
    task.cancel()
    return count / elapsed


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + 10
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


_ANSWER = b'{"accepted":1,"log":"0123456789ab","sequence":12345}'  # as long as ours


async def _answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def asgi(port: int) -> None:
    """Serve a bare ASGI application until killed."""
    import uvicorn

    # The settings of our ingress, as far as they cost anything.
    uvicorn.run(
        _answer,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
    )


def main() -> None:
    """Run one ceiling and print its figure."""
    name, *rest = sys.argv[1:]
    if name == "sdk":
        print(sdk(float(rest[0])))
    elif name == "mesh":
        from statefun_ray.local import new_event_loop

        print(new_event_loop().run_until_complete(mesh(int(rest[0]), int(rest[1]), float(rest[2]))))
    elif name == "asgi":
        asgi(int(rest[0]))
    else:
        raise SystemExit(f"no ceiling {name!r}; there are sdk, mesh and asgi")


if __name__ == "__main__":
    main()
