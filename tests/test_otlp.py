"""Where telemetry goes, how often, and which traces are kept."""

import json

import pytest

from queueproxy import observability, otlp
from queueproxy.env import Environment
from queueproxy.otlp import Export, Sampling, ScrapeTls, Target
from tests.support import captured


def read(document: object = None, **variables: str) -> tuple[Export, list[str], list[str]]:
    """What was understood, what stops the start, what is only worth a note."""
    values = dict(variables)
    if document is not None:
        values["OBSERVABILITY_CONFIG"] = json.dumps(document)
    env, notes = Environment(values), list[str]()
    return otlp.load(env, observability.load(env, notes), notes), env.wrong, notes


def understood(document: object = None, **variables: str) -> Export:
    made, wrong, notes = read(document, **variables)
    assert (wrong, notes) == ([], [])
    return made


def pushed(protocol: str, endpoint: str = "", **variables: str) -> Target | None:
    return understood({"requestMetrics": {"protocol": protocol, "endpoint": endpoint}}, **variables).metrics


def traced(rate: float, protocol: str = "grpc", **variables: str) -> Sampling:
    document = {"tracing": {"protocol": protocol, "endpoint": "http://c:4317", "samplingRate": rate}}
    return understood(document, **variables).sampling


def test_nothing_goes_anywhere_unless_asked_for() -> None:
    assert understood() == understood({}) == Export()


@pytest.mark.qp("QP-237")
@pytest.mark.parametrize(
    ("protocol", "endpoint", "url", "secure"),
    [
        ("http/protobuf", "http://c:4318/v1/metrics", "http://c:4318/v1/metrics", False),
        ("http/protobuf", "http://c:4318", "http://c:4318/v1/metrics", False),
        ("http/protobuf", "http://c:4318/", "http://c:4318/v1/metrics", False),
        ("http/protobuf", "http://c:4318/own/path", "http://c:4318/own/path", False),
        ("http/protobuf", "https://c/x?y=z", "https://c/x?y=z", True),
        ("grpc", "otel:4317", "https://otel:4317/v1/metrics", True),
        ("grpc", "http://otel:4317", "http://otel:4317/v1/metrics", False),
        ("grpc", "dns://otel:4317", "http://otel:4317/v1/metrics", False),
        ("grpc", "", "https://localhost:4317/v1/metrics", True),
        ("http/protobuf", "", "https://localhost:4318/v1/metrics", True),
    ],
)
def test_the_endpoint_rules(protocol: str, endpoint: str, url: str, secure: bool) -> None:
    assert pushed(protocol, endpoint) == Target(protocol, url, secure)


