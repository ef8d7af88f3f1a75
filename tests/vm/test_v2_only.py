"""What a machine whose cgroup v2 has the cpu controller does: pods, the doctor and `queueproxy run` with v2 alone.

`make test-v2-vm` boots one. These run too where root's own cgroup happens to hand its cpu controller down.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop

pytest.register_assert_rewrite("tests.freeze.node.mover_contract")

from queueproxy.bench.figures import Measure  # noqa: E402
from queueproxy.bench.wake import Sleeper, measure_wakes  # noqa: E402
from queueproxy.clock import monotonic  # noqa: E402
from queueproxy.freeze.node.directory import Cgroup  # noqa: E402
from queueproxy.freeze.node.mover import Moved  # noqa: E402
from queueproxy.freeze.node.throttle import cpu_usage_usec  # noqa: E402
from tests.freeze.node.mover_contract import FROZEN, RUNNING, THROTTLED, Driver, MoverContract, reached  # noqa: E402
from tests.support.cgroupfs import real_cgroups, until, v2_has_cpu  # noqa: E402
from tests.support.kubepods import Node, Pod  # noqa: E402
from tests.support.local_run import LocalRun  # noqa: E402

pytestmark = [
    *real_cgroups(""),
    pytest.mark.skipif(not v2_has_cpu(), reason="NOT PROVEN HERE: no cpu controller on v2"),
    pytest.mark.xdist_group("runs"),
]

SQUEEZED = "1000 100000"
SPIN = """
import http.server, os, threading
app = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=app.serve_forever).start()
while True: pass
"""


def hand_cpu_down(top: str, path: str) -> None:
    """From the cgroup `top` to the one above `path`, as a kubelet hands down what its pods have limits of."""
    names = os.path.relpath(path, top).split("/")
    for depth in range(len(names)):
        Path(top, *names[:depth], "cgroup.subtree_control").write_text("+cpu")


class UnifiedNode(Node):
    """A node with v2 alone: each container's freezer and limit are one cgroup."""

    def __init__(self) -> None:
        super().__init__("")

    def pod(self, names: Sequence[str] = ("app",), *, qos: str = "burstable", runtime: str = "containerd") -> Pod:
        pod = super().pod(names, qos=qos, runtime=runtime)
        for path in pod.paths:
            hand_cpu_down(self.first.root, self.at(path))
        return pod

    def at(self, path: str, controller: str | None = None) -> str:
        """Whatever the hierarchy is asked for: there is one."""
        return super().at(path)


class TestPods(MoverContract):
    """All that moving pods promises, with `cpu.max`."""

    mechanism, wish = "cgroup2", ("cgroup.freeze", "1", "0")

    @pytest.fixture
    def at(self) -> Iterator[Driver]:
        loop = uvloop.new_event_loop()
        with UnifiedNode() as node:
            driver = Driver(loop, node)
            try:
                yield driver
            finally:
                driver.close()
                loop.close()

    def someone_limits(self, at: Driver, pod: Pod, quota_us: int, number: int = 0) -> None:
        Path(at.node.at(pod.paths[number]), "cpu.max").write_text(str(quota_us))

    def test_when_one_cannot_be_throttled_the_others_get_their_limit_back(self, at: Driver) -> None:
        """Here all containers of a pod have a limit or none has: the pod hands the controller down, or does not."""
        pod = at.node.pod(["a", "b"])
        work = at.node.run(pod.paths[0])
        mover = at.mover(pod)
        Path(os.path.dirname(at.node.at(pod.paths[0])), "cgroup.subtree_control").write_text("-cpu")
        moved = at.moved(mover, THROTTLED)
        assert moved == Moved(None, self.mechanism, moved.took, "a: no cpu controller", False)
        assert mover.seen() is RUNNING
        assert reached(at.moved(mover, FROZEN), FROZEN), "freezing needs no controller"
        work.stands_still()
        assert reached(at.moved(mover, RUNNING), RUNNING)
        work.goes_on()


