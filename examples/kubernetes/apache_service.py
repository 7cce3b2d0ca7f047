"""The same service without our SDK: with Apache's, the import says ``statefun``.

python -m examples.kubernetes.apache_service 8000
"""

import sys

from aiohttp import web

from examples.kubernetes.functions import functions
from statefun_sdk import RequestReplyHandler

handler = RequestReplyHandler(functions)


async def statefun(request: web.Request) -> web.Response:
    """Answer one request of the runtime."""
    answer = await handler.handle_async(await request.read())
    return web.Response(body=answer, content_type="application/octet-stream")


async def healthz(request: web.Request) -> web.Response:
    """Tell the kubelet that somebody is here."""
    return web.Response(text="ok")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/statefun", statefun), web.get("/healthz", healthz)])
    web.run_app(app, port=int(sys.argv[1]))
