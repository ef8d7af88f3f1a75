"""The whole environment: what a real controller sends, what must be there, what is forgiven."""

from collections.abc import Mapping

import pytest

from queueproxy import config
from queueproxy.config import ConfigError, ServingInfo, Timeouts
from tests.support import captured

ENV: Mapping[str, str] = {
    "CONTAINER_CONCURRENCY": "0",
    "QUEUE_SERVING_PORT": "8012",
    "QUEUE_SERVING_TLS_PORT": "8112",
    "USER_PORT": "8080",
    "REVISION_TIMEOUT_SECONDS": "300",
    "SERVING_LOGGING_CONFIG": "",
    "SERVING_LOGGING_LEVEL": "",
    "SERVING_NAMESPACE": "default",
    "SERVING_CONFIGURATION": "hello",
    "SERVING_REVISION": "hello-00001",
    "SERVING_POD": "hello-00001-deployment-0",
    "SERVING_POD_IP": "10.1.2.3",
}


def complaints(changed: Mapping[str, str] | None = None, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    env = {name: value for name, value in (ENV | (changed or {})).items() if name not in without}
    with pytest.raises(ConfigError) as error:
        config.load(env)
    return error.value.lines


@pytest.mark.qp("QP-020", "QP-023", "QP-025", "QP-026")
@pytest.mark.parametrize("name", captured.each_name())
def test_what_a_real_controller_sends_is_understood(name: str) -> None:
    case = captured.case(name)
    seen = config.load(case.env)
    spec = {port["name"]: port["containerPort"] for port in case.container["ports"]}
    assert seen.ports.request == spec["queue-port"]
    assert seen.ports.tls == spec["https-port"]
    assert seen.ports.autoscaler == spec["http-autometric"]
    assert seen.ports.user_metrics == spec["http-usermetric"]
    assert seen.observability.profiling == ("profiling-port" in spec)
    assert seen.ports.user == case.user_port
    assert seen.serving.pod == case.pod["metadata"]["name"]
    assert seen.serving.pod_ip == case.pod["status"]["podIP"]
    assert seen.serving.namespace == case.pod["metadata"]["namespace"]
    assert seen.host_ip == case.pod["status"]["hostIP"]
    assert seen.concurrency == int(case.env["CONTAINER_CONCURRENCY"])
    # The pod's grace is the revision's timeout.
    assert seen.timeouts.max_duration == case.pod["spec"]["terminationGracePeriodSeconds"]
    assert seen.multi_probes == seen.probe_json.startswith("[")
    assert seen.notes == ()


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("03-cc10", "concurrency", 10),
        ("12-h2c", "ports.request", 8013),
        ("13-http1-port9000", "ports.user", 9000),
        ("15-multi-container-probing", "multi_probes", True),
        ("16-full-duplex", "full_duplex", True),
        ("19-request-log", "observability.request_log.enabled", True),
        ("19-request-log", "observability.request_log.probes", True),
        ("20-o11y-prometheus", "observability.request_metrics.protocol", "prometheus"),
        ("21-o11y-otlp-http", "observability.tracing.sampling_rate", 0.5),
        ("21-o11y-otlp-http", "observability.request_metrics.export_interval", 15.0),
        (
            "22-o11y-otlp-grpc",
            "observability.request_metrics.endpoint",
            "https://collector.observability.svc.cluster.local:4317",
        ),
        ("23-profiling-debuglog", "observability.profiling", True),
        ("24-secure-pod-defaults-h2auto", "h2_detection", True),
        ("29-system-internal-tls", "observability.request_log.template", "TLS: {{.Request.TLS}}"),
    ],
)
def test_a_captured_setting_arrives_where_it_is_read(name: str, attribute: str, value: object) -> None:
    seen: object = config.load(captured.case(name).env)
    for step in attribute.split("."):
        seen = getattr(seen, step)
    assert seen == value


@pytest.mark.parametrize("name", captured.each_name())
def test_the_default_log_template_is_knatives(name: str) -> None:
    from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE

    template = config.load(captured.case(name).env).observability.request_log.template
    assert template in (DEFAULT_REQUEST_LOG_TEMPLATE, "TLS: {{.Request.TLS}}")


