"""The CPU rung: on trees of files, and on the real kernel where it has the controller.

v1 is proven on the real kernel of the reference machine. Its v2 has no cpu controller: there `cpu.max` is proven on
trees of files, and on a real kernel by `make test-v2-vm`, where `TestRealV2` runs too.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import NotACgroup, Outcome, open_freezer, run
from queueproxy.freeze.node.directory import Cgroup, Version
from queueproxy.freeze.node.throttle import CpuThrottle, Limit, Squeeze, cpu_usage_usec
from tests.support.cgroupfs import PATIENCE, Lab, Workload, place_of, real_cgroups, tree_cpu, until, v2_has_cpu


def tree_v2(path: Path, text: str = "max 100000") -> Path:
    return tree_cpu(path, cpu__max=text)


def tree_v1(path: Path, quota: int = -1, period: int = 100_000) -> Path:
    return tree_cpu(path, cpu__cfs_quota_us=str(quota), cpu__cfs_period_us=str(period))


def text_of(path: Path) -> str:
    if (path / "cpu.max").exists():
        return (path / "cpu.max").read_text().strip()
    quota, period = ((path / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return f"{'max' if quota == '-1' else quota} {period}"


@pytest.fixture(params=["v2", "v1"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return {"v2": tree_v2, "v1": tree_v1}[request.param](tmp_path / "cg")


def opened(path: Path, previous: str | None = None, squeezed: str | None = None) -> CpuThrottle:
    return CpuThrottle.open(str(path), previous=previous, squeezed=squeezed, require_cgroupfs=False)


def overwrite(path: Path, text: str) -> None:
    """As kubelet would."""
    if (path / "cpu.max").exists():
        (path / "cpu.max").write_text(f"{text}\n")
    else:
        quota, period = text.split()
        (path / "cpu.cfs_quota_us").write_text("-1\n" if quota == "max" else f"{quota}\n")
        (path / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.fz("FZ-082")
@pytest.mark.parametrize("before", ["max 100000", "50000 100000", "200000 100000", "max 250000", "20000 1000000"])
def test_a_squeeze_is_undone_exactly(tree: Path, before: str) -> None:
    overwrite(tree, before)
    throttle = opened(tree)
    assert throttle.squeeze() is Squeeze.SQUEEZED
    assert text_of(tree) == "1000 100000"
    assert throttle.is_squeezed
    assert throttle.previous == before
    assert throttle.squeeze() is Squeeze.SQUEEZED, "twice is once"
    assert throttle.previous == before
    assert throttle.restore() is Squeeze.RESTORED
    assert text_of(tree) == before
    assert not throttle.is_squeezed
    assert throttle.restore() is Squeeze.UNCHANGED


@pytest.mark.fz("FZ-082")
def test_a_limit_someone_changed_meanwhile_stays_theirs(tree: Path) -> None:
    throttle = opened(tree)
    throttle.squeeze()
    overwrite(tree, "75000 100000")
    assert throttle.restore() is Squeeze.FOREIGN
    assert throttle.detail == "limit is 75000 100000, not ours"
    assert text_of(tree) == "75000 100000"
    assert throttle.restore() is Squeeze.UNCHANGED, "no longer ours to lift"


@pytest.mark.fz("FZ-082")
def test_a_limit_someone_changed_meanwhile_is_what_a_second_squeeze_goes_back_to(tree: Path) -> None:
    throttle = opened(tree)
    throttle.squeeze()
    overwrite(tree, "75000 100000")
    assert throttle.squeeze() is Squeeze.SQUEEZED
    assert throttle.previous == "75000 100000"
    assert throttle.restore() is Squeeze.RESTORED
    assert text_of(tree) == "75000 100000"


def test_a_limit_someone_restored_for_us_is_restored(tree: Path) -> None:
    throttle = opened(tree)
    throttle.squeeze()
    overwrite(tree, "max 100000")
    assert throttle.restore() is Squeeze.RESTORED


@pytest.mark.fz("FZ-082")
def test_a_successor_restores_what_the_journal_remembers(tree: Path) -> None:
    overwrite(tree, "30000 100000")
    dead = opened(tree)
    dead.squeeze()
    previous, squeezed = dead.previous, dead.squeezed
    assert (previous, squeezed) == ("30000 100000", "1000 100000")
    dead.close()
    assert opened(tree, previous).restore() is Squeeze.RESTORED
    assert text_of(tree) == "30000 100000"


@pytest.mark.fz("FZ-082")
def test_a_successor_with_other_settings_recognises_the_old_squeeze(tree: Path) -> None:
    overwrite(tree, "2000 100000")  # an older version squeezed less
    assert opened(tree, "max 100000", "2000 100000").restore() is Squeeze.RESTORED
    assert text_of(tree) == "max 100000"
    overwrite(tree, "2000 100000")
    assert opened(tree, "max 100000").restore() is Squeeze.FOREIGN


def test_a_limit_already_tighter_is_not_raised(tree: Path) -> None:
    overwrite(tree, "1000 1000000")
    throttle = opened(tree)
    assert throttle.squeeze() is Squeeze.UNCHANGED
    assert text_of(tree) == "1000 1000000"
    assert throttle.restore() is Squeeze.UNCHANGED


def test_a_removed_cgroup_is_gone(tree: Path) -> None:
    throttle = opened(tree)
    throttle.squeeze()
    shutil.rmtree(tree)
    assert throttle.restore() is Squeeze.GONE
    assert not throttle.is_squeezed
    assert throttle.squeeze() is Squeeze.GONE
    assert throttle.read() is None


def test_a_journal_that_does_not_parse_fails_and_writes_nothing(tree: Path) -> None:
    throttle = opened(tree, "rubbish", "1000 100000")
    overwrite(tree, "1000 100000")
    assert throttle.restore() is Squeeze.FAILED
    assert "unreadable limit" in throttle.detail
    assert text_of(tree) == "1000 100000"


def test_a_file_that_may_not_be_written_fails_with_the_kernel_s_word(tree: Path) -> None:
    name = "cpu.max" if (tree / "cpu.max").exists() else "cpu.cfs_quota_us"
    throttle = opened(tree)
    target = tree / name
    text = target.read_text()
    target.unlink()
    (tree / "elsewhere").write_text(text)
    target.symlink_to("elsewhere")
    assert throttle.squeeze() is Squeeze.FAILED
    assert os.strerror(throttle.errno) in throttle.detail
    assert (tree / "elsewhere").read_text() == text
    assert not throttle.is_squeezed


def test_a_directory_without_cpu_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACgroup, match="no CPU limit here"):
        opened(tree_cpu(tmp_path / "cg"))


@pytest.mark.fz("FZ-081")
@pytest.mark.parametrize(
    ("quota", "period"), [(999, 100_000), (1_000, 999), (1_000, 1_000_001), (0, 100_000), (-1, 100_000)]
)
def test_limits_the_kernel_would_refuse_are_refused_here(tmp_path: Path, quota: int, period: int) -> None:
    path = tree_v2(tmp_path / "cg")
    with pytest.raises(ValueError, match="out of the kernel's bounds"):
        CpuThrottle.open(str(path), quota_us=quota, period_us=period, require_cgroupfs=False)
    assert text_of(path) == "max 100000"


@pytest.mark.parametrize("text", ["", "max", "100000", "max max", "1 2 3", "x 100000"])
def test_a_limit_that_is_none_does_not_parse(text: str) -> None:
    with pytest.raises(ValueError):
        Limit.parse(text)


def test_a_throttle_shows_its_state(tree: Path) -> None:
    throttle = opened(tree)
    throttle.squeeze()
    assert repr(throttle) == f"<CpuThrottle {str(tree)!r} limit='1000 100000' previous='max 100000'>"


@pytest.mark.parametrize(
    ("files", "used"),
    [
        pytest.param({"cpu__stat": "usage_usec 4711\nuser_usec 12"}, 4711, id="v2"),
        pytest.param({"cpu__stat": "user_usec 12"}, None, id="v2-without-the-line"),
        pytest.param({"cpuacct__usage": "4711999"}, 4711, id="v1"),
        pytest.param({}, None, id="neither"),
    ],
)
def test_cpu_time_is_read_from_either_version(tmp_path: Path, files: dict[str, str], used: int | None) -> None:
    path = tree_cpu(tmp_path / "cg", **files)
    with Cgroup.open(str(path), require_cgroupfs=False) as cgroup:
        assert cpu_usage_usec(cgroup) == used
        shutil.rmtree(path)
        assert cpu_usage_usec(cgroup) is None


class Meddled(Cgroup):
    """Somebody acts right after a write of ours, before we read back."""

    def __init__(self, fd: int, name: str, version: Version) -> None:
        super().__init__(fd, name, version)
        self.meddle: Callable[[], object] = lambda: None

    def write(self, name: str, text: str) -> bool:
        done = super().write(name, text)
        self.meddle()
        return done


@pytest.mark.fz("FZ-082")
@pytest.mark.parametrize("verb", ["squeeze", "restore"])
def test_a_writer_right_behind_ours_is_reported_and_keeps_the_limit(tree: Path, verb: str) -> None:
    cgroup = Meddled.open(str(tree), require_cgroupfs=False)
    throttle = CpuThrottle(cgroup)
    if verb == "restore":
        throttle.squeeze()
    cgroup.meddle = lambda: overwrite(tree, "42000 100000")
    assert getattr(throttle, verb)() is Squeeze.FOREIGN
    assert "42000 100000" in throttle.detail
    assert text_of(tree) == "42000 100000"
    assert not throttle.is_squeezed


@pytest.mark.parametrize("before", ["max 100000", "20000 1000000"], ids=["one-file", "two-files"])
@pytest.mark.parametrize("verb", ["squeeze", "restore"])
def test_a_cgroup_removed_right_behind_a_write_is_gone(tree: Path, verb: str, before: str) -> None:
    overwrite(tree, before)
    cgroup = Meddled.open(str(tree), require_cgroupfs=False)
    throttle = CpuThrottle(cgroup)
    if verb == "restore":
        throttle.squeeze()
    cgroup.meddle = lambda: shutil.rmtree(tree, ignore_errors=True)
    assert getattr(throttle, verb)() is Squeeze.GONE
    assert not throttle.is_squeezed


# --- the real kernel ---


class CpuContract:
    """What the kernel does with our limits. Subclasses provide the `lab` fixture and `accounting`."""

    def usage_of(self, path: str) -> int:
        with Cgroup.open(path) as cgroup:
            used = cpu_usage_usec(cgroup)
        assert used is not None
        return used

    def share(self, path: str, for_: float, process: "subprocess.Popen[bytes]") -> float:
        began_at, before = monotonic(), self.usage_of(path)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(for_)
        return (self.usage_of(path) - before) / 1e6 / (monotonic() - began_at)

    @pytest.mark.fz("FZ-081", "FZ-082")
    def test_a_spinning_process_falls_to_its_quota_and_comes_back(self, lab: Lab, accounting: Lab) -> None:
        path, counted = lab.make("app"), accounting.make("app")
        work = lab.run(path, "busy")
        if counted != path:
            accounting.write(counted, "cgroup.procs", str(work.pid))
        throttle = CpuThrottle.open(path)
        assert throttle.squeeze() is Squeeze.SQUEEZED
        assert self.share(counted, 1.0, work.process) <= 0.03
        assert throttle.restore() is Squeeze.RESTORED
        assert throttle.read() == Limit(None, 100_000)
        # The machine is shared: a fifth of a core is already far out of reach of the squeeze.
        until(lambda: self.share(counted, 0.2, work.process) >= 0.2, "the process to get its CPU back")

    @pytest.mark.clock
    @pytest.mark.fz("FZ-083")
    def test_lifting_the_quota_releases_at_once(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "busy")
        throttle = CpuThrottle.open(path, quota_us=1_000, period_us=1_000_000)
        for _ in range(5):
            assert throttle.squeeze() is Squeeze.SQUEEZED
            stalls(work)
            before = work.counts()
            began_at = monotonic()
            assert throttle.restore() is Squeeze.RESTORED
            while work.counts() == before:
                assert monotonic() - began_at < 0.1, "nothing moves 100 ms after the limit was lifted"

    @pytest.mark.fz("FZ-081")
    def test_the_bounds_are_the_kernel_s(self, lab: Lab) -> None:
        path = lab.make("app")
        for quota, period in ((1_000, 1_000_000), (1_000, 100_000), (1_000, 1_000)):
            throttle = CpuThrottle.open(path, quota_us=quota, period_us=period)
            assert throttle.squeeze() is Squeeze.SQUEEZED
            assert throttle.read() == Limit(quota, period)
            assert throttle.restore() is Squeeze.RESTORED
            assert throttle.read() == Limit(None, 100_000)

    @pytest.mark.fz("FZ-082")
    def test_a_writer_who_comes_between_keeps_what_they_wrote(self, lab: Lab) -> None:
        path = lab.make("app")
        throttle, other = CpuThrottle.open(path), CpuThrottle.open(path, quota_us=70_000)
        assert throttle.squeeze() is Squeeze.SQUEEZED
        other._write(Limit(70_000, 100_000), Limit(1_000, 100_000))
        assert throttle.restore() is Squeeze.FOREIGN
        assert throttle.read() == Limit(70_000, 100_000)
        assert throttle.squeeze() is Squeeze.SQUEEZED, "theirs is now what we go back to"
        assert throttle.previous == "70000 100000"
        assert throttle.restore() is Squeeze.RESTORED
        assert throttle.read() == Limit(70_000, 100_000)

    def test_a_removed_cgroup_is_gone(self, lab: Lab) -> None:
        path = lab.make("app")
        throttle = CpuThrottle.open(path)
        throttle.squeeze()
        os.rmdir(path)
        assert throttle.restore() is Squeeze.GONE
        assert throttle.squeeze() is Squeeze.GONE


def stalls(work: Workload) -> None:
    """Wait until the quota of the present period is used up: nothing counted over 20 ms."""
    before = (-1,)

    def is_still() -> bool:
        nonlocal before
        last, before = before, work.counts()
        with pytest.raises(subprocess.TimeoutExpired):
            work.process.wait(0.02)
        return work.counts() == before == last

    until(is_still, "the squeezed process to run out of quota")


class TestRealV1(CpuContract):
    pytestmark = real_cgroups("cpu")

    @pytest.fixture
    def lab(self) -> Iterator[Lab]:
        with Lab("cpu") as lab:
            yield lab

    @pytest.fixture
    def accounting(self, lab: Lab) -> Iterator[Lab]:
        if place_of("cpuacct") == place_of("cpu"):
            yield Shared(lab)
            return
        with Lab("cpuacct") as accounting:
            yield accounting

    def test_a_parent_s_limit_makes_the_order_of_writes_matter(self, lab: Lab) -> None:
        """v1 refuses a child whose share is above its parent's, in between the two writes as well."""
        parent = lab.make("pod")
        lab.write(parent, "cpu.cfs_quota_us", "30000")  # 0.3 of a core
        path = f"{parent}/app"
        os.mkdir(path)
        lab.write(path, "cpu.cfs_period_us", "1000000")
        lab.write(path, "cpu.cfs_quota_us", "200000")  # 0.2 of a core
        throttle = CpuThrottle.open(path)
        assert throttle.squeeze() is Squeeze.SQUEEZED
        assert throttle.read() == Limit(1_000, 100_000)
        # Quota first would be 200000 per 100000, twice a core: EINVAL. Period first is right.
        with pytest.raises(OSError, match="Invalid argument"):
            lab.write(path, "cpu.cfs_quota_us", "200000")
        assert throttle.restore() is Squeeze.RESTORED
        assert throttle.read() == Limit(200_000, 1_000_000)

    def test_a_child_s_limit_makes_the_squeeze_impossible_and_nothing_changes(self, lab: Lab) -> None:
        """v1 also refuses a parent below its children: a container that limits its own children cannot be squeezed
        there."""
        path = lab.make("app")
        os.mkdir(f"{path}/inner")
        lab.write(path, "cpu.cfs_quota_us", "50000")
        lab.write(f"{path}/inner", "cpu.cfs_quota_us", "40000")
        for period in (100_000, 120_000, 200_000):
            throttle = CpuThrottle.open(path, period_us=period)
            assert throttle.squeeze() is Squeeze.FAILED
            assert "Invalid argument" in throttle.detail or "either order" in throttle.detail
            assert throttle.read() == Limit(50_000, 100_000)
            assert not throttle.is_squeezed

    @pytest.mark.fz("FZ-083")
    def test_a_squeezed_and_frozen_process_runs_at_once_when_both_are_lifted(self, lab: Lab) -> None:
        with Lab("freezer") as freezers:
            path, frozen = lab.make("app"), freezers.make("app")
            work = lab.run(path, "ticking")
            freezers.write(frozen, "cgroup.procs", str(work.pid))
            throttle, freezer = CpuThrottle.open(path), open_freezer(frozen)
            throttle.squeeze()
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
            work.stands_still()
            assert throttle.restore() is Squeeze.RESTORED, "works on frozen processes, before the thaw"
            assert run(freezer.thaw()) is Outcome.THAWED
            work.goes_on()


