"""Every way a configuration can be wrong that ends the start: one line in upstream's words, and exit code 1."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.app import serve
from queueproxy.config import ConfigError, load
from queueproxy.log import Level, LineWriter, Log, settings
from tests.support.sidecar import environment

PARSE = "failed to parse OBSERVABILITY_CONFIG: "
METER, TRACER = "Failed to setup meter provider: ", "Failed to setup trace provider: "


def metrics(protocol: object, endpoint: object = "", **more: object) -> dict[str, object]:
    return {"requestMetrics": {"protocol": protocol, "endpoint": endpoint, **more}}


def tracing(protocol: object, endpoint: object = "", rate: object = 1) -> dict[str, object]:
    return {"tracing": {"protocol": protocol, "endpoint": endpoint, "samplingRate": rate}}


FATAL: dict[str, tuple[dict[str, str], str]] = {
    name: ({"OBSERVABILITY_CONFIG": value if isinstance(value, str) else json.dumps(value)}, said)
    for name, (value, said) in {
        "no json": ("{", PARSE),
        "no object": ("[]", PARSE + "the document must be an object"),
        "half a document": ('{"tracing":', PARSE),
        "two documents": ("{}{}", PARSE),
        "nested without end": ("[" * 50_000, PARSE),
        "a number without end": ('{"requestMetrics":{"exportInterval":' + "9" * 5000 + "}}", PARSE),
        "not a number": ('{"tracing":{"samplingRate":NaN}}', PARSE + "NaN is not JSON"),
        "a text for an object": ({"tracing": "grpc"}, PARSE + "tracing must be an object"),
        "a number for a text": (metrics(5), PARSE + "requestMetrics.protocol must be a string"),
        "a text for a number": (tracing("grpc", "http://c", "half"), PARSE + "tracing.samplingRate must be a number"),
        "half a nanosecond": (
            metrics("grpc", "http://c", exportInterval=1.5),
            PARSE + "requestMetrics.exportInterval must be a whole number of nanoseconds",
        ),
        "a text for a switch": ({"enableRequestLog": "yes"}, PARSE + "enableRequestLog must be true or false"),
        "metrics by pigeon": (metrics("carrier-pigeon"), METER + 'unsupported protocol "carrier-pigeon"'),
        "metrics on stdout": (metrics("stdout"), METER + 'unsupported protocol "stdout"'),
        "traces by smoke": (tracing("smoke"), TRACER + 'unsupported protocol "smoke"'),
        "traces for prometheus": (tracing("prometheus"), TRACER + 'unsupported protocol "prometheus"'),
        "an address for a url": (metrics("grpc", "10.0.0.1:4317"), 'endpoint "10.0.0.1:4317" is not a URL'),
        "a port that is none": (tracing("grpc", "http://c:port"), "failed to set up traces export"),
        "an address cut off": (metrics("http/protobuf", "http://[::1"), "failed to set up metrics export"),
        "a host without a port": (metrics("prometheus", "host"), METER + 'invalid prometheus endpoint "host"'),
        "a privileged port": (metrics("prometheus", ":80"), METER + "prometheus port 80, should be between 1024 and"),
        "no port number": (metrics("prometheus", ":http"), METER + "prometheus port"),
    }.items()
}
FATAL |= {
    "a privileged port by variable": (
        {"OBSERVABILITY_CONFIG": json.dumps(metrics("prometheus")), "METRICS_PROMETHEUS_PORT": "80"},
        METER + "prometheus port 80",
    ),
    "a rate that is none": (
        {"OBSERVABILITY_CONFIG": json.dumps(tracing("grpc", "http://c")), "OTEL_TRACES_SAMPLER_ARG": "half"},
        TRACER,
    ),
    "a profiling port that is none": (
        {"OBSERVABILITY_CONFIG": '{"runtime":{"profiling":"enabled"}}', "PROFILING_PORT": "all"},
        "PROFILING_PORT",
    ),
}
PROBE = "Queue container failed to parse readiness probe"
FATAL |= {
    f"a probe that is {name}": ({"SERVING_READINESS_PROBE": text, "ENABLE_MULTI_CONTAINER_PROBES": many}, PROBE)
    for name, text, many in (
        ("no json", "{", "false"), ("a number", "7", "false"), ("an array", "[]", "false"), ("an object", "{}", "true"),
        ("nested without end", "[" * 50_000, "true"), ("no port", '{"tcpSocket":{"port":0}}', "false"),
        ("a name for a port", '{"tcpSocket":{"port":"http"}}', "false"),
        ("a broken header", '{"httpGet":{"port":1,"httpHeaders":[{"name":"a\\r\\nb"}]}}', "false"),
        ("another scheme", '{"httpGet":{"port":1,"scheme":"FTP"}}', "false"),
    )
}  # fmt: skip


@pytest.mark.qp("QP-010", "QP-238", "QP-241", "QP-251")
@pytest.mark.parametrize(("changes", "said"), FATAL.values(), ids=FATAL)
def test_it_says_why_in_one_line_and_the_start_is_over(
    changes: dict[str, str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert serve(environment(**changes)) == 1
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert said in (json.loads(line)["message"] if line.startswith("{") else line)
    assert out == ""


# -- whatever comes

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=4
)


def objects(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries({}, optional={name: field | values for name, field in fields.items()})  # type: ignore[arg-type]


protocols = st.sampled_from(["none", "prometheus", "grpc", "http/protobuf", "stdout"])
endpoints = st.sampled_from(
    ["", "otel:4317", "http://x", "http://[::1", "https://x:99999", "[::1]:9100", ":9100", "::"]
)
documents = objects(
    tracing=objects(protocol=protocols, endpoint=endpoints, samplingRate=st.floats()),
    requestMetrics=objects(protocol=protocols, endpoint=endpoints, exportInterval=st.integers()),
    runtime=objects(profiling=st.just("enabled"), exportInterval=st.integers()),
    enableRequestLog=st.booleans(), requestLogTemplate=st.text(), enableProbeRequestLog=st.booleans(),
)  # fmt: skip


@pytest.mark.qp("QP-010", "QP-026")
@given(documents)
def test_any_observability_document_is_understood_or_refused_in_lines_that_can_be_written(document: object) -> None:
    try:
        seen = load(environment(OBSERVABILITY_CONFIG=json.dumps(document))).observability
    except ConfigError as error:
        assert error.lines and "".join(error.lines).isprintable()
    else:
        assert seen.request_log.template.encode() is not None  # it would raise for what cannot be written


zap = objects(
    level=st.sampled_from(["info", "DEBUG", "loud"]), encoding=st.sampled_from(["json", "console", "xml"]),
    outputPaths=st.just(["stdout"]), sampling=objects(initial=st.integers(0, 9), thereafter=st.integers(0, 9)),
    encoderConfig=st.dictionaries(
        st.sampled_from(["timeKey", "levelKey", "nameKey", "messageKey", "lineEnding", "levelEncoder", "timeEncoder"]),
        values,
    ),
)  # fmt: skip


@pytest.mark.qp("QP-309")
@given(zap | values, st.text(max_size=6))
def test_any_log_configuration_leaves_a_log_that_can_be_written(config: object, level: str) -> None:
    form, threshold, _, _ = settings(json.dumps(config), level)
    with open("/dev/null", "wb") as nowhere:
        log = Log(LineWriter(nowhere.fileno()), {"key": "value"}, level=threshold, format=form)
        log.info("said", more=1)
        assert form.encode(Level.ERROR, "said", {"a": object()}, 1_700_000_000_123_456_789)
