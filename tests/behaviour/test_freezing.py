"""The real `queueproxy serve` beside a scripted freezer: what requests, probes and signals see of sleep.

The freezer freezes nothing; whether the app was left alone is seen at the app's own socket. Real freezing is proven
with containers in tests/e2e.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from queueproxy.freeze.annotations import Mode
from queueproxy.freeze.podsleep import PodSleep
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, Wanted
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.origin import Origin
from tests.support.rawhttp import PATIENCE, Wire
from tests.support.scripted_freezer import EAGER, HANG, ScriptedFreezer, problem
from tests.support.sidecar import USER, USER_METRICS, Pod, Sidecar, environment

pytestmark = [pytest.mark.root, pytest.mark.slow]
FREEZER = 9696
RUNNING, FROZEN = Rung.RUNNING, Rung.FROZEN


class SleepyPod(Pod):
    """A pod with a freezer on its node."""

    def __init__(self, stack: ExitStack, tokens: Path, **env: str) -> None:
        namespace = stack.enter_context(network_namespace())
        origin = Origin(namespace, USER)
        stack.callback(origin.close)
        self.freezer = ScriptedFreezer(namespace, port=FREEZER)
        stack.callback(self.freezer.close)
        self.env = environment(HOST_IP="127.0.0.1", QUEUEPROXY_TOKENS=str(tokens), **env)
        self._stack = stack
        super().__init__(namespace, origin, self._sidecar(namespace))
        stack.callback(self.hang_up)

    def _sidecar(self, namespace: NetworkNamespace) -> Sidecar:
        sidecar = Sidecar(namespace, self.env)
        self._stack.callback(sidecar.stop)
        return sidecar

    def started(self) -> SleepyPod:
        self.sidecar.started()
        return self

    def restart(self) -> None:
        """kill -9, and a new process as the kubelet would start it."""
        self.sidecar.stop()
        self.hang_up()
        self.origin.fresh()
        self.sidecar = self._sidecar(self.namespace).started()

    def asleep(self) -> SleepyPod:
        """Ready, idle, and confirmed frozen."""
        self.freezer.until(lambda: self.freezer.calls)
        assert self.sidecar.health().status == 200  # arms it
        self.freezer.until(lambda: self.freezer.rung is FROZEN)
        return self

    def metric(self, name: str) -> float:
        page = self.sidecar.get("/metrics", port=USER_METRICS).body.decode()
        return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    (tmp_path / "concurrency-state-hook").write_text("token-1")
    return tmp_path


@contextmanager
def sleepy_pod(tokens: Path, **env: str) -> Iterator[SleepyPod]:
    with ExitStack() as stack:
        yield SleepyPod(stack, tokens, **env)


@pytest.fixture
def pod(tokens: Path) -> Iterator[SleepyPod]:
    with sleepy_pod(tokens) as pod:
        yield pod.started()


def test_an_idle_app_sleeps_and_a_request_wakes_it(pod: SleepyPod) -> None:
    pod.asleep()
    client = pod.client()
    client.ask("GET", "/hello")
    asked = pod.origin.request()
    assert pod.freezer.rung is RUNNING, "the app was asked before the freezer had confirmed"
    asked.wire.answer(body=b"awake")
    assert client.response().body == b"awake"
    pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
    assert [wish.wanted for wish in pod.freezer.puts] == [Wanted.IDLE, Wanted.ACTIVE, Wanted.IDLE]
    assert pod.freezer.connections == 1
    frozen = pod.sidecar.heard("The app is frozen")
    assert frozen["generation"] == 1 and frozen["reason"].startswith("idle for")
    assert "token-1" not in "".join(pod.sidecar.lines)


@pytest.mark.fz("FZ-002")
def test_without_a_token_no_connection_is_ever_tried(tmp_path: Path) -> None:
    with sleepy_pod(tmp_path) as pod:
        pod.started()
        assert pod.sidecar.health().status == 200
        pod.served()
        assert pod.freezer.connections == 0
        pod.sidecar.signal()
        pod.sidecar.heard("Sleeping 30s")
        assert pod.freezer.connections == 0 and not pod.sidecar.listens(USER_METRICS)


@pytest.mark.fz("FZ-014", "FZ-065", "D-02")
@pytest.mark.parametrize("how", ["refused", "black hole", "silent"])
def test_a_freezer_out_of_reach_delays_neither_start_nor_requests(tokens: Path, how: str) -> None:
    """192.0.2.1 is beyond a wire on which nobody answers: a black hole."""
    with sleepy_pod(tokens) as pod:
        if how == "silent":
            pod.freezer.script = lambda call: HANG
        elif how == "refused":
            pod.freezer.vanish()
        else:
            for command in (["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"],
                            ["ip", "link", "set", "far", "up"], ["ip", "link", "set", "near", "up"],
                            ["ip", "addr", "add", "192.0.2.2/24", "dev", "near"]):  # fmt: skip
                pod.namespace.run(command, check=True)
            pod.sidecar.stop()
            pod.env["HOST_IP"] = "192.0.2.1"
            pod.sidecar = pod._sidecar(pod.namespace)
        pod.started()
        began = time.monotonic()
        assert pod.sidecar.health().status == 200
        pod.served()
        assert time.monotonic() - began < 1.0
        warned = pod.sidecar.heard("No freezer: the app stays awake")
        assert warned["severity"] == "WARNING"
        assert pod.metric("kn_serving_freezer_up") == 0.0
        pod.served()
        assert sum("No freezer" in line for line in pod.sidecar.lines) == 1, "said once (D13)"


@pytest.mark.fz("FZ-031", "D-20")
def test_a_hundred_requests_cost_one_thaw_and_go_on_together(pod: SleepyPod) -> None:
    pod.asleep()
    go = threading.Event()
    pod.freezer.script = lambda call: (go.wait(PATIENCE), None)[1] if call.wish.wanted is Wanted.ACTIVE else None
    clients = [pod.client() for _ in range(100)]
    for client in clients:
        client.ask("GET", "/")
    pod.freezer.until(lambda: pod.freezer.calls[-1].wish.wanted is Wanted.ACTIVE)
    pod.noticed()
    assert pod.origin.idle
    go.set()
    for asked in pod.origin.requests(100):
        asked.wire.answer()
    assert {client.response().status for client in clients} == {200}
    assert [wish.wanted for wish in pod.freezer.puts][:2] == [Wanted.IDLE, Wanted.ACTIVE]
    # One thaw; on a busy machine it may be asked for again, under the same generation.
    assert len({wish.generation for wish in pod.freezer.puts if wish.wanted is Wanted.ACTIVE}) == 1


@pytest.mark.fz("FZ-033", "FZ-035", "FZ-036")
def test_nothing_reaches_the_app_before_the_thaw_is_confirmed(pod: SleepyPod) -> None:
    pod.asleep()
    go = threading.Event()
    pod.freezer.script = lambda call: (go.wait(PATIENCE), None)[1] if call.wish.wanted is Wanted.ACTIVE else None
    client = pod.client()
    client.send(b"POST /slow HTTP/1.1\r\n")  # a slow client: the thaw is asked for at its first bytes
    pod.freezer.until(lambda: pod.freezer.calls[-1].wish.wanted is Wanted.ACTIVE)
    client.send(b"Host: a\r\nContent-Length: 4\r\n\r\nbody")
    pod.noticed()
    assert pod.origin.idle, "no connection, no bytes"
    go.set()
    asked = pod.origin.request()
    assert asked.message.body == b"body" and pod.origin.accepted == 1
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.fz("FZ-030", "FZ-035")
def test_no_connection_to_the_app_survives_its_sleep(pod: SleepyPod) -> None:
    pod.asleep()
    client = pod.client()
    for number in (1, 2):
        client.ask("GET", f"/{number}")
        asked = pod.origin.request()
        assert asked.number == number, "a fresh connection after each sleep"
        asked.wire.answer()
        assert client.response().status == 200
        pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
        assert asked.wire.gone()


@pytest.mark.fz("FZ-038", "FZ-046", "FZ-063", "FZ-067")
def test_an_app_that_cannot_be_woken_costs_a_503_in_bounded_time_and_readiness(pod: SleepyPod) -> None:
    pod.asleep()
    pod.freezer.script = lambda call: HANG
    client = pod.client()
    began = time.monotonic()
    client.ask("GET", "/")
    while pod.sidecar.health().status != 503:  # unready: traffic goes elsewhere
        assert time.monotonic() - began < 3.0
    answer = client.response()
    assert (answer.status, answer.get("Retry-After") is not None) == (503, True)
    assert PodSleep.patience < time.monotonic() - began < PodSleep.patience + 3.0
    assert pod.origin.idle
    pod.freezer.script = lambda call: None
    pod.freezer.until(lambda: pod.freezer.rung is RUNNING)
    began = time.monotonic()
    while pod.sidecar.health().status != 200:
        assert time.monotonic() - began < PATIENCE
    pod.served()


@pytest.mark.fz("FZ-038")
def test_a_client_that_leaves_while_it_waits_is_forgotten(pod: SleepyPod) -> None:
    pod.asleep()
    go = threading.Event()
    pod.freezer.script = lambda call: (go.wait(PATIENCE), None)[1] if call.wish.wanted is Wanted.ACTIVE else None
    client = pod.client()
    client.ask("GET", "/")
    pod.freezer.until(lambda: pod.freezer.calls[-1].wish.wanted is Wanted.ACTIVE)
    port = client.sock.getsockname()[1]
    client.close()
    pod.sidecar.let_go_of(port)
    go.set()
    pod.served()


@pytest.mark.fz("FZ-040", "FZ-041", "FZ-037", "L-07")
def test_probes_of_a_sleeping_app_are_answered_without_touching_it(pod: SleepyPod) -> None:
    pod.asleep()
    for _ in range(50):
        assert pod.sidecar.health().status == 200
        assert pod.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h").status == 200
    assert pod.origin.idle and pod.freezer.rung is FROZEN and len(pod.freezer.puts) == 1


@pytest.mark.fz("FZ-050", "FZ-053", "FZ-054", "D-05", "D-24")
def test_sigterm_wakes_for_good_and_the_drain_goes_on_serving(pod: SleepyPod) -> None:
    pod.asleep()
    pod.sidecar.signal(signal.SIGTERM)
    pod.freezer.until(lambda: pod.freezer.puts[-1].wanted is Wanted.TERMINATING and pod.freezer.rung is RUNNING)
    pod.served()
    pod.served()
    # Three times its grace without a request: it would sleep by now.
    pod.sidecar.whole_stat()
    assert pod.freezer.puts[-1].wanted is Wanted.TERMINATING


@pytest.mark.fz("FZ-050", "FZ-052")
def test_wait_for_drain_wakes_for_good(pod: SleepyPod) -> None:
    pod.asleep()
    waiter = pod.sidecar.connect(8022)
    with closing(waiter):
        waiter.ask("GET", "/wait-for-drain")
        pod.freezer.until(lambda: pod.freezer.puts[-1].wanted is Wanted.TERMINATING and pod.freezer.rung is RUNNING)
        pod.served()


@pytest.mark.fz("FZ-051")
def test_a_freezer_that_hangs_does_not_delay_the_drain(pod: SleepyPod) -> None:
    pod.freezer.until(lambda: pod.freezer.calls)
    pod.freezer.script = lambda call: HANG
    pod.sidecar.signal(signal.SIGTERM)
    pod.sidecar.heard("Sleeping 30s", 1.0)
    pod.served()


@pytest.mark.fz("FZ-068", "D-28")
def test_a_sidecar_killed_while_its_app_sleeps_finds_it_and_wakes_it(pod: SleepyPod) -> None:
    pod.asleep()
    generation = pod.freezer.generation
    pod.restart()
    pod.freezer.until(lambda: pod.freezer.rung is RUNNING)
    assert pod.freezer.puts[-1].generation == generation + 1 and pod.freezer.puts[-1].reason == "found frozen"
    pod.served()


@pytest.mark.fz("FZ-090", "FZ-111")
def test_a_thaw_by_the_operator_is_noticed_at_the_next_renewal(pod: SleepyPod) -> None:
    pod.freezer.lease_s = 1.5
    pod.asleep()
    pod.freezer.rung = RUNNING
    assert pod.sidecar.heard("The app was woken by the freezer")["reason"] == "thawed: from outside"
    pod.freezer.until(lambda: any(wish.wanted is Wanted.ACTIVE for wish in pod.freezer.puts))


@pytest.mark.fz("FZ-065", "FZ-022")
def test_a_refused_freeze_leaves_the_app_running_and_requests_alone(pod: SleepyPod) -> None:
    pod.freezer.script = lambda call: (
        problem(Problem.NOT_READY) if call.method == "PUT" and call.wish.wanted is Wanted.IDLE else None
    )
    assert pod.sidecar.health().status == 200
    warned = pod.sidecar.heard("The app could not be frozen")
    assert warned["detail"] == "refused: scripted"
    pod.served()
    assert pod.freezer.rung is RUNNING


@pytest.mark.fz("FZ-022", "D-23")
def test_a_freeze_that_takes_seconds_delays_no_answer_and_no_request(pod: SleepyPod) -> None:
    pod.asleep()
    go = threading.Event()
    pod.freezer.script = lambda call: (
        (go.wait(PATIENCE), None)[1] if call.method == "PUT" and call.wish.wanted is Wanted.IDLE else None
    )
    client = pod.client()
    client.ask("GET", "/")
    pod.origin.request().wire.answer()
    assert client.response().status == 200
    pod.freezer.until(lambda: pod.freezer.calls[-1].wish.wanted is Wanted.IDLE)  # and stays unanswered
    began = time.monotonic()
    client.ask("GET", "/")
    go.set()  # the freezer answers in order, as one connection has it
    pod.origin.request().wire.answer()
    assert client.response().status == 200 and time.monotonic() - began < 1.0


@pytest.mark.fz("FZ-042")
def test_what_broke_while_the_app_slept_shows_in_a_real_probe_after_the_wake(tokens: Path) -> None:
    probe = '{"httpGet":{"host":"127.0.0.1","port":8080,"path":"/healthz"},"periodSeconds":1,"timeoutSeconds":1}'
    with sleepy_pod(tokens, SERVING_READINESS_PROBE=probe) as pod:
        pod.started()

        def probed(status: int) -> int:
            kubelet = pod.client()
            kubelet.ask("GET", "/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue")
            pod.origin.request().wire.answer(status)
            return kubelet.response().status

        assert probed(200) == 200
        pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
        client = pod.client()
        client.ask("GET", "/hello")
        asked = {each.target: each.wire for each in pod.origin.requests(2)}
        asked[b"/healthz"].answer(500)  # nobody asked for this probe
        asked[b"/hello"].answer()
        assert client.response().status == 200
        pod.sidecar.whole_stat()  # twenty times its grace
        assert pod.freezer.rung is RUNNING, "an app that is not well is not put to sleep"
        assert probed(500) == 503 and probed(200) == 200
        pod.freezer.until(lambda: pod.freezer.rung is FROZEN)


@pytest.mark.long
@pytest.mark.fz("FZ-043")
def test_an_app_without_requests_is_probed_as_often_as_its_deep_check_says(tokens: Path) -> None:
    probe = '{"httpGet":{"host":"127.0.0.1","port":8080,"path":"/healthz"},"periodSeconds":1,"timeoutSeconds":1}'
    with sleepy_pod(tokens, SERVING_READINESS_PROBE=probe) as pod:
        pod.freezer.policy = EAGER._replace(deep_check_s=10.0)
        pod.started()
        pod.freezer.until(lambda: pod.freezer.calls)
        kubelet = pod.client()
        kubelet.ask("GET", "/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue")
        pod.origin.request().wire.answer()
        assert kubelet.response().status == 200
        for status, then in ((200, FROZEN), (500, RUNNING)):
            pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
            began = time.monotonic()
            pod.freezer.until(lambda: pod.freezer.rung is RUNNING)
            assert 7.0 < time.monotonic() - began < 12.0  # from the last real probe
            assert pod.freezer.puts[-1].reason == "deep check"
            pod.origin.request().wire.answer(status)
            pod.sidecar.whole_stat()
            assert pod.freezer.rung is then


@pytest.mark.fz("FZ-101")
def test_a_request_that_waited_for_the_thaw_says_so_in_its_log_line(tokens: Path) -> None:
    seen = {"enableRequestLog": True, "requestLogTemplate": "{{.Request.URL.Path}} {{.ThawWait}}"}
    with sleepy_pod(tokens, OBSERVABILITY_CONFIG=json.dumps(seen)) as pod:
        pod.started().asleep()
        client = pod.client()
        for path in ("/slept", "/awake"):
            client.ask("GET", path)
            pod.origin.request().wire.answer()
            assert client.response().status == 200
        pod.sidecar.until(lambda: len(pod.sidecar.output) >= 2)
        waited = {path: float(wait) for path, wait in (line.split() for line in pod.sidecar.output[:2])}
        assert 0.0 < waited["/slept"] < 1.0 and waited["/awake"] == 0.0


@pytest.mark.fz("FZ-101", "FZ-110")
def test_the_answer_to_a_request_that_waited_says_so_where_the_pod_wants_it(tokens: Path) -> None:
    with sleepy_pod(tokens) as pod:
        pod.freezer.policy = EAGER._replace(server_timing=True)
        pod.started().asleep()
        client = pod.client()
        said = []
        for _ in range(2):
            client.ask("GET", "/")
            pod.origin.request().wire.answer()
            said.append(client.response().get("Server-Timing"))
        assert said[0] is not None and said[0].startswith(b"thaw;dur=") and 0.0 < float(said[0][9:]) < 1000.0
        assert said[1] is None


@pytest.mark.fz("FZ-113")
def test_shadow_mode_counts_and_asks_nothing(tokens: Path) -> None:
    with sleepy_pod(tokens) as pod:
        pod.freezer.policy = EAGER._replace(mode=Mode.SHADOW)
        pod.started()
        assert pod.sidecar.health().status == 200
        assert pod.sidecar.heard("Sleep policy")["mode"] == "shadow"
        counted = b'kn_serving_pause_shadow_total{would="freeze"} 1.0'
        deadline = time.monotonic() + PATIENCE
        while counted not in pod.sidecar.get("/metrics", port=USER_METRICS).body:
            assert time.monotonic() < deadline
        pod.served()
        assert pod.freezer.puts == []


@pytest.mark.fz("FZ-110")
def test_mounted_annotations_speak_to_a_daemon_of_old(tokens: Path, tmp_path: Path) -> None:
    podinfo = tmp_path / "annotations"
    podinfo.write_text(
        'queueproxy.dev/freeze-after="50ms"\nqueueproxy.dev/min-uptime="0s"\nqueueproxy.dev/liveness="maybe"\n'
        'queueproxy.dev/freezer="http://$HOST_IP:9797"\n'
    )
    with ExitStack() as stack:
        pod = SleepyPod(stack, tokens, QUEUEPROXY_PODINFO=str(podinfo))
        old = ScriptedFreezer(pod.namespace, port=9797)
        stack.callback(old.close)
        old.old = True
        pod.started()
        assert pod.sidecar.heard("annotation queueproxy.dev/liveness")["severity"] == "WARNING"
        old.until(lambda: old.actions)  # what it may hold is resumed first
        assert old.rung is RUNNING
        deadline = time.monotonic() + PATIENCE
        while pod.sidecar.health().status != 200:
            assert time.monotonic() < deadline
        old.until(lambda: old.rung is FROZEN)
        client = pod.client()
        client.ask("GET", "/")
        asked = pod.origin.request()
        assert old.rung is RUNNING
        asked.wire.answer()
        assert client.response().status == 200 and pod.freezer.connections == 0


@pytest.mark.fz("FZ-098", "FZ-028")
def test_a_connection_to_the_sleeping_app_wakes_it_for_a_moment(pod: SleepyPod) -> None:
    pod.asleep()
    for knock in (1, 2, 3):
        began = time.monotonic()
        with pod.namespace.inside():
            probe = socket.socket()
        probe.settimeout(PATIENCE)
        probe.connect(("127.0.0.1", USER))
        wire = Wire(probe)
        wire.ask("GET", "/healthz")
        pod.freezer.until(lambda: pod.freezer.rung is RUNNING)
        assert time.monotonic() - began < 0.75, "a kubelet waits for one second"
        assert pod.freezer.puts[-1].reason == "knock"
        asked = pod.origin.request()
        asked.wire.answer()
        assert wire.response().status == 200
        wire.close()
        pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
        assert [wish.wanted for wish in pod.freezer.puts].count(Wanted.ACTIVE) == knock
    assert pod.metric("kn_serving_knocks_total") == 3.0


@pytest.mark.fz("FZ-028")
def test_a_connection_nobody_has_accepted_keeps_the_app_awake(pod: SleepyPod) -> None:
    pod.freezer.until(lambda: pod.freezer.calls)
    with pod.namespace.inside():
        early = socket.create_connection(("127.0.0.1", USER), PATIENCE)
    with closing(early):
        assert pod.sidecar.health().status == 200
        pod.sidecar.whole_stat()  # a second or two; the grace is 50 ms
        assert pod.freezer.puts == []
        pod.origin.accept()
        pod.freezer.until(lambda: pod.freezer.rung is FROZEN)


@pytest.mark.fz("FZ-084")
def test_an_app_that_drops_its_first_request_after_a_thaw_is_reported_to_the_freezer(pod: SleepyPod) -> None:
    pod.asleep()
    client = pod.client()
    client.ask("POST", "/")
    pod.origin.request().wire.close()
    assert client.response().status == 502
    pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
    assert pod.freezer.puts[-1].reason == "harmed: the first request after a thaw failed: EOF"
    pod.served()
    pod.freezer.until(lambda: pod.freezer.rung is FROZEN)
    assert pod.freezer.puts[-1].reason.startswith("idle for")


@pytest.mark.fz("FZ-012")
def test_an_app_that_restarted_is_left_awake_until_it_is_ready_again(tokens: Path) -> None:
    probe = '{"tcpSocket":{"host":"127.0.0.1","port":8080},"periodSeconds":1,"timeoutSeconds":1,"successThreshold":1}'
    with sleepy_pod(tokens, SERVING_READINESS_PROBE=probe) as pod:
        pod.started()

        def become_ready() -> None:
            assert pod.sidecar.health().status == 200
            pod.origin.accept().close()
            pod.freezer.until(lambda: pod.freezer.rung is FROZEN)

        become_ready()
        pod.origin.refuse()  # its process died
        pod.freezer.until(lambda: pod.freezer.rung is RUNNING)
        assert pod.freezer.puts[-1].reason == "app restarted"
        pod.sidecar.heard("The app runs again")  # the freezer's word is one thing, that we have heard it another
        assert pod.sidecar.health().status == 503, "a real probe, of an app that runs"
        pod.origin.listen()
        pod.sidecar.whole_stat()  # twenty times its grace
        assert pod.freezer.rung is RUNNING, "not ready yet"
        become_ready()
