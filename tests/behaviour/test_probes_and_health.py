"""Who is asking decides: probes are answered here, everything else is traffic (contract 3.3 to 3.6)."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.support.rawhttp import PATIENCE, Message
from tests.support.sidecar import ADMIN, BOTH_LOOPS, USER, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("probes"), BOTH_LOOPS]

KUBELET, ACTIVATOR, AUTOSCALER = "kube-probe/1.31", "Knative-Activator-Probe", "Knative-Autoscaling-Probe"
ONCE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
HTTP = {"httpGet": {"path": "/healthz?x=1", "port": 8081, "host": "127.0.0.1", "scheme": "HTTP"}, **ONCE}


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def plain(answer: Message, status: int, body: bytes) -> bool:
    return (
        (answer.status, answer.body) == (status, body)
        and answer.get("content-type") == b"text/plain; charset=utf-8"
        and answer.get("x-content-type-options") == b"nosniff"
    )


@pytest.mark.qp("QP-100", "QP-101", "QP-250")
@pytest.mark.parametrize("agent", [KUBELET, "kube-probe/", ACTIVATOR, ACTIVATOR + "/2", AUTOSCALER])
@pytest.mark.parametrize(("method", "target"), [("GET", "/"), ("GET", "/healthz"), ("POST", "/any?thing")])
def test_a_health_check_without_a_probe_says_queue(pod: Pod, agent: str, method: str, target: str) -> None:
    client = pod.client()
    client.ask(method, target, f"User-Agent: {agent}", "K-Network-Probe: queue")
    answer = client.response()
    assert (answer.status, answer.body) == (200, b"queue")
    assert answer.get("content-length") == b"5"
    assert answer.get("content-type") == b"text/plain; charset=utf-8"
    assert pod.origin.idle


@pytest.mark.qp("QP-103", "QP-104")
@pytest.mark.parametrize("agent", [KUBELET, ACTIVATOR, AUTOSCALER])
@pytest.mark.parametrize("value", ["activator", "probe", "Queue", "queue2", ""])
def test_a_health_check_of_another_kind_is_refused(pod: Pod, agent: str, value: str) -> None:
    client = pod.client()
    client.ask("GET", "/", f"User-Agent: {agent}", f"K-Network-Probe: {value}", "K-Network-Hash: h")
    assert plain(client.response(), 400, b"unexpected probe header value: %b\n" % value.encode())


@pytest.mark.qp("QP-103")
@pytest.mark.parametrize("agent", [KUBELET, ACTIVATOR, AUTOSCALER])
def test_a_health_check_without_its_header_is_refused(pod: Pod, agent: str) -> None:
    client = pod.client()
    client.ask("GET", "/", f"User-Agent: {agent}")
    assert plain(client.response(), 400, b"unexpected probe header value: \n")


@pytest.mark.qp("QP-105")
def test_a_network_probe_echoes_its_hash(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/", "K-Network-Probe: probe", "K-Network-Hash: abc123", "User-Agent: Knative-Ingress-Probe")
    answer = client.response()
    assert (answer.status, answer.body, answer.get("k-network-hash")) == (200, b"", b"abc123")
    client.ask("GET", "/", "K-Network-Probe: probe", "K-Network-Hash: next")  # the connection stays
    assert client.response().get("k-network-hash") == b"next"


@pytest.mark.qp("QP-106")
@pytest.mark.parametrize("lines", [[], ["K-Network-Hash:"]], ids=["absent", "empty"])
def test_a_network_probe_without_hash_is_refused(pod: Pod, lines: list[str]) -> None:
    client = pod.client()
    client.ask("GET", "/", "K-Network-Probe: probe", *lines)
    assert plain(client.response(), 400, b'a probe request must contain a non-empty "K-Network-Hash" header\n')


TRAFFIC = {
    "queue with another agent": ["K-Network-Probe: queue", "User-Agent: curl/8"],
    "another value": ["K-Network-Probe: activator"],
    "agent in other case": ["User-Agent: Kube-Probe/1.31", "K-Network-Probe: queue"],
    "agent not at the start": ["User-Agent: my kube-probe/1.31"],
    "the ingress prober": ["User-Agent: Knative-Ingress-Probe"],
    "the historic agent": ["User-Agent: Knative-Queue-Proxy-Probe", "K-Network-Probe: queue"],
}


@pytest.mark.qp("QP-108", "QP-109", "QP-130")
@pytest.mark.parametrize("lines", TRAFFIC.values(), ids=TRAFFIC.keys())
def test_what_only_looks_like_a_probe_is_traffic(pod: Pod, lines: list[str]) -> None:
    pod.sidecar.next_stat()
    client = pod.client()
    client.ask("GET", "/t", *lines)
    asked = pod.origin.request()
    assert asked.target == b"/t"
    assert pod.sidecar.next_stat()["request_count"] == 1.0
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-130", "QP-157")
def test_nothing_that_is_a_probe_is_counted(pod: Pod) -> None:
    pod.sidecar.next_stat()
    for lines in (
        [f"User-Agent: {KUBELET}", "K-Network-Probe: queue"],
        [f"User-Agent: {ACTIVATOR}", "K-Network-Probe: queue"],
        [f"User-Agent: {AUTOSCALER}", "K-Network-Probe: activator"],
        [f"User-Agent: {AUTOSCALER}"],
        ["K-Network-Probe: probe", "K-Network-Hash: h"],
        ["K-Network-Probe: probe"],
    ):
        client = pod.client()
        client.ask("GET", "/", *lines)
        client.response()
    client = pod.client()
    client.ask("OPTIONS", "*")
    assert client.response().status == 200
    client = pod.client()
    client.ask("GET", "/marked", "K-Kubelet-Probe: x")
    asked = pod.origin.request()  # reaches the app, past statistics and limit
    assert asked.target == b"/marked"
    during = pod.sidecar.next_stat()
    assert set(during) == {"pod_name", "process_uptime"}
    asked.wire.answer()
    assert client.response().status == 200
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-055")
def test_options_asterisk_is_answered_here(pod: Pod) -> None:
    client = pod.client()
    client.ask("OPTIONS", "*")
    answer = client.response()
    assert (answer.status, answer.get("content-length")) == (200, b"0")
    client.ask("OPTIONS", "/x")
    asked = pod.origin.request()
    assert asked.message.start == b"OPTIONS /x HTTP/1.1"
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-107", "QP-281", "QP-287")
def test_while_draining_both_kinds_fail_and_traffic_does_not(pod: Pod) -> None:
    """A preStop hook without SIGTERM drains for a second, then all is as before."""
    hook = pod.sidecar.connect(ADMIN)
    hook.ask("GET", "/wait-for-drain")
    pod.sidecar.heard("Attached drain handler")
    for lines in (
        [f"User-Agent: {KUBELET}", "K-Network-Probe: queue"],
        [f"User-Agent: {AUTOSCALER}"],
        ["K-Network-Probe: probe", "K-Network-Hash: h"],
        ["K-Network-Probe: probe"],
    ):
        client = pod.client()
        client.ask("GET", "/", *lines)
        assert plain(client.response(), 503, b"shutting down\n")
    pod.served()
    assert hook.response().status == 200
    assert pod.sidecar.health().body == b"queue"
    hook.close()


# -- with a prober


def listening(pod: Pod, port: int) -> socket.socket:
    with pod.namespace.inside():
        sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.settimeout(PATIENCE)
    return sock


def answer_probe(door: socket.socket, status: int) -> bytes:
    """One probe attempt answered; the bytes it consisted of."""
    sock, _ = door.accept()
    sock.settimeout(PATIENCE)
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        raw += sock.recv(4096)
    sock.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    sock.close()
    return raw


@pytest.mark.qp("QP-101", "QP-102", "QP-111", "QP-254", "QP-256", "QP-261", "QP-262", "QP-269")
def test_an_http_probe_is_asked_each_time_and_its_status_decides(loop: str) -> None:
    with one_pod(loop=loop, SERVING_READINESS_PROBE=json.dumps(HTTP)) as pod:
        refused = pod.sidecar.health()
        assert (refused.status, refused.body) == (503, b"")
        pod.sidecar.until(lambda: any(line.endswith("connect: connection refused") for line in pod.sidecar.lines))
        door = listening(pod, 8081)
        door.listen()
        for status, ready in ((200, True), (500, False), (399, True), (400, False), (200, True)):
            client = pod.client()
            client.ask("GET", "/", f"User-Agent: {KUBELET}", "K-Network-Probe: queue")
            raw = answer_probe(door, status)
            answer = client.response()
            assert (answer.status, answer.body) == ((200, b"queue") if ready else (503, b"")), status
        assert raw.startswith(b"GET /healthz?x=1 HTTP/1.1\r\n")
        assert b"User-Agent: kube-probe/" in raw
        assert "HTTP probe did not respond Ready, got status code: 500" in pod.sidecar.lines
        door.close()


@pytest.mark.qp("QP-253")
def test_callers_during_a_run_share_its_result(loop: str) -> None:
    with one_pod(loop=loop, SERVING_READINESS_PROBE=json.dumps(HTTP)) as pod:
        door = listening(pod, 8081)
        door.listen()
        clients = [pod.client() for _ in range(5)]
        for client in clients:
            client.ask("GET", "/", f"User-Agent: {KUBELET}", "K-Network-Probe: queue")
        pod.noticed()
        clients[0].reset()  # the run is nobody's
        answer_probe(door, 200)
        for client in clients[1:]:
            assert client.response().body == b"queue"
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.accept()
        door.close()


@pytest.mark.qp("QP-257", "QP-260", "QP-270")
def test_a_cold_start_is_answered_the_moment_the_app_listens(loop: str) -> None:
    probe = {"tcpSocket": {"port": USER, "host": "127.0.0.1"}, "successThreshold": 1}
    with one_pod(loop=loop, SERVING_READINESS_PROBE=json.dumps(probe)) as pod:
        pod.origin.refuse()
        client = pod.client()
        client.ask("GET", "/healthz", f"User-Agent: {ACTIVATOR}", "K-Network-Probe: queue")
        pod.noticed()
        assert client.quiet()  # it waits instead of saying no
        pod.origin.listen()
        client.sock.settimeout(1.0)  # the cadence is 50 ms
        assert client.response().body == b"queue"
