"""Decides which spans a finished request left: names, kinds, parentage, attributes (contract 5.5, QP-239).

SERVER, INTERNAL kn.queueproxy.proxy, INTERNAL kn.queueproxy.wait (with a limiter), INTERNAL thaw (ours, when the app
slept), CLIENT. The wait is a child of the proxy span, the client span of the wait, or of the proxy span without a
limiter; a thaw stands between them (FZ-106). Requests that are probes by their headers have no server span and begin a
trace.

The request path leaves a `Trace`: small, bounded whatever the client sent, and turned into spans in another thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from queueproxy.metrics.requests import METHODS, route_tag, split_host

OTELHTTP: Final = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
QUEUE: Final = "knative.dev/serving/pkg/queue"
LONGEST: Final = 1024  # bytes kept of a header or target: 2,048 traces must not hold 2,048 heads of a megabyte


class SpanKind(IntEnum):
    """OpenTelemetry's numbers in OTLP, less one, as its SDK has them."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


class Trace(NamedTuple):
    """What is known of one request that is recorded. Instants are monotonic seconds, 0: it did not come to that.

    span: the client span's id, which the app was told. others: ids for the rest, from one random number. parent: the
    caller's span, 0 where the trace begins here. server, proxied: it has those spans. limited: it passed a limiter.
    """

    trace: int
    span: int
    others: int
    parent: int
    server: bool
    proxied: bool
    limited: bool
    method: bytes
    target: bytes
    host: bytes
    agent: bytes
    forwarded_for: bytes
    tag: bytes | None
    default: bytes | None
    peer: bytes
    peer_port: int
    minor: int
    secure: bool
    status: int  # towards the client
    app_status: int  # of the app, 0 without an answer
    error: str
    received: int
    size: int
    began_at: float
    admitted_at: float
    thaw_wait: float
    sent_at: float
    ended_at: float


class Span(NamedTuple):
    """One span; instants still monotonic. parent 0: none. remote: the parent is in another process."""

    name: str
    kind: SpanKind
    scope: str
    trace: int
    span: int
    parent: int
    remote: bool
    began_at: float
    ended_at: float
    attributes: Mapping[str, str | int]
    error: str | None  # None: unset; else the status is Error, with this description


def spans(trace: Trace, user_port: int) -> Iterator[Span]:
    """Innermost first, as they end."""
    server, proxy, wait, thaw = ((trace.others >> shift & 0xFFFFFFFFFFFFFFFF) or 1 for shift in (0, 64, 128, 192))
    top = server if trace.server else trace.parent
    inside = (wait if trace.limited else proxy) if trace.proxied else top
    if trace.thaw_wait and trace.sent_at:
        began_at = max(trace.began_at, trace.sent_at - trace.thaw_wait)
        yield Span(
            "thaw", SpanKind.INTERNAL, QUEUE, trace.trace, thaw, inside, False, began_at, trace.sent_at, {}, None
        )
        inside = thaw
    if trace.sent_at:
        yield _client(trace, user_port, inside)
    if trace.proxied:
        if trace.limited:
            until = trace.admitted_at or trace.ended_at
            yield Span(
                "kn.queueproxy.wait", SpanKind.INTERNAL, QUEUE, trace.trace, wait, proxy, False, trace.began_at, until,
                {}, None,
            )  # fmt: skip
        yield Span(
            "kn.queueproxy.proxy", SpanKind.INTERNAL, QUEUE, trace.trace, proxy, top, False, trace.began_at,
            trace.ended_at, {}, None,
        )  # fmt: skip
    if trace.server:
        yield _server(trace, server)


def _client(trace: Trace, user_port: int, parent: int) -> Span:
    method = METHODS.get(trace.method, "_OTHER")
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.full": f"http://127.0.0.1:{user_port}{_text(trace.target)}",
        "server.address": "127.0.0.1",
        "server.port": user_port,
        "network.protocol.version": "1.1",
    }
    if method == "_OTHER":
        attributes["http.request.method_original"] = _text(trace.method)
    error = None
    if trace.app_status:
        attributes["http.response.status_code"] = trace.app_status
        error = "" if trace.app_status >= 400 else None
    else:
        attributes["error.type"] = error = trace.error
    name = f"HTTP {method}" if method != "_OTHER" else "HTTP _OTHER"
    return Span(
        name, SpanKind.CLIENT, OTELHTTP, trace.trace, trace.span, parent, False, trace.sent_at, trace.ended_at,
        attributes, error,
    )  # fmt: skip


def _server(trace: Trace, span: int) -> Span:
    scheme = "https" if trace.secure else "http"
    address, port = split_host(trace.host, scheme)
    method = METHODS.get(trace.method, "_OTHER")
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scheme,
        "server.address": address,
        "url.path": _text(trace.target.partition(b"?")[0]),
        "network.peer.address": _text(trace.peer),
        "client.address": _text(trace.forwarded_for.partition(b",")[0].strip() or trace.peer),
        "network.protocol.version": f"1.{trace.minor}",
        "http.request.body.size": trace.received,
        "http.response.body.size": trace.size,
        "http.response.status_code": trace.status,
        "kn.route.tag": route_tag(trace.tag, trace.default),
    }
    if trace.peer_port:
        attributes["network.peer.port"] = trace.peer_port
    if port:
        attributes["server.port"] = port
    if trace.agent:
        attributes["user_agent.original"] = _text(trace.agent)
    if method == "_OTHER":
        attributes["http.request.method_original"] = _text(trace.method)
    return Span(
        "HTTP" if method == "_OTHER" else method, SpanKind.SERVER, OTELHTTP, trace.trace, span, trace.parent,
        bool(trace.parent), trace.began_at, trace.ended_at, attributes, "" if trace.status >= 500 else None,
    )  # fmt: skip


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
