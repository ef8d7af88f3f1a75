"""Runs requests that are part of a trace: says to the app whose part, and leaves a `Trace` of those that are sampled.

Used instead of its parents only where tracing is on. A request that is not sampled costs one random number and one
header; nothing of OpenTelemetry's SDK runs for it, nor for one that is sampled (design D3).
"""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits
from typing import Final

from queueproxy.clock import monotonic
from queueproxy.codec.headers import (
    DEFAULT_ROUTE,
    HOST,
    K_KUBELET_PROBE,
    K_NETWORK_PROBE,
    TAG,
    TRACEPARENT,
    USER_AGENT,
    X_B3_TRACEID,
    X_FORWARDED_FOR,
)
from queueproxy.proxy.classify import MARKED
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.measured import MeasuredExchange
from queueproxy.traces.context import Sampler, parse, retitle, traceparent
from queueproxy.traces.spans import LONGEST, Trace

_SPAN: Final = (1 << 64) - 1


class Tracer:
    """sampler decides; put takes the traces of sampled requests and must not wait."""

    __slots__ = ("put", "sampler")

    def __init__(self, sampler: Sampler, put: Callable[[Trace], None]) -> None:
        self.sampler = sampler
        self.put = put

    def __repr__(self) -> str:
        return f"<Tracer {self.sampler!r}>"


class TracedExchange(MeasuredExchange):
    """trace: the id of the trace it belongs to. span: of our span that the app sees. parent: the caller's span or 0."""

    trace = 0
    span = 0
    parent = 0
    sampled = False
    admitted_at = 0.0

    def begin(self) -> None:
        """Decides, tells the app, and goes on."""
        tracer = self.plane.tracer
        assert tracer is not None
        head = self.head
        special = head.special
        received = special.get(TRACEPARENT)
        parent = None
        if received is not None and not (special.get(K_NETWORK_PROBE) or special.get(K_KUBELET_PROBE)):
            parent = parse(received)
        bits = getrandbits(192)
        span = self.span = bits & _SPAN or 1
        if parent is None:
            trace = bits >> 64 or 1
        else:
            trace, self.parent = parent.trace, parent.span
        self.trace = trace
        sampled = self.sampled = tracer.sampler.samples(trace, parent)
        value = traceparent(trace, span, sampled)
        retitle(head.lines, received, value)
        if received is None and self.plane.observer is not None and X_B3_TRACEID not in special:
            special[TRACEPARENT] = value  # the request log's trace id: ours where the caller brought none
        MeasuredExchange.begin(self)

    def admitted(self) -> None:
        if self.sampled:
            self.admitted_at = monotonic()
        Exchange.admitted(self)

    def _finish(self, status: int, now: float = 0.0) -> None:
        now = now or monotonic()
        MeasuredExchange._finish(self, status, now)
        tracer = self.plane.tracer
        if not self.sampled or tracer is None:
            return
        head, client = self.head, self.client
        special = head.special
        port = client.remote.rpartition(b":")[2]  # type: ignore[attr-defined]
        tracer.put(
            Trace(
                trace=self.trace,
                span=self.span,
                others=getrandbits(256),
                parent=self.parent,
                server=not (special.get(K_NETWORK_PROBE) or special.get(K_KUBELET_PROBE)),
                proxied=self.kind is not MARKED,
                limited=self.plane.limit is not None,
                method=head.method[:LONGEST],
                target=head.target[:LONGEST],
                host=special.get(HOST, b"")[:LONGEST],
                agent=special.get(USER_AGENT, b"")[:LONGEST],
                forwarded_for=special.get(X_FORWARDED_FOR, b"")[:LONGEST],
                tag=special.get(TAG, b"")[:LONGEST],
                default=special.get(DEFAULT_ROUTE, b"")[:LONGEST],
                peer=client.peer,
                peer_port=int(port) if port.isdigit() else 0,
                minor=head.minor,
                secure=client.tls is not None,  # type: ignore[attr-defined]
                status=status,
                app_status=101 if self.tunnel is not None else self.app_status,
                error=self.error,
                received=self.received,
                size=self.size,
                began_at=self.began_at,
                admitted_at=self.admitted_at,
                thaw_wait=self.thaw_wait,
                sent_at=self.sent_at,
                ended_at=now,
            )
        )
