"""The functions of the conformance checklist, written once for every Python SDK: ``sdk`` is its module."""

import asyncio
from datetime import timedelta

VERSIONS = {
    "none": [],
    "number": [("kept", "IntType")],
    "text": [("kept", "StringType")],
    "more": [("kept", "IntType"), ("more", "IntType")],
}
"""States of ``lab/versioned`` in each version of it, which is served at a path of its own."""

SLOW_S = 30


def bind(sdk, functions):
    """Bind all of them but ``lab/versioned``."""

    def log_spec():
        return sdk.ValueSpec("log", sdk.StringType)

    def remember(context, text):
        before = context.storage.log
        context.storage.log = text if before is None else f"{before},{text}"

    @functions.bind("lab/log", specs=[log_spec(), sdk.ValueSpec("other", sdk.IntType)])
    def log(context, message):
        remember(context, message.as_string())

    @functions.bind("lab/callers", specs=[log_spec()])
    def callers(context, message):
        caller = context.caller
        who = "nobody" if caller is None else f"{caller.typename}/{caller.id}"
        remember(context, f"{message.as_string()} from {who}")

    @functions.bind("lab/act", specs=[log_spec()])
    def act(context, message):
        """Keep what is before the first semicolon, and do the commands behind it."""
        said, *commands = message.as_string().split(";")
        remember(context, said)
        for command in commands:
            match command.split(" "):
                case ["send", target, id, text]:
                    context.send(sdk.message_builder(target, id, str_value=text))
                case ["after", delay_ms, target, id, text, *token]:
                    later = sdk.message_builder(target, id, str_value=text)
                    context.send_after(timedelta(milliseconds=int(delay_ms)), later, *token)
                case ["cancel", token]:
                    context.cancel_delayed_message(token)
                case ["egress", text]:
                    context.send_egress(sdk.egress_message_builder("lab/out", text, sdk.StringType))
                case _:
                    raise ValueError(f"{command} is no command")

    life = timedelta(seconds=1)

    @functions.bind(
        "lab/keep",
        specs=[
            sdk.ValueSpec("written", sdk.IntType, expire_after_write=life),
            sdk.ValueSpec("called", sdk.IntType, expire_after_call=life),
        ],
    )
    def keep(context, message):
        found = f"{shown(context.storage.written)} {shown(context.storage.called)}"
        if message.as_string() == "set":
            context.storage.written = context.storage.called = 1
        reply(sdk, context, found)

    bind_echo(sdk, functions)


def bind_echo(sdk, functions):
    """Bind what answers with what it was told; it fails, and takes its time, when told to."""

    @functions.bind("lab/echo")
    async def echo(context, message):
        text = message.as_string()
        if text == "fail":
            raise ValueError("as told")
        if text == "sleep":
            await asyncio.sleep(SLOW_S)
        reply(sdk, context, text)


def versioned(sdk, version):
    """Return the functions of one version."""
    functions = sdk.StatefulFunctions()
    states = VERSIONS[version]
    kinds = dict(states)

    @functions.bind("lab/versioned", specs=[sdk.ValueSpec(name, getattr(sdk, kind)) for name, kind in states])
    def keep(context, message):
        text, before = message.as_string(), None
        if "kept" in kinds:
            before = context.storage.kept
            context.storage.kept = int(text) if kinds["kept"] == "IntType" else text
        if "more" in kinds:
            context.storage.more = (context.storage.more or 0) + 1
        reply(sdk, context, f"{version} was {shown(before)}")

    bind_echo(sdk, functions)
    return functions


def shown(value):
    """Return a value as every SDK shows it."""
    return "nothing" if value is None else str(value)


def reply(sdk, context, text):
    """Send ``text`` to the caller, if there is one."""
    if context.caller is not None:
        context.send(sdk.message_builder(context.caller.typename, context.caller.id, str_value=text))
