"""Functions on an official Python SDK, served with aiohttp; runs in that SDK's environment."""

import sys
from datetime import timedelta

import lab
import statefun
from aiohttp import web
from statefun import *  # noqa: F403 - as its users write it

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


lab.bind(statefun, functions)


def route(path, functions):
    """Serve functions at a path."""
    handler = RequestReplyHandler(functions)  # noqa: F405

    async def handle(request):
        body = await handler.handle_async(await request.read())
        return web.Response(body=body, content_type="application/octet-stream")

    return web.post(path, handle)


if __name__ == "__main__":
    app = web.Application(client_max_size=1 << 28)
    app.add_routes([route("/statefun", functions)])
    app.add_routes([route(f"/statefun/{name}", lab.versioned(statefun, name)) for name in lab.VERSIONS])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
