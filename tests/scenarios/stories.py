"""The functions that the scenario stories are played with: one module, so any driver can load it.

Each keeps its own record of what it saw, so a story can tell loss, repetition and disorder apart
from the state alone.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)
from statefun_sdk.types import JSON_TYPENAME

Json = make_json_type(JSON_TYPENAME)

functions = StatefulFunctions()


def body_of(message: Message) -> Any:
    return message.as_type(Json)


def tell(target: str, id: str, value: Any) -> Message:
    return message_builder(target, id, value=value, value_type=Json)


def reply(context: Context, value: Any) -> None:
    if context.caller is not None and context.caller.typename.startswith("statefun-ray.reply/"):
        context.send(tell(context.caller.typename, context.caller.id, value))


# --- counting: an event reaches its counter, and through it one total; nothing twice -------------


@functions.bind("story/counter", specs=[ValueSpec("count", IntType), ValueSpec("seen", Json)])
def counter(context: Context, message: Message) -> None:
    """``{"event": n}``: count, remember n, tell the total, emit one egress row, reply."""
    event = body_of(message)["event"]
    seen: dict[str, int] = context.storage.seen or {}
    seen[str(event)] = seen.get(str(event), 0) + 1
    context.storage.seen = seen
    context.storage.count = (context.storage.count or 0) + 1
    context.send(tell("story/total", "all", 1))
    context.send_egress(egress_message_builder("story/events", value=event, value_type=Json))
    reply(context, context.storage.count)


@functions.bind("story/total", specs=[ValueSpec("count", IntType)])
def total(context: Context, message: Message) -> None:
    context.storage.count = (context.storage.count or 0) + body_of(message)


# --- order: senders number what they send, recorders check it -----------------------------------


@functions.bind("story/sender", specs=[ValueSpec("next", IntType)])
def sender(context: Context, message: Message) -> None:
    """``{"send": how many, "to": ids}``: send numbered messages to recorders, round robin."""
    order = body_of(message)
    at = context.storage.next or 0
    for number in range(at, at + order["send"]):
        for to in order["to"]:
            context.send(tell("story/recorder", to, {"from": context.address.id, "number": number}))
    context.storage.next = at + order["send"]


@functions.bind("story/recorder", specs=[ValueSpec("last", Json), ValueSpec("wrong", Json)])
def recorder(context: Context, message: Message) -> None:
    told = body_of(message)
    last: dict[str, int] = context.storage.last or {}
    expected = last.get(told["from"], -1) + 1
    if told["number"] != expected:
        context.storage.wrong = [*(context.storage.wrong or []), [told["from"], told["number"], expected]]
    last[told["from"]] = told["number"]
    context.storage.last = last


# --- time ---------------------------------------------------------------------------------------


@functions.bind("story/alarm", specs=[ValueSpec("rung", Json)])
def alarm(context: Context, message: Message) -> None:
    """``{"set": name, "ms": delay}``, ``{"cancel": name}``, or the alarm itself: ``{"ring": name}``."""
    order = body_of(message)
    if "set" in order:
        ring = tell("story/alarm", context.address.id, {"ring": order["set"]})
        context.send_after(timedelta(milliseconds=order["ms"]), ring, order["set"])
    elif "cancel" in order:
        context.cancel_delayed_message(order["cancel"])
    else:
        rung: dict[str, int] = context.storage.rung or {}
        rung[order["ring"]] = rung.get(order["ring"], 0) + 1
        context.storage.rung = rung


@functions.bind(
    "story/forgetful",
    specs=[
        ValueSpec("short", Json, expire_after_write=timedelta(milliseconds=300)),
        ValueSpec("lasting", Json),
    ],
)
def forgetful(context: Context, message: Message) -> None:
    """``{"remember": value}`` writes both states; anything else replies what is still there."""
    order = body_of(message)
    if "remember" in order:
        context.storage.short = order["remember"]
        context.storage.lasting = order["remember"]
    reply(context, {"short": context.storage.short, "lasting": context.storage.lasting})


# --- waiting ------------------------------------------------------------------------------------


@functions.bind("story/patient", specs=[ValueSpec("count", IntType)])
async def patient(context: Context, message: Message) -> None:
    """``{"until": path}``: wait until the file is there; ``{}``: for a moment. Then count."""
    order = body_of(message)
    until = order.get("until")
    await asyncio.sleep(0.001)
    while until is not None and not Path(until).exists():  # noqa: ASYNC110, ASYNC240 - a file is all processes share
        await asyncio.sleep(0.01)
    context.storage.count = (context.storage.count or 0) + 1
    context.send(tell("story/total", "patient", 1))
    reply(context, context.storage.count)


@functions.bind("story/blocking", specs=[ValueSpec("count", IntType)], blocking=True)
def blocking(context: Context, message: Message) -> None:
    """As ``story/patient``, but it holds its thread meanwhile."""
    until = body_of(message).get("until")
    while until is not None and not Path(until).exists():
        time.sleep(0.01)
    context.storage.count = (context.storage.count or 0) + 1
    context.send(tell("story/total", "blocking", 1))
    reply(context, context.storage.count)


@functions.bind("story/token", specs=[ValueSpec("hops", IntType)])
def token(context: Context, message: Message) -> None:
    """``{"ring": ids}``: pass it on to the next of the ids, for ever."""
    ring: list[str] = body_of(message)["ring"]
    context.storage.hops = (context.storage.hops or 0) + 1
    context.send(tell("story/token", ring[(ring.index(context.address.id) + 1) % len(ring)], {"ring": ring}))


# --- failing ------------------------------------------------------------------------------------


@functions.bind("story/fragile", specs=[ValueSpec("count", IntType), ValueSpec("half", IntType)])
def fragile(context: Context, message: Message) -> None:
    """``{"poison": kind}`` raises, after writing and sending what must not be seen."""
    if body_of(message).get("poison"):
        context.storage.half = 1
        context.send(tell("story/total", "poison", 1))
        raise {"exit": SystemExit, "cancel": asyncio.CancelledError}.get(
            body_of(message)["poison"], ValueError
        )("poison")
    context.storage.count = (context.storage.count or 0) + 1
    reply(context, context.storage.count)


@functions.bind("story/hog", specs=[ValueSpec("count", IntType)])
def hog(context: Context, message: Message) -> None:
    """``{"ms": for how long}``: hold the worker's loop, which a function should not do."""
    time.sleep(body_of(message)["ms"] / 1000)
    context.storage.count = (context.storage.count or 0) + 1
