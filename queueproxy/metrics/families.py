"""Decides what is published under which name: one list for the Prometheus page and for OTLP (contract 5.4, design 6).

Names, units and attributes are OpenTelemetry's; the page's are made from them by its rules. Every family is there from
the first day, with or without points, so that dashboards find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from queueproxy import __version__
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.pause import STATES, PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import OVERFLOW_ASKED, OVERFLOW_SERVED, Asked, HttpCounts, Served

Attributes = Mapping[str, str | int | bool]


class Kind(IntEnum):
    """OLD_COUNTER: a counter whose name does not end in _total, from before OpenTelemetry."""

    GAUGE = 0
    COUNTER = 1
    HISTOGRAM = 2
    OLD_COUNTER = 3


class Scope(NamedTuple):
    """Who counted: OpenTelemetry's instrumentation scope."""

    name: str
    version: str = ""


KNATIVE: Final = Scope("knative.dev/serving/pkg/queue")
HTTP: Final = Scope("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", __version__)
OURS: Final = Scope("")  # design 6; the page's labels stay few


class Family(NamedTuple):
    """One metric and its points. label_names: for the page, where every point of a family carries the same ones."""

    name: str
    kind: Kind
    unit: str
    description: str
    scope: Scope
    points: list[tuple[Attributes, float | Histogram]]


class Sources(NamedTuple):
    """Where the numbers are. http: None when requests are not counted. depth: waiting and running, None: no limiter."""

    recorder: Recorder
    pause: PauseCounts
    http: HttpCounts | None
    user_port: int
    depth: int | None
    now: float


def families(sources: Sources) -> Iterator[Family]:
    """Everything, as it is now. Histograms are the live ones: copy what must not move."""
    yield from invocations(sources)
    if sources.http is not None:
        yield from _http(sources.http, sources.user_port)
    yield from ours(sources)


def invocations(sources: Sources) -> Iterator[Family]:
    """kn.serving.* (QP-230, QP-231)."""
    yield Family(
        "kn.serving.invocation.duration", Kind.HISTOGRAM, "s", "The duration of task execution", KNATIVE,
        [({"http.response.status_code": status}, h) for status, h in sorted(sources.recorder.invocations.items())],
    )  # fmt: skip
    if sources.depth is not None:
        yield Family(
            "kn.serving.queue.depth", Kind.GAUGE, "{request}", "Number of current requests in the queue", KNATIVE,
            [({}, sources.depth)],
        )  # fmt: skip


def ours(sources: Sources) -> Iterator[Family]:
    """What Knative does not count."""
    yield from _proxy(sources.recorder)
    yield from _sleep(sources.pause, sources.now)
    yield from _freezer(sources.pause)


def _http(http: HttpCounts, user_port: int) -> Iterator[Family]:
    served = [(_served(labels), series) for labels, series in sorted(http.served.items())]
    asked = [(_asked(labels, user_port), series) for labels, series in sorted(http.asked.items())]
    yield Family(
        "http.server.request.duration", Kind.HISTOGRAM, "s", "Duration of HTTP server requests.", HTTP,
        [(labels, series.took) for labels, series in served],
    )  # fmt: skip
    yield Family(
        "http.server.request.body.size", Kind.HISTOGRAM, "By", "Size of HTTP server request bodies.", HTTP,
        [(labels, series.received) for labels, series in served],
    )  # fmt: skip
    yield Family(
        "http.server.response.body.size", Kind.HISTOGRAM, "By", "Size of HTTP server response bodies.", HTTP,
        [(labels, series.sent) for labels, series in served],
    )  # fmt: skip
    yield Family(
        "http.client.request.duration", Kind.HISTOGRAM, "s", "Duration of HTTP client requests.", HTTP,
        [(labels, series.took) for labels, series in asked],
    )  # fmt: skip
    yield Family(
        "http.client.request.body.size", Kind.HISTOGRAM, "By", "Size of HTTP client request bodies.", HTTP,
        [(labels, series.sent) for labels, series in asked],
    )  # fmt: skip


def _served(labels: Served) -> Attributes:
    if labels is OVERFLOW_SERVED:
        return {"otel.metric.overflow": True}
    found: dict[str, str | int | bool] = {
        "http.request.method": labels.method,
        "http.response.status_code": labels.status,
        "kn.route.tag": labels.tag,
        "network.protocol.name": "http",
        "network.protocol.version": labels.version,
        "server.address": labels.address,
        "url.scheme": labels.scheme,
    }
    if labels.port:
        found["server.port"] = labels.port
    return found


