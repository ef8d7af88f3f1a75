"""Serves as the bench's calibrator: the least a Python HTTP/1.1 proxy can do on uvloop and httptools.

Both directions are parsed and every head, body and trailer is written again from the parsed pieces, as any proxy
must, and upstream connections are kept and pooled; after a 101 raw bytes pass both ways. There are no limits,
counters, deadlines, header rules, logs or probes: what another proxy costs more than this, in the same run, is what
its features cost. It takes the queue-proxy's own environment (QUEUE_SERVING_PORT, USER_PORT) so that
`queueproxy bench` can start it like any peer:

    python tests/bench/bare_pair.py

Not served: pipelining, bytes of an upgraded protocol before its 101, Expect from HTTP/1.0 peers. Such a connection
is closed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
import uvloop


class Side(asyncio.Protocol):
    """One parsed connection. Pieces of the message being read gather in `out` and leave in one write per read."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.headers: list[bytes] = []
        self.out: list[bytes] = []
        self.chunked = False
        self.complete = False  # the message being read is wholly here
        self.keep = True
        self.held = False  # not reading, because the other side's writes pile up
        self.raw = False  # upgraded
        self.other: Side | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.held = True
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.release()

    def release(self) -> None:
        if self.held:
            self.held = False
            self.transport.resume_reading()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 17 and name.lower() == b"transfer-encoding":
            self.chunked = True
        self.headers.append(b"%b: %b\r\n" % (name, value))

    def begin_body(self, start_line: bytes) -> None:
        self.out.append(b"%b%b\r\n" % (start_line, b"".join(self.headers)))
        self.headers.clear()  # from here on: trailers

    def on_body(self, piece: bytes) -> None:
        self.out.append(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    def end_body(self, keep: bool) -> None:
        if self.chunked:
            self.out.append(b"0\r\n%b\r\n" % b"".join(self.headers))
        self.headers.clear()
        self.chunked = False
        self.complete = True
        self.keep = keep


class Client(Side):
    """A connection of somebody who asks."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.busy = False
        self.head_only = False

    def data_received(self, data: bytes) -> None:
        if self.raw and self.other is not None:
            self.other.transport.write(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.keep = False  # unless a 101 makes it raw, this parser has seen its last request
        except httptools.HttpParserError:
            self.transport.close()
            return
        if self.other is not None:
            self.flush()

    def flush(self) -> None:
        assert self.other is not None
        if self.out:
            self.other.transport.write(b"".join(self.out))
            self.out.clear()

    def on_message_begin(self) -> None:
        if self.busy:
            raise ValueError("pipelining is not served")
        self.busy = True
        self.complete = False
        self.url = b""

    def on_url(self, piece: bytes) -> None:
        self.url += piece

    def on_headers_complete(self) -> None:
        method = self.parser.get_method()
        self.head_only = method == b"HEAD"
        self.begin_body(b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode()))
        self.pool.lease(self)

    def on_message_complete(self) -> None:
        self.end_body(self.parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.other = None
            self.other.transport.close()
            self.other = None
        self.transport = None

    def connected(self, upstream: Upstream) -> None:
        self.other, upstream.other = upstream, self

    def failed(self) -> None:
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()


class Upstream(Side):
    """A connection to the origin, in the pool between answers."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.parser = httptools.HttpResponseParser(self)
        self.reason = b""

    def data_received(self, data: bytes) -> None:
        client = self.other
        if self.raw and client is not None:
            client.transport.write(data)
            return
        try:
            if client is None:
                raise httptools.HttpParserError("an answer nobody asked for")
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.raw = client.raw = True
            self.out.append(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.transport.close()
            return
        if self.out:
            client.transport.write(b"".join(self.out))
            self.out.clear()
        if self.complete:
            self.answered(client)

    def answered(self, client: Side) -> None:
        assert isinstance(client, Client)
        self.other = client.other = None
        self.complete = client.busy = False
        self.release()
        client.release()
        if self.keep and client.complete:
            self.pool.idle.append(self)
        else:
            self.transport.close()
        if not (client.keep and client.complete):
            client.transport.close()

    def on_status(self, piece: bytes) -> None:
        self.reason += piece

    def on_headers_complete(self) -> None:
        version, code = self.parser.get_http_version(), self.parser.get_status_code()
        self.begin_body(b"HTTP/%b %d %b\r\n" % (version.encode(), code, self.reason))
        self.reason = b""
        if isinstance(self.other, Client) and self.other.head_only:
            self.complete, self.keep = True, False  # this parser cannot be told that no body follows

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() >= 200:
            self.end_body(self.parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.other = None
            self.other.transport.close()  # the end of a body that only the end of the connection delimits, or a failure
        elif self in self.pool.idle:
            self.pool.idle.remove(self)


class Pool:
    """Idle connections to one origin, the latest used first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.loop = loop
        self.port = port
        self.idle: list[Upstream] = []
        self.dials: set[asyncio.Task[None]] = set()

    def lease(self, client: Client) -> None:
        if self.idle:
            client.connected(self.idle.pop())
            return
        dial = self.loop.create_task(self.dial(client))
        self.dials.add(dial)
        dial.add_done_callback(self.dials.discard)

    async def dial(self, client: Client) -> None:
        try:
            _, upstream = await self.loop.create_connection(lambda: Upstream(self), "127.0.0.1", self.port)
        except OSError:
            client.failed()
            return
        if client.transport is None:
            upstream.transport.close()
            return
        client.connected(upstream)
        client.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool(loop, int(os.environ["USER_PORT"]))
    server = await loop.create_server(lambda: Client(pool), None, int(os.environ["QUEUE_SERVING_PORT"]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
