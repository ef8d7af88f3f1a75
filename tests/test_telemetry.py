"""What is loaded and wired for which configuration; that the rest is not even there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from queueproxy.app import Sidecar
from queueproxy.bench.environment import environment
from queueproxy.codec import headers
from queueproxy.config import load
from queueproxy.log import LineWriter, Log
from queueproxy.metrics.opencensus import LATENCIES
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.measured import MeasuredExchange
from queueproxy.proxy.observed import ObservedExchange
from queueproxy.proxy.traced import TracedExchange

LAZY = (
    "queueproxy.metrics.requests", "queueproxy.metrics.families", "queueproxy.metrics.prometheus",
    "queueproxy.metrics.courier", "queueproxy.metrics.otel", "queueproxy.metrics.opencensus",
    "queueproxy.proxy.measured", "queueproxy.proxy.traced", "queueproxy.traces", "queueproxy.requestlog",
    "queueproxy.net.scrapetls", "opentelemetry", "grpc", "prometheus_client",
)  # fmt: skip


@contextmanager
def sidecar(document: object = None, **variables: str) -> Iterator[Sidecar]:
    values = {
        **environment(1, 2),
        "OBSERVABILITY_CONFIG": json.dumps(document) if document is not None else "",
        **variables,
    }
    loop = asyncio.new_event_loop()
    with patch.dict(headers._REQUEST), patch.dict(headers.REQUEST_KINDS):
        made = Sidecar(load(values), (), loop, Log(LineWriter(2)), lambda line: None)
        try:
            yield made
        finally:
            loop.run_until_complete(made.close())
            loop.close()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, Exchange),
        ({"enableRequestLog": True}, ObservedExchange),
        ({"requestMetrics": {"protocol": "prometheus"}}, MeasuredExchange),
        ({"requestMetrics": {"protocol": "grpc", "endpoint": "http://c:1"}}, MeasuredExchange),
        ({"requestMetrics": {"protocol": "prometheus"}, "enableRequestLog": True}, MeasuredExchange),
        ({"tracing": {"protocol": "stdout"}}, TracedExchange),
        (
            {"tracing": {"protocol": "http/protobuf", "endpoint": "http://c:1"}, "enableRequestLog": True},
            TracedExchange,
        ),
    ],
    ids=["nothing", "log", "page", "push", "page-and-log", "stdout", "traces-and-log"],
)
def test_requests_are_run_by_no_more_than_is_wanted(document: dict[str, object], expected: type[Exchange]) -> None:
    with sidecar(document) as made:
        assert made.plane.exchange is expected
        assert (made.plane.observer is not None) is bool(document.get("enableRequestLog"))
        assert (made.plane.http is not None) is ("requestMetrics" in document)
        assert (made.plane.tracer is not None) is ("tracing" in document)


def test_a_plain_sidecar_loads_nothing_of_it() -> None:
    program = "import queueproxy.app, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = run.stdout.split()
    assert [name for name in loaded if any(name == lazy or name.startswith(lazy + ".") for lazy in LAZY)] == []


@pytest.mark.qp("QP-029")
def test_an_older_control_planes_buckets_are_kept_from_the_start() -> None:
    with sidecar(SERVING_REQUEST_METRICS_BACKEND="prometheus") as made:
        assert made.recorder.bounds == LATENCIES
        made.recorder.invoked(200, 0.001)
        assert made.recorder.invocations[200].bounds == LATENCIES


@pytest.mark.qp("QP-244")
def test_an_end_without_traffic_loads_no_exporter_of_traces() -> None:
    with sidecar({"tracing": {"protocol": "grpc", "endpoint": "http://c:1", "samplingRate": 1}}) as made:
        made.telemetry.begin()
        made.telemetry.close()
        assert "delivered=0 lost=0" in repr(made.telemetry)


def test_the_second_signal_does_not_wait_for_a_collector() -> None:
    with sidecar({"requestMetrics": {"protocol": "grpc", "endpoint": "http://c:1"}}) as made:
        made.telemetry.begin()
        made.telemetry.close(at_once=True)
        assert "<Courier metrics waiting=0 delivered=0 lost=0>" in repr(made.telemetry)
