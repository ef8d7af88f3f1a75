"""Real containers fall asleep between requests, wake for the next, and nobody notices but their CPU bill."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from tests.support.e2e_pod import Pod
from tests.support.e2e_spec import CODE
from tests.support.e2e_watch import FrozenWatch
from tests.support.e2e_world import QUICK, World, annotated
from tests.support.sidecar import USER

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        yield running


@pytest.fixture(scope="module")
def pod(world: World) -> Iterator[Pod]:
    with world.pod() as started:
        yield started


@pytest.mark.fz("FZ-001", "FZ-003", "FZ-013", "FZ-020", "FZ-070", "FZ-120")
def test_an_app_without_traffic_falls_asleep_and_does_not_tick(world: World, pod: Pod) -> None:
    asleep_at = pod.app.until_frozen()
    said = len(pod.app.log.lines)
    with pytest.raises(AssertionError):
        pod.app.log.until(lambda: len(pod.app.log.lines) > said + 1, 1.0)  # one may have been in the pipe
    assert pod.app.ticks(asleep_at, monotonic()) == []
    assert pod.app.frozen


def test_the_runtime_knows_nothing_of_it(world: World, pod: Pod) -> None:
    pod.app.until_frozen()
    assert world.node.containerd.status(pod.app.id) == "running"
    assert not pod.sidecar.frozen
    assert not pod.sandbox.frozen


@pytest.mark.fz("FZ-033", "FZ-142")
def test_a_request_wakes_it_and_it_ticks_as_long_as_the_request_lasts(pod: Pod) -> None:
    pod.app.until_frozen()
    began = monotonic()
    answer = pod.ask("/slow", headers={"X-Id": "wake"})
    ended = monotonic()
    assert (answer.status, answer.body) == (200, "user-container wake\n")
    assert len(pod.app.ticks(began, ended)) > 15  # 25 in half a second
    pod.app.until_frozen()


@pytest.mark.fz("FZ-142")
def test_the_sleeptalker_is_silent_between_requests_and_talks_during_one(world: World) -> None:
    args = (sys.executable, f"{CODE}/sleeptalker.py")
    with world.pod(args=args, wait_for="tick") as pod:
        pod.app.until_frozen()
        said = len(pod.app.log.lines)
        answer = pod.ask("/")
        assert [line.split(" ", 1)[1] for line in answer.body.splitlines()] == [
            "I am awake and start to work",
            "done, back to sleep",
        ]
        assert answer.first < 1.0  # its first line came before it worked for two seconds
        assert len([line for _, line in pod.app.log.lines[said:] if " tick " in line]) >= 3


@pytest.mark.fz("FZ-031")
def test_many_requests_at_once_are_all_answered_by_one_wake(pod: Pod) -> None:
    pod.app.until_frozen()
    with FrozenWatch(lambda: [pod.app], period=0.005) as watch, ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda number: pod.ask("/slow", headers={"X-Id": str(number)}), range(20)))
    assert [answer.status for answer in answers] == [200] * 20
    assert max(answer.first for answer in answers) < 1.5
    assert watch.naps(pod.app) <= 1  # the sleep they ended


@pytest.mark.fz("FZ-037", "FZ-040", "FZ-041")
def test_readiness_is_answered_while_it_sleeps_and_does_not_wake_it(pod: Pod) -> None:
    pod.app.until_frozen()
    before = pod.app.frozen_usec
    for _ in range(20):
        assert pod.health().status == 200
    assert pod.app.frozen
    assert not before or pod.app.frozen_usec > before
    assert pod.app.log.find("kube-probe") is None


@pytest.mark.fz("FZ-098", "FZ-028")
def test_a_connection_to_the_user_port_wakes_it_within_a_second(pod: Pod) -> None:
    pod.app.until_frozen()
    answer = pod.ask("/healthz", port=USER, timeout=1.0)
    assert answer.status == 200
    pod.app.until_frozen()


def test_a_request_to_one_pod_leaves_the_other_asleep(world: World, pod: Pod) -> None:
    with world.pod() as other, FrozenWatch(lambda: [pod.app], period=0.005) as watch:
        pod.app.until_frozen()
        other.app.until_frozen()
        world.until(lambda: watch.naps(pod.app))
        naps = watch.naps(pod.app)
        for _ in range(3):
            assert other.ask("/").status == 200
            other.app.until_frozen()
        assert pod.app.frozen
        assert watch.naps(pod.app) == naps


@pytest.mark.fz("FZ-078")
@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
@pytest.mark.parametrize("qos", ["guaranteed", "burstable", "besteffort"])
def test_it_sleeps_wherever_the_kubelet_puts_it(world: World, driver: str, qos: str) -> None:
    with world.pod(driver=driver, qos=qos) as placed:
        placed.app.until_frozen()
        assert placed.ask("/").status == 200


@pytest.mark.fz("FZ-002", "FZ-113")
@pytest.mark.parametrize(
    ("annotations", "has_token"),
    [
        pytest.param(QUICK, False, id="no token"),
        pytest.param(QUICK | annotated(freeze="off"), True, id="off"),
        pytest.param(QUICK | annotated(freeze="shadow"), True, id="shadow"),
    ],
)
def test_a_pod_that_must_not_sleep_never_does(world: World, annotations: dict[str, str], has_token: bool) -> None:
    with world.pod(annotations=annotations, has_token=has_token) as pod:
        with FrozenWatch(lambda: [pod.app]) as watch:
            for _ in range(3):
                assert pod.ask("/slow").status == 200
            since = len(pod.app.log.lines)
            pod.app.log.until(lambda: len(pod.app.log.lines) > since + 50)  # a second of ticks
        assert watch.naps(pod.app) == 0


@pytest.mark.fz("FZ-081", "FZ-082", "FZ-083", "FZ-085", "L-10")
def test_a_throttled_pod_gets_next_to_no_cpu_and_all_of_it_back(world: World) -> None:
    def quota(pod: Pod) -> str:
        return pod.app.read("cpu.max") or pod.app.read("cpu.cfs_quota_us", "cpu")

    with world.pod(annotations=QUICK | annotated(freeze="throttle")) as pod:
        squeezed = ("1000 100000", "1000")
        world.until(lambda: quota(pod) in squeezed)
        assert not pod.app.frozen
        assert pod.ask("/").status == 200
        world.until(lambda: quota(pod) in squeezed)  # and again
        began = monotonic()
        answer = pod.ask("/slow")
        assert answer.status == 200
        assert len(pod.app.ticks(began, monotonic())) > 15


@pytest.mark.fz("FZ-077", "FZ-055")
def test_on_a_node_of_cgroup_v1_all_of_it_works_too() -> None:
    with World(hierarchies=("freezer", "cpu", "cpuacct")) as old:
        if "freezer" not in old.node.hierarchies:
            pytest.skip("NOT PROVEN HERE: this machine has no cgroup v1 freezer")
        with old.pod() as pod:
            pod.app.until_frozen()
            old.until(lambda: pod.app.read("freezer.state", "freezer") == "FROZEN")
            began = monotonic()
            assert pod.ask("/slow").status == 200
            assert len(pod.app.ticks(began, monotonic())) > 15
            pod.app.until_frozen()
            pod.app.signal()
            pod.app.log.heard("sigterm", within=1.0)
            assert pod.app.wait(5.0) == 0
