"""The names of control planes before 1.19."""

import pytest

from queueproxy.metrics.families import Family, Kind, Sources
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.opencensus import LATENCIES, families, labels
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import HttpCounts
from queueproxy.metrics.window import Window

WHO = labels("ns", "svc", "cfg", "rev", "pod")


def listed(depth: int | None = 4) -> dict[str, Family]:
    recorder, http = Recorder(Window(1.0)), HttpCounts(LATENCIES)
    recorder.bounds = LATENCIES
    recorder.invoked(200, 0.03)
    for host in (b"a", b"b"):  # one series: hosts were not told apart then
        http.serve(b"GET", 200, host, 1, None, None, False, 0.03, 0, 0)
    http.serve(b"GET", 503, b"a", 1, b"blue", None, False, 120.0, 0, 0)
    return {f.name: f for f in families(Sources(recorder, PauseCounts(1.0), http, 8080, depth, 2.0), WHO)}


@pytest.mark.qp("QP-029")
def test_requests_have_a_code_its_class_and_a_tag() -> None:
    found = listed()["revision_request_count"]
    assert found.kind is Kind.OLD_COUNTER
    assert [(dict(a) | {}, v) for a, v in found.points] == [
        (WHO | {"response_code": "200", "response_code_class": "2xx", "route_tag": "DISABLED"}, 2),
        (WHO | {"response_code": "503", "response_code_class": "5xx", "route_tag": "blue"}, 1),
    ]


@pytest.mark.qp("QP-029")
def test_latencies_are_milliseconds_in_that_times_buckets() -> None:
    ((_, whole), (_, slow)) = listed()["revision_request_latencies"].points
    assert isinstance(whole, Histogram) and isinstance(slow, Histogram)
    assert whole.bounds[:4] == (5, 10, 20, 40) and whole.bounds[-1] == 100000 and len(whole.bounds) == 26
    assert (whole.sum, whole.counts[3], slow.counts[-1]) == (pytest.approx(60.0), 2, 1)


@pytest.mark.qp("QP-029")
def test_the_apps_own_have_no_tag_and_the_depth_needs_a_limiter() -> None:
    found = listed()
    ((attributes, count),) = found["revision_app_request_count"].points
    assert "route_tag" not in attributes and count == 1
    assert found["revision_queue_depth"].points == [(WHO, 4)]
    assert "revision_queue_depth" not in listed(depth=None)
    assert "kn.serving.pause.state" in found
