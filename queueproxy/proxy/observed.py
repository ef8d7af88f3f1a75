"""Serves client connections whose requests somebody wants to hear of when they are over: the request log.

Costs nothing when nobody does: the classes here are used instead of their parents only after `observe`. An observed
exchange counts the body bytes of its answer and how long it waited for the thaw, and tells once, after everything was
given back. Answers of our own to probes are told as well; what Go's server answers before any handler (messages that
are not HTTP, `OPTIONS *`, unknown expectations) is not, as upstream (contract 3.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from queueproxy.clock import monotonic
from queueproxy.codec.http1 import RequestHead, RequestReader
from queueproxy.errors import Failure
from queueproxy.proxy.classify import Kind, OwnAnswer
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.server import ClientConnection
from queueproxy.proxy.upstream import JOIN_BELOW

if TYPE_CHECKING:
    from queueproxy.proxy.plane import Plane


class Facts(Protocol):
    """What is known of the connection a request came on.

    remote: address and port as Go prints them. tls: the ssl object, None for cleartext. heads.raw: the present
    request's head as it came.
    """

    remote: bytes
    tls: Any
    heads: KeepingReader


class Observer(Protocol):
    """Told of each request after it is over; must not raise and must not wait.

    status: the first one that was written, 499 when the client left before there was one. size: bytes of body written.
    took, thaw_wait: seconds. close: the process ends, say what is left to say.
    """

    def close(self) -> None: ...

    def finished(
        self, client: Facts, head: RequestHead, status: int, size: int, took: float, thaw_wait: float
    ) -> None: ...


def observe(plane: Plane, observer: Observer) -> Callable[[], ClientConnection]:
    """The protocol factory for a listener whose requests are told to `observer`."""
    plane.observer = observer
    plane.exchange = ObservedExchange
    return lambda: ObservedConnection(plane)


class ObservedExchange(Exchange):
    """size: body bytes towards the client. thaw_wait: seconds.

    No __slots__ and no __init__: what is counted has its zero in the class, so a request that counts nothing pays
    nothing. Parents are named instead of super(), which costs a request 0.1 us a call.
    """

    size = 0
    thaw_wait = 0.0
    asleep_at = 0.0

    def _when_awake(self) -> None:
        if self.plane.gate.is_open:
            Exchange.awake(self)
        else:
            self.asleep_at = monotonic()
            Exchange._when_awake(self)

    def awake(self) -> None:
        """The end of a wait."""
        self.thaw_wait = monotonic() - self.asleep_at
        Exchange.awake(self)

    def refused(self, failure: Failure) -> None:
        self.thaw_wait = monotonic() - self.asleep_at
        Exchange.refused(self, failure)

    def response_body(self, data: bytes) -> None:
        size = len(data)
        self.size += size
        if self._chunked:  # as the parent does it, for every request: a call costs 400 instructions
            self._out += (b"%x\r\n" % size, data, b"\r\n")
        else:
            self._out.append(data)
        if size > JOIN_BELOW:
            self._bulky = True

    def fail(self, failure: Failure) -> None:
        self.size = len(failure.text.encode()) + (not failure.bare)
        Exchange.fail(self, failure)

    def _finish(self, status: int, now: float = 0.0) -> None:
        now = now or monotonic()
        Exchange._finish(self, status, now)
        observer, client = self.plane.observer, self.client
        if observer is not None and isinstance(client, ObservedConnection):
            # A timeout after the head is a 504 to the metrics; the client has seen the status that came first.
            observer.finished(client, self.head, self.status or status, self.size, now - self.began_at, self.thaw_wait)


class ObservedConnection(ClientConnection):
    """See Facts."""

    __slots__ = ("_asked", "_asked_at", "heads", "remote", "tls")

    def __init__(self, plane: Plane) -> None:
        super().__init__(plane)
        self._reader = self.heads = KeepingReader(self)
        self._asked: RequestHead | None = None
        self._asked_at = 0.0
        self.remote = b""
        self.tls: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.tls = transport.get_extra_info("ssl_object")
        name = transport.get_extra_info("peername")
        port = name[1] if name else 0
        self.remote = b"[%b]:%d" % (self.peer, port) if b":" in self.peer else b"%b:%d" % (self.peer, port)

    def _probe(self, head: RequestHead, kind: Kind) -> None:
        self._asked, self._asked_at = head, monotonic()
        super()._probe(head, kind)

    def _done_here(self, head: RequestHead, answer: OwnAnswer, *, keep: bool) -> None:
        super()._done_here(head, answer, keep=keep)
        if self._asked is head:
            self._asked = None
            observer = self._plane.observer
            if observer is not None:
                took = monotonic() - self._asked_at
                observer.finished(self, head, answer.status, len(answer.body), took, 0.0)


class KeepingReader(RequestReader):
    """Remembers the bytes of the present head; a pipelined one is not looked at before the present one is answered."""

    __slots__ = ("raw",)

    def __init__(self, sink: ClientConnection) -> None:
        super().__init__(sink)
        self.raw = b""

    def _parse(self, data: bytes, method: bytes = b"") -> None:
        if not method:  # else it is the same head once more, its method exchanged for one that llhttp knows
            self.raw = data
        RequestReader._parse(self, data, method)
