"""Proves queueproxy.bench.talk against real sockets: echoes are counted, wrong ones are errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from queueproxy.bench.load import Load
from queueproxy.bench.origin import Origin
from queueproxy.bench.talk import talkers


class Answering(asyncio.Protocol):
    """Answers the handshake with given bytes and every read after it with others."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)


class Changing(Origin):
    """Echoes all but the last byte right."""

    def echo(self, data: bytes) -> None:
        assert self.frames is not None
        for payload in self.frames.feed(data):
            self.transport.write(bytes((0x82, len(payload))) + payload[:-1] + b"!")


def talked(protocol: Callable[[], asyncio.Protocol], size: int, *, connections: int = 3, seconds: float = 0.2) -> Load:
    async def run() -> Load:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        load = Load("127.0.0.1", port, b"", connections, seconds, talkers("/ws", "h", size))
        await load.run()
        server.close()
        return load

    return asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("size", [1, 1024, 65536])
def test_every_message_has_its_echo_and_its_latency(size: int) -> None:
    payloads: list[int] = []

    class Noting(Origin):
        def echo(self, data: bytes) -> None:
            payloads.append(len(data))
            super().echo(data)

    load = talked(lambda: Noting({}), size)
    assert load.errors == 0
    assert load.histogram.total > 3
    assert sum(payloads) > load.histogram.total * size  # masked frames, not less than their payloads
    assert 0 < load.histogram.percentile(50) < 5e6


def test_an_echo_that_differs_in_one_byte_is_an_error() -> None:
    load = talked(lambda: Changing({}), 100, connections=1)
    assert load.histogram.total == 0
    assert load.errors > 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: bm90IHRoaXM=\r\n\r\n",
        b"x" * 20_000,
    ],
    ids=["not switched", "wrong key", "no end"],
)
def test_a_handshake_that_fails_is_an_error(answer: bytes) -> None:
    load = talked(lambda: Answering(answer), 10, connections=1)
    assert load.histogram.total == 0
    assert load.errors > 0
