"""How the process ends: probes fail at once, traffic does not, and who may still finish finishes (contract 7).

The quiet period is 30 s and nobody can configure it, so the timelines of 7.2 all run at the same time, each in a pod of
its own, told by one schedule. What takes longer still is marked `long`.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.support.rawhttp import Wire
from tests.support.sidecar import ADMIN, AUTOSCALER, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("drain"), pytest.mark.timeout(240)]

QUIET = 30.0
SLACK = 3.0  # a loaded machine; never early, though
GRAIN = 0.05  # signals and timers are not delivered to the millisecond


# -- at once


@pytest.fixture(params=["uvloop", "asyncio"])
def pod(request: pytest.FixtureRequest) -> Iterator[Pod]:
    with one_pod(loop=request.param) as pod:
        yield pod


@pytest.mark.qp("QP-013")
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_is_the_end_with_1_whatever_is_going_on(pod: Pod, numbers: tuple[int, int]) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request()
    pod.sidecar.signal(numbers[0])
    pod.sidecar.heard("Received TERM signal" if numbers[0] == signal.SIGTERM else "Received INT signal")
    pod.sidecar.signal(numbers[1])
    assert pod.sidecar.ended() == 1
    assert client.gone()


@pytest.mark.qp("QP-107", "QP-280", "QP-281", "QP-290", "QP-292")
def test_a_signal_fails_probes_at_once_and_nothing_else(pod: Pod) -> None:
    kept = pod.client()
    kept.ask("GET", "/before")
    pod.origin.request().wire.answer()
    kept.response()
    pod.sidecar.signal()
    pod.sidecar.heard("Received TERM signal, attempting to gracefully shutdown servers.")
    pod.sidecar.heard("Sleeping 30s to allow K8s propagation of non-ready state")
    answer = pod.sidecar.health()
    assert (answer.status, answer.body) == (503, b"shutting down\n")
    assert pod.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h").status == 503
    kept.ask("GET", "/after")
    pod.origin.request().wire.answer()
    after = kept.response()
    assert (after.status, after.get("connection")) == (200, None)
    pod.served()  # a new connection
    assert pod.sidecar.whole_stat()["pod_name"]
    assert pod.sidecar.process.poll() is None


@pytest.mark.qp("QP-287", "QP-288")
def test_a_hook_without_a_signal_is_released_after_a_second_and_readiness_returns(pod: Pod) -> None:
    began_at = time.monotonic()
    hooks = [pod.sidecar.connect(ADMIN) for _ in range(5)]
    for method, hook in zip(("GET", "POST", "PUT", "GET", "HEAD"), hooks, strict=True):
        hook.ask(method, "/wait-for-drain?x=y")
    pod.sidecar.until(lambda: sum("Attached drain handler" in line for line in list(pod.sidecar.lines)) == 5)
    assert pod.sidecar.health().status == 503
    for method, hook in zip(("GET", "POST", "PUT", "GET", "HEAD"), hooks, strict=True):
        answer = hook.response(to=method)
        assert (answer.status, answer.body, answer.get("content-length")) == (200, b"", b"0")
        hook.close()
    assert 1.0 - GRAIN < time.monotonic() - began_at < 1.0 + SLACK
    assert pod.sidecar.health().body == b"queue"


@pytest.mark.qp("QP-052")
def test_other_paths_of_the_hook_port_are_not_found(pod: Pod) -> None:
    for target in ("/", "/wait-for-drain/", "/drain"):
        answer = pod.sidecar.get(target, port=ADMIN)
        assert (answer.status, answer.body) == (404, b"404 page not found\n")


# -- the timelines


@dataclass
class Timeline:
    """One pod on its way out. `at(seconds, what)` after its SIGTERM; `ended_at`: seconds after it, `code`: exit."""

    pod: Pod
    began_at: float = 0.0
    ended_at: float = 0.0
    code: int | None = None
    failures: list[BaseException] = field(default_factory=list)
    plan: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        self.plan.append((seconds, what))

    def run(self, longest: float) -> None:
        try:
            self.began_at = time.monotonic()
            self.pod.sidecar.signal()
            for seconds, what in sorted(self.plan, key=lambda step: step[0]):
                threading.Event().wait(max(0.0, self.began_at + seconds - time.monotonic()))
                what()
            self.code = self.pod.sidecar.ended(longest)
            self.ended_at = time.monotonic() - self.began_at
        except BaseException as failure:
            failure.add_note(f"at {time.monotonic() - self.began_at:.1f} s: {self.pod.sidecar.lines[-6:]}")
            self.failures.append(failure)


def all_at_once(timelines: list[Timeline], longest: float) -> None:
    threads = [threading.Thread(target=timeline.run, args=(longest,)) for timeline in timelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(longest + 30)
    for timeline in timelines:
        for failure in timeline.failures:
            raise failure


def ended(timeline: Timeline, after: float) -> None:
    assert timeline.code == 0
    assert after - GRAIN <= timeline.ended_at < after + SLACK
    assert timeline.pod.sidecar.said("Shutdown complete, exiting...")


def upgraded(pod: Pod) -> tuple[Wire, Wire]:
    client = pod.client()
    client.ask("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket")
    app = pod.origin.request().wire
    app.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert client.head().status == 101
    return client, app


def echoes(client: Wire, app: Wire) -> None:
    client.send(b"ping")
    assert app.exactly(4) == b"ping"
    app.send(b"pong")
    assert client.exactly(4) == b"pong"


@pytest.mark.qp("QP-009", "QP-280", "QP-281", "QP-282", "QP-283", "QP-284", "QP-285", "QP-286", "QP-289", "QP-290")
def test_the_timelines_of_an_orderly_end() -> None:
    with ExitStack() as stack:

        def timeline(loop: str = "uvloop") -> Timeline:
            return Timeline(stack.enter_context(one_pod(loop=loop)))

        idle, idle_too, late, slow, large, socket, hook = (
            timeline(), timeline("asyncio"), timeline(), timeline(), timeline(), timeline(), timeline(),
        )  # fmt: skip

        # Idle, with a connection that is merely open: exit at 30 s.
        for one in (idle, idle_too):
            open_client = one.pod.client()
            open_client.ask()
            one.pod.origin.request().wire.answer()
            open_client.response()

        # Probes do not restart the quiet period, a request does: exit 30 s after its arrival.
        late.at(8, lambda: _assert_served(late.pod))
        late.at(15, lambda: _assert_status(late.pod, 503))

        # A request that takes longer than the quiet period: listeners close at 30 s, the answer comes, then the exit.
        slow_client = slow.pod.client()
        slow_client.ask()
        slow_app = slow.pod.origin.request().wire

        def slow_is_closed() -> None:
            assert not slow.pod.sidecar.listens(8012)
            assert slow.pod.sidecar.listens(ADMIN)
            assert slow.pod.sidecar.get("/metrics", port=AUTOSCALER).status == 200
            answer = slow.pod.sidecar.get("/wait-for-drain", port=ADMIN)
            assert answer.status == 200

        def slow_answers() -> None:
            slow_app.answer(body=b"at last")
            answer = slow_client.response()
            assert (answer.status, answer.body, answer.get("connection")) == (200, b"at last", b"close")

        slow.at(33, slow_is_closed)
        slow.at(36, slow_answers)

        # The app is done with its answer, the client is not: it is delivered to the last byte.
        size = 200_000
        large.pod.namespace.run(["sh", "-c", "echo 4096 16384 16384 > /proc/sys/net/ipv4/tcp_wmem"], check=True)
        large_client = large.pod.client(receive=4096)  # the two keep most of it in our memory
        large_client.ask()
        large.pod.origin.request().wire.answer(body=b"x" * size)
        large.pod.served()

        def large_is_taken() -> None:
            assert large.pod.sidecar.process.poll() is None
            assert large_client.response().body == b"x" * size

        large.at(34, large_is_taken)

        # An upgraded connection goes on after the listeners closed; when it ends, so does the process.
        ws_client, ws_app = upgraded(socket.pod)
        socket.at(33, lambda: echoes(ws_client, ws_app))
        socket.at(35, ws_client.close)
        socket.at(35.1, ws_app.close)

        # The app's preStop hook: blocks until it is quiet, everybody together.
        hooks = [hook.pod.sidecar.connect(ADMIN) for _ in range(3)]
        hook.at(0.2, lambda: [one.ask("GET", "/wait-for-drain") for one in hooks[:2]] and None)
        hook.at(10, lambda: hooks[2].ask("GET", "/wait-for-drain"))
        hook.at(28, lambda: _assert_quiet(hooks))
        hook.at(29, lambda: [_assert_released(one) for one in hooks] and None)

        everything = [idle, idle_too, late, slow, large, socket, hook]
        all_at_once(everything, 60)
        ended(idle, QUIET)
        ended(idle_too, QUIET)
        ended(late, 8 + QUIET)
        ended(slow, 36)
        ended(large, 34)
        ended(socket, 35)
        ended(hook, QUIET)
        for one in hooks:
            one.close()


def _assert_served(pod: Pod) -> None:
    pod.served()


def _assert_status(pod: Pod, status: int) -> None:
    assert pod.sidecar.health().status == status


def _assert_quiet(hooks: list[Wire]) -> None:
    assert all(hook.quiet() for hook in hooks)


def _assert_released(hook: Wire) -> None:
    answer = hook.response()
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.long
@pytest.mark.qp("QP-285", "QP-286")
def test_an_upgraded_connection_that_never_ends_is_given_a_minute_more() -> None:
    with one_pod() as pod:
        timeline = Timeline(pod)
        client, app = upgraded(pod)
        timeline.at(40, lambda: echoes(client, app))
        timeline.at(85, lambda: echoes(client, app))
        all_at_once([timeline], 110)
        ended(timeline, 90)
        assert pod.sidecar.said("Hijack connection drain failed")
        assert client.gone()


@pytest.mark.long
@pytest.mark.qp("QP-281", "QP-282")
def test_steady_traffic_postpones_the_end() -> None:
    with one_pod() as pod:
        timeline = Timeline(pod)
        for second in range(5, 50, 5):
            timeline.at(second, lambda: _assert_served(pod))
        all_at_once([timeline], 100)
        ended(timeline, 45 + QUIET)
