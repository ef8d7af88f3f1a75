"""What OTLP says of our integers, decoded by a real receiver."""

from __future__ import annotations

import pytest

from queueproxy.metrics.families import Family, Kind, Scope, Sources, families
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.otel import MetricsExporter, Snapshot, snapshot
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import HttpCounts
from queueproxy.metrics.window import Window
from queueproxy.otlp import Target
from tests.support.collector import attributes, grpc_collector, http_collector

SCOPE = Scope("s", "1")


def test_a_snapshot_does_not_move() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.5)
    taken = snapshot([Family("a", Kind.HISTOGRAM, "s", "", SCOPE, [({"x": 1}, histogram)])], 1, 2)
    histogram.observe(0.5)
    ((point,),) = [reading.points for reading in taken.readings]
    assert (point.counts, point.value, point.bounds) == ((1, 0), 0.5, (1.0,))


def test_families_without_points_are_not_sent() -> None:
    assert snapshot([Family("a", Kind.COUNTER, "", "", SCOPE, [])], 1, 2).readings == ()


def taken() -> Snapshot:
    recorder, http = Recorder(Window(1.0)), HttpCounts()
    recorder.invoked(200, 0.02)
    recorder.refuse("dial")
    http.serve(b"GET", 200, b"a", 1, None, None, False, 0.02, 0, 7)
    sources = Sources(recorder, PauseCounts(1.0), http, 8080, 3, 2.0)
    return snapshot(families(sources), 1_000, 2_000)


@pytest.mark.qp("QP-230", "QP-231", "QP-237")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_understands_every_kind(protocol: str) -> None:
    with (http_collector if protocol != "grpc" else grpc_collector)() as received:
        target = Target(protocol, f"http://127.0.0.1:{received.port}/v1/metrics", False)
        exporter = MetricsExporter(target, {"service.name": "hello"})
        try:
            assert exporter.deliver([taken(), taken()]) == ""
        finally:
            exporter.stop()
        assert len(received.metrics) == 1  # the last one tells everything
        (depth,) = received.points["kn.serving.queue.depth"]
        assert (depth.as_int, depth.time_unix_nano) == (3, 2_000)
        (invoked,) = received.points["kn.serving.invocation.duration"]
        assert (invoked.count, invoked.start_time_unix_nano, invoked.time_unix_nano) == (1, 1_000, 2_000)
        assert not invoked.HasField("min") and not invoked.HasField("max")  # we keep none
        (refused,) = received.points["kn.serving.refused"]
        assert (attributes(refused), refused.as_int) == ({"reason": "dial"}, 1)
        sums = [
            metric.sum
            for scope in received.metrics[0].resource_metrics[0].scope_metrics
            for metric in scope.metrics
            if metric.name == "kn.serving.refused"
        ]
        assert [(s.is_monotonic, s.aggregation_temporality) for s in sums] == [(True, 2)]  # cumulative
        resource = attributes(received.metrics[0].resource_metrics[0].resource)
        assert resource["service.name"] == "hello" and resource["telemetry.sdk.name"] == "opentelemetry"


@pytest.mark.qp("QP-245")
def test_a_refusal_is_said_and_raises_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with http_collector() as received:
        received.answer = lambda: (400, b"\x00rubbish")
        exporter = MetricsExporter(Target("http/protobuf", f"http://127.0.0.1:{received.port}/x", False), {})
        assert exporter.deliver([taken()]) == "the collector did not take them"
        exporter.stop()
    assert capfd.readouterr().err == ""  # the SDK keeps its own complaints to itself
