"""Every queue-proxy environment that a real controller produced starts, tells the truth about readiness, and serves."""

import json

import pytest
from grpc_health.v1 import health_pb2

from tests.support import captured
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.rawhttp import Message
from tests.support.real_apps import grpc_app, http_app
from tests.support.sidecar import AUTOSCALER, USER_METRICS, Sidecar, read_stat

pytestmark = [pytest.mark.root, pytest.mark.slow]


def kubelet(sidecar: Sidecar, case: captured.Case) -> Message:
    """The probe that the kubelet really runs against this container."""
    assert case.kubelet_probe is not None
    get = case.kubelet_probe["httpGet"]
    assert int(get["port"]) == sidecar.port
    lines = [f"{field['name']}: {field['value']}" for field in get["httpHeaders"]]
    return sidecar.get(get.get("path", "/"), "User-Agent: kube-probe/1.36", *lines, "Connection: close")


def probed_ports(case: captured.Case) -> set[int]:
    """The HTTP and TCP ports that must be up before the pod is ready, beside the user port."""
    probe = json.loads(case.env["SERVING_READINESS_PROBE"])
    probes = probe if isinstance(probe, list) else [probe]
    return {int(one[kind]["port"]) for one in probes for kind in ("httpGet", "tcpSocket") if kind in one}


@pytest.mark.fz("FZ-005")
@pytest.mark.qp("QP-008", "QP-020", "QP-021", "QP-023", "QP-024", "QP-025", "QP-026", "QP-251", "QP-252", "QP-255")
@pytest.mark.qp("QP-101", "QP-102", "QP-190", "QP-250", "QP-256", "QP-257", "QP-260", "QP-261", "QP-266")
@pytest.mark.parametrize("name", captured.each_name())
def test_it_starts_tells_the_truth_about_readiness_and_serves(name: str) -> None:
    case = captured.case(name)
    others = probed_ports(case) - {case.user_port}
    never_ready = name.startswith("28-")
    with network_namespace() as namespace:
        sidecar = Sidecar(namespace, case.env).started()
        try:
            assert sidecar.port == int(case.env["QUEUE_SERVING_PORT"])
            assert read_stat(sidecar.get("/metrics", port=AUTOSCALER).body)["pod_name"] == case.env["SERVING_POD"]
            assert not sidecar.listens(8112)  # no certificates are mounted here, whatever the case was about
            if "grpc" in json.loads(case.env["SERVING_READINESS_PROBE"]):
                is_ready_by_grpc(namespace, sidecar, case)
            elif never_ready:
                is_never_ready(namespace, sidecar, case)
            else:
                is_ready_when_all_are(namespace, sidecar, case, others)
            with http_app(namespace, case.user_port):
                serves(sidecar, case)
        finally:
            sidecar.stop()


def is_ready_by_grpc(namespace: NetworkNamespace, sidecar: Sidecar, case: captured.Case) -> None:
    assert kubelet(sidecar, case).status == 503
    with grpc_app(namespace, case.user_port) as servicer:
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert kubelet(sidecar, case).status == 503
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        assert kubelet(sidecar, case).body == b"queue"


def is_never_ready(namespace: NetworkNamespace, sidecar: Sidecar, case: captured.Case) -> None:
    """Nobody listens where the probe asks: after ten seconds of trying the answer is no, app or not."""
    with http_app(namespace, case.user_port):
        answer = kubelet(sidecar, case)
        assert (answer.status, answer.body) == (503, b"")
        sidecar.until(lambda: any("aggressive probe error (failed" in line for line in sidecar.lines))


def is_ready_when_all_are(namespace: NetworkNamespace, sidecar: Sidecar, case: captured.Case, others: set[int]) -> None:
    """Before: no, or no answer yet where the probe keeps trying. After: `queue`."""
    probe = json.loads(case.env["SERVING_READINESS_PROBE"])
    first = probe[0] if isinstance(probe, list) else probe
    if first.get("periodSeconds") and not others:
        assert (kubelet(sidecar, case).status, kubelet(sidecar, case).body) == (503, b"")
        early = None
    else:
        early = sidecar.connect()
        early.ask("GET", "/", "User-Agent: Knative-Activator-Probe", "K-Network-Probe: queue")
    with http_app(namespace, case.user_port):
        if others and early is not None:
            with http_app(namespace, others.pop()):
                answer = early.response()
                while answer.status != 200:  # a probe with a period had its one attempt before the app was up
                    early.ask("GET", "/", "User-Agent: Knative-Activator-Probe", "K-Network-Probe: queue")
                    answer = early.response()
                assert kubelet(sidecar, case).body == b"queue"
        else:
            if early is not None:
                assert early.response().body == b"queue"
            assert kubelet(sidecar, case).body == b"queue"
    if early is not None:
        early.close()


def serves(sidecar: Sidecar, case: captured.Case) -> None:
    """An ordinary request, as the activator sends it."""
    wire = sidecar.connect()
    wire.ask(
        "POST", "/echo?x=1", "K-Proxy-Request: activator", "K-Original-Host: hello.default.example.com",
        "Knative-Serving-Revision: r", body=b"hello", host="10.0.0.7",
    )  # fmt: skip
    answer = wire.response()
    wire.close()
    assert answer.status == 200
    said = json.loads(answer.body)
    headers = dict(said["headers"])
    assert (said["method"], said["path"], said["body"]) == ("POST", "/echo", "hello")
    assert headers["host"] == "hello.default.example.com"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "knative-serving-revision" not in headers
    wants_page = '"prometheus"' in case.env.get("OBSERVABILITY_CONFIG", "") and case.name.startswith("20-")
    if wants_page:
        sidecar.heard(f"Starting http server user-metrics:{USER_METRICS}")
        assert b"kn_serving" in sidecar.get("/metrics", port=USER_METRICS).body
