"""One process that needs nobody: one of everything, no network, gone as a whole (QP-015, QP-351, QP-352)."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import NetworkNamespace
from tests.support.rawhttp import PATIENCE, Wire
from tests.support.sidecar import ADMIN, AUTOSCALER, BOTH_LOOPS, USER, Pod, Sidecar, environment, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("alone"), BOTH_LOOPS]

PROBE = {"httpGet": {"path": "/ready", "port": USER, "host": "127.0.0.1", "scheme": "HTTP"}, "successThreshold": 1}


@pytest.fixture
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1", SERVING_READINESS_PROBE=json.dumps(PROBE)) as pod:
        yield pod


def over_ipv6(pod: Pod) -> Wire:
    with pod.namespace.inside():
        sock = socket.socket(socket.AF_INET6)
    sock.settimeout(PATIENCE)
    sock.connect(("::1", pod.sidecar.port))
    return Wire(sock)


@pytest.mark.qp("QP-155", "QP-351")
def test_clients_of_both_families_share_one_limiter_and_one_report(pod: Pod) -> None:
    first, second = pod.client(), over_ipv6(pod)
    first.ask("GET", "/first")
    running = pod.origin.request()
    assert running.target == b"/first"
    second.ask("GET", "/second", "K-Proxy-Request: activator")
    pod.noticed()
    assert pod.origin.idle, "the only slot is taken, by whichever family"
    stat = pod.sidecar.whole_stat()
    assert stat["average_concurrent_requests"] == pytest.approx(2.0, abs=0.01)
    assert stat["average_proxied_concurrent_requests"] == pytest.approx(1.0, abs=0.01)
    running.wire.answer()
    assert first.response().status == 200
    waited = pod.origin.request()
    assert waited.target == b"/second"
    waited.wire.answer()
    assert second.response().status == 200
    second.close()


@pytest.mark.qp("QP-351")
def test_health_checks_at_the_same_time_are_one_question_to_the_app(pod: Pod) -> None:
    asking = [pod.client() for _ in range(4)] + [over_ipv6(pod)]
    for client in asking:
        client.ask("GET", "/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue")
    question = pod.origin.request()
    assert question.target == b"/ready"
    pod.noticed()
    assert pod.origin.accepted == 1 and pod.origin.idle
    question.wire.answer()
    for client in asking:
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"queue")
    asking[-1].close()


@pytest.mark.qp("QP-351")
def test_a_drain_that_is_asked_for_on_one_port_is_seen_by_probes_of_every_family(pod: Pod) -> None:
    hook = pod.sidecar.connect(ADMIN)
    hook.ask("GET", "/wait-for-drain")
    pod.sidecar.heard("Attached drain handler from user-container")
    for client in (pod.client(), over_ipv6(pod)):
        client.ask("GET", "/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue")
        answer = client.response()
        assert (answer.status, answer.body) == (503, b"shutting down\n")
        client.close()
    assert pod.origin.idle
    hook.close()


@pytest.mark.qp("QP-351", "QP-352")
def test_there_is_no_second_process(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.answer()
    assert client.response().status == 200
    pid = pod.sidecar.process.pid
    children = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
    assert not any(children)


@pytest.mark.qp("QP-352")
def test_a_killed_process_leaves_nothing_behind_and_the_next_one_serves_at_once(pod: Pod, loop: str) -> None:
    running, idle = pod.client(), pod.client()
    running.ask()
    app = pod.origin.request().wire
    pod.sidecar.process.kill()
    assert pod.sidecar.ended() == -9
    assert running.gone() and idle.gone() and app.gone(), "nobody waits for an answer that cannot come"
    assert not pod.sidecar.listens(pod.sidecar.port) and not pod.sidecar.listens(AUTOSCALER)
    pod.fresh()
    again = Sidecar(pod.namespace, environment(CONTAINER_CONCURRENCY="1"), loop=loop).started()
    try:
        client = again.connect()
        client.ask("GET", "/again")
        asked = pod.origin.request()
        assert asked.target == b"/again"
        asked.wire.answer()
        assert client.response().status == 200
        client.close()
    finally:
        again.stop()


def _way_out(namespace: NetworkNamespace) -> None:
    """Everything but loopback has a route from now on; nobody is at its other end."""
    for line in (
        "ip link add out0 type veth peer name out1",
        "sh -c 'for i in out0 out1; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done'",
        "ip link set out1 up",
        "ip link set out0 up",
        "ip address add 192.0.2.1/24 dev out0",
        "ip route add default via 192.0.2.2",
    ):
        namespace.run(["sh", "-c", line], check=True)


def _left(pid: int) -> int:
    """Packets that went out."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "out0":
            return int(counts.split()[9])
    raise AssertionError("no way out")


@pytest.mark.qp("QP-015")
def test_nobody_outside_is_ever_asked(pod: Pod, loop: str) -> None:
    namespace = pod.namespace
    pod.sidecar.stop()
    _way_out(namespace)
    env = environment(SERVING_READINESS_PROBE=json.dumps(PROBE), HOST_IP="198.51.100.1", CONTAINER_CONCURRENCY="1")
    sidecar = Sidecar(namespace, env, loop=loop).started()
    pid = sidecar.process.pid
    try:
        client = sidecar.connect()
        client.ask("GET", "/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue")
        pod.origin.request().wire.answer()
        assert client.response().body == b"queue"
        client.ask("GET", "http://outside.example/", "K-Original-Host: other.example")
        pod.origin.request().wire.answer()
        assert client.response().status == 200
        assert sidecar.whole_stat()["pod_name"] == "hello-00001-deployment-abc"
        assert _left(pid) == 0
        with namespace.inside():
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.sendto(b"?", ("198.51.100.53", 53))
        assert _left(pid) > 0, "a question would have been counted"
        client.close()
    finally:
        sidecar.stop()
