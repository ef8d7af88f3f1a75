"""`OBSERVABILITY_CONFIG` and its predecessors."""

import json

import pytest

from queueproxy import observability
from queueproxy.env import Environment
from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE, Observability, RequestLog, RequestMetrics, Tracing


def read(document: object = None, **variables: str) -> tuple[Observability, list[str], list[str]]:
    """What was understood, what stops the start, what is only worth a note."""
    values = dict(variables)
    if document is not None:
        values["OBSERVABILITY_CONFIG"] = document if isinstance(document, str) else json.dumps(document)
    env, notes = Environment(values), list[str]()
    return observability.load(env, notes), env.wrong, notes


def understood(document: object = None, **variables: str) -> Observability:
    seen, wrong, notes = read(document, **variables)
    assert (wrong, notes) == ([], [])
    return seen


def complaint(document: object = None, **variables: str) -> str:
    _, wrong, _ = read(document, **variables)
    (line,) = wrong
    return line


@pytest.mark.qp("QP-026")
@pytest.mark.parametrize(
    "document", [None, "", "{}", {"metrics": {"protocol": "x"}, "EnableVarLogCollection": 7}], ids=repr
)
def test_everything_is_off_unless_asked_for(document: object) -> None:
    assert understood(document) == Observability(
        request_metrics=RequestMetrics(protocol="none", endpoint="", host="", port=9091, export_interval=0.0),
        tracing=Tracing(protocol="none", endpoint="", sampling_rate=0.0),
        request_log=RequestLog(enabled=False, template=DEFAULT_REQUEST_LOG_TEMPLATE, probes=False),
        profiling=False,
        profiling_port=8008,
        runtime_interval=15.0,
        service_name="",
        instance="",
    )


@pytest.mark.qp("QP-026")
def test_durations_are_nanoseconds() -> None:
    seen = understood({"runtime": {"exportInterval": 1_500_000_000}, "requestMetrics": {"exportInterval": 250_000_000}})
    assert (seen.runtime_interval, seen.request_metrics.export_interval) == (1.5, 0.25)


@pytest.mark.qp("QP-026")
def test_keys_match_in_any_case_and_null_keeps_the_default() -> None:
    seen = understood('{"TRACING":{"Protocol":"stdout","samplingrate":1},"requestlogtemplate":null,"runtime":null}')
    assert seen.tracing == Tracing("stdout", "", 1.0)
    assert seen.request_log.template == DEFAULT_REQUEST_LOG_TEMPLATE


@pytest.mark.qp("QP-300", "QP-304")
def test_the_request_log_switches() -> None:
    seen = understood(
        '{"enableRequestLog":true,"requestLogTemplate":"\\u003c{{.TraceID}}","enableProbeRequestLog":true}'
    )
    assert seen.request_log == RequestLog(enabled=True, template="<{{.TraceID}}", probes=True)


@pytest.mark.qp("QP-010", "QP-026")
@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ("{", "Expecting property name"),
        ("none", "Expecting value"),
        ("{} {}", "Extra data"),
        ("[]", "the document must be an object"),
        ('{"tracing":"none"}', "tracing must be an object"),
        ('{"enableRequestLog":"true"}', "enableRequestLog must be true or false"),
        ('{"requestLogTemplate":1}', "requestLogTemplate must be a string"),
        ('{"tracing":{"samplingRate":"0.5"}}', "tracing.samplingRate must be a number"),
        ('{"tracing":{"samplingRate":true}}', "tracing.samplingRate must be a number"),
        ('{"tracing":{"samplingRate":NaN}}', "NaN is not JSON"),
        ('{"runtime":{"exportInterval":1.5}}', "runtime.exportInterval must be a whole number of nanoseconds"),
        ('{"runtime":{"exportInterval":"15s"}}', "runtime.exportInterval must be a whole number of nanoseconds"),
        ('{"runtime":{"exportInterval":9223372036854775808}}', "must be a whole number of nanoseconds"),
        ("[" * 100_000, "recursion"),
    ],
    ids=lambda value: value[:45],
)
def test_what_is_not_the_right_json_stops_the_start(document: str, detail: str) -> None:
    line = complaint(document)
    assert line.startswith("failed to parse OBSERVABILITY_CONFIG: ")
    assert detail in line


@pytest.mark.qp("QP-010", "QP-238")
@pytest.mark.parametrize("protocol", ["opencensus", "", "Prometheus", "stdout"])
def test_an_unknown_metrics_protocol_stops_the_start(protocol: str) -> None:
    line = complaint({"requestMetrics": {"protocol": protocol}})
    assert line == f'Failed to setup meter provider: unsupported protocol "{protocol}"'


@pytest.mark.qp("QP-010", "QP-238")
@pytest.mark.parametrize("protocol", ["zipkin", "", "prometheus"])
def test_an_unknown_tracing_protocol_stops_the_start(protocol: str) -> None:
    line = complaint({"tracing": {"protocol": protocol}})
    assert line == f'Failed to setup trace provider: unsupported protocol "{protocol}"'


@pytest.mark.qp("QP-237")
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://otel:4318/v1/metrics", "http://otel:4318/v1/metrics"),
        ("otel:4317", "https://otel:4317"),
        ("otel.svc.cluster.local:4317", "https://otel.svc.cluster.local:4317"),
        ("", ""),
    ],
)
def test_an_endpoint_is_a_url_or_becomes_one(protocol: str, endpoint: str, url: str) -> None:
    seen = understood(
        {
            "requestMetrics": {"protocol": protocol, "endpoint": endpoint},
            "tracing": {"protocol": protocol, "endpoint": endpoint},
        }
    )
    assert (seen.request_metrics.endpoint, seen.tracing.endpoint) == (url, url)


