"""Proves queueproxy.bench.environment: a queue-proxy accepts it, and it limits and counts."""

import json
from typing import Any

import pytest

from queueproxy.bench.environment import environment

REQUIRED = {  # QP-020
    "CONTAINER_CONCURRENCY",
    "QUEUE_SERVING_PORT",
    "QUEUE_SERVING_TLS_PORT",
    "USER_PORT",
    "REVISION_TIMEOUT_SECONDS",
    "SERVING_LOGGING_CONFIG",
    "SERVING_LOGGING_LEVEL",
    "SERVING_NAMESPACE",
    "SERVING_CONFIGURATION",
    "SERVING_REVISION",
    "SERVING_POD",
    "SERVING_POD_IP",
}


@pytest.mark.qp("QP-020")
def test_every_required_variable_is_there() -> None:
    assert environment(8012, 8080).keys() >= REQUIRED


def test_ports_are_the_ones_asked_for_also_in_the_probe() -> None:
    made = environment(1234, 5678)
    assert (made["QUEUE_SERVING_PORT"], made["USER_PORT"]) == ("1234", "5678")
    assert json.loads(made["SERVING_READINESS_PROBE"])["tcpSocket"]["port"] == 5678


@pytest.mark.parametrize(("metrics", "protocol"), [(True, "prometheus"), (False, "none")], ids=["on", "off"])
def test_limiter_and_metrics_are_on_unless_told_otherwise(metrics: bool, protocol: str) -> None:
    made = environment(8012, 8080, metrics=metrics)
    observability: dict[str, Any] = json.loads(made["OBSERVABILITY_CONFIG"])
    assert observability["requestMetrics"]["protocol"] == protocol
    assert made["CONTAINER_CONCURRENCY"] == "100"
    assert environment(8012, 8080, concurrency=0)["CONTAINER_CONCURRENCY"] == "0"


def test_request_log_and_traces_are_off_unless_told_otherwise() -> None:
    def observability(**wanted: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(environment(8012, 8080, **wanted)["OBSERVABILITY_CONFIG"])
        return found

    usual = observability()
    assert (usual["enableRequestLog"], usual["tracing"]) == (False, {"protocol": "none"})
    assert observability(log=True) == usual | {"enableRequestLog": True}
    traced = {"protocol": "http/protobuf", "endpoint": "http://c:1", "samplingRate": 0.01}
    assert observability(traces=0.01, collector="http://c:1") == usual | {"tracing": traced}
