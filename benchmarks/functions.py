"""The functions under test. They are small on purpose: what is measured is the runtime around them."""

from __future__ import annotations

from statefun_ray import Context, IntType, LongType, Message, StatefulFunctions, ValueSpec, message_builder

functions = StatefulFunctions()

HOPS_PER_TOKEN = 1_000
"""A token's value counts down by one per hop; ids are ``r<ring>`` numbers that follow each other."""


@functions.bind("bench/relay", [ValueSpec("count", LongType)], accepts=[IntType])
def relay(context: Context, message: Message) -> None:
    """Count, and pass the token on to the next id of a ring of 10,000."""
    storage = context.storage
    storage.count = (storage.count or 0) + 1
    hops = message.as_int() or 0
    if hops:
        following = (int(context.address.id) + 1) % 10_000
        context.send(message_builder("bench/relay", str(following), int_value=hops - 1))
    else:
        context.send(message_builder("bench/done", "all", int_value=1))


@functions.bind("bench/done", [ValueSpec("count", LongType)])
def done(context: Context, _: Message) -> None:
    """Count the tokens that have arrived."""
    context.storage.count = (context.storage.count or 0) + 1


@functions.bind("bench/pair", [ValueSpec("count", LongType)], accepts=[IntType])
def pair(context: Context, message: Message) -> None:
    """Bounce a token between two ids: ``left|right``, so that both know each other."""
    hops = message.as_int() or 0
    left, right = context.address.id.split("|")
    if hops:
        context.send(message_builder("bench/pair", f"{right}|{left}", int_value=hops - 1))
    else:
        context.send(message_builder("bench/done", left, int_value=1))


@functions.bind("bench/counter", [ValueSpec("count", LongType)], accepts=[IntType])
def counter(context: Context, message: Message) -> None:
    """Add to a count, and answer with it if somebody asked."""
    storage = context.storage
    count = storage.count = (storage.count or 0) + (message.as_int() or 0)
    caller = context.caller
    if caller is not None:
        context.send(message_builder(caller.typename, caller.id, value=count, value_type=LongType))


@functions.bind("bench/chain", [ValueSpec("reply_to", LongType)], accepts=[IntType])
def chain(context: Context, message: Message) -> None:
    """Pass a request through ten ids; the last one answers. The address to answer travels in the id."""
    hops = message.as_int() or 0
    caller = context.caller
    if hops == 10 and caller is not None:
        target = f"{hops}|{caller.typename}|{caller.id}"
        context.send(message_builder("bench/chain", target, int_value=hops - 1))
    elif hops:
        _, typename, id = context.address.id.split("|")
        context.send(message_builder("bench/chain", f"{hops}|{typename}|{id}", int_value=hops - 1))
    else:
        _, typename, id = context.address.id.split("|")
        context.send(message_builder(typename, id, int_value=1))
