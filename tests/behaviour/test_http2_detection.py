"""ENABLE_HTTP2_AUTO_DETECTION with real apps: who is ready, and what their requests get while we speak HTTP/1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from queueproxy.probes.detection import SPEAKS_HTTP2
from tests.support.h2c import h2c_app
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.real_apps import http_app
from tests.support.sidecar import USER, Sidecar, environment

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("h2-detection")]

PROBE = {"httpGet": {"path": "/healthz", "port": USER, "host": "127.0.0.1", "scheme": "HTTP",
                     "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}, "successThreshold": 1}  # fmt: skip


@contextmanager
def detecting(namespace: NetworkNamespace, told: bool = True) -> Iterator[Sidecar]:
    probe = PROBE if told else PROBE | {"periodSeconds": 1, "timeoutSeconds": 1}
    env = environment(SERVING_READINESS_PROBE=json.dumps(probe), ENABLE_HTTP2_AUTO_DETECTION=str(told).lower())
    sidecar = Sidecar(namespace, env)
    try:
        yield sidecar.started()
    finally:
        sidecar.stop()


@pytest.mark.qp("QP-265")
def test_an_app_of_http2_alone_is_ready_and_its_requests_get_502_and_the_log_says_why() -> None:
    with network_namespace() as namespace, h2c_app(namespace, USER) as app, detecting(namespace) as sidecar:
        for _ in range(3):
            assert sidecar.health().body == b"queue"
        app.until(lambda: len(app.heard) == 3)
        assert {(one[":path"], one["x-probe"]) for one in app.heard} == {("/healthz", "yes")}
        said = [event for event in sidecar.log if event["message"] == SPEAKS_HTTP2]
        assert [event["severity"] for event in said] == ["WARNING"]
        for _ in range(2):
            answer = sidecar.get("/")
            assert answer.status == 502 and len(answer.body.splitlines()) == 1
        assert len(app.heard) == 3  # nothing of a request was taken for one
        assert sidecar.health().body == b"queue"


@pytest.mark.qp("QP-265")
def test_an_app_of_http1_is_ready_and_served() -> None:
    with network_namespace() as namespace, http_app(namespace, USER), detecting(namespace) as sidecar:
        assert sidecar.health().body == b"queue"
        headers = dict(json.loads(sidecar.get("/x", "X-A: b").body)["headers"])
        assert headers["x-a"] == "b"
        assert sidecar.said(SPEAKS_HTTP2) is None


@pytest.mark.qp("QP-265")
def test_without_detection_an_app_of_http2_alone_is_not_ready() -> None:
    with network_namespace() as namespace, h2c_app(namespace, USER) as app, detecting(namespace, False) as sidecar:
        answer = sidecar.health()
        assert (answer.status, answer.body) == (503, b"")
        assert app.heard == []
