"""Opens OTLP exporters of OpenTelemetry's SDK, and gives them what our integers said.

Loaded, with everything it loads, in a courier's thread at the first delivery. The libraries are asked for by name: no
module of the sidecar imports them, which `make lint` checks, and an image without them is a sidecar without export.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from queueproxy.clock import monotonic
from queueproxy.metrics.families import Attributes, Family, Kind, Scope
from queueproxy.metrics.histogram import Histogram

_OTLP = "opentelemetry.exporter.otlp.proto"
_PROVIDERS = "OTEL_PYTHON_EXPORTER_OTLP_HTTP"
_ANSWER = 64 * 1024  # bytes; a collector's is empty, or a sentence
_ANSWER_FOR = 10.0  # seconds
_PACKAGES = {"grpc": f"{_OTLP}.grpc", "http/protobuf": f"{_OTLP}.http"}


class Target(Protocol):
    """otlp.Target, as far as it is used here."""

    @property
    def protocol(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def secure(self) -> bool: ...


class Point(NamedTuple):
    """One point of a family, copied. counts: of the buckets, () for a plain value."""

    attributes: Attributes
    value: float
    counts: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()


class Reading(NamedTuple):
    """One metric at one instant."""

    name: str
    kind: Kind
    unit: str
    description: str
    scope: Scope
    points: tuple[Point, ...]


class Snapshot(NamedTuple):
    """All metrics at one instant, in nanoseconds of wall clock; nothing in it moves."""

    began_ns: int
    taken_ns: int
    readings: tuple[Reading, ...]


def snapshot(families: Iterable[Family], began_ns: int, taken_ns: int) -> Snapshot:
    """Made on the loop, where the numbers change: two points of a snapshot belong together."""
    return Snapshot(began_ns, taken_ns, tuple(_reading(family) for family in families if family.points))


def _reading(family: Family) -> Reading:
    points = tuple(
        Point(attributes, value.sum, tuple(value.counts), value.bounds)
        if isinstance(value, Histogram)
        else Point(attributes, value)
        for attributes, value in family.points
    )
    return Reading(family.name, family.kind, family.unit, family.description, family.scope, points)


def exporter(target: Target, module: str, name: str) -> Any:
    """An exporter of the SDK; module "metric_exporter" or "trace_exporter". It must not speak to stderr itself."""
    for talkative in ("opentelemetry", "urllib3", "requests"):
        logger = logging.getLogger(talkative)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    made = getattr(import_module(f"{_PACKAGES[target.protocol]}.{module}"), name)
    if target.protocol == "grpc":
        return made(endpoint=target.url, insecure=not target.secure)
    if any(name.startswith(_PROVIDERS) for name in os.environ):
        return made(endpoint=target.url)  # somebody brings a session of his own
    return made(endpoint=target.url, session=session())


def session() -> Any:
    """A session of requests that reads no more of an answer than one may be long: its status is all that counts.

    Otherwise an answer without end is kept in memory, as far as it goes.
    """
    made = import_module("requests").Session()
    made.stream = True
    made.hooks["response"].append(_read_little)
    return made


def _read_little(response: Any, **_: object) -> None:
    """A whole answer gives its connection back; one that is too long, or takes too long, ends it."""
    left, until = _ANSWER, monotonic() + _ANSWER_FOR
    while left > 0 and monotonic() < until:
        piece = response.raw.read1(left)
        if not piece:
            return
        left -= len(piece)
    response.close()


def sdk_version() -> str:
    """Of the installed SDK."""
    return str(import_module("opentelemetry.sdk.version").__version__)


class MetricsExporter:
    """One collector. resource: what is said about the sender, without the SDK's own words."""

    def __init__(self, target: Target, resource: Mapping[str, str]) -> None:
        self._exporter = exporter(target, "metric_exporter", "OTLPMetricExporter")
        self._sdk = import_module("opentelemetry.sdk.metrics.export")
        self._scope = import_module("opentelemetry.sdk.util.instrumentation").InstrumentationScope
        named = {"telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": sdk_version()}
        self._resource = import_module("opentelemetry.sdk.resources").Resource({**resource, **named})

    def __repr__(self) -> str:
        return f"<MetricsExporter {self._exporter!r}>"

    def deliver(self, batch: list[Snapshot]) -> str:
        """The last one: each holds everything since the start."""
        result = self._exporter.export(self._data(batch[-1]))
        return "" if result is self._sdk.MetricExportResult.SUCCESS else "the collector did not take them"

    def stop(self) -> None:
        self._exporter.shutdown()

    def _data(self, taken: Snapshot) -> Any:
        sdk = self._sdk
        scopes: dict[Scope, list[Any]] = {}
        for reading in taken.readings:
            scopes.setdefault(reading.scope, []).append(
                sdk.Metric(reading.name, reading.description, reading.unit, self._points(reading, taken))
            )
        made = [sdk.ScopeMetrics(self._scope(s.name or "queueproxy", s.version), m, "") for s, m in scopes.items()]
        return sdk.MetricsData([sdk.ResourceMetrics(self._resource, made, "")])

    def _points(self, reading: Reading, taken: Snapshot) -> Any:
        sdk = self._sdk
        cumulative = sdk.AggregationTemporality.CUMULATIVE
        if reading.kind is Kind.HISTOGRAM:
            return sdk.Histogram(
                [
                    sdk.HistogramDataPoint(
                        p.attributes,
                        taken.began_ns,
                        taken.taken_ns,
                        sum(p.counts),
                        p.value,
                        p.counts,
                        p.bounds,
                        None,
                        None,
                    )
                    for p in reading.points
                ],
                cumulative,
            )
        points = [sdk.NumberDataPoint(p.attributes, taken.began_ns, taken.taken_ns, p.value) for p in reading.points]
        return sdk.Gauge(points) if reading.kind is Kind.GAUGE else sdk.Sum(points, cumulative, True)
