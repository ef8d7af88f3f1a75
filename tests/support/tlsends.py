"""Holds a real TLS door on loopback in this process, and clients in the same loop that can misbehave."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from queueproxy.net.listen import listen
from queueproxy.net.tlsdoor import TlsDoor
from tests.support.tlspair import client_context

LOOPS = pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
Run = Callable[[Coroutine[Any, Any, None]], None]


class Told:
    """A log that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, message: str, /, **fields: object) -> None:
        self.lines.append((message, fields))

    warning = error = info

    @property
    def reasons(self) -> list[object]:
        return [fields["error"] for _, fields in self.lines if "error" in fields]


class Talker(asyncio.Protocol):
    """An HTTP protocol's place: remembers all it was told."""

    def __init__(self, spoken: str = "http/1.1") -> None:
        self.spoken = spoken
        self.transport: Any = None
        self.data = b""
        self.ended = False
        self.lost: list[Exception | None] = []
        self.full = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self.transport is None, "made once"
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None, "made before data"
        self.data += data

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    def pause_writing(self) -> None:
        self.full += 1

    def resume_writing(self) -> None:
        pass


class Ends:
    """The server's side: its door, its port, and the protocols it made, as long as somebody holds them."""

    def __init__(self, door: TlsDoor, port: int, told: Told) -> None:
        self.door = door
        self.port = port
        self.told = told
        self.made: list[Talker] = []
        self.clients: list[Client] = []
        self.all: weakref.WeakSet[Talker] = weakref.WeakSet()

    async def client(self, context: ssl.SSLContext | None = None, **options: Any) -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or client_context(), limit=1 << 26, **options
        )
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def bare(self, said: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(said)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]


class Client:
    """One connection of a client, closed at once and without ceremony."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ended(self) -> bytes:
        """What is said until the end of the stream, in whatever form it comes."""
        try:
            async with asyncio.timeout(15):
                return await self.reader.read()
        except ConnectionError:
            return b""

    def drop(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def ends(context: Callable[[], ssl.SSLContext], *names: str) -> AsyncIterator[Ends]:
    """names: what the door speaks, best first."""
    loop, told = asyncio.get_running_loop(), Told()
    here: Ends

    def maker(name: str) -> Callable[[], asyncio.Protocol]:
        def make() -> Talker:
            talker = Talker(name)
            here.made.append(talker)
            here.all.add(talker)
            return talker

        return make

    door = TlsDoor(loop, context, {name: maker(name) for name in names or ("http/1.1",)}, told)
    sock = listen(0, "127.0.0.1")
    here = Ends(door, sock.getsockname()[1], told)
    server = await loop.create_server(door.doorstep, sock=sock)
    try:
        yield here
    finally:
        server.close()
        door.close()
        for talker in here.made:
            if talker.transport is not None:
                talker.transport.abort()
        for client in here.clients:
            client.drop()
        for _ in range(3):
            await asyncio.sleep(0)
