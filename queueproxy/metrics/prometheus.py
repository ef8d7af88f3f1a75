"""Serves the text exposition of 9091 with prometheus_client, from plain integers read at scrape time.

Imported only when 9091 is wanted, after the request listeners are up (design D3): 24 ms and 6 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from queueproxy.clock import monotonic
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.pause import STATES, PauseCounts
from queueproxy.metrics.recorder import Recorder

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"  # contract 5.4


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def _histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets = [(_bound(bound), count) for bound, count in histogram.cumulative()]
    family.add_metric(labels, buckets, histogram.sum)


class SidecarCollector(Collector):
    """recorder and pause are read when scraped; queue_depth returns running + waiting, None without a limiter."""

    def __init__(self, recorder: Recorder, pause: PauseCounts, queue_depth: Callable[[], int | None]) -> None:
        self._recorder = recorder
        self._pause = pause
        self._queue_depth = queue_depth

    def collect(self) -> Iterable[Metric]:
        """Every family, present or not, so that dashboards find the names on the first day."""
        yield from self._requests()
        yield from self._sleep()
        yield from self._freezer()

    def _requests(self) -> Iterable[Metric]:
        recorder = self._recorder
        invocations = HistogramMetricFamily(
            "kn_serving_invocation_duration_seconds",
            "The duration of task execution",
            labels=["http_response_status_code"],
        )
        for status, histogram in sorted(recorder.invocations.items()):
            _histogram(invocations, [str(status)], histogram)
        yield invocations
        depth = self._queue_depth()
        if depth is not None:
            yield GaugeMetricFamily("kn_serving_queue_depth", "Number of current requests in the queue", value=depth)
        refused = CounterMetricFamily(
            "kn_serving_refused", "Requests answered by the proxy itself because they failed", labels=["reason"]
        )
        for reason, count in sorted(recorder.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        yield CounterMetricFamily(
            "kn_serving_upstream_retries", "Requests repeated after a stale connection", value=recorder.retries
        )
        yield CounterMetricFamily(
            "kn_serving_request_log_dropped", "Request log lines dropped unread", value=recorder.unlogged
        )

    def _sleep(self) -> Iterable[Metric]:
        pause, now = self._pause, monotonic()
        state = GaugeMetricFamily("kn_serving_pause_state", "1 for the state the app is in", labels=["state"])
        seconds = CounterMetricFamily("kn_serving_pause_seconds", "Time spent in each state", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(name == pause.state))
            seconds.add_metric([name], pause.in_state(name, now))
        yield state
        yield seconds
        transitions = CounterMetricFamily(
            "kn_serving_pause_transitions", "Changes of state", labels=["from", "to", "reason", "outcome"]
        )
        for labels, count in sorted(pause.transitions.items()):
            transitions.add_metric(list(labels), count)
        yield transitions
        durations = HistogramMetricFamily(
            "kn_serving_pause_duration_seconds", "From asking to the kernel's confirmation", labels=["op"]
        )
        for op, histogram in sorted(pause.durations.items()):
            _histogram(durations, [op], histogram)
        yield durations
        waits = HistogramMetricFamily(
            "kn_serving_thaw_wait_seconds", "What requests waited for a thaw", labels=["phase"]
        )
        for phase, histogram in sorted(pause.waits.items()):
            _histogram(waits, [phase], histogram)
        yield waits
        yield CounterMetricFamily(
            "kn_serving_idle_cpu_seconds", "CPU the app used while awake and idle", value=pause.idle_cpu_seconds
        )
        answers = CounterMetricFamily("kn_serving_probe_answers", "Probes answered", labels=["kind", "while"])
        for probe, count in sorted(pause.probe_answers.items()):
            answers.add_metric(list(probe), count)
        yield answers
        shadow = CounterMetricFamily("kn_serving_pause_shadow", "What shadow mode would have done", labels=["would"])
        for would, count in sorted(pause.shadow.items()):
            shadow.add_metric([would], count)
        yield shadow

    def _freezer(self) -> Iterable[Metric]:
        """Only where one is wanted: a flat zero would look like an outage."""
        pause = self._pause
        if pause.freezer_up is None:
            return
        yield GaugeMetricFamily(
            "kn_serving_freezer_up", "1 while the node's freezer answers", value=float(pause.freezer_up)
        )
        faults = CounterMetricFamily(
            "kn_serving_freezer_faults", "What went wrong with the node's freezer", labels=["kind"]
        )
        for kind, count in sorted(pause.freezer_faults().items()):
            faults.add_metric([kind], count)
        yield faults
        yield CounterMetricFamily(
            "kn_serving_knocks", "Wakes for connections that went past the proxy", value=pause.knocks()
        )


def exposition(recorder: Recorder, pause: PauseCounts, queue_depth: Callable[[], int | None]) -> Callable[[], bytes]:
    """A function that renders the page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SidecarCollector(recorder, pause, queue_depth))
    return lambda: bytes(generate_latest(registry))
