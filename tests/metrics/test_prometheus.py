"""The page of 9091, read by the format's own parser."""

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from queueproxy.clock import monotonic
from queueproxy.metrics import opencensus
from queueproxy.metrics.families import HTTP
from queueproxy.metrics.histogram import DURATIONS, THAWS
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.prometheus import CONTENT_TYPE, exposition, page_name
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.requests import HttpCounts
from queueproxy.metrics.window import Window

SCOPE = (
    ("otel_scope_name", "knative.dev/serving/pkg/queue"), ("otel_scope_schema_url", ""), ("otel_scope_version", ""),
)  # fmt: skip


def page(recorder: Recorder, pause: PauseCounts, depth: int | None = None) -> dict[str, Metric]:
    text = exposition(recorder, pause, lambda: depth)().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Metric, suffix: str = "") -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(s.labels.items())): s.value for s in family.samples if s.name == family.name + suffix}


def fresh() -> tuple[Recorder, PauseCounts]:
    now = monotonic()
    return Recorder(Window(now)), PauseCounts(now)


@pytest.mark.qp("QP-230", "QP-233")
@pytest.mark.fz("FZ-100")
def test_every_name_is_there_on_the_first_day() -> None:
    assert set(page(*fresh())) == {
        "kn_serving_invocation_duration_seconds", "kn_serving_refused", "kn_serving_upstream_retries",
        "kn_serving_pause_state", "kn_serving_pause_transitions", "kn_serving_pause_duration_seconds",
        "kn_serving_thaw_wait_seconds", "kn_serving_pause_seconds", "kn_serving_idle_cpu_seconds",
        "kn_serving_probe_answers", "kn_serving_pause_shadow", "kn_serving_request_log_dropped",
    }  # fmt: skip
    assert CONTENT_TYPE == b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"


@pytest.mark.qp("QP-231")
def test_the_queue_depth_is_there_only_with_a_limiter() -> None:
    assert "kn_serving_queue_depth" not in page(*fresh())
    assert list(values(page(*fresh(), depth=0)["kn_serving_queue_depth"]).values()) == [0.0]
    assert values(page(*fresh(), depth=7)["kn_serving_queue_depth"]) == {SCOPE: 7.0}


@pytest.mark.qp("QP-230", "QP-233")
def test_invocations_have_the_contracts_buckets_and_status() -> None:
    recorder, pause = fresh()
    recorder.invoked(200, 0.02)
    recorder.invoked(200, 60.0)
    recorder.invoked(502, 0.001)
    family = page(recorder, pause)["kn_serving_invocation_duration_seconds"]
    ok = (("http_response_status_code", "200"), *SCOPE)
    assert values(family, "_count") == {ok: 2.0, (("http_response_status_code", "502"), *SCOPE): 1.0}
    assert values(family, "_sum")[ok] == pytest.approx(60.02)
    buckets = {dict(labels)["le"]: v for labels, v in values(family, "_bucket").items() if ok[0] in labels}
    assert [float(bound) for bound in buckets] == [*DURATIONS, float("inf")]
    assert (buckets["0.01"], buckets["0.025"], buckets["10.0"], buckets["+Inf"]) == (0.0, 1.0, 1.0, 2.0)
    assert family.documentation == "The duration of task execution"


@pytest.mark.fz("FZ-100", "FZ-103", "FZ-105", "FZ-113")
def test_sleep_has_the_promised_names_and_labels() -> None:
    recorder, pause = fresh()
    recorder.refuse("queue_full")
    recorder.retries = 3
    pause.moved("running", "frozen", "idle", "ok", pause.since)
    pause.timed("freeze", 0.0001)
    pause.waited("total", 0.0007)
    pause.would("freeze")
    pause.answered("health", "asleep")
    pause.idle_cpu_seconds = 1.5
    families = page(recorder, pause)
    assert values(families["kn_serving_pause_state"]) == {
        (("state", state),): float(state == "frozen") for state in ("running", "waking", "throttled", "frozen")
    }
    assert values(families["kn_serving_pause_transitions"], "_total") == {
        (("from", "running"), ("outcome", "ok"), ("reason", "idle"), ("to", "frozen")): 1.0
    }
    assert values(families["kn_serving_pause_duration_seconds"], "_count") == {(("op", "freeze"),): 1.0}
    assert values(families["kn_serving_thaw_wait_seconds"], "_sum") == {(("phase", "total"),): 0.0007}
    bounds = {dict(labels)["le"] for labels in values(families["kn_serving_thaw_wait_seconds"], "_bucket")}
    assert {float(bound) for bound in bounds} == {*THAWS, float("inf")}
    assert values(families["kn_serving_idle_cpu_seconds"], "_total") == {(): 1.5}
    assert values(families["kn_serving_probe_answers"], "_total") == {(("kind", "health"), ("while", "asleep")): 1.0}
    assert values(families["kn_serving_pause_shadow"], "_total") == {(("would", "freeze"),): 1.0}
    assert values(families["kn_serving_refused"], "_total") == {(("reason", "queue_full"),): 1.0}
    assert values(families["kn_serving_upstream_retries"], "_total") == {(): 3.0}
    assert values(families["kn_serving_pause_seconds"], "_total")[(("state", "frozen"),)] >= 0.0


