"""Asks a mix of everything at random, from one seed, and checks every answer against what the request asks for.

Sockets and bytes only, no HTTP library: a request may be cut at any byte, an answer read a few bytes at a time. Each
worker draws from a generator of its own, so what one asks does not depend on how fast another is.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.support.mixed_app import BODILESS, DIGEST, NUMBER, Wanted, digest

LARGEST: Final = 1 << 20
METHODS: Final = ("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE")
STATUSES: Final = (200, 200, 200, 200, 201, 204, 304, 404, 418, 500, 503)
_BLOCK = bytes(random.Random(0).randbytes(LARGEST))
_SLOW_PIECE = 2048
_SLOW_PAUSE = 0.002  # seconds between two reads of a slow reader
ANSWER_WITHIN: Final = 20.0  # seconds; far above what a busy machine needs, far below for ever


class Wrong(Exception):
    """An answer that is not the one asked for."""


@dataclass(slots=True)
class Asked:
    """One request as it goes on the wire. last: it says `Connection: close`."""

    method: str
    wanted: Wanted
    body: bytes
    chunked: bool
    last: bool

    def encoded(self, dice: random.Random) -> bytes:
        lines = [f"{self.method} {self.wanted.target} HTTP/1.1", "Host: mixed.example"]
        if self.last:
            lines.append("Connection: close")
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(_chunks(self.body, dice))
        else:
            if self.body or self.method in ("POST", "PUT"):
                lines.append(f"Content-Length: {len(self.body)}")
            body = self.body
        return "\r\n".join((*lines, "", "")).encode() + body


def _chunks(body: bytes, dice: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        piece = body[at : at + 1 + _size(dice, 64 * 1024)]
        at += len(piece)
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _size(dice: random.Random, largest: int) -> int:
    """Small ones often, large ones sometimes: every power of two is as likely as the next; 0 one time in eight."""
    if dice.random() < 0.125:
        return 0
    return min(largest, int(2 ** dice.uniform(0, largest.bit_length())))


@dataclass
class Mixed:
    """What happened. `answered` and `aborted` hold request IDs; `wrong` says what should not have been."""

    seed: int
    answered: set[int] = field(default_factory=set)
    aborted: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def __repr__(self) -> str:
        return (
            f"<Mixed seed={self.seed} answered={len(self.answered)} aborted={len(self.aborted)} "
            f"MiB out={self.sent >> 20} in={self.received >> 20} {self.kinds} wrong={self.wrong[:5]}>"
        )

    def met(self, kind: str) -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


class _Worker:
    """One client after another, each on a connection of its own with a few requests on it."""

    def __init__(self, number: int, workers: int, mixed: Mixed, address: tuple[str, int]) -> None:
        self._dice = random.Random(f"{mixed.seed}/{number}")
        self._mixed = mixed
        self._address = address
        self._next = number
        self._step = workers

    def _draw(self, *, last: bool) -> Asked:
        dice = self._dice
        method = dice.choice(METHODS)
        number, self._next = self._next, self._next + self._step
        wanted = Wanted(
            number, dice.choice(STATUSES), _size(dice, LARGEST), dice.random() < 0.4, hang_up=dice.random() < 0.05
        )
        size = _size(dice, LARGEST) if method in ("POST", "PUT") else 0
        start = dice.randrange(LARGEST - size + 1)
        body = _BLOCK[start : start + size]
        return Asked(method, wanted, body, chunked=method in ("POST", "PUT") and dice.random() < 0.5, last=last)

    async def work(self, over: asyncio.Event) -> None:
        while not over.is_set():
            asked: list[Asked] = []
            try:
                await self._client(asked)
            except Exception as error:
                self._mixed.wrong.append(f"{type(error).__name__}: {error} in {[(a.method, a.wanted) for a in asked]}")
                if len(self._mixed.wrong) > 20:
                    return

    async def _client(self, asked: list[Asked]) -> None:
        dice, mixed = self._dice, self._mixed
        slow = dice.random() < 0.08
        sock = socket.socket()
        sock.setblocking(False)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        await asyncio.get_running_loop().sock_connect(sock, self._address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=LARGEST)
        try:
            rounds = dice.randint(1, 8)
            for turn in range(rounds):
                pair = dice.random() < 0.15
                last = turn == rounds - 1 and dice.random() < 0.5
                asked[:] = [self._draw(last=last and not pair)]
                if pair:
                    asked.append(self._draw(last=last))
                    mixed.met("pipelined pair")
                if dice.random() < 0.1:
                    await self._abort(reader, writer, asked)
                    return
                async with asyncio.timeout(ANSWER_WITHIN):
                    for request in asked:
                        data = request.encoded(dice)
                        mixed.sent += len(data)
                        writer.write(data)  # no drain: the answer may have to be read before the rest is taken
                    for request in asked:
                        await self._answer(reader, request, slow=slow)
                        mixed.answered.add(request.wanted.number)
                    if last:
                        mixed.met("close")
                        if trailing := await reader.read(1):
                            raise Wrong(f"{trailing!r} after the last answer")
        finally:
            writer.transport.abort()
            if slow:
                mixed.met("slow reader")

    async def _abort(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[Asked]) -> None:
        """Leaves in the middle of a request or of its answer, politely or with a reset."""
        dice = self._dice
        self._mixed.aborted.update(request.wanted.number for request in asked)
        data = b"".join(request.encoded(dice) for request in asked)
        if dice.random() < 0.5:
            self._mixed.met("abort in request")
            writer.write(data[: dice.randrange(len(data))])
        else:
            self._mixed.met("abort in answer")
            writer.write(data)
            async with asyncio.timeout(ANSWER_WITHIN):
                await reader.read(dice.randint(1, 65536))
        if dice.random() < 0.5:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, asked: Asked, *, slow: bool) -> None:
        """Reads one answer and compares all of it."""
        mixed, wanted = self._mixed, asked.wanted
        head = await reader.readuntil(b"\r\n\r\n")
        start, *lines = head[:-4].decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() in fields:
                raise Wrong(f"{name} twice: {head!r}")
            fields[name.lower()] = value.strip()
        version, status, *_ = start.split(" ")
        if (version, int(status)) != ("HTTP/1.1", wanted.status):
            raise Wrong(f"{start!r} for {asked.method} {wanted}")
        if (fields.get(NUMBER.lower()), fields.get(DIGEST.lower())) != (str(wanted.number), digest(asked.body)):
            raise Wrong(f"another request's answer, or another body arrived: {head!r} for {asked.method} {wanted}")
        bodiless = asked.method == "HEAD" or wanted.status in BODILESS
        chunked = fields.get("transfer-encoding") == "chunked"
        if not bodiless and (chunked != wanted.chunked or chunked == ("content-length" in fields)):
            raise Wrong(f"framing: {head!r} for {wanted}")
        if bodiless:
            body = b""
        elif chunked:
            body = await self._chunked(reader, slow=slow)
        else:
            body = await self._exactly(reader, int(fields["content-length"]), slow=slow)
        if body != (b"" if bodiless else wanted.body):
            raise Wrong(f"{len(body)} bytes of another body for {wanted}")
        mixed.received += len(head) + len(body)
        mixed.met(asked.method)
        mixed.met("chunked answer" if chunked else "sized answer")

    async def _chunked(self, reader: asyncio.StreamReader, *, slow: bool) -> bytes:
        pieces = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pieces.append(await self._exactly(reader, size, slow=slow))
            if await reader.readexactly(2) != b"\r\n":
                raise Wrong("a chunk without its end")
        if await reader.readexactly(2) != b"\r\n":
            raise Wrong("trailers nobody sent")
        return b"".join(pieces)

    async def _exactly(self, reader: asyncio.StreamReader, size: int, *, slow: bool) -> bytes:
        if not slow:
            return await reader.readexactly(size)
        pieces = []
        budget = 200  # slow, but not until the end of the run
        while size and budget:
            piece = await reader.readexactly(min(size, _SLOW_PIECE))
            size -= len(piece)
            budget -= 1
            pieces.append(piece)
            await asyncio.sleep(_SLOW_PAUSE)
        pieces.append(await reader.readexactly(size))
        return b"".join(pieces)


async def _run(mixed: Mixed, address: tuple[str, int], workers: int, seconds: float) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(_Worker(number, workers, mixed, address).work(over))


def mix(address: tuple[str, int], *, workers: int, seconds: float, seed: int) -> Mixed:
    """Runs the mix from the calling thread, which must be in the right network namespace."""
    mixed = Mixed(seed)
    asyncio.run(_run(mixed, address, workers, seconds))
    return mixed
