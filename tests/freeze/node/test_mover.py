"""Moving whole pods: the contract in the hybrid and in the v1 world, and v2's own CPU limit on trees of files."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

pytest.register_assert_rewrite("tests.freeze.node.mover_contract")

from queueproxy.freeze.node.directory import Cgroup  # noqa: E402
from queueproxy.freeze.node.hierarchy import Mounts  # noqa: E402
from queueproxy.freeze.node.inventory import ContainerFacts  # noqa: E402
from queueproxy.freeze.node.locate import Tree  # noqa: E402
from queueproxy.freeze.node.mover import Moved, PodMover  # noqa: E402
from queueproxy.freeze.node.naming import candidates  # noqa: E402
from queueproxy.freeze.vocabulary import Rung  # noqa: E402
from tests.freeze.node.mover_contract import Driver, MoverContract, driver_on  # noqa: E402
from tests.support.cgroupfs import real_cgroups, tree_cpu, tree_v2  # noqa: E402

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class TestHybrid(MoverContract):
    """v2 freezer, v1 CPU limit; on uvloop."""

    pytestmark = [*real_cgroups(""), *real_cgroups("cpu")]
    mechanism, wish = "cgroup2", ("cgroup.freeze", "1", "0")

    @pytest.fixture
    def at(self) -> Iterator[Driver]:
        with driver_on(uvloop.new_event_loop(), "", "cpu") as driver:
            yield driver


class TestV1(MoverContract):
    """All v1; on the standard library's loop, whose timers are finer."""

    pytestmark = [*real_cgroups("freezer"), *real_cgroups("cpu"), *real_cgroups("cpuacct")]
    mechanism, wish = "cgroup1", ("freezer.state", "FROZEN", "THAWED")

    @pytest.fixture
    def at(self) -> Iterator[Driver]:
        with driver_on(asyncio.new_event_loop(), "freezer", "cpu", "cpuacct") as driver:
            yield driver


class TestV2Limits:
    """The CPU rung of a v2 node, on trees of files: the reference machine has no cpu controller there."""

    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        found = []
        for digit in "ab":
            path = tmp_path / "v2/kubepods.slice" / next(candidates("kubepods.slice", UID, "burstable", digit * 64))
            tree_v2(path)
            tree_cpu(path, cpu__max="40000 100000", cpu__stat="usage_usec 500\nuser_usec 1")
            found.append(path)
        return found

    @pytest.fixture
    def mover(self, tmp_path: Path, paths: list[Path]) -> Iterator[PodMover]:
        tree = Tree(Mounts(f"{tmp_path}/v2", {}, {}), {}, roots=["kubepods.slice"], require_cgroupfs=False)
        loop = asyncio.new_event_loop()
        containers = [ContainerFacts(digit, digit * 64, "containerd") for digit in "ab"]
        mover = PodMover(loop, tree, containers, UID, "burstable")
        yield mover
        mover.close()
        tree.close()
        loop.close()

    @staticmethod
    def moved(mover: PodMover, rung: Rung) -> Moved:
        answers: list[Moved] = []
        mover.move(rung, answers.append)
        return answers[0]

    @pytest.mark.fz("FZ-081", "FZ-082", "FZ-085")
    def test_limits_go_down_and_come_back_exactly(self, mover: PodMover, paths: list[Path]) -> None:
        assert self.moved(mover, Rung.THROTTLED).rung is Rung.THROTTLED
        assert [(path / "cpu.max").read_text() for path in paths] == ["1000 100000"] * 2
        assert mover.seen() is Rung.THROTTLED
        assert mover.cpu_usec() == 1000
        assert self.moved(mover, Rung.RUNNING).rung is Rung.RUNNING
        assert [(path / "cpu.max").read_text() for path in paths] == ["40000 100000"] * 2
        assert mover.seen() is Rung.RUNNING

    @pytest.mark.fz("FZ-074", "FZ-085")
    def test_when_the_second_limit_cannot_be_written_the_first_comes_back(
        self, mover: PodMover, paths: list[Path]
    ) -> None:
        mover.held()
        (paths[1] / "cpu.max").write_text("no limit\n")
        moved = self.moved(mover, Rung.THROTTLED)
        assert moved.rung is None
        assert moved.detail.startswith("b: cannot throttle: unreadable limit")
        assert (paths[0] / "cpu.max").read_text() == "40000 100000"

    @pytest.mark.fz("FZ-083")
    def test_the_limit_is_lifted_before_the_thaw(
        self, mover: PodMover, paths: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found frozen and squeezed, as only a crash or another writer leaves it."""
        assert self.moved(mover, Rung.THROTTLED).rung is Rung.THROTTLED
        record = mover.held()
        for path in paths:
            tree_v2(path, freeze="1", frozen="1")
        successor = PodMover(mover._loop, mover._tree, (), UID, "burstable", adopt=record)
        written: list[str] = []
        write = Cgroup.write
        monkeypatch.setattr(Cgroup, "write", lambda self, name, text: written.append(name) or write(self, name, text))
        assert successor.seen() is Rung.FROZEN
        successor.move(Rung.RUNNING, lambda moved: None)
        successor.close()
        assert written == ["cpu.max", "cpu.max", "cgroup.freeze", "cgroup.freeze"]
        assert [(path / "cpu.max").read_text() for path in paths] == ["40000 100000"] * 2

    @pytest.mark.fz("FZ-083")
    def test_a_limit_that_cannot_be_put_back_does_not_keep_the_others_from_running(
        self, mover: PodMover, paths: list[Path]
    ) -> None:
        assert self.moved(mover, Rung.THROTTLED).rung is Rung.THROTTLED
        (paths[0] / "cpu.max").write_text("no limit\n")
        moved = self.moved(mover, Rung.RUNNING)
        assert moved.rung is None
        assert moved.detail.startswith("a: cannot restore the CPU limit: unreadable limit")
        assert (paths[1] / "cpu.max").read_text() == "40000 100000"
        (paths[0] / "cpu.max").write_text("1000 100000\n")
        assert self.moved(mover, Rung.RUNNING).rung is Rung.RUNNING, "tried again"
        assert (paths[0] / "cpu.max").read_text() == "40000 100000"


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("controller", [pytest.param("", marks=real_cgroups(""), id="v2")])
def test_a_freeze_that_takes_its_time_is_stepped_by_either_loop(name: str, controller: str) -> None:
    with driver_on(LOOPS[name](), controller) as at:
        pod = at.node.pod()
        at.node.run(pod.paths[0], "stuck")
        moved = at.moved(at.mover(pod), Rung.FROZEN)
        assert moved.rung is None
        assert 0.2 <= moved.took < 1.0
