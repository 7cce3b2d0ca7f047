"""Two functions as a web service: who was seen how often, and how they are greeted.

With our SDK: ``python functions.py 8000``. With Apache's: change ``statefun_sdk`` to ``statefun`` in
the import. The runtime does not notice.
"""

import asyncio
import sys

from aiohttp import web

from statefun_sdk import (
    IntType,
    RequestReplyHandler,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)

functions = StatefulFunctions()

GREET_REQUEST = make_json_type("example/GreetRequest")
EGRESS_RECORD = make_json_type("io.statefun.playground/EgressRecord")

GREETINGS = ("Welcome {name}", "Nice to see you again {name}", "Third time is a charm {name}")


@functions.bind("example/person", specs=[ValueSpec("visits", IntType)])
async def person(context, message):
    """Count a visit, and ask for a greeting."""
    name = message.as_type(GREET_REQUEST)["name"]
    visits = (context.storage.visits or 0) + 1
    context.storage.visits = visits
    request = {"name": name, "visits": visits}
    context.send(message_builder("example/greeter", name, value=request, value_type=GREET_REQUEST))


@functions.bind("example/greeter")
async def greeter(context, message):
    """Find the words, which takes a while, and send them out."""
    request = message.as_type(GREET_REQUEST)
    await asyncio.sleep(SECONDS_TO_THINK)
    record = {"topic": "greetings", "payload": greeting(request["name"], request["visits"])}
    context.send_egress(egress_message_builder("io.statefun.playground/egress", record, EGRESS_RECORD))


def greeting(name: str, visits: int) -> str:
    """Return what somebody hears at a visit, counted from 1."""
    if visits <= len(GREETINGS):
        return GREETINGS[visits - 1].format(name=name)
    return f"Nice to see you at the {visits}-nth time {name}!"


SECONDS_TO_THINK = 1.0

handler = RequestReplyHandler(functions)


async def handle(request: web.Request) -> web.Response:
    """Answer one request of the runtime."""
    answer = await handler.handle_async(await request.read())
    return web.Response(body=answer, content_type="application/octet-stream")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/statefun", handle)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