def test_a_limit_above_ours_does_not_confuse_ours() -> None:
    """A pod's own limit, tighter than a container's: the container's is what we read, squeeze and put back."""
    with UnifiedNode() as node:
        pod = node.pod()
        node.run(pod.paths[0], "busy")
        above, below = Path(node.pod_at(pod)), Path(node.at(pod.paths[0]))
        (above / "cpu.max").write_text("20000 100000")
        (below / "cpu.max").write_text("50000 100000")
        loop = asyncio.new_event_loop()
        driver = Driver(loop, node)
        mover = driver.mover(pod)
        steps = ((THROTTLED, SQUEEZED), (FROZEN, "50000 100000"), (RUNNING, "50000 100000"))
        for rung, limit in steps:
            assert reached(driver.moved(mover, rung), rung)
            assert (below / "cpu.max").read_text().strip() == limit
            assert (above / "cpu.max").read_text().strip() == "20000 100000"
        driver.close()
        loop.close()


def test_the_doctor_finds_a_node_fit_to_freeze_and_to_throttle(tmp_path: Path) -> None:
    with UnifiedNode() as node:
        pod = node.pod()
        node.run(pod.paths[0])
        config = tmp_path / "freezer.toml"
        config.write_text(
            f'node = "n"\njournal = "{tmp_path}"\n[listen]\nplain-http = true\n[cgroups]\nkubepods = ["{node.root}"]\n'
        )
        ran = subprocess.run(
            [sys.executable, "-m", "queueproxy", "doctor", "--json", "--config", config],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = {finding["what"]: finding for finding in json.loads(ran.stdout)["findings"]}
    for what in ("cgroups", "kubepods", "freezer", "permission", "cpu controller", "runtimes", "stop signals"):
        assert found[what]["verdict"] == "good", found[what]
    assert found["cpu controller"]["found"].endswith("/cpu.max")


def used_usec(path: str) -> int:
    with Cgroup.open(path) as cgroup:
        used = cpu_usage_usec(cgroup)
    assert used is not None
    return used


def limit_of(path: str) -> str:
    return Path(path, "cpu.max").read_text().strip()


@pytest.mark.timeout(180)
def test_a_run_throttles_a_spinning_app_and_lets_go_for_a_request() -> None:
    flags = ("--cgroup", "v2", "--mode", "throttle", "--freeze-after", "300ms")
    with LocalRun(*flags, command=[sys.executable, "-c", SPIN]) as run:
        run.event("ready", within=60)
        assert run.started["mechanism"] == "cgroup2"
        cgroup = run.started["cgroup"]
        for times in (1, 2):
            run.asleep(times, within=60, rung="throttled")
            assert limit_of(cgroup) == SQUEEZED
            began_at, before = monotonic(), used_usec(cgroup)
            with pytest.raises(subprocess.TimeoutExpired):
                run.process.wait(1.0)
            assert (used_usec(cgroup) - before) / 1e6 / (monotonic() - began_at) <= 0.03
            assert run.get(timeout=60)[0] == 200
            until(lambda times=times: len(run.states("running")) >= times, "the limit to be lifted")
        run.process.terminate()
        assert run.ended(60) == 0
        assert run.states("frozen") == []
        assert run.left_behind() == []


@pytest.mark.timeout(180)
def test_a_run_goes_down_both_rungs_and_wakes_from_either() -> None:
    flags = ("--cgroup", "v2", "--throttle-after", "200ms", "--freeze-after", "1500ms")
    with LocalRun(*flags) as run:
        run.event("ready", within=60)
        cgroup = run.started["cgroup"]
        run.asleep(1, within=60, rung="throttled")
        assert limit_of(cgroup) == SQUEEZED
        assert run.get(timeout=60)[0] == 200
        run.asleep(1, within=60, rung="frozen")
        assert limit_of(cgroup) == "max 100000", "one rung at a time: a limit left behind would slow the wake"
        assert run.get(timeout=60)[0] == 200
        run.asleep(2, within=60, rung="frozen")
        run.process.terminate()
        assert run.ended(60) == 0
        assert run.left_behind() == []


@pytest.mark.timeout(400)
def test_sixty_wakes_in_a_row_are_answered_from_sleep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bench raises when a request fails or the app stays awake; its figures mean nothing where it is slow."""
    for bound in ("START_S", "ASLEEP_WITHIN_S"):
        monkeypatch.setattr(f"queueproxy.bench.wake.{bound}", 60.0)
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [int(each.getsockname()[1]) for each in taken]
    for each in taken:
        each.close()
    with capsys.disabled():
        figures = measure_wakes(Sleeper(*ports, "v2"), 60, print)
    assert 0 < figures[Measure("phase_ask_to_confirmed_p50_ms")] <= figures[Measure("wake_asleep_p99_ms")]