@pytest.mark.fz("FZ-100")
def test_the_freezer_is_there_only_where_one_is_wanted() -> None:
    recorder, pause = fresh()
    pause.freezer_up, pause.freezer_faults, pause.knocks = False, lambda: {"timeout": 2}, lambda: 7
    families = page(recorder, pause)
    assert values(families["kn_serving_freezer_up"]) == {(): 0.0}
    assert values(families["kn_serving_freezer_faults"], "_total") == {(("kind", "timeout"),): 2.0}
    assert values(families["kn_serving_knocks"], "_total") == {(): 7.0}
    pause.freezer_up = True
    assert values(page(recorder, pause)["kn_serving_freezer_up"]) == {(): 1.0}


def test_the_page_is_read_anew_at_each_scrape() -> None:
    recorder, pause = fresh()
    render = exposition(recorder, pause, lambda: None)
    first = render()
    recorder.refuse("dial")
    assert b'kn_serving_refused_total{reason="dial"} 1.0' in render() and b"dial" not in first


@pytest.mark.qp("QP-233")
@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("http.server.request.duration", "s", "http_server_request_duration_seconds"),
        ("http.server.response.body.size", "By", "http_server_response_body_size_bytes"),
        ("kn.serving.queue.depth", "{request}", "kn_serving_queue_depth"),
        ("kn.serving.pause_seconds", "s", "kn_serving_pause_seconds"),
    ],
)
def test_the_pages_names_follow_opentelemetrys_rules(name: str, unit: str, expected: str) -> None:
    assert page_name(name, unit) == expected


@pytest.mark.qp("QP-232", "QP-233", "QP-234")
def test_http_series_carry_their_attributes_the_scope_and_no_empty_label() -> None:
    recorder, pause = fresh()
    http = HttpCounts()
    http.serve(b"GET", 200, b"a.example:8080", 1, None, None, False, 0.02, 0, 700)
    http.serve(b"BREW", 404, b"b.example", 0, b"blue", None, True, 0.02, 7, 0)
    http.ask(b"GET", 200, "", None, None, True, 0.01, 0)
    http.ask(b"GET", 0, "net.OpError", None, None, False, 0.01, 0)
    resource = {"service.name": "hello", "k8s.pod.name": "p"}
    text = exposition(recorder, pause, lambda: None, http=http, user_port=8081, resource=resource)().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    scope = (("otel_scope_name", HTTP.name), ("otel_scope_schema_url", ""), ("otel_scope_version", HTTP.version))
    served = values(families["http_server_request_duration_seconds"], "_count")
    assert [dict(labels) for labels in served] == [
        dict(scope) | {
            "http_request_method": "GET", "http_response_status_code": "200", "kn_route_tag": "kn:disabled",
            "network_protocol_name": "http", "network_protocol_version": "1.1", "server_address": "a.example",
            "server_port": "8080", "url_scheme": "http",
        },
        dict(scope) | {
            "http_request_method": "_OTHER", "http_response_status_code": "404", "kn_route_tag": "blue",
            "network_protocol_name": "http", "network_protocol_version": "1.0", "server_address": "b.example",
            "url_scheme": "https",
        },
    ]  # fmt: skip
    asked = [dict(labels) for labels in values(families["http_client_request_duration_seconds"], "_count")]
    assert [(a.get("error_type"), a.get("http_response_status_code"), a.get("kn_route_tag")) for a in asked] == [
        ("net.OpError", None, None), (None, "200", "kn:disabled"),
    ]  # fmt: skip
    assert all(a["server_address"] == "127.0.0.1" and a["server_port"] == "8081" for a in asked)
    sizes = values(families["http_server_response_body_size_bytes"], "_bucket")
    bounds = [float(dict(labels)["le"]) for labels in sizes if dict(labels)["http_request_method"] == "GET"]
    assert bounds == [0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, float("inf")]
    assert values(families["target_info"]) == {(("k8s_pod_name", "p"), ("service_name", "hello")): 1.0}
    assert "process_resident_memory_bytes" in families


def test_a_page_nobody_asked_request_metrics_of_has_no_target() -> None:
    assert not {"target_info", "process_resident_memory_bytes"} & set(page(*fresh()))


@pytest.mark.qp("QP-029")
def test_older_control_planes_see_counters_without_total_and_typed() -> None:
    recorder, pause = fresh()
    recorder.bounds = opencensus.LATENCIES
    recorder.invoked(200, 0.03)
    who = opencensus.labels("ns", "svc", "cfg", "rev", "pod")
    listing = lambda sources: opencensus.families(sources, who)  # noqa: E731
    text = exposition(recorder, pause, lambda: 3, http=HttpCounts(opencensus.LATENCIES), listing=listing)().decode()
    assert "# TYPE revision_app_request_count counter\n" in text
    line = next(line for line in text.splitlines() if line.startswith("revision_app_request_count{"))
    assert 'response_code="200"' in line and line.endswith("} 1.0") and 'container_name="queue-proxy"' in line
    assert "kn_serving_pause_state" in text and "kn_serving_invocation" not in text