@pytest.mark.qp("QP-021", "QP-024")
def test_the_least_a_controller_may_send() -> None:
    seen = config.load(ENV)
    assert seen.serving == ServingInfo("default", "", "hello", "hello-00001", "hello-00001-deployment-0", "10.1.2.3")
    assert (seen.ports.request, seen.ports.tls, seen.ports.user) == (8012, 8112, 8080)
    assert (seen.ports.admin, seen.ports.autoscaler, seen.ports.user_metrics, seen.ports.profiling) == (
        8022, 9090, 9091, 8008,
    )  # fmt: skip
    assert seen.timeouts == Timeouts(max_duration=300.0, response_start=0.0, idle=0.0)
    assert (seen.concurrency, seen.probe_json, seen.multi_probes, seen.h2_detection, seen.full_duplex) == (
        0, "", False, False, False,
    )  # fmt: skip
    assert (seen.logging_config, seen.logging_level) == ("", "")


@pytest.mark.qp("QP-020", "QP-010")
@pytest.mark.parametrize("name", config.REQUIRED)
def test_each_required_variable_is_missed(name: str) -> None:
    assert complaints(without=(name,)) == (f"required key {name} missing value",)


@pytest.mark.qp("QP-020", "QP-010")
def test_everything_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        config.load({})
    assert error.value.lines == tuple(f"required key {name} missing value" for name in config.REQUIRED)
    assert len(config.REQUIRED) == 12


@pytest.mark.qp("QP-022", "QP-010")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CONTAINER_CONCURRENCY", "int"),
        ("REVISION_TIMEOUT_SECONDS", "int"),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "int"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "int"),
        ("ENABLE_HTTP2_AUTO_DETECTION", "bool"),
        ("ENABLE_HTTP_FULL_DUPLEX", "bool"),
        ("ENABLE_MULTI_CONTAINER_PROBES", "bool"),
    ],
)
@pytest.mark.parametrize("value", ["", "x"], ids=["empty", "nonsense"])
def test_an_unreadable_value_is_reported_as_upstream_does(name: str, kind: str, value: str) -> None:
    (line,) = complaints({name: value})
    assert line.startswith(f"envconfig.Process: assigning {name} to ")
    function = {"int": "ParseInt", "bool": "ParseBool"}[kind]
    assert line.endswith(
        f": converting '{value}' to type {kind}. details: strconv.{function}: parsing \"{value}\": invalid syntax"
    )


@pytest.mark.qp("QP-010")
def test_mistakes_of_every_kind_are_said_together() -> None:
    lines = complaints(
        {
            "CONTAINER_CONCURRENCY": "lots",
            "ENABLE_HTTP_FULL_DUPLEX": "yes",
            "OBSERVABILITY_CONFIG": "{",
            "USER_PORT": "x",
        },
        without=("SERVING_POD",),
    )
    assert [line.split()[2 if line.startswith(("required", "env")) else 0] for line in lines] == [
        "CONTAINER_CONCURRENCY", "USER_PORT", "SERVING_POD", "ENABLE_HTTP_FULL_DUPLEX", "failed",
    ]  # fmt: skip


@pytest.mark.qp("QP-022")
def test_numbers_may_be_written_as_in_go() -> None:
    seen = config.load({**ENV, "CONTAINER_CONCURRENCY": "0x10", "REVISION_TIMEOUT_SECONDS": "0b1010"})
    assert (seen.concurrency, seen.timeouts.max_duration) == (16, 10.0)


@pytest.mark.qp("QP-028")
def test_negative_concurrency_is_no_limit() -> None:
    assert config.load({**ENV, "CONTAINER_CONCURRENCY": "-3"}).concurrency == 0


@pytest.mark.qp("QP-027")
@pytest.mark.parametrize("seconds", ["0", "-5"])
def test_a_timeout_that_would_refuse_everything_stops_the_start(seconds: str) -> None:
    assert complaints({"REVISION_TIMEOUT_SECONDS": seconds}) == (
        f"REVISION_TIMEOUT_SECONDS must be greater than 0, got {seconds}: no request could ever be answered",
    )