def _asked(labels: Asked, user_port: int) -> Attributes:
    if labels is OVERFLOW_ASKED:
        return {"otel.metric.overflow": True}
    found: dict[str, str | int | bool] = {
        "http.request.method": labels.method,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": user_port,
        "url.scheme": "http",
    }
    if labels.status:
        found["http.response.status_code"] = labels.status
    else:
        found["error.type"] = labels.error
    if labels.tag:
        found["kn.route.tag"] = labels.tag
    return found


def _counted(name: str, description: str, points: list[tuple[Attributes, float | Histogram]]) -> Family:
    return Family(name, Kind.COUNTER, "", description, OURS, points)


def _proxy(recorder: Recorder) -> Iterator[Family]:
    yield _counted(
        "kn.serving.refused", "Requests answered by the proxy itself because they failed",
        [({"reason": reason}, count) for reason, count in sorted(recorder.refused.items())],
    )  # fmt: skip
    yield _counted(
        "kn.serving.upstream.retries", "Requests repeated after a stale connection", [({}, recorder.retries)]
    )
    yield _counted("kn.serving.request.log.dropped", "Request log lines dropped unread", [({}, recorder.unlogged)])
    if recorder.extension_failures:  # only where there are extensions
        yield _counted(
            "kn.serving.extension.failures", "Exceptions of extensions",
            [({"extension": name, "hook": hook}, n) for (name, hook), n in sorted(recorder.extension_failures.items())],
        )  # fmt: skip


def _sleep(pause: PauseCounts, now: float) -> Iterator[Family]:
    yield Family(
        "kn.serving.pause.state", Kind.GAUGE, "", "1 for the state the app is in", OURS,
        [({"state": name}, float(name == pause.state)) for name in STATES],
    )  # fmt: skip
    yield _counted(
        "kn.serving.pause.seconds", "Time spent in each state",
        [({"state": name}, pause.in_state(name, now)) for name in STATES],
    )  # fmt: skip
    names = ("from", "to", "reason", "outcome")
    yield _counted(
        "kn.serving.pause.transitions", "Changes of state",
        [(dict(zip(names, key, strict=True)), count) for key, count in sorted(pause.transitions.items())],
    )  # fmt: skip
    yield Family(
        "kn.serving.pause.duration", Kind.HISTOGRAM, "s", "From asking to the kernel's confirmation", OURS,
        [({"op": op}, histogram) for op, histogram in sorted(pause.durations.items())],
    )  # fmt: skip
    yield Family(
        "kn.serving.thaw.wait", Kind.HISTOGRAM, "s", "What requests waited for a thaw", OURS,
        [({"phase": phase}, histogram) for phase, histogram in sorted(pause.waits.items())],
    )  # fmt: skip
    yield _counted(
        "kn.serving.idle.cpu.seconds", "CPU the app used while awake and idle", [({}, pause.idle_cpu_seconds)]
    )
    yield _counted(
        "kn.serving.probe.answers", "Probes answered",
        [({"kind": kind, "while": state}, count) for (kind, state), count in sorted(pause.probe_answers.items())],
    )  # fmt: skip
    yield _counted(
        "kn.serving.pause.shadow", "What shadow mode would have done",
        [({"would": would}, count) for would, count in sorted(pause.shadow.items())],
    )  # fmt: skip


def _freezer(pause: PauseCounts) -> Iterator[Family]:
    """Only where one is wanted: a flat zero would look like an outage."""
    if pause.freezer_up is None:
        return
    yield Family(
        "kn.serving.freezer.up", Kind.GAUGE, "", "1 while the node's freezer answers", OURS,
        [({}, float(pause.freezer_up))],
    )  # fmt: skip
    yield _counted(
        "kn.serving.freezer.faults", "What went wrong with the node's freezer",
        [({"kind": kind}, count) for kind, count in sorted(pause.freezer_faults().items())],
    )  # fmt: skip
    yield _counted(
        "kn.serving.knocks", "Wakes for connections that went past the proxy", [({}, pause.knocks())]
    )  # fmt: skip
