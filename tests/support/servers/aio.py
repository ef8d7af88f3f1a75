"""The app for aiohttp.web. A keep-alive of 1 s is overdue after every nap: a reused connection would fail."""

import sys

import ticking  # type: ignore[import-not-found]
from aiohttp import web


async def hello(_: web.Request) -> web.Response:
    ticking.say("request")
    return web.Response(text="hello\n")


app = web.Application()
app.router.add_get("/", hello)
ticking.start()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), keepalive_timeout=1.0, print=None)
