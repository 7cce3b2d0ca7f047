"""The command interpreter on our SDK: embedded in the workers, or as a service with a port to listen on."""
# mypy: ignore-errors
# It is also run by an SDK that has no types.

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta

from statefun_sdk import (
    IntType,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)

functions = StatefulFunctions()

NAMESPACE = "statefun.smoke.e2e"
SOURCE_COMMAND = make_json_type(f"{NAMESPACE}/source-command")
COMMANDS = make_json_type(f"{NAMESPACE}/commands")
RESULT = make_json_type(f"{NAMESPACE}/verification-result")
TEXT = make_json_type(f"{NAMESPACE}/discarded")


class OperationFailed(Exception):
    """As the command said."""


@functions.bind(f"{NAMESPACE}/command-interpreter-fn", specs=[ValueSpec("state", IntType)])
async def interpreter(context, message):
    """Do what the message says."""
    if message.is_type(SOURCE_COMMAND):
        commands = message.as_type(SOURCE_COMMAND)["commands"]
    elif message.is_type(COMMANDS):
        commands = message.as_type(COMMANDS)["commands"]
    else:
        raise ValueError(f"a message of type {message.value_typename()} is no command")
    await interpret(context, commands)


async def interpret(context, commands):
    """Do every command, in order."""
    for command in commands:
        for kind, fields in command.items():
            if kind == "increment":
                context.storage.state = (context.storage.state or 0) + 1
            elif kind == "send":
                context.send(message_to(context, fields))
            elif kind == "send_after":
                delay = timedelta(milliseconds=1)
                context.send_after(delay, message_to(context, fields), fields.get("token", ""))
            elif kind == "cancel_send_after":
                context.cancel_delayed_message(fields["token"])
            elif kind == "send_egress":
                context.send_egress(
                    egress_message_builder(f"{NAMESPACE}/discard-sink", "discarded-message", TEXT)
                )
            elif kind == "async_operation":
                # Its commands are due in either outcome, as in StateFun's own suite.
                with suppress(OperationFailed):
                    await operation(fields["failure"])
                await interpret(context, fields["commands"])
            elif kind == "verify":
                result = {
                    "id": int(context.address.id),
                    "round": fields["round"],
                    "expected": fields["expected"],
                    "actual": context.storage.state or 0,
                }
                context.send_egress(egress_message_builder(f"{NAMESPACE}/verification-sink", result, RESULT))
            else:
                raise ValueError(f"{kind} is no command")


async def operation(is_failure):
    """Take a millisecond, and fail if told to."""
    await asyncio.sleep(0.001)
    if is_failure:
        raise OperationFailed


def message_to(context, fields):
    """Return the message that carries nested commands to another instance."""
    commands = {"commands": fields["commands"]}
    return message_builder(
        context.address.typename, str(fields["target"]), value=commands, value_type=COMMANDS
    )


if __name__ == "__main__":
    import uvicorn

    from statefun_sdk.asgi import asgi_app

    uvicorn.run(asgi_app(functions), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
