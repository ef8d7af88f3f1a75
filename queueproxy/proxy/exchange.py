"""Runs one request from its head to its outcome; reads top to bottom as the life of a request (design 4).

    begin      the autoscaler sees it, the thaw is asked for, a slot is taken or waited for
    admitted   it holds a slot
    awake      the kernel says the app runs
    connected  a connection is leased; the head goes out, then the body as it comes
    …          the answer comes back through the ResponseSink methods, flushed once per read
    _finish    the one exit: slot, stats, sleep policy and connection are given back exactly once

Every wait is a continuation: no task, future or timer is made for a request that need not wait (design D1). Stages only
grow; what arrives for a finished exchange is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from queueproxy.clock import http_date, monotonic
from queueproxy.codec.encode import chunk, last_chunk, request_bytes
from queueproxy.codec.headers import EXPECT, IDEMPOTENCY_KEY, K_PROXY_REQUEST
from queueproxy.codec.http1 import RequestHead
from queueproxy.codec.response import ResponseReader, connection_line, interim_bytes, response_bytes
from queueproxy.errors import CLIENT_CLOSED, QUEUE_FULL, TIMED_OUT, Failure, malformed_response, upstream_lost
from queueproxy.limit.breaker import ADMITTED, REFUSED
from queueproxy.proxy.classify import MARKED, Kind
from queueproxy.proxy.deadline import LAST_WORDS
from queueproxy.proxy.expect import Expectation
from queueproxy.proxy.stage import ANSWERED, ASLEEP, DIALLING, DONE, NEW, QUEUED, SENT, TUNNELLED
from queueproxy.proxy.tunnel import Tunnel, switch
from queueproxy.proxy.upstream import JOIN_BELOW

if TYPE_CHECKING:
    from queueproxy.proxy.plane import Plane
    from queueproxy.proxy.server import ClientConnection
    from queueproxy.proxy.upstream import UpstreamConnection

HELD_BODY: Final = 64 * 1024  # bytes of body kept for a request that may not go out yet; then reading stops
_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))


class Exchange:
    """One request. began_at: arrival. wrote_at: last write to the client, 0: none; exact only with an idle timeout.

    proxied: the activator counted it already. slotted: it holds a slot of the limiter.
    """

    __slots__ = (
        "_bulky", "_chunked", "_expectation", "_held", "_interim", "_keep", "_out", "_request_ended",
        "_reused", "_until_close", "began_at", "client", "head", "kind", "plane", "proxied", "slotted",
        "stage", "status", "tunnel", "upstream", "wrote_at",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, plane: Plane, head: RequestHead, kind: Kind, now: float) -> None:
        self.client = client
        self.plane = plane
        self.head = head
        self.kind = kind
        self.began_at = now
        self.wrote_at = 0.0
        self.stage = NEW
        self.status = 0
        self.upstream: UpstreamConnection | None = None
        self.tunnel: Tunnel | None = None
        self._out: list[bytes] = []
        self._held: bytearray | None = None
        self._request_ended = head.body == 0
        self.slotted = False
        self._reused = False
        self._interim = False
        self._expectation: Expectation | None = None
        self.proxied = False
        self._bulky = False
        self._chunked = False
        self._until_close = False
        self._keep = False

    def __repr__(self) -> str:
        return f"<Exchange {self.stage.name} {self.head!r} status={self.status}>"

    # -- 1 to 4: until it may be sent

    def begin(self) -> None:
        """Counts the request, asks for the thaw and for a slot."""
        plane = self.plane
        now = self.began_at
        plane.in_flight += 1
        if plane.drain.draining:
            plane.drain.request_arrived(now)
        plane.gate.arrived(now)  # the thaw is asked for now; bytes follow when it is confirmed (FZ-036)
        special = self.head.special
        if self.kind is MARKED:
            self.head.keep_original_host()
            self._when_awake()
            return
        if K_PROXY_REQUEST in special:
            self.proxied = special[K_PROXY_REQUEST] == b"activator"  # QP-131
        plane.recorder.arrived(now, self.proxied)
        limit = plane.limit
        if limit is None:
            self._when_awake()
            return
        admission = limit.enter(self)
        if admission is ADMITTED:
            self.admitted()
        elif admission is REFUSED:
            self.fail(QUEUE_FULL)
        else:
            self.stage = QUEUED

    def admitted(self) -> None:
        """Holds a slot from here to `_finish`."""
        self.slotted = True
        self._when_awake()

    def _when_awake(self) -> None:
        if self.plane.gate.is_open:
            self.awake()
        else:
            self.stage = ASLEEP
            self.plane.gate.wait(self)

    def awake(self) -> None:
        """The kernel has confirmed that the app runs (FZ-033): lease a connection."""
        pool = self.plane.pool
        upstream = pool.take()
        if upstream is not None:
            self._reused = True
            self.connected(upstream)
        else:
            self._dial()

    def refused(self, failure: Failure) -> None:
        """The thaw did not come (FZ-038, FZ-067)."""
        self.fail(failure)

    def _dial(self) -> None:
        self.stage = DIALLING
        self._reused = False
        self.plane.pool.dial(self._dialled, self._dial_failed)

    def _dialled(self, upstream: UpstreamConnection) -> None:
        if self.stage is DIALLING:
            self.connected(upstream)
        elif self.plane.gate.is_open and not self.plane.closing:
            self.plane.pool.give_back(upstream, monotonic())  # its request is over; the connection is good
        else:
            upstream.drop()  # the pool was emptied meanwhile, and stays so (FZ-030)

    def _dial_failed(self, failure: Failure) -> None:
        if self.stage is DIALLING:
            self.fail(failure)

    # -- 5: to the app

    def connected(self, upstream: UpstreamConnection) -> None:
        """Sends the head and what came of the body meanwhile."""
        head = self.head
        self.upstream = upstream
        upstream.exchange = self
        self.stage = SENT
        upstream.reader.expect(self, head_only=head.method == b"HEAD")
        if self.client.full:
            upstream.transport.pause_reading()  # still busy with the answer before (pipelining)
        data = request_bytes(head, self.client.peer, self.plane.pool.host_header)
        if self._held is not None:
            upstream.transport.write(data + self._held)
            self._held = None
            self.client.release_reading(for_upstream=False)
        elif head.early:
            upstream.begun = data
        else:
            upstream.transport.write(data)
        if EXPECT in head.special and not self._request_ended and self._expectation is None:
            self._expectation = Expectation(self)

    def request_body(self, data: Any) -> None:
        """Body bytes from the client, in order."""
        self._to_app(chunk(data) if self.head.body == 2 else data)

    def request_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request is whole."""
        self._request_ended = True
        if self.head.body == 2:
            self._to_app(last_chunk(trailers))

    def _to_app(self, data: bytes | memoryview) -> None:
        if self.upstream is not None:
            self.upstream.send(data)
        elif self.stage < SENT:
            if self._held is None:
                self._held = bytearray()
            self._held += data
            if len(self._held) > HELD_BODY:
                self.client.hold_reading(for_upstream=False)

    def _repeatable(self) -> bool:
        """May be sent again when a reused connection turns out dead (QP-202, FZ-034)."""
        head = self.head
        return head.body == 0 and (head.method in _SAFE or IDEMPOTENCY_KEY in head.special)

    # -- 6: back to the client (ResponseSink)

    def informed(self, status: int, lines: list[bytes]) -> None:
        """A 1xx from the app; relayed, and never the last word (QP-078)."""
        if status == 100 and self._expectation is not None and not self._expectation.met():
            return  # we said it already
        if self.head.minor:
            self._interim = True
            self._out.append(interim_bytes(status, lines))

    def response_received(self, response: ResponseReader) -> None:
        """The final head."""
        self.stage = ANSWERED
        head = self.head
        self.status = response.status
        keep = head.keep_alive and not self.plane.closing and (self._request_ended or not self._upload_uncertain())
        if response.in_body and response.content_length is None:
            self._chunked = head.minor == 1
            self._until_close = not self._chunked
            keep = keep and self._chunked
        if not keep and head.method == b"CONNECT":
            response.keep_alive = False  # the app may take the connection for a tunnel
        self._keep = keep
        connection = b"" if keep and head.minor else connection_line(keep=keep, minor=head.minor)
        date = b"" if response.has_date else http_date()
        self._out.append(response_bytes(response, chunked=self._chunked, connection=connection, date=date))

    def response_body(self, data: bytes) -> None:
        """Body bytes from the app, in order."""
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)
        if len(data) > JOIN_BELOW:
            self._bulky = True

    def response_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The answer is whole; `flush` finishes the exchange."""
        if self._chunked:
            self._out.append(last_chunk(trailers))

    def flush(self) -> None:
        """Hands the client what one read from the app brought: promptly, in one write (QP-070, QP-072)."""
        out = self._out
        if out:
            self._out = []
            self._write(out)
        upstream = self.upstream
        if upstream is not None and self.stage is ANSWERED and upstream.reader.complete:
            self._settle(upstream)

    def _write(self, out: list[bytes]) -> None:
        transport = self.client.transport
        if len(out) == 1:
            transport.write(out[0])
        elif self._bulky:
            self._bulky = False
            transport.writelines(out)
        else:
            transport.write(b"".join(out))
        if self.plane.timeouts.idle:
            self.wrote_at = monotonic()
        elif not self.wrote_at:
            self.wrote_at = self.began_at  # only "has written" matters

    def switched(self, protocol: bytes, lines: list[bytes]) -> None:
        """101 from the app (QP-080…082)."""
        if self._request_ended:
            switch(self, protocol, lines)
        else:  # what follows of the request would be taken for the new protocol
            self.fail(malformed_response("101 before the request was whole"))

    def hand_over(self, head: bytes, tunnel: Tunnel) -> None:
        """The connection now belongs to another protocol; head is our 101."""
        self.stage = TUNNELLED
        self.status = 200  # what upstream records for a 101 (contract 5.4)
        self.plane.tunnels += 1
        self._out.append(head)
        self.flush()
        self.tunnel = tunnel
        self.client.tunnel(tunnel)

    # -- ends

    def timed_out(self, which: str) -> None:
        """One of the three timeouts (contract 3.8). A started answer is cut, never completed (D03)."""
        self.plane.log.warning(f"{which}: {monotonic() - self.began_at:.0f}s")
        if self.stage < ANSWERED:
            self.fail(TIMED_OUT)
        else:
            self._cut(504)

    def client_gone(self) -> None:
        """The client left: the app must not work for nobody (QP-086, FZ-026)."""
        if self.stage is not DONE:
            self._let_go()
            self._finish(self.status or CLIENT_CLOSED)

    def broken(self, failure: Failure) -> None:
        """Bytes of the app, or the rest of the request, are not HTTP/1.1."""
        if self.stage < ANSWERED:
            self.fail(failure)
        elif self.stage is not DONE:
            self._cut(self.status)

    def upstream_lost(self, upstream: UpstreamConnection, error: Exception | None) -> None:
        """The connection to the app ended while we were using it."""
        self.upstream = None
        if self.stage is DONE:
            return
        if self.tunnel is not None:
            self.tunnel_ended()
            return
        if self.stage is ANSWERED:
            if error is None and upstream.reader.ended_by_eof():
                self.upstream = upstream  # for `flush`, which sees that it is closed
                self.flush()
            else:
                self._cut(self.status)
            return
        if self._reused and not self._interim and self._repeatable():
            self.plane.recorder.retries += 1
            self._dial()  # stale keep-alive: a fresh connection decides (QP-202)
        else:
            self.fail(upstream_lost(error))

    def fail(self, failure: Failure) -> None:
        """Ends a request that has no answer yet with one of ours; the only place that writes error answers."""
        self._let_go()
        self.plane.refused(self, failure)
        if failure.status == 502 and failure.kind != "request_body":  # a client must not fill the log
            self.plane.log.error("error reverse proxying request", error=failure.text)
        self._keep = (
            self.head.keep_alive and not self.plane.closing and (self._request_ended or not self._upload_uncertain())
        )
        self._out = []
        self.client.answer(failure, keep=self._keep, head=self.head)
        self._finish(failure.status)
        self.client.exchange_ended(keep=self._keep, request_ended=self._request_ended)

    def _upload_uncertain(self) -> bool:
        """The client waits for a 100 it did not get: its upload may or may not follow, so only closing is safe."""
        return EXPECT in self.head.special and (self._expectation is None or not self._expectation.said)

    def _cut(self, status: int) -> None:
        """A started answer cannot be finished: end the connection so that it never looks complete (QP-084)."""
        self._drop_upstream()
        out, self._out = self._out, []
        if out:
            self.client.transport.writelines(out)
        self._finish(status)
        self.client.cut(abruptly=self._until_close)

    def tunnel_ended(self) -> None:
        """Both sides of an upgraded connection are done."""
        if self.stage is DONE:
            return
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.close()  # the last words may still be in our buffer
        self._finish(self.status)
        self.client.cut(abruptly=False, last_words=LAST_WORDS)

    def _settle(self, upstream: UpstreamConnection) -> None:
        """The answer is with the client: give everything back."""
        reader = upstream.reader
        now = monotonic()
        self.upstream = None
        if reader.clean and reader.keep_alive and self._request_ended and not upstream.closed and not upstream.paused:
            if self.client.full:
                upstream.transport.resume_reading()  # it was stopped for this client only
            self.plane.pool.give_back(upstream, now)
        else:
            upstream.drop()
        self._finish(self.status, now)
        self.client.exchange_ended(keep=self._keep, request_ended=self._request_ended)

    def _let_go(self) -> None:
        """Leaves whatever it waits for, and the app."""
        if self.stage is QUEUED:
            assert self.plane.limit is not None
            self.plane.limit.cancel(self)
        elif self.stage is ASLEEP:
            self.plane.gate.cancel(self)
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    def _finish(self, status: int, now: float = 0.0) -> None:
        """The one exit."""
        assert self.stage is not DONE, "an exchange finished twice"
        reached = self.stage >= ASLEEP
        self.stage = DONE
        if self._expectation is not None:
            self._expectation.close()
        self.plane.settle(self, status, reached, now or monotonic())
