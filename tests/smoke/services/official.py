"""The interpreter of ``ours.py`` on an official Python SDK: its text with the import changed, served with aiohttp."""

import sys
from pathlib import Path

from aiohttp import web
from statefun import RequestReplyHandler

text = (Path(__file__).parent / "ours.py").read_text()
assert text.count("from statefun_sdk import") == 1
module = {"__name__": "interpreter"}
exec(compile(text.replace("from statefun_sdk import", "from statefun import", 1), "ours.py", "exec"), module)

handler = RequestReplyHandler(module["functions"])


async def handle(request):
    body = await handler.handle_async(await request.read())
    return web.Response(body=body, content_type="application/octet-stream")


app = web.Application(client_max_size=1 << 28)
app.add_routes([web.post("/statefun", handle)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
