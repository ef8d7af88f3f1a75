"""Listens for TLS connections: looks at the first bytes, answers cleartext HTTP, bounds handshakes (QP-326, QP-350).

A connection passes three stages. *Waiting*: until its first TLS record, a ClientHello, is whole. It costs no crypto,
and the oldest of too many is dropped: an honest client says hello at once. *Queued*: its handshake may not begin yet,
as only so many are begun per turn of the loop (a signature takes 1 ms with RSA 2048, and requests want their turn) and
only so many may be under way (each may come back for one more key exchange, all at the same moment). *Shaking*: until
the client has answered; one that takes longer than others need makes room when others wait. After that the connection
is the HTTP protocol's, chosen by ALPN from one table, and no longer ours.

What it touches: one listening socket, one task per handshake. What happens when that breaks: that connection ends, one
line a second says so, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, Protocol, cast

from queueproxy.clock import monotonic
from queueproxy.net.tlstransport import NEVER, TlsTransport

HANDSHAKE_FOR: Final = 60.0  # seconds from accept to the end of the handshake; Go's, its ReadHeaderTimeout
WAITING_MAX: Final = 512  # connections without a whole hello: at most 9 MB of hellos
SHAKING_MAX: Final = 64  # handshakes under way; all of them coming back at once is 64 ms of RSA 2048
BEGIN_PER_TURN: Final = 4
MAKE_ROOM_AFTER: Final = 1.0  # seconds a handshake may take while others wait for its place
SWEEP: Final = 1.0  # seconds between looks at who has taken too long
RECORD_HEADER: Final = 5
LARGEST_RECORD: Final = RECORD_HEADER + (1 << 14)  # RFC 8446 5.1
HANDSHAKE_RECORD: Final = 22
# Go knows the first five; other methods deserve the same answer.
METHODS: Final = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"DELET", b"PATCH", b"CONNE", b"TRACE")
CLEARTEXT: Final = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
NOT_TLS: Final = "tls: first record does not look like a TLS handshake"
FALLBACK: Final = "http/1.1"  # for clients that do not speak ALPN

Codecs = Mapping[str, Callable[[], asyncio.Protocol]]  # by ALPN name, in order of preference


class Words(Protocol):
    """Where failed handshakes are told."""

    def warning(self, message: str, /, **fields: object) -> None: ...


class TlsDoor:
    """context: asked for each handshake. codecs: whose connections they become."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[], ssl.SSLContext],
        codecs: Codecs,
        log: Words,
    ) -> None:
        self._loop = loop
        self._context = context
        self._codecs = codecs
        self._log = log
        self._waiting: dict[Doorstep, None] = {}
        self._queued: deque[Doorstep] = deque()
        self._shaking: dict[Doorstep, asyncio.Task[None]] = {}
        self._pumping = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._told_at = 0.0
        self._untold = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<TlsDoor waiting={len(self._waiting)} queued={len(self._queued)} shaking={len(self._shaking)}>"

    def doorstep(self) -> Doorstep:
        """The protocol factory for `loop.create_server`."""
        return Doorstep(self)

    def close(self) -> None:
        """Connections that are not HTTP's yet end; the others are not ours."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for step in [*self._waiting, *self._queued, *self._shaking]:
            step.transport.abort()
        self._queued.clear()

    # -- stages

    def came(self, step: Doorstep) -> None:
        """A connection was accepted."""
        if self._closed:
            step.transport.abort()
            return
        if len(self._waiting) >= WAITING_MAX:
            oldest = next(iter(self._waiting))
            self._fail(oldest, "too many connections without a handshake")
        self._waiting[step] = None
        self._sweep_later()

    def left(self, step: Doorstep) -> None:
        """It is gone, or refused."""
        self._waiting.pop(step, None)

    def said_hello(self, step: Doorstep) -> None:
        """Its first record is whole, or more than a first record may be."""
        del self._waiting[step]
        if len(self._queued) >= WAITING_MAX:
            self._fail(self._queued.popleft(), "too many handshakes")
        self._queued.append(step)
        self._pump()

    def _pump(self) -> None:
        if not self._pumping and self._queued and len(self._shaking) < SHAKING_MAX:
            self._pumping = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._pumping = False
        for _ in range(min(BEGIN_PER_TURN, len(self._queued), SHAKING_MAX - len(self._shaking))):
            step = self._queued.popleft()
            if not step.transport.is_closing():
                step.begun_at = monotonic()
                self._shaking[step] = self._loop.create_task(self._shake(step))  # kept: nobody else holds it
        self._pump()

    async def _shake(self, step: Doorstep) -> None:
        raw, context = step.transport, self._context()
        ours = TlsTransport(self._loop, raw)
        spare: socket.socket | None = None
        try:
            spare = socket.socket(fileno=os.dup(raw.get_extra_info("socket").fileno()))
            self._loop.call_soon(step.replay)  # runs before the handshake begins, which is scheduled next
            inner = await self._loop.start_tls(
                raw,
                ours,
                context,
                server_side=True,
                ssl_handshake_timeout=max(SWEEP, step.came_at + HANDSHAKE_FOR - step.begun_at),
                ssl_shutdown_timeout=NEVER,
            )
            # A connection that is lost without an error ends the wait like one that succeeded.
            tls = None if inner is None or ours.over else inner.get_extra_info("ssl_object")
            if tls is None:
                raise ConnectionAbortedError("EOF")
            made = self._codecs.get(tls.selected_alpn_protocol() or FALLBACK) or self._codecs[FALLBACK]
            ours.connect(cast(asyncio.Transport, inner), made())
        except (Exception, asyncio.CancelledError) as error:  # whatever it is, its place is given back
            raw.abort()
            self._tell(step, _reason(error))
            if isinstance(error, ssl.SSLError) and spare is not None:
                _send_alert(spare, context, step.hello)
        finally:
            if spare is not None:
                spare.close()
            self._shaking.pop(step, None)
            self._pump()

    # -- those who take too long

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = monotonic()
        for step in [step for step in self._waiting if now - step.came_at >= HANDSHAKE_FOR]:
            self._fail(step, "timeout")
        # The eldest first: they are in order of their beginning.
        for step in list(islice(self._shaking, len(self._queued))):
            if now - step.begun_at < MAKE_ROOM_AFTER:
                break
            step.transport.abort()
        self._pump()
        if self._waiting or self._queued or self._shaking:
            self._sweep_later()

    def _fail(self, step: Doorstep, why: str) -> None:
        self._waiting.pop(step, None)
        step.transport.abort()
        self._tell(step, why)

    def refuse(self, step: Doorstep, why: str) -> None:
        """Not TLS, and not HTTP either."""
        self._fail(step, why)

    def _tell(self, step: Doorstep, why: str) -> None:
        if self._closed:
            return
        now = monotonic()
        if self._told_at and now - self._told_at < 1.0:
            self._untold += 1
            return
        more, self._untold, self._told_at = self._untold, 0, now
        fields = {"moreBefore": more} if more else {}
        self._log.warning("http: TLS handshake error", client=step.address, error=why, **fields)


class Doorstep(asyncio.Protocol):
    """One connection before its handshake: collects the first record and nothing else."""

    __slots__ = ("_answered", "_door", "_whole", "address", "begun_at", "came_at", "hello", "transport")

    transport: asyncio.Transport

    def __init__(self, door: TlsDoor) -> None:
        self._door = door
        self.hello = b""
        self._answered = False
        self._whole = False
        self.address = ""
        self.came_at = self.begun_at = monotonic()

    def __repr__(self) -> str:
        return f"<Doorstep {self.address} {self.hello[:5]!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if name:
            host, port = name[0].removeprefix("::ffff:") if "." in name[0] else f"[{name[0]}]", name[1]
            self.address = f"{host}:{port}"
        self._door.came(self)

    def data_received(self, data: bytes) -> None:
        if self._answered or self.transport.is_closing():
            return
        early = self.hello = self.hello + data
        if self._whole:
            return  # read in the same turn in which reading was stopped
        if len(early) < RECORD_HEADER:
            return
        if early[0] == HANDSHAKE_RECORD:
            size = RECORD_HEADER + int.from_bytes(early[3:RECORD_HEADER])
            if len(early) > 2 * LARGEST_RECORD:
                self._door.refuse(self, "more than a hello before the handshake")
            elif len(early) >= min(size, LARGEST_RECORD):
                self._whole = True
                self.transport.pause_reading()
                self._door.said_hello(self)
        elif early.startswith(METHODS):
            self._answer()
        else:
            self._door.refuse(self, NOT_TLS)

    def eof_received(self) -> None:
        """None: the transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        self._door.left(self)

    def _answer(self) -> None:
        """Go's answer to cleartext HTTP; what else the client sends is read, so that no reset overtakes it."""
        self._answered = True
        self._door.left(self)
        self.transport.write(CLEARTEXT)
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(SWEEP, self.transport.abort)

    def replay(self) -> None:
        """Gives the hello to the protocol that has taken our place."""
        early = self.hello
        taker = self.transport.get_protocol()
        if taker is self or taker is None or self.transport.is_closing():
            return
        ssl_protocol = cast(asyncio.BufferedProtocol, taker)
        while early:
            room = memoryview(cast(bytearray, ssl_protocol.get_buffer(len(early))))
            size = min(len(room), len(early))
            room[:size] = early[:size]
            ssl_protocol.buffer_updated(size)
            early = early[size:]


def _send_alert(spare: socket.socket, context: ssl.SSLContext, hello: bytes) -> None:
    """Tells the client why not. asyncio drops OpenSSL's last words with the connection, so they are made once more.

    spare: the connection's other descriptor, which has kept it from being closed.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(hello)
    try:
        context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
    except ssl.SSLError:
        pass
    alert = outgoing.read()
    if alert[:1] != b"\x15":
        return  # the hello was good: what failed came later, and is the client's doing
    try:
        spare.send(alert)  # non-blocking, as its twin is
        spare.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"tls: {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return str(error) or "EOF"
