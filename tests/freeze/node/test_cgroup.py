"""The freezers: the contract on both real kernel interfaces, what only one of them does, and decisions on trees of
files."""

import errno
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.freeze.node.cgroup_contract")

from queueproxy.clock import monotonic  # noqa: E402
from queueproxy.freeze.node.cgroup import (  # noqa: E402
    Freezer,
    FreezerV1,
    FreezerV2,
    NotACgroup,
    Observation,
    Outcome,
    open_freezer,
    run,
)
from tests.freeze.node.cgroup_contract import FROZEN, FreezerContract  # noqa: E402
from tests.support.cgroupfs import (  # noqa: E402
    PATIENCE,
    SILENCE,
    Lab,
    real_cgroups,
    tree_cpu,
    tree_v1,
    tree_v2,
)


class TestRealV2(FreezerContract):
    pytestmark = real_cgroups("")
    wish_file, on, off, wish_is_repeated = "cgroup.freeze", "1", "0", False

    @pytest.fixture
    def lab(self) -> Iterator[Lab]:
        with Lab("") as lab:
            yield lab

    def test_the_version_is_found(self, lab: Lab) -> None:
        freezer = open_freezer(lab.make("app"))
        assert isinstance(freezer, FreezerV2)
        assert freezer.mechanism == "cgroup2"

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term-without-handler"])
    def test_a_fatal_signal_ends_a_frozen_process_at_once(self, lab: Lab, signum: int) -> None:
        """Also SIGTERM when the app has no handler: the kernel sees that it is fatal and does not wait."""
        path = lab.make("app")
        work = lab.run(path, "sleeping")
        freezer = open_freezer(path)
        run(freezer.freeze(deadline_for=PATIENCE))
        os.kill(work.pid, signum)
        work.ends_with(signum)
        assert freezer.observe() == FROZEN._replace(populated=False)

    def test_kill_without_the_kill_file_signals_each_process(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking", 16)
        freezer = open_freezer(path)
        run(freezer.freeze(deadline_for=PATIENCE))
        monkeypatch.setattr("queueproxy.freeze.node.cgroup.CGROUP_KILL", "cgroup.kill-of-5.13")
        assert freezer.kill() == 16
        work.ends_with(signal.SIGKILL)

    @pytest.mark.fz("FZ-103")
    def test_the_kernel_counts_frozen_time(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "sleeping")
        freezer = open_freezer(path)
        before = freezer.frozen_usec()
        if before is None:
            pytest.skip("NOT PROVEN HERE: this kernel has no frozen_usec")
        began_at = monotonic()
        run(freezer.freeze(deadline_for=PATIENCE))
        frozen_at = monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            lab._workloads[0].process.wait(0.5)
        thaw_at = monotonic()
        run(freezer.thaw())
        ended_at = monotonic()
        after = freezer.frozen_usec()
        assert after is not None
        counted = (after - before) / 1e6
        assert (thaw_at - frozen_at) * 0.99 <= counted <= (ended_at - began_at) * 1.01

    @pytest.mark.fz("FZ-071")
    def test_an_event_announces_the_change(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "ticking")
        freezer = open_freezer(path)
        events = freezer.open_events()
        assert events is not None
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        try:
            os.pread(events, 1, 0)
            assert poll.poll(SILENCE * 1000) == []
            freezer.freeze().step(monotonic())
            assert poll.poll(PATIENCE * 1000) == [(events, select.POLLPRI | select.POLLERR)]
        finally:
            os.close(events)

    @pytest.mark.fz("FZ-132")
    def test_a_cgroup_is_held_through_a_rename_free_path_beneath_a_root(self, lab: Lab) -> None:
        path = lab.make("pod") + "/app"
        os.mkdir(path)
        root = os.open(lab.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            freezer = open_freezer((root, "pod/app"))
            assert freezer.cgroup.inode == os.stat(path).st_ino
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
            assert lab.read(path, "cgroup.freeze") == "1"
            assert lab.read(f"{lab.root}/pod", "cgroup.freeze") == "0", "never above the container"
            run(freezer.thaw())
        finally:
            os.close(root)


class TestRealV1(FreezerContract):
    pytestmark = real_cgroups("freezer")
    wish_file, on, off, wish_is_repeated = "freezer.state", "FROZEN", "THAWED", True

    @pytest.fixture
    def lab(self) -> Iterator[Lab]:
        with Lab("freezer") as lab:
            yield lab

    def test_the_version_is_found(self, lab: Lab) -> None:
        freezer = open_freezer(lab.make("app"))
        assert isinstance(freezer, FreezerV1)
        assert freezer.mechanism == "cgroup1"
        assert freezer.frozen_usec() is None
        assert freezer.open_events() is None

    @pytest.mark.fz("FZ-077")
    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term-without-handler"])
    def test_a_fatal_signal_waits_for_the_thaw_which_kill_therefore_does(self, lab: Lab, signum: int) -> None:
        path = lab.make("app")
        work = lab.run(path, "sleeping")
        freezer = open_freezer(path)
        run(freezer.freeze(deadline_for=PATIENCE))
        os.kill(work.pid, signum)
        with pytest.raises(subprocess.TimeoutExpired):
            work.process.wait(SILENCE)
        assert freezer.kill() == 1
        work.ends_with(signal.SIGKILL)
        assert not freezer.observe().wanted_frozen
        assert not freezer.owned

    def test_kill_works_on_kernels_without_pidfds(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(pid: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        path = lab.make("app")
        work = lab.run(path, "ticking", 16)
        freezer = open_freezer(path)
        run(freezer.freeze(deadline_for=PATIENCE))
        monkeypatch.setattr(os, "pidfd_open", missing)
        assert freezer.kill() == 16
        work.ends_with(signal.SIGKILL)

    @pytest.mark.fz("FZ-077")
    def test_a_freeze_stuck_in_freezing_is_pending_and_not_frozen(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "stuck")
        freezer = open_freezer(path)
        freezer.freeze().step(monotonic())
        assert lab.read(path, "freezer.state") == "FREEZING"
        assert freezer.observe() == FROZEN._replace(frozen=False)
        assert run(freezer.thaw()) is Outcome.THAWED


# --- trees of files: decisions, refusals, errors. Nothing here claims to be the kernel. ---


def tree_freezer(path: Path) -> Freezer:
    return open_freezer(str(path), require_cgroupfs=False)


V2_FACTS = [
    pytest.param({}, Observation(False, False, True, False, False), id="running"),
    pytest.param({"populated": "0"}, Observation(False, False, False, False, False), id="empty"),
    pytest.param({"freeze": "1"}, Observation(True, False, True, True, False), id="being-frozen"),
    pytest.param({"freeze": "1", "frozen": "1"}, Observation(True, True, True, True, False), id="frozen"),
    pytest.param({"frozen": "1"}, Observation(False, True, True, True, False), id="frozen-from-above"),
]
V1_FACTS = [
    pytest.param({"procs": "7\n"}, Observation(False, False, True, False, False), id="running"),
    pytest.param({}, Observation(False, False, False, False, False), id="empty"),
    pytest.param({"state": "FREEZING", "own": "1"}, Observation(True, False, False, True, False), id="being-frozen"),
    pytest.param({"state": "FROZEN", "own": "1"}, Observation(True, True, False, True, False), id="frozen"),
    pytest.param({"state": "FROZEN", "above": "1"}, Observation(False, True, False, True, False), id="from-above"),
    pytest.param({"state": "FREEZING", "above": "1"}, Observation(False, False, False, True, False), id="soon-above"),
]


@pytest.mark.parametrize(("files", "seen"), V2_FACTS)
def test_v2_files_are_read_as_facts(tmp_path: Path, files: dict[str, str], seen: Observation) -> None:
    assert tree_freezer(tree_v2(tmp_path / "cg", **files)).observe() == seen


@pytest.mark.parametrize(("files", "seen"), V1_FACTS)
def test_v1_files_are_read_as_facts(tmp_path: Path, files: dict[str, str], seen: Observation) -> None:
    assert tree_freezer(tree_v1(tmp_path / "cg", **files)).observe() == seen


def test_the_order_and_company_of_keys_in_events_does_not_matter(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    (path / "cgroup.events").write_text("thawing 9\nfrozen 1\nfrozenish 0\npopulated 0\n")
    assert tree_freezer(path).observe() == Observation(False, True, False, True, False)


def test_a_written_wish_alone_is_not_frozen(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    freezer = tree_freezer(path)
    freeze = freezer.freeze()
    assert freeze.step(0.0) == 0.0
    assert (path / "cgroup.freeze").read_text() == "1"
    assert freeze.outcome is Outcome.PENDING
    (path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert freeze.step(0.0001) is None
    assert freeze.outcome is Outcome.FROZEN


def test_a_cgroup_that_vanishes_under_a_freeze_is_gone(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    freezer = tree_freezer(path)
    freeze = freezer.freeze()
    assert freeze.step(0.0) == 0.0
    shutil.rmtree(path)
    assert freeze.step(0.1) is None
    assert freeze.outcome is Outcome.GONE
    assert not freezer.owned


@pytest.mark.fz("FZ-075")
def test_a_foreign_thaw_during_our_freeze_is_reported(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    freezer = tree_freezer(path)
    freeze = freezer.freeze()
    freeze.step(0.0)
    (path / "cgroup.freeze").write_text("0\n")
    assert freeze.step(0.1) is None
    assert (freeze.outcome, freeze.detail) == (Outcome.FOREIGN, "thawed by someone else meanwhile")
    assert not freezer.owned


@pytest.mark.fz("FZ-075")
def test_a_foreign_freeze_during_our_thaw_is_reported(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg", freeze="1", frozen="1")
    freezer = tree_freezer(path)
    assert freezer.adopt()
    thaw = freezer.thaw()
    assert thaw.step(0.0) == 0.0, "an instant is given for the state to follow"
    (path / "cgroup.freeze").write_text("1\n")
    assert thaw.step(0.0015) is None
    assert (thaw.outcome, thaw.detail) == (Outcome.FOREIGN, "frozen again by someone else meanwhile")
    assert (path / "cgroup.freeze").read_text() == "1\n", "not fought"


def test_a_read_only_freezer_fails_with_the_kernel_s_word_and_changes_nothing(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    (path / "cgroup.freeze").unlink()
    (path / "cgroup.freeze").symlink_to("cgroup.events")
    freezer = tree_freezer(path)
    freeze = freezer.freeze()
    assert freeze.step(0.0) is None
    assert freeze.outcome is Outcome.FAILED
    assert os.strerror(freeze.errno) in freeze.detail
    assert "cgroup.freeze" in freeze.detail
    assert not freezer.owned


def test_a_freeze_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    path = tree_v2(tmp_path / "cg")
    freezer = tree_freezer(path)
    freeze = freezer.freeze()
    freeze.step(0.0)
    events = path / "cgroup.events"
    events.rename(path / "aside")
    os.mkfifo(events)
    assert freeze.step(0.1) is None
    assert freeze.outcome is Outcome.FAILED
    assert (path / "cgroup.freeze").read_text() == "0"


@pytest.mark.fz("FZ-132")
@pytest.mark.parametrize("plant", ["symlink", "fifo", "directory"])
def test_a_hostile_file_is_an_error_and_never_hangs(tmp_path: Path, plant: str) -> None:
    path = tree_v2(tmp_path / "cg")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = path / "cgroup.freeze"
    target.unlink()
    if plant == "symlink":
        target.symlink_to(victim)
    elif plant == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    freezer = tree_freezer(path)
    for start in (freezer.freeze, lambda: freezer.thaw(force=True)):
        transition = start()
        assert transition.step(0.0) is None
        assert transition.outcome is Outcome.FAILED
    with pytest.raises(OSError):
        freezer.observe()
    assert victim.read_text() == "precious"


def test_kill_refuses_a_process_it_cannot_name(tmp_path: Path) -> None:
    """A pid namespace apart, the kernel shows 0, and kill(0) would hit our own process group."""
    freezer = tree_freezer(tree_v1(tmp_path / "cg", procs="0\n"))
    with pytest.raises(OSError, match="outside our pid namespace"):
        freezer.kill()


def test_a_directory_without_a_freezer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACgroup, match="no freezer here"):
        tree_freezer(tree_cpu(tmp_path / "cg", cpu__max="max 100000"))


def test_a_file_tree_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NotACgroup, match="not on a cgroup filesystem"):
        open_freezer(str(tree_v2(tmp_path / "cg")))


def test_a_freezer_shows_its_state(tmp_path: Path) -> None:
    freezer = tree_freezer(tree_v2(tmp_path / "cg"))
    freezer.freeze().step(0.0)
    assert repr(freezer).startswith("<FreezerV2 '")
    assert "owned=True current=<Transition freeze MOVING PENDING looks=0 ''>" in repr(freezer)
