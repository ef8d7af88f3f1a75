"""Serves as the app behind the sidecar for the judges, on aiohttp: a WebSocket echo, and answers a client can check.

    python tests/support/mixed_app.py --port 8080

`/echo`        a WebSocket that returns every message, permessage-deflate allowed
`/mix/ID?…`    an answer that follows from its target alone (see `Wanted`), with a digest of the body that was received
`/seen`        how often each ID was asked for, as JSON; asked directly, not through the proxy
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import zlib
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlencode

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler

DIGEST = "X-Received"  # length and checksum of the request body as the app got it
NUMBER = "X-Number"  # the ID of the request this answers
BODILESS = (204, 304)
_PIECE = 32 * 1024
_PATTERN = bytes(itertools.islice(itertools.cycle(range(251)), 2 << 20))  # 251 is prime: no shift looks like another


class Wanted(NamedTuple):
    """What the app is asked to answer. hang_up: the app closes the connection after it."""

    number: int
    status: int
    size: int
    chunked: bool
    hang_up: bool

    @property
    def target(self) -> str:
        fields = {"status": self.status, "size": self.size, "chunked": int(self.chunked), "hang_up": int(self.hang_up)}
        return f"/mix/{self.number}?{urlencode(fields)}"

    @property
    def body(self) -> bytes:
        """Differs from request to request, so that nobody gets somebody else's."""
        if self.status in BODILESS:
            return b""
        start = self.number % 251
        return _PATTERN[start : start + self.size]


def digest(body: bytes) -> str:
    return f"{len(body)}-{zlib.crc32(body):08x}"


@web.middleware
async def expecting_departures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Clients leave in the middle here; that is no error to report."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response(status=499)


class App:
    """`seen` counts requests by ID from the moment their head is here."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()

    async def mix(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        self.seen[number] += 1
        query = request.query
        wanted = Wanted(
            number, int(query["status"]), int(query["size"]), query["chunked"] == "1", query["hang_up"] == "1"
        )
        received = await request.read()
        headers = {DIGEST: digest(received), NUMBER: str(number)}
        if not wanted.chunked or wanted.status in BODILESS or request.method == "HEAD":
            answer = web.Response(status=wanted.status, headers=headers, body=wanted.body or None)
            if wanted.hang_up:
                answer.force_close()
            return answer
        stream = web.StreamResponse(status=wanted.status, headers=headers)
        stream.enable_chunked_encoding()
        if wanted.hang_up:
            stream.force_close()
        await stream.prepare(request)
        body = wanted.body
        for at in range(0, len(body), _PIECE):
            await stream.write(body[at : at + _PIECE])
        await stream.write_eof()
        return stream

    async def report(self, request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(self.seen))

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def hello(self, request: web.Request) -> web.Response:
        return web.Response(text="hello\n")


def application() -> web.Application:
    app = App()
    # Bodies are up to 1 MiB; aiohttp refuses what is not below its limit.
    served = web.Application(client_max_size=4 << 20, middlewares=[expecting_departures])
    served.add_routes(
        [
            web.get("/", app.hello),
            web.get("/seen", app.report),
            web.get("/echo", app.echo),
            web.route("*", "/mix/{number}", app.mix),
        ]
    )
    return served


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    flags = parser.parse_args()
    # An hour: no connection goes stale during a run, so a repeated request would be a fault of the proxy.
    web.run_app(
        application(), host="127.0.0.1", port=flags.port, print=lambda *_: None, access_log=None,
        keepalive_timeout=3600.0, backlog=4096,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
