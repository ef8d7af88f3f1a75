"""Serves one client connection: bytes in, exchanges one after another, answers out in order.

The codec calls the RequestSink methods below. At most one exchange is alive per connection; a pipelined request waits
in the codec until the present one has been answered. One timer per connection serves the head timeout, the three
request timeouts and the lingering close; it is moved lazily, so a request costs no timer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from queueproxy.clock import http_date, monotonic
from queueproxy.codec.headers import EXPECT
from queueproxy.codec.http1 import HEAD, PAUSED, BadMessage, RequestHead, RequestReader
from queueproxy.codec.response import NOSNIFF, answer_bytes, connection_line, refusal_bytes
from queueproxy.errors import Failure, malformed_body
from queueproxy.proxy.classify import MARKED, TRAFFIC, Kind, OwnAnswer, classify, health_answer
from queueproxy.proxy.deadline import HEAD_TIMEOUT, LAST_WORDS, LINGER, due

if TYPE_CHECKING:
    from queueproxy.proxy.exchange import Exchange
    from queueproxy.proxy.plane import Plane
    from queueproxy.proxy.tunnel import Tunnel

DISCARD: Final = 256 * 1024  # bytes of an unread upload swallowed to keep the connection; Go's figure (contract 1.3)
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST
# Why reading is paused: bits, because reasons come and go independently.
_BACKLOG, _HELD, _UPSTREAM = 1, 2, 4


def acceptor(plane: Plane) -> Callable[[], ClientConnection]:
    """A protocol factory for `loop.create_server`."""
    return lambda: ClientConnection(plane)


class ClientConnection(asyncio.Protocol):
    """One downstream connection. peer: its address as X-Forwarded-For wants it."""

    __slots__ = (
        "_discard", "_exchange", "_feeding", "_linger_by", "_lingering", "_paused_by", "_plane", "_probing",
        "_reader", "_reading", "_started_at", "_timer", "_timer_at", "_tunnel", "full", "peer", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._reader = RequestReader(self)
        self._exchange: Exchange | None = None
        self._tunnel: Tunnel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._started_at = 0.0  # first byte of a head that is not whole yet, 0 when none
        self._reading = False  # the sleep gate has been told of a half-read request
        self._discard = -1  # bytes of a request body still to be swallowed, -1 when not swallowing
        self._lingering = False
        self._linger_by = 0.0
        self._probing = False
        self._feeding = False
        self._paused_by = 0
        self.full = False  # more is written than the client has taken: its app connection is not read
        self.peer = b""

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer!r} {self._reader!r} {self._exchange!r}>"

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        address = name[0] if name else ""
        self.peer = address.removeprefix("::ffff:").encode() if "." in address else address.encode()
        self._plane.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        if self._lingering:
            return
        self._feeding = True
        reader = self._reader
        try:
            reader.feed(data)
            while reader.held and reader.state == PAUSED and self._free:
                reader.resume()
        except BadMessage as bad:
            self._refuse(bad)
            return
        finally:
            self._feeding = False
        if reader.held or self._paused_by:
            self._looked()

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            self._tunnel.client_ended()
            return True
        return False  # a client that stops sending is gone, as for Go's server: connection_lost follows

    def connection_lost(self, error: Exception | None) -> None:
        self._plane.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reading_over()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        elif self._plane.idle_empty is not None:
            self._plane.idle_empty()  # shutdown waits for answers to be taken
        self._reader.close()

    def pause_writing(self) -> None:
        self.full = True
        upstream = self._exchange.upstream if self._exchange is not None else None
        if upstream is not None and not upstream.closed:
            upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        upstream = self._exchange.upstream if self._exchange is not None else None
        if upstream is not None and not upstream.closed:
            upstream.transport.resume_reading()

    def hold_reading(self, *, for_upstream: bool) -> None:
        """Stops reading: the app takes no more, or the body may not go out yet."""
        self._pause(_UPSTREAM if for_upstream else _HELD)

    def release_reading(self, *, for_upstream: bool) -> None:
        """The reason is gone; reads again unless there is another."""
        self._resume(_UPSTREAM if for_upstream else _HELD)

    def _pause(self, reason: int) -> None:
        if not self._paused_by and not self.transport.is_closing():
            self.transport.pause_reading()
        self._paused_by |= reason

    def _resume(self, reason: int) -> None:
        paused, self._paused_by = self._paused_by, self._paused_by & ~reason
        if paused and not self._paused_by and not self.transport.is_closing():
            self.transport.resume_reading()

    # -- messages (RequestSink)

    @property
    def _free(self) -> bool:
        if self._exchange is not None or self._probing or self._discard >= 0 or self._lingering:
            return False
        return not self.transport.is_closing()  # after a last answer nothing more is read, pipelined or not

    def head_received(self, head: RequestHead) -> None:
        now = monotonic()
        self._started_at = 0.0
        kind = classify(head.special)
        if kind is not TRAFFIC and kind is not MARKED:
            self._reading_over()
            self._probe(head, kind)
            return
        if (EXPECT in head.special and head.special[EXPECT].lower() != b"100-continue") or head.target == b"*":
            self._reading_over()
            self._answer_oddity(head)
            return
        plane = self._plane
        exchange = self._exchange = plane.exchange(self, plane, head, kind, now)
        deadline = now + plane.shortest
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline, now)
        exchange.begin()
        if self._reading:
            self._reading_over()

    def body_received(self, data: bytes | memoryview) -> None:
        if self._exchange is not None:
            self._exchange.request_body(data)
        elif self._discard >= 0:
            self._discard -= len(data)
            if self._discard < 0:
                self._linger()

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        if self._exchange is not None:
            self._exchange.request_ended(trailers)
        elif self._discard >= 0:
            self._discard = -1

    def raw_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.from_client(data)

    # -- answers

    def answer(self, failure: Failure, *, keep: bool, head: RequestHead) -> None:
        """Writes the answer of a failure."""
        extra = b"" if failure.bare else NOSNIFF
        if failure.retry_after is not None:
            extra += b"Retry-After: %d\r\n" % failure.retry_after
        body = failure.text.encode() if failure.bare else failure.text.encode() + b"\n"
        self._write(head, OwnAnswer(failure.status, body, extra), keep=keep)

    def _write(self, head: RequestHead, answer: OwnAnswer, *, keep: bool) -> None:
        head_only, line = head.method == b"HEAD", connection_line(keep=keep, minor=head.minor)
        data = answer_bytes(
            answer.status, answer.body, date=http_date(), extra=answer.extra, connection=line, head_only=head_only
        )
        self.transport.write(data)

    def exchange_ended(self, *, keep: bool, request_ended: bool) -> None:
        """The present request has its answer: on to the next, or the end of the connection."""
        self._exchange = None
        if not keep or self._plane.closing:  # an answer that began before the listeners closed did not say `close`
            if request_ended:
                self.transport.close()
            else:
                self._linger()
            return
        if not request_ended:
            self._discard = DISCARD
        if self._paused_by:
            self._paused_by = _BACKLOG  # the other reasons were this request's; `_looked` ends this one
        if not self._feeding:
            reader = self._reader
            if reader.state == PAUSED and not reader.held:
                reader.state = HEAD
            if reader.held or self._paused_by:
                self._next()

    def _next(self) -> None:
        """Looks at what the client sent meanwhile; called outside data_received only."""
        self._feeding = True
        reader = self._reader
        try:
            while reader.state == PAUSED and self._free:
                reader.resume()
        except BadMessage as bad:
            self._refuse(bad)
            return
        finally:
            self._feeding = False
        self._looked()

    def _looked(self) -> None:
        """No more can be made of the bytes that are here; more are read unless a whole request waits among them."""
        reader = self._reader
        if reader.held and reader.state == PAUSED:
            self._pause(_BACKLOG)
            return
        self._resume(_BACKLOG)
        if reader.held and reader.state == HEAD:
            self._head_begun()

    def cut(self, *, abruptly: bool, last_words: float = LINGER) -> None:
        """Ends the connection under an unfinished answer, or a tunnel. abruptly: only a reset can tell the client
        (HTTP/1.0). last_words: seconds for what is written already to be taken."""
        self._exchange = None
        self._tunnel = None
        if abruptly:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        self.transport.close()
        if self.owes:  # a client that has stopped reading must not keep us
            self._lingering = True
            now = monotonic()
            self._arm(now + last_words, now)

    def tunnel(self, tunnel: Tunnel) -> None:
        """The connection was upgraded; bytes that came early go first."""
        self._tunnel = tunnel
        early = self._reader.go_raw()
        if early:
            tunnel.from_client(early)
        self._resume(_BACKLOG)

    @property
    def owes(self) -> bool:
        """A part of an answer has not left our memory yet."""
        return self.transport.get_write_buffer_size() > 0

    def close_if_idle(self) -> None:
        """Shutdown: nothing is owed to this client."""
        if self._exchange is None and not self._probing and not self._reader.mid_message:
            self.transport.close()

    # -- what is answered here

    def _probe(self, head: RequestHead, kind: Kind) -> None:
        plane = self._plane
        keep = head.keep_alive and not plane.closing and head.body == 0
        answer = plane.probed(kind, head.special)
        if answer is not None:
            self._done_here(head, answer, keep=keep)
        else:
            self._probing = True
            plane.health.check(lambda ready: self._probed(head, health_answer(ready), keep))

    def _probed(self, head: RequestHead, answer: OwnAnswer, keep: bool) -> None:
        self._probing = False
        if self._lingering or self.transport.is_closing():
            return  # gone, or refused meanwhile because the rest of the message was not HTTP
        self._done_here(head, answer, keep=keep)
        if not self._feeding and keep:
            self._resume(_BACKLOG)
            self._next()

    def _answer_oddity(self, head: RequestHead) -> None:
        """What Go's server answers before any handler: `OPTIONS *` (QP-055) and unknown expectations."""
        star = head.target == b"*"
        keep = star and head.keep_alive and head.body == 0
        self._done_here(head, OwnAnswer(200 if star else 417, b""), keep=keep)

    def _done_here(self, head: RequestHead, answer: OwnAnswer, *, keep: bool) -> None:
        self._write(head, answer, keep=keep)
        if not keep and head.body:
            self._linger()
        elif not keep:
            self.transport.close()
            self._lingering = True

    def _refuse(self, bad: BadMessage) -> None:
        """A message that is not HTTP (QP-053): Go's answer, byte for byte, then the end; counted, never logged."""
        self._plane.recorder.refuse("bad_message")
        self._reading_over()
        exchange = self._exchange
        if exchange is not None:
            exchange.head.keep_alive = False  # where its next message would begin is unknown
            exchange.broken(malformed_body(bad.reason))
            return
        if self._discard >= 0:
            self.transport.close()  # its request was answered; only the rest of its body is broken
            return
        self.transport.write(refusal_bytes(bad.status, bad.reason))
        self._linger()

    # -- time

    def _head_begun(self) -> None:
        """Part of a head is here: it has 60 s (QP-049), keeps the app from sleeping and wakes it early (FZ-036)."""
        if not self._started_at and self._exchange is None:
            now = monotonic()
            self._started_at = now
            if not self._reading:
                self._reading = True
                self._plane.gate.reading(now)
            deadline = now + HEAD_TIMEOUT
            if self._timer is None or deadline < self._timer_at:
                self._arm(deadline, now)

    def _reading_over(self) -> None:
        if self._reading:
            self._reading = False
            self._plane.gate.read(monotonic())

    def _linger(self) -> None:
        """Ends our side and lets the client read the answer before its unread bytes are met with a reset."""
        if self._lingering:
            return
        self._lingering = True
        self._discard = -1
        self._exchange = None
        if self.transport.is_closing():
            return
        self.transport.write_eof()
        self._paused_by = 0
        self.transport.resume_reading()
        now = monotonic()
        self._linger_by = now + LAST_WORDS
        self._arm(now + LINGER, now)

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._plane.loop.call_later(max(0.0, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = monotonic()
        if self._lingering:
            if self.owes and not self.transport.is_closing() and now < self._linger_by:
                self._arm(now + LINGER, now)  # still taking our answer
            else:
                self.transport.abort()
        elif self._exchange is not None:
            at, which = due(self._plane.timeouts, self._exchange.began_at, self._exchange.wrote_at)
            if at <= now:
                self._exchange.timed_out(which)
            else:
                self._arm(at, now)
        elif self._started_at:
            if now >= self._started_at + HEAD_TIMEOUT:
                self.transport.close()  # without an answer, as upstream
            else:
                self._arm(self._started_at + HEAD_TIMEOUT, now)
