"""The page of 9091, read by the format's own parser."""

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from queueproxy.clock import monotonic
from queueproxy.metrics.histogram import DURATIONS, THAWS
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.prometheus import CONTENT_TYPE, exposition
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.window import Window


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
    assert values(page(*fresh(), depth=0)["kn_serving_queue_depth"]) == {(): 0.0}
    assert values(page(*fresh(), depth=7)["kn_serving_queue_depth"]) == {(): 7.0}


@pytest.mark.qp("QP-230", "QP-233")
def test_invocations_have_the_contracts_buckets_and_status() -> None:
    recorder, pause = fresh()
    recorder.invoked(200, 0.02)
    recorder.invoked(200, 60.0)
    recorder.invoked(502, 0.001)
    family = page(recorder, pause)["kn_serving_invocation_duration_seconds"]
    ok = (("http_response_status_code", "200"),)
    assert values(family, "_count") == {ok: 2.0, (("http_response_status_code", "502"),): 1.0}
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
