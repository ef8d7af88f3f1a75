"""Opens one connection to the app and makes one probe attempt over it, within a deadline (contract 6.4).

One task per attempt, kept by reference: probes are not the request path. What is said over the connection is decided
by the exchanges in `http` and `grpc`; this file dials, feeds them and gives up in time. If the app takes no connection
or says nothing, that is an answer too; only the attempt's error text tells the difference, in Go's words (6.6).

* TCP: a connection that opens is a success, and is closed at once.
* HTTPS: the certificate is not verified, as by the kubelet (D08): it is the app's own, on loopback.
* With HTTP/2 detection the same request is made over HTTP/2 first (see `detection`), and each of the two has the whole
  time: an app that stares at HTTP/2's preface has not failed yet. Nobody there is nobody there, whatever one speaks.
* A connection to ourselves does not count. Dialling a port of the ephemeral range on which nobody listens may, once in
  a while, get that very port as its source, and TCP then connects the socket to itself; Go's dialler checks as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from queueproxy.probes.detection import Http2Get
from queueproxy.probes.grpc import HealthExchange
from queueproxy.probes.http import MAX_REQUESTS, Hop, HttpExchange, following, netloc
from queueproxy.probes.spec import Exec, Grpc, Handler, HttpGet, TcpSocket

__all__ = ["Attempt", "Done"]

# How long the rest of an answer whose head has decided may take before the connection is cut.
LINGER_FOR = 1.0
# Between the deadline and giving up: a loop that was stalled past the deadline (25m CPU is the sidecar's default) must
# read what has long arrived before it calls the app silent.
LAST_LOOK_FOR = 0.002

Done = Callable[[str | None], None]  # None: passed; else why it failed


class Exchange(Protocol):
    """What an attempt says and hears; no sockets in there."""

    decided: bool
    failure: str | None

    @property
    def finished(self) -> bool: ...
    def opening(self) -> bytes: ...
    def received(self, data: bytes) -> bytes: ...
    def ended(self, reason: str) -> None: ...


class Attempt:
    """Calls `done` exactly once, from the loop and not before the constructor returns; never after `close`.

    spoken: the major version of HTTP in which a detecting probe passed, 0 before.
    """

    __slots__ = (
        "_detection",
        "_done",
        "_encrypted",
        "_handler",
        "_loop",
        "_over",
        "_task",
        "_timeout_for",
        "_timer",
        "_transport",
        "_url",
        "spoken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler, timeout_for: float, done: Done) -> None:
        self._loop = loop
        self._handler = handler
        self._timeout_for = timeout_for
        self._done = done
        self._over = False
        self._transport: asyncio.Transport | None = None
        self._encrypted = False
        self._url = ""
        self._detection: asyncio.Task[str | None] | None = None
        self.spoken = 0
        self._timer = loop.call_later(timeout_for, self._on_deadline) if timeout_for > 0 else None
        self._task = loop.create_task(self._make())
        self._task.add_done_callback(self._made)

    def __repr__(self) -> str:
        return f"<Attempt {self._handler} {'over' if self._over else 'out'}>"

    def close(self) -> None:
        """Drop everything: the question, and the connection that may linger after the answer."""
        self._over = True
        self._drop()

    # --- inside ---

    def _on_deadline(self) -> None:
        self._timer = self._loop.call_later(LAST_LOOK_FOR, self._give_up)

    def _give_up(self) -> None:
        if self._over:
            return
        if self._detection is not None and self._detection.cancel():
            return  # HTTP/1.1 is still to be tried
        self._over = True
        self._drop()
        self._done(self._timed_out())

    def _made(self, task: asyncio.Task[str | None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A TLS connection that is closing waits for the other side to agree, up to 30 s.
        if self._transport is not None and (self._encrypted or not self._transport.is_closing()):
            self._timer = self._loop.call_later(LINGER_FOR, self._drop)
        self._done(task.result() if error is None else str(error) or repr(error))

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _make(self) -> str | None:
        handler = self._handler
        if isinstance(handler, TcpSocket):
            return await self._touch(handler)
        if isinstance(handler, HttpGet):
            return await self._get(handler)
        if isinstance(handler, Grpc):
            exchange = HealthExchange(handler, self._timeout_for)
            refused = await self._talk(exchange, handler.host, handler.port, None)
            if refused:
                return f"health rpc probe failed: {refused}"
            return exchange.failure
        return "exec probe not supported" if isinstance(handler, Exec) else "no probe found"

    async def _touch(self, tcp: TcpSocket) -> str | None:
        refused = await self._dial(asyncio.Protocol, tcp.host, tcp.port, None)
        if self._transport is not None:
            self._transport.close()
        return refused

    async def _get(self, get: HttpGet) -> str | None:
        if not get.detect:
            return await self._get_1(get)
        self._detection = self._loop.create_task(self._get_2(get))
        try:
            refused = await self._detection
        except asyncio.CancelledError:
            if self._over:
                raise
            refused = None  # its time was up
        if refused or self.spoken:
            return refused
        if self._transport is not None:
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._timeout_for, self._on_deadline)
        failure = await self._get_1(get)
        self.spoken = 0 if failure else 1
        return failure

    async def _get_2(self, get: HttpGet) -> str | None:
        """The error when nobody is there; `spoken` says whether it passed."""
        self._url = Hop(get).url
        exchange = Http2Get(Hop(get))
        refused = await self._talk(exchange, get.host, get.port, None)
        self.spoken = 2 if exchange.passed else 0
        return f'Get "{self._url}": {refused}' if refused else None

    async def _get_1(self, get: HttpGet) -> str | None:
        hop = Hop(get)
        for _ in range(MAX_REQUESTS):
            self._url = hop.url
            exchange = HttpExchange(hop)
            refused = await self._talk(exchange, hop.get.host, hop.get.port, _unverified() if hop.get.tls else None)
            if refused:
                return f'Get "{hop.url}": {refused}'
            if exchange.failure:
                return exchange.failure
            try:
                onward = following(hop, exchange.status, exchange.location)
            except ValueError as error:
                return f'Get "{exchange.location}": {error}'
            if onward is None:
                if 200 <= exchange.status < 400:
                    return None
                return f"HTTP probe did not respond Ready, got status code: {exchange.status}"
            if self._transport is not None:
                self._transport.abort()
            hop = onward
        return f'Get "{hop.url}": stopped after {MAX_REQUESTS} redirects'

    async def _talk(self, exchange: Exchange, host: str, port: int, tls: ssl.SSLContext | None) -> str | None:
        """Holds the exchange until it is decided; the error when there was nobody to talk to."""
        decided: asyncio.Future[None] = self._loop.create_future()
        refused = await self._dial(lambda: _Conversation(exchange, decided), host, port, tls)
        if refused is None:
            await decided
        return refused

    async def _dial(
        self, protocol: Callable[[], asyncio.Protocol], host: str, port: int, tls: ssl.SSLContext | None
    ) -> str | None:
        self._transport = None
        self._encrypted = tls is not None
        where = f"dial tcp {netloc(host, port)}"
        try:
            transport, _ = await self._loop.create_connection(protocol, host, port, ssl=tls)
        except ssl.SSLError as error:
            return f"tls: {error.reason or error}"
        except socket.gaierror as error:
            return f"{where}: lookup: {error.strerror}"
        except OSError as error:
            return f"{where}: connect: {_words(error)}"
        if _is_to_ourselves(transport):
            transport.abort()
            return f"{where}: connect: connection refused"
        self._transport = transport
        return None

    def _timed_out(self) -> str:
        handler = self._handler
        if isinstance(handler, TcpSocket):
            return f"dial tcp {netloc(handler.host, handler.port)}: i/o timeout"
        if isinstance(handler, Grpc):
            return HealthExchange(handler, self._timeout_for).timed_out()
        if not isinstance(handler, HttpGet):
            return "context deadline exceeded"
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return f'Get "{self._url or Hop(handler).url}": {why}'


class _Conversation(asyncio.Protocol):
    """Passes bytes between a transport and an exchange, and says when it is decided."""

    def __init__(self, exchange: Exchange, decided: asyncio.Future[None]) -> None:
        self._exchange = exchange
        self._decided = decided
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Here and not after the dial: a gRPC server speaks first, and our preface must come before our answer.
        self._transport.write(self._exchange.opening())

    def data_received(self, data: bytes) -> None:
        reply = self._exchange.received(data)
        if reply and self._transport is not None:
            self._transport.write(reply)
        self._look()

    def eof_received(self) -> bool:
        self._exchange.ended("")
        self._look()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._exchange.ended(_words(exc) if isinstance(exc, OSError) else str(exc or ""))
        self._look()

    def _look(self) -> None:
        if self._exchange.decided and not self._decided.done():
            self._decided.set_result(None)
        if self._exchange.finished and self._transport is not None:
            self._transport.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_to_ourselves(transport: asyncio.Transport) -> bool:
    return bool(transport.get_extra_info("sockname") == transport.get_extra_info("peername"))


def _words(error: OSError) -> str:
    """`connection refused`, whichever loop raised it: they put the address in, and so does our caller."""
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
