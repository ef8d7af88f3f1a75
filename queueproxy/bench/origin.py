"""Serves as the app under load: the quickest honest HTTP/1.1 origin, so that the proxy is what a run measures.

    python -m queueproxy.bench.origin --port 8080

`GET /bytes/N` answers N bytes; a request with a body is answered with that body, but one to `/sink` is only read;
a WebSocket is echoed; anything else is answered with one line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import httptools

from queueproxy.bench.loop import run
from queueproxy.bench.websocket import FrameError, Frames, plain_frame, switching

__all__ = ["MAX_BODY", "Origin", "answer_for", "main"]

MAX_BODY = 16 << 20  # a larger /bytes/N is refused: the answer is kept in memory
_SMALL = b"Hello, world\n"


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


_ANSWER_SMALL = _answer(b"200 OK", _SMALL)


def answer_for(url: bytes) -> bytes:
    """The whole answer to a GET."""
    if not url.startswith(b"/bytes/"):
        return _ANSWER_SMALL
    size = url.removeprefix(b"/bytes/")
    if not size.isdigit() or int(size) > MAX_BODY:
        return _answer(b"400 Bad Request", b"/bytes/N takes a number up to %d\n" % MAX_BODY)
    return _answer(b"200 OK", b"x" * int(size))


class Origin(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = answers
        self.parser = httptools.HttpRequestParser(self)
        self.transport: Any = None
        self.url = b""
        self.body: list[bytes] = []
        self.key = b""  # of a WebSocket
        self.frames: Frames | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.frames is not None:
            self.echo(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.transport.close()

    def upgrade(self, early: bytes) -> None:
        if not self.key:
            self.transport.close()
            return
        self.frames = Frames()
        self.transport.write(switching(self.key))
        if early:
            self.echo(early)

    def echo(self, data: bytes) -> None:
        assert self.frames is not None
        try:
            for payload in self.frames.feed(data):
                self.transport.write(plain_frame(payload))
        except FrameError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.url = self.key = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 17 and name.lower() == b"sec-websocket-key":
            self.key = value

    def on_url(self, piece: bytes) -> None:
        self.url += piece

    def on_body(self, piece: bytes) -> None:
        if self.url != b"/sink":
            self.body.append(piece)

    def on_message_complete(self) -> None:
        if self.key:
            return
        if self.body:
            answer = _answer(b"200 OK", b"".join(self.body))
            self.body.clear()
        else:
            known = self.answers.get(self.url)
            if known is None:
                known = answer_for(self.url)
                if len(self.answers) < 64:  # a run asks for a handful of paths; a stranger must not fill the memory
                    self.answers[self.url] = known
            answer = known
        if self.parser.get_method() == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self.transport.write(answer)
        if not self.parser.should_keep_alive():
            self.transport.close()


async def serve(host: str, port: int) -> None:
    answers: dict[bytes, bytes] = {}
    server = await asyncio.get_running_loop().create_server(lambda: Origin(answers), host, port, backlog=1024)
    await server.serve_forever()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m queueproxy.bench.origin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    flags = parser.parse_args(argv)
    run(serve(flags.host, flags.port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