@pytest.mark.qp("QP-024")
def test_the_other_timeouts_are_off_unless_positive() -> None:
    names = ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "REVISION_IDLE_TIMEOUT_SECONDS")
    for value, seconds in (("0", 0.0), ("-1", 0.0), ("20", 20.0)):
        seen = config.load(ENV | dict.fromkeys(names, value)).timeouts
        assert (seen.response_start, seen.idle) == (seconds, seconds)


@pytest.mark.qp("QP-023")
def test_unknown_variables_are_nobodys_business() -> None:
    noise = {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1", "HELLO_PORT_80_TCP": "tcp://10.0.0.2:80", "GOMAXPROCS": "lots",
        "SYSTEM_NAMESPACE": "knative-serving", "PROFILING_PORT": "x", "METRICS_PROMETHEUS_PORT": "x",
        "METRICS_DOMAIN": "knative.dev/serving", "METRICS_COLLECTOR_ADDRESS": "x",
    }  # fmt: skip
    assert config.load(ENV | noise) == config.load(ENV)


@pytest.mark.qp("QP-025")
def test_the_digit_sticks_to_http() -> None:
    assert config.load({**ENV, "ENABLE_HTTP2_AUTO_DETECTION": "true"}).h2_detection
    assert not config.load({**ENV, "ENABLE_HTTP_2_AUTO_DETECTION": "true"}).h2_detection


@pytest.mark.qp("QP-030")
def test_a_pod_may_live_on_ipv6() -> None:
    assert config.load({**ENV, "SERVING_POD_IP": "fd00::1:2"}).serving.pod_ip == "fd00::1:2"


@pytest.mark.parametrize(
    ("env", "name", "instance"),
    [
        ({}, "hello", "hello-pod"),
        ({"SERVING_SERVICE": "svc"}, "svc", "hello-pod"),
        ({"SERVING_SERVICE": "svc", "OTEL_SERVICE_NAME": "mine"}, "mine", "hello-pod"),
        ({"SERVING_CONFIGURATION": ""}, "hello-00001", "hello-pod"),
        ({"SERVING_CONFIGURATION": "", "SERVING_REVISION": "", "POD_NAME": "p"}, "p", "p"),
    ],
    ids=["configuration", "service", "operator", "revision", "pod"],
)
def test_the_name_for_telemetry(env: dict[str, str], name: str, instance: str) -> None:
    seen = config.load(ENV | {"HOSTNAME": "hello-pod"} | env).observability
    assert (seen.service_name, seen.instance) == (name, instance)


@pytest.mark.qp("QP-321")
def test_tls_settings_are_passed_on_unread() -> None:
    # They may only be judged where certificates are mounted.
    seen = config.load({**ENV, "QUEUE_PROXY_TLS_MIN_VERSION": "1.7", "QUEUE_PROXY_TLS_CURVE_PREFERENCES": "?"})
    assert (seen.tls.min_version, seen.tls.curve_preferences, seen.tls.cipher_suites) == ("1.7", "?", "")


def test_the_freezer_of_old_is_still_found() -> None:
    seen = config.load(
        {**ENV, "CONCURRENCY_STATE_ENDPOINT": "http://$HOST_IP:9696", "CONCURRENCY_STATE_TOKEN_PATH": "/t"}
    )
    assert (seen.legacy_freezer.endpoint, seen.legacy_freezer.token_path) == ("http://$HOST_IP:9696", "/t")


@pytest.mark.fz("FZ-002", "FZ-110")
def test_tokens_and_annotations_are_where_knative_mounts_them_unless_moved() -> None:
    assert config.load(ENV).mounted == ("/var/run/secrets/tokens", "/etc/podinfo/annotations")
    moved = config.load(ENV | {"QUEUEPROXY_TOKENS": "/t", "QUEUEPROXY_PODINFO": "/p"})
    assert moved.mounted == ("/t", "/p")
