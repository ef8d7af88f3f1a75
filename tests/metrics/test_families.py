"""The list of what is published, before it has the form of a page or of a protobuf."""

import pytest

from queueproxy.metrics.families import HTTP, KNATIVE, OURS, Kind, Sources, families
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import OVERFLOW_SERVED, HttpCounts, Series
from queueproxy.metrics.window import Window


def sources(http: HttpCounts | None = None, depth: int | None = None) -> Sources:
    return Sources(Recorder(Window(1.0)), PauseCounts(1.0), http, 8080, depth, 5.0)


@pytest.mark.qp("QP-230", "QP-231", "QP-232")
def test_knatives_names_kinds_units_and_scopes() -> None:
    found = {f.name: (f.kind, f.unit, f.scope) for f in families(sources(HttpCounts(), 2)) if f.scope is not OURS}
    assert found == {
        "kn.serving.invocation.duration": (Kind.HISTOGRAM, "s", KNATIVE),
        "kn.serving.queue.depth": (Kind.GAUGE, "{request}", KNATIVE),
        "http.server.request.duration": (Kind.HISTOGRAM, "s", HTTP),
        "http.server.request.body.size": (Kind.HISTOGRAM, "By", HTTP),
        "http.server.response.body.size": (Kind.HISTOGRAM, "By", HTTP),
        "http.client.request.duration": (Kind.HISTOGRAM, "s", HTTP),
        "http.client.request.body.size": (Kind.HISTOGRAM, "By", HTTP),
    }


def test_requests_are_not_listed_where_nobody_counts_them() -> None:
    assert not [f.name for f in families(sources()) if f.name.startswith("http.")]


@pytest.mark.qp("QP-242")
def test_the_series_of_all_the_rest_says_so_and_nothing_else() -> None:
    http = HttpCounts()
    http.served[OVERFLOW_SERVED] = Series((1.0,))
    (family,) = [f for f in families(sources(http)) if f.name == "http.server.request.duration"]
    assert [attributes for attributes, _ in family.points] == [{"otel.metric.overflow": True}]


@pytest.mark.fz("FZ-100")
def test_seconds_of_the_present_state_run_on() -> None:
    (family,) = [f for f in families(sources()) if f.name == "kn.serving.pause.seconds"]
    assert {a["state"]: v for a, v in family.points}["running"] == 4.0


def test_failures_of_extensions_are_listed_where_there_are_extensions() -> None:
    seen = sources()
    assert not [f for f in families(seen) if f.name == "kn.serving.extension.failures"]
    seen.recorder.extension_failures = {("b", "request"): 2, ("a", "finished"): 0}
    (family,) = [f for f in families(seen) if f.name == "kn.serving.extension.failures"]
    assert family.points == [({"extension": "a", "hook": "finished"}, 0), ({"extension": "b", "hook": "request"}, 2)]