@pytest.mark.qp("QP-237", "QP-010")
def test_an_address_without_scheme_is_no_url() -> None:
    line = complaint({"tracing": {"protocol": "grpc", "endpoint": "10.0.0.1:4317"}})
    assert line == 'OBSERVABILITY_CONFIG: grpc endpoint "10.0.0.1:4317" is not a URL'


@pytest.mark.qp("QP-045", "QP-241")
@pytest.mark.parametrize(
    ("endpoint", "variables", "listener"),
    [
        ("", {}, ("", 9091)),
        (":9099", {}, ("", 9099)),
        ("127.0.0.1:9099", {}, ("127.0.0.1", 9099)),
        ("[::1]:9099", {}, ("::1", 9099)),
        ("127.0.0.1:9099", {"METRICS_PROMETHEUS_PORT": "1024"}, ("127.0.0.1", 1024)),
        ("127.0.0.1:9099", {"METRICS_PROMETHEUS_HOST": "::"}, ("::", 9099)),
        ("", {"METRICS_PROMETHEUS_HOST": "h", "METRICS_PROMETHEUS_PORT": "65535"}, ("h", 65535)),
        ("", {"METRICS_PROMETHEUS_PORT": ""}, ("", 9091)),
    ],
)
def test_where_the_metrics_listener_binds(endpoint: str, variables: dict[str, str], listener: tuple[str, int]) -> None:
    seen = understood({"requestMetrics": {"protocol": "prometheus", "endpoint": endpoint}}, **variables)
    assert (seen.request_metrics.host, seen.request_metrics.port) == listener


@pytest.mark.qp("QP-010", "QP-241")
@pytest.mark.parametrize(
    ("endpoint", "port", "detail"),
    [
        ("localhost", "", 'invalid prometheus endpoint "localhost"'),
        ("::1:9099", "", 'invalid prometheus endpoint "::1:9099"'),
        (":x", "", '"x" is not a port number between 1 and 65535'),
        (":80", "", "prometheus port 80, should be between 1024 and 65535"),
        ("", "1023", "prometheus port 1023, should be between 1024 and 65535"),
        ("", "65536", '"65536" is not a port number between 1 and 65535'),
    ],
)
def test_where_it_cannot_bind(endpoint: str, port: str, detail: str) -> None:
    document = {"requestMetrics": {"protocol": "prometheus", "endpoint": endpoint}}
    line = complaint(document, METRICS_PROMETHEUS_PORT=port)
    assert line.startswith("Failed to setup meter provider: ") and line.endswith(detail)


@pytest.mark.qp("QP-046")
def test_profiling_and_its_port() -> None:
    on = {"runtime": {"profiling": "enabled"}}
    assert (understood(on).profiling, understood(on).profiling_port) == (True, 8008)
    assert understood(on, PROFILING_PORT="6060").profiling_port == 6060
    assert "PROFILING_PORT" in complaint(on, PROFILING_PORT="0")
    assert not understood({"runtime": {"profiling": "disabled"}}, PROFILING_PORT="0").profiling


OLD = {
    "SERVING_ENABLE_REQUEST_LOG": "true",
    "SERVING_REQUEST_LOG_TEMPLATE": "{{.Request.Method}}",
    "SERVING_ENABLE_PROBE_REQUEST_LOG": "true",
    "SERVING_REQUEST_METRICS_BACKEND": "prometheus",
    "SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS": "5",
    "TRACING_CONFIG_BACKEND": "none",
    "TRACING_CONFIG_DEBUG": "false",
    "TRACING_CONFIG_SAMPLE_RATE": "0.1",
    "ENABLE_PROFILING": "true",
}


@pytest.mark.qp("QP-029")
def test_the_variables_before_1_19_are_understood() -> None:
    seen = understood(None, **OLD)
    assert seen.request_log == RequestLog(enabled=True, template="{{.Request.Method}}", probes=True)
    assert (seen.request_metrics.protocol, seen.request_metrics.export_interval) == ("prometheus", 5.0)
    assert seen.profiling and seen.tracing.protocol == "none"


@pytest.mark.qp("QP-029")
def test_the_old_variables_do_not_count_beside_the_new_one() -> None:
    assert understood("{}", **OLD) == understood("{}")


@pytest.mark.qp("QP-029")
@pytest.mark.parametrize(
    ("name", "value"), [("SERVING_REQUEST_METRICS_BACKEND", "opencensus"), ("TRACING_CONFIG_BACKEND", "zipkin")]
)
def test_a_back_end_that_is_gone_costs_a_note_and_not_the_start(name: str, value: str) -> None:
    seen, wrong, notes = read(None, **{name: value})
    assert wrong == [] and len(notes) == 1
    assert notes[0].startswith(f'{name} "{value}" is not available')
    assert (seen.request_metrics.protocol, seen.tracing.protocol) == ("none", "none")


@pytest.mark.qp("QP-029", "QP-010")
@pytest.mark.parametrize(
    "name",
    ["SERVING_ENABLE_REQUEST_LOG", "SERVING_ENABLE_PROBE_REQUEST_LOG", "ENABLE_PROFILING", "TRACING_CONFIG_DEBUG",
     "TRACING_CONFIG_SAMPLE_RATE", "SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS"],
)  # fmt: skip
def test_an_unreadable_old_variable_stops_the_start(name: str) -> None:
    assert complaint(None, **{name: "x"}).startswith(f"envconfig.Process: assigning {name} to ")


def test_half_a_surrogate_pair_is_what_go_makes_of_it() -> None:
    seen = understood({"enableRequestLog": True, "requestLogTemplate": "\ud800{{.TraceID}}\U0001f600\udcff"})
    assert seen.request_log.template == "\ufffd{{.TraceID}}\U0001f600\ufffd"
