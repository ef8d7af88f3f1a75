"""Serves the text exposition of 9091 with prometheus_client, from plain integers read at scrape time.

Imported only when 9091 is wanted, after the request listeners are up (design D3): 24 ms and 6 MB. Names are made from
OpenTelemetry's by its rules: dots become underscores, units and _total are appended (contract 5.4, QP-233).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from queueproxy.clock import monotonic
from queueproxy.metrics.families import OURS, Family, Kind, Scope, Sources, families
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import HttpCounts

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"  # contract 5.4
_UNITS: Final = {"s": "_seconds", "By": "_bytes"}
_SCOPE: Final = ("otel_scope_name", "otel_scope_schema_url", "otel_scope_version")

Listing = Callable[[Sources], Iterable[Family]]


def page_name(name: str, unit: str) -> str:
    """The page's name of an OpenTelemetry metric; prometheus_client adds _total."""
    plain = name.replace(".", "_")
    suffix = _UNITS.get(unit, "")
    return plain if plain.endswith(suffix) else plain + suffix


class SidecarCollector(Collector):
    """sources are read when scraped. resource: attributes of `target_info`, None for a page without one."""

    def __init__(self, sources: Callable[[], Sources], listing: Listing, resource: Mapping[str, str] | None) -> None:
        self._sources = sources
        self._listing = listing
        self._resource = resource

    def collect(self) -> Iterable[Metric]:
        """Every family, present or not, so that dashboards find the names on the first day."""
        for family in self._listing(self._sources()):
            yield _metric(family)
        if self._resource is not None:
            names = [_label(name) for name in self._resource]
            target = GaugeMetricFamily("target_info", "Target metadata", labels=names)
            target.add_metric(list(self._resource.values()), 1.0)
            yield target


def _metric(family: Family) -> Metric:
    name = page_name(family.name, family.unit)
    # Not all points of a family have the same labels: a port, an error. The page leaves the empty ones out.
    keys = sorted({key for attributes, _ in family.points for key in attributes})
    labels = [_label(key) for key in keys] + _scope_names(family.scope)
    scope = _scope_values(family.scope)
    made: Metric
    if family.kind is Kind.HISTOGRAM:
        histograms = made = HistogramMetricFamily(name, family.description, labels=labels)
        for attributes, point in family.points:
            assert isinstance(point, Histogram)
            buckets = [(_bound(bound), count) for bound, count in point.cumulative()]
            histograms.add_metric([_text(attributes.get(key, "")) for key in keys] + scope, buckets, point.sum)
    else:
        kinds = {Kind.GAUGE: GaugeMetricFamily, Kind.COUNTER: CounterMetricFamily}
        values = made = kinds.get(family.kind, UnknownMetricFamily)(name, family.description, labels=labels)
        for attributes, point in family.points:
            values.add_metric([_text(attributes.get(key, "")) for key in keys] + scope, point)
    for sample in made.samples:
        for label in [label for label, value in sample.labels.items() if not value and label not in _SCOPE]:
            del sample.labels[label]
    return made


def _label(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return plain if not plain[:1].isdigit() else f"key_{plain}"


def _scope_names(scope: Scope) -> list[str]:
    return [] if scope is OURS else list(_SCOPE)


def _scope_values(scope: Scope) -> list[str]:
    return [] if scope is OURS else [scope.name, "", scope.version]


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def exposition(
    recorder: Recorder,
    pause: PauseCounts,
    queue_depth: Callable[[], int | None],
    *,
    http: HttpCounts | None = None,
    user_port: int = 0,
    resource: Mapping[str, str] | None = None,
    listing: Listing = families,
) -> Callable[[], bytes]:
    """A function that renders the page. resource: given when the platform asked for request metrics.

    queue_depth returns running + waiting, None without a limiter. listing: what is on the page, families.families or
    what older control planes know.
    """

    def sources() -> Sources:
        return Sources(recorder, pause, http, user_port, queue_depth(), monotonic())

    registry = CollectorRegistry(auto_describe=False)
    registry.register(SidecarCollector(sources, listing, resource))
    if resource is not None:  # what Go's runtime metrics say about a Go process (contract 5.4), for this one
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    def page() -> bytes:
        text = bytes(generate_latest(registry))
        if listing is not families:
            for family in listing(sources()):
                if family.kind is Kind.OLD_COUNTER:
                    name = family.name.encode()
                    text = text.replace(b"# TYPE %b untyped\n" % name, b"# TYPE %b counter\n" % name)
        return text

    return page
