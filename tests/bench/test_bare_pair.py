"""Proves the calibrator honest: it parses and writes again, every framing arrives whole, connections are pooled."""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from queueproxy.bench.origin import Origin
from queueproxy.bench.websocket import handshake, masked_frame, plain_frame, switching

pytest.importorskip("uvloop")
_spec = importlib.util.spec_from_file_location("bare_pair", Path(__file__).with_name("bare_pair.py"))
assert _spec is not None and _spec.loader is not None
bare_pair: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bare_pair)


class Scripted(asyncio.Protocol):
    """An origin that notes what it got and answers with given bytes."""

    def __init__(self, answer: bytes, got: list[bytes], end: bool = False) -> None:
        self.answer, self.got, self.end = answer, got, end
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        if b"".join(self.got).endswith(b"\r\n\r\n"):
            self.transport.write(self.answer)
            if self.end:
                self.transport.close()


def exchanged(origin: Any, *requests: bytes, until: bytes | None = None) -> bytes:
    """Everything the relay answered to these requests, sent one by one on one connection."""

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            behind = await loop.create_server(origin, "127.0.0.1", 0)
            pool = bare_pair.Pool(loop, behind.sockets[0].getsockname()[1])
            front = await loop.create_server(lambda: bare_pair.Client(pool), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", front.sockets[0].getsockname()[1])
            answer = b""
            for request in requests:
                writer.write(request)
                answer += await (reader.read() if until is None else reader.readuntil(until))
            writer.close()
            await writer.wait_closed()
            front.close()
            behind.close()
            for idle in list(pool.idle):
                idle.transport.close()
            return answer

    return asyncio.run(run())


def test_heads_are_written_from_their_parsed_pieces() -> None:
    got: list[bytes] = []
    answer = exchanged(
        lambda: Scripted(b"HTTP/1.1 204 No Content\r\nX-One:   1\r\n\r\n", got),
        b"GET /a?b=c HTTP/1.1\r\nHost:h\r\nX-Two:\t2\r\nConnection: close\r\n\r\n",
    )
    # Optional white space is gone: these are not the bytes that came in.
    assert b"".join(got) == b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nX-Two: 2\r\nConnection: close\r\n\r\n"
    assert answer == b"HTTP/1.1 204 No Content\r\nX-One: 1\r\n\r\n"


def test_a_body_comes_back_whole_both_ways() -> None:
    body = bytes(range(256)) * 4000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert exchanged(lambda: Origin({}), head + body).partition(b"\r\n\r\n")[2] == body


def test_chunks_and_trailers_go_through_in_both_directions() -> None:
    got: list[bytes] = []
    chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    answer = exchanged(
        lambda: Scripted(b"HTTP/1.1 200 OK\r\n" + chunked, got),
        b"POST / HTTP/1.1\r\nConnection: close\r\n" + chunked,
    )
    assert b"".join(got).endswith(chunked)
    assert answer.endswith(chunked)


def test_a_body_that_only_the_end_of_the_connection_delimits_arrives() -> None:
    answer = exchanged(
        lambda: Scripted(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", [], end=True), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert answer.endswith(b"\r\n\r\nuntil the end")


def test_requests_on_one_connection_share_one_upstream_connection() -> None:
    made = 0

    class Counting(Origin):
        def connection_made(self, transport: Any) -> None:
            nonlocal made
            made += 1
            super().connection_made(transport)

    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    answer = exchanged(lambda: Counting({}), request, request, request, until=b"Hello, world\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert made == 1


def test_an_upgraded_connection_relays_raw_bytes_both_ways() -> None:
    frame = masked_frame(b"GET / HTTP/1.1\r\n\r\n", b"abcd")  # what a parser would take for a request
    key = b"AQIDBAUGBwgJCgsMDQ4PEA=="
    answers = exchanged(lambda: Origin({}), handshake("/ws", "h", key), frame, frame, until=b"\r\n\r\n")
    assert answers == switching(key) + plain_frame(b"GET / HTTP/1.1\r\n\r\n") * 2


def test_an_upgrade_that_is_not_granted_is_answered_and_ends() -> None:
    refusal = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert exchanged(lambda: Scripted(refusal, []), request) == refusal


def test_pipelining_is_refused() -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert exchanged(lambda: Scripted(b"", []), request + request) == b""


def test_nobody_behind_is_a_502() -> None:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            gone = await loop.create_server(lambda: Origin({}), "127.0.0.1", 0)
            port = gone.sockets[0].getsockname()[1]
            gone.close()
            await gone.wait_closed()
            pool = bare_pair.Pool(loop, port)
            front = await loop.create_server(lambda: bare_pair.Client(pool), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", front.sockets[0].getsockname()[1])
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await reader.read()
            writer.close()
            front.close()
            return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 502 ")
