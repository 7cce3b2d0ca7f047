"""The application of the cluster tests. Its state is the oracle: nothing keeps the ids it has seen.

Every key is sent 1, 2, 3, …. What was lost, doubled or reordered shows as a number that does not
follow its predecessor, at the source or one hop later.
"""

from __future__ import annotations

import time

from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    ValueSpec,
    make_json_type,
    message_builder,
)

SINKS = 8

LastType = make_json_type("story/last")

functions = StatefulFunctions()


@functions.bind(
    "story/source", specs=[ValueSpec("count", IntType), ValueSpec("wrong", IntType)], accepts=[IntType]
)
def source(context: Context, message: Message) -> None:
    """Count, check that the number is the next one, pass it on, reply it."""
    storage = context.storage
    number, count = message.as_int(), storage.count or 0
    if number != count + 1:
        storage.wrong = (storage.wrong or 0) + 1
    storage.count = count + 1
    sink = f"sink-{sum(context.address.id.encode()) % SINKS}"
    context.send(message_builder("story/sink", sink, str_value=f"{context.address.id} {number}"))
    if context.caller is not None:
        context.send(message_builder(context.caller.typename, context.caller.id, int_value=count + 1))


@functions.bind(
    "story/sink",
    specs=[ValueSpec("last", LastType), ValueSpec("count", IntType), ValueSpec("wrong", IntType)],
    accepts=[StringType],
)
def sink(context: Context, message: Message) -> None:
    """Check that the numbers of each sender follow each other."""
    sender, number = message.as_string().split()
    storage = context.storage
    last = storage.last or {}
    if int(number) != last.get(sender, 0) + 1:
        storage.wrong = (storage.wrong or 0) + 1
    last[sender] = int(number)
    storage.last = last
    storage.count = (storage.count or 0) + 1


@functions.bind("story/blocker", specs=[ValueSpec("count", IntType)], accepts=[IntType])
def blocker(context: Context, message: Message) -> None:
    """Hold the worker's loop for as many seconds as the message says."""
    time.sleep(message.as_int())
    context.storage.count = (context.storage.count or 0) + 1


@functions.bind("story/thorn", specs=[ValueSpec("count", IntType)], accepts=[IntType])
def thorn(context: Context, message: Message) -> None:
    """Write a state, and raise."""
    context.storage.count = (context.storage.count or 0) + 1
    raise RuntimeError(f"thorn {message.as_int()}")