class TestRealV2(CpuContract):
    pytestmark = [
        *real_cgroups(""),
        pytest.mark.skipif(not v2_has_cpu(), reason="NOT PROVEN HERE: no cpu controller on v2"),
    ]

    @pytest.fixture
    def lab(self) -> Iterator[Lab]:
        with Lab("") as lab:
            lab.write(lab.root, "cgroup.subtree_control", "+cpu")
            yield lab

    @pytest.fixture
    def accounting(self, lab: Lab) -> Lab:
        return Shared(lab)


class Shared(Lab):
    """The accounting of a lab whose cgroups also count CPU time."""

    def __init__(self, lab: Lab) -> None:
        self.root = lab.root

    def make(self, name: str) -> str:
        return f"{self.root}/{name}"

    def close(self) -> None:
        pass


@pytest.mark.parametrize("controller", [pytest.param("", marks=real_cgroups(""), id="v2")])
def test_v2_counts_cpu_time_without_the_cpu_controller(controller: str) -> None:
    with Lab(controller) as lab:
        path = lab.make("app")
        lab.run(path, "busy")
        with Cgroup.open(path) as cgroup:
            before = cpu_usage_usec(cgroup)
            assert before is not None
            until(lambda: (cpu_usage_usec(cgroup) or 0) > before + 20_000, "20 ms of CPU time to be counted")
