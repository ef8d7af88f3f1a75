"""Whatever is wrong in what the control plane hands over: the contract's words and exit code, or a sidecar that serves.

Of the real process; what is wrong with certificates is in test_tls, what collectors do in test_telemetry,
what readers of the logs do in test_request_log and tests/test_log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.origin import Origin
from tests.support.sidecar import USER, USER_METRICS, Sidecar, environment

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("bad-input")]


@pytest.fixture(scope="module")
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as namespace:
        yield namespace


def metrics(protocol: object, endpoint: object = "", **more: object) -> dict[str, object]:
    return {"requestMetrics": {"protocol": protocol, "endpoint": endpoint, **more}}


def tracing(protocol: object, endpoint: object = "", rate: object = 1) -> dict[str, object]:
    return {"tracing": {"protocol": protocol, "endpoint": endpoint, "samplingRate": rate}}


# -- what ends the start (every case of it: tests/test_bad_input.py)


@pytest.mark.qp("QP-010")
@pytest.mark.parametrize(
    ("changes", "said"),
    [({"OBSERVABILITY_CONFIG": "{"}, "failed to parse"), ({"SERVING_READINESS_PROBE": "{"}, "Queue container failed")],
    ids=["observability", "probe"],
)
def test_what_ends_the_start_ends_the_process_with_1(
    namespace: NetworkNamespace, changes: dict[str, str], said: str
) -> None:
    sidecar = Sidecar(namespace, environment(**changes))
    assert sidecar.ended(30) == 1
    (line,) = sidecar.lines
    assert said in line and sidecar.output == []


# -- what does not


@contextmanager
def serving(namespace: NetworkNamespace, **changes: str) -> Iterator[Sidecar]:
    """A sidecar that has served a request."""
    origin = Origin(namespace, USER)
    sidecar = Sidecar(namespace, environment(**changes))
    try:
        wire = sidecar.started().connect()
        wire.ask("GET", "/x", "User-Agent: a\xff'\"<b")
        origin.request().wire.answer(body=b"well")
        assert wire.response().body == b"well"
        wire.close()
        yield sidecar
    finally:
        sidecar.stop()
        origin.close()


def observed(**wanted: object) -> dict[str, str]:
    return {"OBSERVABILITY_CONFIG": json.dumps(wanted)}


TEMPLATES: dict[str, tuple[str, str]] = {
    "an action cut off": ("{{.Request", "unclosed action"),
    "an unknown function": ("{{nope}}", 'function "nope" not defined'),
    "an end too many": ("{{end}}", "unexpected {{end}}"),
    "an end too few": ("{{if true}}", "unexpected EOF"),
    "an unknown variable": ("{{$x}}", "undefined variable"),
    "a text cut off": ('{{"abc}}', "unterminated quoted string"),
    "nested without end": ("{{" + "(" * 20_000, "max expression depth"),
}


@pytest.mark.qp("QP-305")
@pytest.mark.parametrize(("template", "why"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_that_does_not_compile_costs_the_request_log(
    namespace: NetworkNamespace, template: str, why: str
) -> None:
    with serving(namespace, **observed(enableRequestLog=True, requestLogTemplate=template)) as sidecar:
        (said,) = [event for event in sidecar.log if event["severity"] != "INFO"]
        assert said["message"] == "Error setting up request logger. Request logs will be unavailable."
        assert said["severity"] == "ERROR" and why in said["error"]
        assert sidecar.output == []


@pytest.mark.qp("QP-302", "QP-305")
@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{.Request.Nope}}", "Invalid request log template: method: GET, response code: 200, latency: "),
        ("{{index .Request.Header 5}}", "Invalid request log template: method: GET"),
        ("{{range 10000000}}{{end}}x", "Invalid request log template: method: GET"),
        ("\ud800{{.Response.Code}}", "�200"),
        ("%d %% {{.Response.Code}}", "%d %% 200"),
    ],
    ids=["no such field", "an index that is none", "a loop without end", "half a surrogate pair", "percent signs"],
)
def test_a_template_that_compiles_gives_a_line_whatever_is_in_it(
    namespace: NetworkNamespace, template: str, line: str
) -> None:
    with serving(namespace, **observed(enableRequestLog=True, requestLogTemplate=template)) as sidecar:
        sidecar.until(lambda: sidecar.output)
        assert sidecar.output[0].startswith(line)


LOGGING = {
    "no json": "{", "no object": "[]", "an unknown level": '{"level":"loud"}', "a number for a level": '{"level":3}',
    "an unknown encoding": '{"encoding":"xml"}', "sampling that is none": '{"sampling":7}', "nested": "[" * 50_000,
}  # fmt: skip


@pytest.mark.qp("QP-309")
@pytest.mark.parametrize("config", LOGGING.values(), ids=LOGGING)
def test_a_log_configuration_that_cannot_be_read_costs_a_warning(namespace: NetworkNamespace, config: str) -> None:
    with serving(namespace, SERVING_LOGGING_CONFIG=config, SERVING_LOGGING_LEVEL="LOUD") as sidecar:
        first, *others = sidecar.log
        assert first["severity"] == "WARNING" and first["logger"] == "fallback-logger.queueproxy"
        assert first["message"].startswith("failed to parse SERVING_LOGGING_CONFIG, using the default: ")
        assert {event["severity"] for event in others} == {"INFO"}  # the invalid level counts for nothing


IMPATIENT = {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


def page(sidecar: Sidecar) -> bytes:
    sidecar.heard("Starting http server user-metrics")
    return sidecar.get("/metrics", port=USER_METRICS).body


ODD: dict[str, tuple[dict[str, str], Callable[[Sidecar], Any]]] = {
    "a listener's host that does not exist": (
        observed(**metrics("prometheus", "no.such.host:9100")),
        lambda sidecar: sidecar.until(lambda: any("metrics server error" in line for line in sidecar.output)),
    ),
    "a page for names that are no text": (
        {**observed(**metrics("prometheus")), "SERVING_SERVICE": "caf\udce9", "OTEL_RESOURCE_ATTRIBUTES": "a=\udcff,b"},
        lambda sidecar: 'service_name="caf\ufffd"'.encode() in page(sidecar),
    ),
    "the same page with its old names": (
        {"OBSERVABILITY_CONFIG": "", "SERVING_REQUEST_METRICS_BACKEND": "prometheus", "SERVING_SERVICE": "caf\udce9"},
        lambda sidecar: 'service_name="caf\ufffd"'.encode() in page(sidecar),
    ),
    "a collector whose name cannot be looked up": (
        {**observed(**metrics("http/protobuf", "http://no.such.host/")), **IMPATIENT},
        lambda sidecar: sidecar.heard("Failed to export metrics"),
    ),
    "a collector whose name is no text": (
        {**observed(**metrics("grpc", "http://\ud800:1")), **IMPATIENT},
        lambda sidecar: sidecar.heard("Failed to export metrics"),
    ),
    "a sampler that nobody knows": (
        {**observed(**tracing("stdout")), "OTEL_TRACES_SAMPLER": "dice"},
        lambda sidecar: sidecar.heard("OTEL_TRACES_SAMPLER"),
    ),
    "an interval that is none": (
        {**observed(**metrics("prometheus")), "OTEL_METRIC_EXPORT_INTERVAL": "soon", "OTEL_BSP_SCHEDULE_DELAY": "-1"},
        lambda sidecar: True,
    ),
}


@pytest.mark.qp("QP-012", "QP-245")
@pytest.mark.parametrize(("changes", "seen"), ODD.values(), ids=ODD)
def test_what_cannot_be_had_costs_no_request(
    namespace: NetworkNamespace, changes: dict[str, str], seen: Callable[[Sidecar], Any]
) -> None:
    with serving(namespace, **changes) as sidecar:
        assert seen(sidecar)
        assert sidecar.health().body == b"queue"
        assert not [line for line in sidecar.lines if line.startswith("Traceback")]