@pytest.mark.qp("QP-237")
def test_opentelemetrys_variables_come_before_the_configuration() -> None:
    common = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318/base/"}
    own = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://own:4318/exact"}
    assert pushed("http/protobuf", "http://c:1", **common) == Target(
        "http/protobuf", "http://env:4318/base/v1/metrics", False
    )
    assert pushed("http/protobuf", "http://c:1", **common, **own) == Target(
        "http/protobuf", "http://own:4318/exact", False
    )
    document = {"tracing": {"protocol": "http/protobuf", "endpoint": "http://c:1", "samplingRate": 1}}
    both = understood(document, **common, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://t")
    assert both.traces == Target("http/protobuf", "https://t/v1/traces", True)


@pytest.mark.qp("QP-010", "QP-237")
@pytest.mark.parametrize("url", ["nowhere", "http://", "http://c:99999", "http://[::1"])
def test_an_endpoint_that_is_no_url_stops_the_start(url: str) -> None:
    _, wrong, _ = read({"requestMetrics": {"protocol": "grpc"}}, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert len(wrong) == 1 and wrong[0].startswith("failed to set up metrics export: endpoint ")


@pytest.mark.qp("QP-237")
@pytest.mark.parametrize(
    ("nanoseconds", "variable", "expected"),
    [
        (0, "", 60.0),
        (15_000_000_000, "", 15.0),
        (15_000_000_000, "2500", 2.5),
        (1_000_000_000, "x", 1.0),
        (0, "0", 60.0),
    ],
)
def test_the_interval(nanoseconds: int, variable: str, expected: float) -> None:
    document = {"requestMetrics": {"protocol": "grpc", "endpoint": "http://c:1", "exportInterval": nanoseconds}}
    assert understood(document, OTEL_METRIC_EXPORT_INTERVAL=variable).every == expected


@pytest.mark.qp("QP-237")
@pytest.mark.parametrize(("variable", "expected"), [("", 5.0), ("200", 0.2), ("0", 0.0), ("soon", 5.0), ("-1", 5.0)])
def test_spans_wait_for_company_as_long_as_the_sdks_variable_says(variable: str, expected: float) -> None:
    document = {"tracing": {"protocol": "grpc", "endpoint": "http://c:1", "samplingRate": 1}}
    assert understood(document, OTEL_BSP_SCHEDULE_DELAY=variable).gather == expected


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize(
    ("rate", "variables", "expected"),
    [
        (0.5, {}, Sampling(0.5, True)),
        (1, {}, Sampling(1.0, False)),
        (7, {}, Sampling(1.0, False)),
        (0, {}, Sampling(0.0, False)),
        (-1, {}, Sampling(0.0, False)),
        (0.5, {"OTEL_TRACES_SAMPLER_ARG": "0.25"}, Sampling(0.25, True)),
        (0.5, {"OTEL_TRACES_SAMPLER_ARG": "1"}, Sampling(1.0, False)),
        (0, {"OTEL_TRACES_SAMPLER_ARG": "1"}, Sampling(1.0, False)),
        (0, {"OTEL_TRACES_SAMPLER_ARG": "0.9"}, Sampling(0.0, False)),
        (0.5, {"OTEL_TRACES_SAMPLER_ARG": "-2"}, Sampling(0.0, True)),
        (0.5, {"OTEL_TRACES_SAMPLER": "always_on"}, Sampling(1.0, False)),
        (0.5, {"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(0.0, False)),
        (0, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, Sampling(0.1, False)),
        (0, {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, Sampling(1.0, True)),
        (1, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Sampling(0.0, True)),
        (0, {"OTEL_TRACES_SAMPLER": "ParentBased_TraceIdRatio"}, Sampling(1.0, True)),
        (0, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "seven"}, Sampling(1.0, False)),
        (0, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, Sampling(1.0, False)),
    ],
)
def test_the_sampler_rules(rate: float, variables: dict[str, str], expected: Sampling) -> None:
    assert traced(rate, **variables) == expected


@pytest.mark.qp("QP-239")
def test_stdout_keeps_every_trace_and_needs_no_collector() -> None:
    made = understood({"tracing": {"protocol": "stdout", "samplingRate": 0}})
    assert (made.sampling, made.traces) == (Sampling(1.0, False), None)


@pytest.mark.qp("QP-010", "QP-239")
def test_a_rate_that_is_no_number_stops_the_start_and_an_unknown_sampler_does_not() -> None:
    document = {"tracing": {"protocol": "grpc", "endpoint": "http://c:1", "samplingRate": 0.5}}
    _, wrong, _ = read(document, OTEL_TRACES_SAMPLER_ARG="half")
    assert len(wrong) == 1 and wrong[0].startswith("Failed to setup trace provider: ")
    made, wrong, notes = read(document, OTEL_TRACES_SAMPLER="jaeger_remote")
    assert (made.sampling, wrong, len(notes)) == (Sampling(1.0, True), [], 1)


@pytest.mark.qp("QP-241")
def test_the_page_speaks_tls_only_when_told_to() -> None:
    document = {"requestMetrics": {"protocol": "prometheus"}}
    assert understood(document).scrape_tls is None
    tls = understood(document, METRICS_PROMETHEUS_TLS_CERT="/c", METRICS_PROMETHEUS_TLS_MIN_VERSION="1.2").scrape_tls
    assert tls == ScrapeTls(cert="/c", min_version="1.2")
    assert understood({}, METRICS_PROMETHEUS_TLS_CERT="/c").scrape_tls is None


@pytest.mark.qp("QP-029")
def test_an_older_control_plane_gets_its_names() -> None:
    assert understood(SERVING_REQUEST_METRICS_BACKEND="prometheus").opencensus
    assert not understood({"requestMetrics": {"protocol": "prometheus"}}).opencensus
    assert not understood(SERVING_REQUEST_METRICS_BACKEND="none").opencensus


@pytest.mark.qp("QP-237", "QP-239")
@pytest.mark.parametrize("name", captured.each_name())
def test_every_captured_configuration_is_understood(name: str) -> None:
    env = captured.case(name).env
    document = json.loads(env["OBSERVABILITY_CONFIG"])
    made = understood(document, **{k: v for k, v in env.items() if k != "OBSERVABILITY_CONFIG"})
    for wanted, target in (("requestMetrics", made.metrics), ("tracing", made.traces)):
        protocol = document[wanted]["protocol"]
        assert (target.protocol if target else "none") == (
            protocol if protocol in ("grpc", "http/protobuf") else "none"
        )
        if target is not None and "://" in document[wanted]["endpoint"]:
            assert target.url == document[wanted]["endpoint"]
    if document["tracing"]["protocol"] != "none":
        assert made.sampling.ratio == document["tracing"]["samplingRate"]
