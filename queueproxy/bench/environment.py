"""Decides the environment a queue-proxy is measured in: what Knative sets, with the limiter and the metrics on.

The names and values are those of a Deployment Knative made for a Service without any settings (contract, QP-020), so
any queue-proxy binary takes them. Two values differ from that Deployment, because the budgets speak of a proxy that
limits and counts: a container concurrency no test reaches, and Prometheus request metrics.
"""

from __future__ import annotations

import json

from queueproxy.observability import DEFAULT_REQUEST_LOG_TEMPLATE

__all__ = ["METRICS_PORT", "environment"]

METRICS_PORT = 9091  # QP-045: request metrics, when their protocol is prometheus


def environment(
    port: int,
    user_port: int,
    *,
    concurrency: int = 100,
    metrics: bool = True,
    log: bool = False,
    traces: float = 0.0,
    collector: str = "",
) -> dict[str, str]:
    """What a pod's queue-proxy container gets. concurrency: 0 is no limit. traces: the share that is sent there."""
    protocol = "prometheus" if metrics else "none"
    tracing = {"protocol": "http/protobuf", "endpoint": collector, "samplingRate": traces}
    observability = {
        "tracing": tracing if traces else {"protocol": "none"},
        "metrics": {"protocol": protocol},
        "runtime": {"profiling": "disabled", "exportInterval": 15_000_000_000},
        "requestMetrics": {"protocol": protocol},
        "enableRequestLog": log,
        "requestLogTemplate": DEFAULT_REQUEST_LOG_TEMPLATE,
    }
    probe = {"tcpSocket": {"port": user_port, "host": "127.0.0.1"}, "successThreshold": 1}
    return {
        "SERVING_NAMESPACE": "bench",
        "SERVING_SERVICE": "bench",
        "SERVING_CONFIGURATION": "bench",
        "SERVING_REVISION": "bench-00001",
        "SERVING_POD": "bench-00001-deployment-0",
        "SERVING_POD_IP": "127.0.0.1",
        "QUEUE_SERVING_PORT": str(port),
        "QUEUE_SERVING_TLS_PORT": "8112",
        "USER_PORT": str(user_port),
        "CONTAINER_CONCURRENCY": str(concurrency),
        "REVISION_TIMEOUT_SECONDS": "300",
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "0",
        "REVISION_IDLE_TIMEOUT_SECONDS": "0",
        "SERVING_LOGGING_CONFIG": "",
        "SERVING_LOGGING_LEVEL": "",
        "SERVING_READINESS_PROBE": json.dumps(probe, separators=(",", ":")),
        "SYSTEM_NAMESPACE": "knative-serving",
        "HOST_IP": "127.0.0.1",
        "ENABLE_HTTP2_AUTO_DETECTION": "false",
        "ENABLE_HTTP_FULL_DUPLEX": "false",
        "ROOT_CA": "",
        "QUEUE_PROXY_TLS_MIN_VERSION": "",
        "QUEUE_PROXY_TLS_MAX_VERSION": "",
        "QUEUE_PROXY_TLS_CIPHER_SUITES": "",
        "QUEUE_PROXY_TLS_CURVE_PREFERENCES": "",
        "ENABLE_MULTI_CONTAINER_PROBES": "false",
        "OBSERVABILITY_CONFIG": json.dumps(observability, separators=(",", ":")),
    }
