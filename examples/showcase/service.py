"""The functions as a web service: the bytes of a request become those of an answer, and that is all.

    python -m examples.showcase.service 8000

Any web framework will do. With Apache's SDK the import says ``statefun``.
"""

import sys

from aiohttp import web

from examples.showcase.functions import functions
from statefun_sdk import RequestReplyHandler

handler = RequestReplyHandler(functions)


async def handle(request: web.Request) -> web.Response:
    """Answer one request of the runtime."""
    answer = await handler.handle_async(await request.read())
    return web.Response(body=answer, content_type="application/octet-stream")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/statefun", handle)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
