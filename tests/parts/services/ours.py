"""The functions of ``official.py`` on our SDK: only the import line and the serving differ."""

import os
import sys
from datetime import timedelta

import lab
import uvicorn

import statefun_sdk
from statefun_sdk import *  # noqa: F403 - as users of the official SDK write it
from statefun_sdk.asgi import asgi_app
from statefun_sdk.batches import HEADER

functions = StatefulFunctions()  # noqa: F405


@functions.bind("lab/counter", specs=[ValueSpec("count", IntType)])  # noqa: F405
def counter(context, message):
    context.storage.count = (context.storage.count or 0) + 1
    if context.caller is not None and message.is_string() and message.as_string() == "x":
        context.send(
            message_builder(  # noqa: F405
                target_typename=context.caller.typename,
                target_id=context.caller.id,
                int_value=context.storage.count,
            )
        )


@functions.bind(
    "lab/greeter",
    specs=[
        ValueSpec("visits", IntType),  # noqa: F405
        ValueSpec("last_name", StringType, expire_after_write=timedelta(days=1)),  # noqa: F405
    ],
)
def greeter(context, message):
    name = message.as_string()
    visits = (context.storage.visits or 0) + 1
    context.storage.visits = visits
    context.storage.last_name = name
    context.send(message_builder("lab/counter", context.address.id, int_value=visits))  # noqa: F405
    context.send_after(
        timedelta(milliseconds=20),
        message_builder("lab/counter", context.address.id + "-later", str_value="tick"),  # noqa: F405
        cancellation_token="token-" + context.address.id,
    )
    if name == "cancel":
        context.cancel_delayed_message("token-" + context.address.id)
    context.send_egress(
        kafka_egress_message("lab/out", topic="greetings", key=context.address.id, value=f"{name} {visits}")  # noqa: F405
    )


@functions.bind("lab/failing", specs=[ValueSpec("count", IntType)])  # noqa: F405
def failing(context, message):
    context.storage.count = (context.storage.count or 0) + 1
    if message.as_string() == "fail":
        raise ValueError("as told")


lab.bind(statefun_sdk, functions)

APPS = {
    "/statefun": asgi_app(functions),
    **{f"/statefun/{name}": asgi_app(lab.versioned(statefun_sdk, name)) for name in lab.VERSIONS},
}


async def app(scope, receive, send):
    """Serve each version of the functions at its path."""
    found = APPS["/statefun"] if scope["type"] != "http" else APPS.get(scope["path"])
    if found is not None:
        await found(scope, receive, send)
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})


def apart(app):
    """Let an app not see that the runtime could send many requests in one."""

    async def serve(scope, receive, send):
        if scope["type"] == "http":
            scope = {
                **scope,
                "headers": [header for header in scope["headers"] if header[0] != HEADER.encode()],
            }
        await app(scope, receive, send)

    return serve


if __name__ == "__main__":
    if os.environ.get("STATEFUN_APART"):
        app = apart(app)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
