"""Serves client connections whose requests are counted as OpenTelemetry counts them: http.server.*, http.client.*.

Used instead of its parent only where request metrics are wanted; where they are not, nobody pays (contract 5.4). Times
and sizes are gathered on the way and counted once, at the one exit. What is a probe by its headers is not counted,
whoever answered it (contract 3.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from queueproxy.clock import monotonic
from queueproxy.codec.headers import DEFAULT_ROUTE, HOST, K_NETWORK_PROBE, TAG, USER_AGENT
from queueproxy.codec.http1 import RequestHead, RequestReader
from queueproxy.errors import Failure
from queueproxy.metrics.histogram import RECENT_MAX
from queueproxy.proxy.classify import MARKED, OwnAnswer
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.observed import ObservedConnection, ObservedExchange
from queueproxy.proxy.stage import NEW

if TYPE_CHECKING:
    from queueproxy.codec.response import ResponseReader
    from queueproxy.proxy.plane import Plane

# error.type, in the words of Go's transport where it has one for the case.
_ERRORS: Final = {
    "dial": "net.OpError", "upstream_lost": "net.OpError", "upstream_eof": "errors.errorString",
    "timeout": "context.deadlineExceededError",
}  # fmt: skip
CLIENT_GONE: Final = "errors.errorString"  # context.Canceled
OTHER: Final = "_OTHER"


def measure(plane: Plane, exchange: type[MeasuredExchange] | None = None) -> Callable[[], MeasuredConnection]:
    """The protocol factory for a listener whose requests are counted, and observed if the plane has an observer."""
    plane.exchange = exchange or MeasuredExchange
    return lambda: MeasuredConnection(plane)


class MeasuredExchange(ObservedExchange):
    """received: body bytes of the client. sent_at: the app was asked, 0 when it was not. headed_at: it answered.

    error: why there was no answer of the app.
    """

    received = 0
    sent_at = 0.0
    headed_at = 0.0
    app_status = 0
    error = CLIENT_GONE

    def _when_awake(self) -> None:
        # From the arrival when nothing was waited for: a reading of the clock less.
        now = self.began_at if self.stage is NEW else monotonic()
        if self.plane.gate.is_open:
            self.sent_at = now
            Exchange.awake(self)
        else:
            self.asleep_at = now
            Exchange._when_awake(self)

    def awake(self) -> None:
        """The end of a wait."""
        now = self.sent_at = monotonic()
        self.thaw_wait = now - self.asleep_at
        Exchange.awake(self)

    def request_body(self, data: Any) -> None:
        self.received += len(data)
        Exchange.request_body(self, data)

    def response_received(self, response: ResponseReader) -> None:
        self.headed_at = monotonic()
        self.app_status = response.status
        Exchange.response_received(self, response)

    def fail(self, failure: Failure) -> None:
        self.error = _ERRORS.get(failure.kind, OTHER)
        ObservedExchange.fail(self, failure)

    def _finish(self, status: int, now: float = 0.0) -> None:
        now = now or monotonic()
        plane = self.plane
        if plane.observer is None:
            Exchange._finish(self, status, now)
        else:
            ObservedExchange._finish(self, status, now)
        counts = plane.http
        if counts is None:
            return
        head = self.head
        special = head.special
        tag, default = special.get(TAG), special.get(DEFAULT_ROUTE)
        ordinary = self.kind is not MARKED and not special.get(K_NETWORK_PROBE)
        sent_at = self.sent_at
        asked_for = (self.headed_at or now) - sent_at if sent_at else -1.0
        if ordinary:
            secure = self.client.tls is not None  # type: ignore[attr-defined]
            same = status == self.app_status and self.tunnel is None
            # `HttpCounts.serve`, written out: a thousand instructions less.
            key = (head.method, status, special.get(HOST), head.minor, tag, default, secure)
            series = counts.known.get(key) or counts.met(key)
            recent = series.recent
            recent.append((now - self.began_at, self.received, self.size, asked_for if same else -1.0))
            if len(recent) >= RECENT_MAX:
                counts.fold(series)
            if same:
                return
        if sent_at:
            answered, error = (101, "") if self.tunnel is not None else (self.app_status, self.error)
            counts.ask(
                head.method, answered, "" if answered else error, tag, default, ordinary, asked_for, self.received
            )  # fmt: skip


class MeasuredConnection(ObservedConnection):
    """Counts what is answered here and is no probe by its headers: an agent that forgot K-Network-Probe (3.6)."""

    __slots__ = ()

    def __init__(self, plane: Plane) -> None:
        super().__init__(plane)
        if plane.observer is None:
            self._reader = RequestReader(self)  # nobody asks for the head as it came
            del self.heads  # it would only keep this connection from being freed

    def _done_here(self, head: RequestHead, answer: OwnAnswer, *, keep: bool) -> None:
        asked = self._asked is head
        super()._done_here(head, answer, keep=keep)
        counts, special = self._plane.http, head.special
        if not asked or counts is None or special.get(K_NETWORK_PROBE):
            return
        if not special.get(USER_AGENT, b"").startswith(b"kube-probe/"):
            counts.serve(
                head.method, answer.status, special.get(HOST), head.minor, special.get(TAG),
                special.get(DEFAULT_ROUTE), self.tls is not None, monotonic() - self._asked_at, 0, len(answer.body),
            )  # fmt: skip
