"""Runs requests that are part of a trace: says to the app whose part, and leaves a `Trace` of those that are sampled.

Used instead of its parents only where tracing is on. A request that is not sampled costs a slice of random digits and
one header; nothing of OpenTelemetry's SDK runs for it, nor for one that is sampled (design D3).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import getrandbits
from struct import Struct
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
from queueproxy.traces.context import SPAN, TRACE, Sampler, parse, retitle
from queueproxy.traces.spans import LONGEST, Trace

# What the app is told, whole: fixed places for the ids and the flags.
_LINE: Final = b"traceparent: 00-%b-%b-00\r\n"
_TRACE_AT: Final = _LINE.index(b"%")
_DECIDES_AT: Final = _TRACE_AT + SPAN  # the lower half of the trace id
_SPAN_AT: Final = _TRACE_AT + TRACE + 1
_FLAG_AT: Final = _SPAN_AT + SPAN + 2
_STOCK: Final = 256  # requests whose lines are made at once: one system call, and no bytecode for each
_LINES: Final = _LINE * _STOCK
_IDS: Final = Struct(f"{TRACE}s{SPAN}s" * _STOCK).unpack
_CUT: Final = Struct(f"{_FLAG_AT + 3}s" * _STOCK).unpack


class Tracer:
    """sampler decides; put takes the traces of sampled requests and must not wait.

    stock: lines with ids that nobody has had, for the next requests; `begin` pops one. That an id is all zeros takes
    longer than the universe has. most: no id whose deciding half begins with a greater character is kept.
    """

    __slots__ = ("most", "put", "sampler", "stock")

    def __init__(self, sampler: Sampler, put: Callable[[Trace], None]) -> None:
        self.sampler = sampler
        self.put = put
        self.most = sampler.bound[0]
        self.stock: list[bytes] = []
        self.restock()

    def __repr__(self) -> str:
        return f"<Tracer {self.sampler!r}>"

    def restock(self) -> None:
        digits = os.urandom(_STOCK * (TRACE + SPAN) // 2).hex().encode()
        self.stock = list(_CUT(_LINES % _IDS(digits)))


class TracedExchange(MeasuredExchange):
    """A request that is not recorded, as long as `begin` does not find otherwise."""

    def begin(self) -> None:
        """Decides, tells the app, and goes on."""
        tracer = self.plane.tracer
        assert tracer is not None
        stock = tracer.stock
        line = stock.pop()
        if not stock:
            tracer.restock()
        head = self.head
        if TRACEPARENT in head.special:
            self._continue(line, tracer.sampler)
        else:
            # Most are settled by one character.
            if line[_DECIDES_AT] <= tracer.most and line[_DECIDES_AT : _SPAN_AT - 1] < tracer.sampler.bound:
                self._record(line[_TRACE_AT : _SPAN_AT - 1], line[_SPAN_AT : _SPAN_AT + SPAN], b"")
                line = line[:_FLAG_AT] + b"1\r\n"
            head.lines.append(line)  # in one piece: nobody but an extension takes these lines apart any more
            if self.plane.observer is not None and X_B3_TRACEID not in head.special:
                # The request log's trace id: ours where the caller brought none.
                head.special[TRACEPARENT] = line[_TRACE_AT - 3 : -2]
        Exchange.begin(self)

    def _continue(self, line: bytes, sampler: Sampler) -> None:
        """There is a traceparent: of a caller, or of a probe or somebody without sense, who do not count."""
        special = self.head.special
        received = special[TRACEPARENT]
        probe = special.get(K_NETWORK_PROBE) or special.get(K_KUBELET_PROBE)
        parent = None if probe else parse(received)
        trace = line[_TRACE_AT : _SPAN_AT - 1] if parent is None else parent.trace
        span = line[_SPAN_AT : _SPAN_AT + SPAN]
        sampled = sampler.samples(trace, parent)
        retitle(self.head.lines, received, b"00-%b-%b-0%d" % (trace, span, sampled))
        if sampled:
            self._record(trace, span, b"" if parent is None else parent.span)

    def _record(self, trace: bytes, span: bytes, parent: bytes) -> None:
        # The class is the flag: what only recorded requests do is not asked of the others at every step.
        self.__class__ = RecordedExchange
        self.trace, self.span, self.parent = trace, span, parent


class RecordedExchange(TracedExchange):
    """trace, span: the ids the app was told. parent: the caller's span, b"" for none."""

    trace = b""
    span = b""
    parent = b""
    admitted_at = 0.0

    def admitted(self) -> None:
        self.admitted_at = monotonic()
        Exchange.admitted(self)

    def _finish(self, status: int, now: float = 0.0) -> None:
        now = now or monotonic()
        MeasuredExchange._finish(self, status, now)
        tracer = self.plane.tracer
        if tracer is None:
            return
        head, client = self.head, self.client
        special = head.special
        port = client.remote.rpartition(b":")[2]  # type: ignore[attr-defined]
        tracer.put(
            Trace(
                trace=int(self.trace, 16),
                span=int(self.span, 16),
                others=getrandbits(256),
                parent=int(self.parent or b"0", 16),
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
