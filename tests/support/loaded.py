"""Runs the bench's own load generator against a server made for the test."""

import asyncio
from collections.abc import Callable
from typing import Any

from queueproxy.bench.asker import Asker
from queueproxy.bench.load import Load, request_bytes


class Server(asyncio.Protocol):
    """Answers every read with the same bytes; closes after it when told to."""

    def __init__(self, answer: bytes, close: bool = False) -> None:
        self.answer = answer
        self.close = close
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.answer:
            self.transport.write(self.answer)
        if self.close:
            self.transport.close()


def loaded(
    protocol: Callable[[], asyncio.Protocol] | None,
    *,
    connections: int = 4,
    seconds: float = 0.2,
    body: int = 0,
    made: Callable[[Load], Asker] = Asker,
) -> tuple[Load, float]:
    async def run() -> tuple[Load, float]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol or Server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if protocol is None:  # nobody listens there any more
            server.close()
            await server.wait_closed()
        load = Load("127.0.0.1", port, request_bytes("/", "h", body), connections, seconds, made)
        took = await load.run()
        server.close()
        return load, took

    return asyncio.run(asyncio.wait_for(run(), 30))
