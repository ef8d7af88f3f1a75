"""The repair of what a dead run left, on runs that really died: their apps asleep, their owners gone."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.node.cgroup import open_freezer, run
from queueproxy.freeze.node.throttle import CpuThrottle, Squeeze
from queueproxy.freeze.node.transition import Outcome
from queueproxy.local import placement, procfs
from queueproxy.local.journal import Journal, Record, run_name
from queueproxy.local.mend import mend, mend_all, thaw_all
from queueproxy.local.procfs import Identity, identity
from queueproxy.local.stopper import SessionStopper

# Repairs look at the whole machine, so they must not meet each other's wrecks.
pytestmark = pytest.mark.xdist_group("runs")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: cgroups need root")
OBSTINATE = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
)
POLITE = "import time\nprint('up', flush=True)\ntime.sleep(60)"


class Wreck:
    """An app put to sleep by a run whose owner is dead."""

    def __init__(self, way: str, journal: Journal, *, code: str = POLITE) -> None:
        ended = subprocess.Popen(["sleep", "60"])
        owner = identity(ended.pid)
        assert owner is not None
        ended.kill()
        ended.wait()
        self.name = run_name(owner)
        mounts, places = placement.read_hierarchy()
        needs_cpu = way != "signal"
        place, _ = placement.place(placement.plans(way, mounts, places, self.name, needs_cpu=needs_cpu))
        doors = place.doors if place is not None else []
        self.child = subprocess.Popen(
            [sys.executable, "-c", code],
            preexec_fn=lambda: [os.write(door, b"0") for door in doors] and None,
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        assert self.child.stdout is not None
        self.child.stdout.readline()
        app = identity(self.child.pid)
        assert app is not None
        self.plan = place.plan if place is not None else placement.Plan("signal")
        self.record = Record(
            name=self.name,
            owner=owner,
            boot=procfs.boot_id(),
            pids=procfs.pid_namespace(),
            mechanism=self.plan.mechanism,
            app=app,
            freezer=self.plan.freezer,
            cpu=self.plan.cpu,
            others=(self.plan.usage,) if self.plan.usage else (),
            command=("app",),
        )
        journal.write(self.record)
        if place is not None:
            place.close()
        self.sleep()

    def sleep(self) -> None:
        if self.plan.freezer is None:
            assert run(SessionStopper(self.child.pid).freeze()) is Outcome.FROZEN
            return
        if self.plan.cpu is not None:
            throttle = CpuThrottle.open(self.plan.cpu)
            assert throttle.squeeze() is Squeeze.SQUEEZED
            throttle.close()
        freezer = open_freezer(self.plan.freezer)
        assert run(freezer.freeze(deadline_for=2.0)) is Outcome.FROZEN
        freezer.close()

    def is_asleep(self) -> bool:
        if self.plan.freezer is None:
            return any(stat.state == "T" for stat in procfs.in_session(self.child.pid))
        if not os.path.isdir(self.plan.freezer):
            return False
        freezer = open_freezer(self.plan.freezer)
        try:
            return freezer.observe().frozen
        finally:
            freezer.close()

    def left(self) -> list[str]:
        return [path for path in self.plan.cgroups if os.path.exists(path)]

    def clear(self) -> None:
        if self.plan.freezer is not None and os.path.isdir(self.plan.freezer):
            freezer = open_freezer(self.plan.freezer)
            freezer.kill()
            freezer.close()
        self.child.kill()
        self.child.wait(10)
        assert self.child.stdout is not None
        self.child.stdout.close()
        for path in self.plan.cgroups:
            assert placement.remove_cgroup(path)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(str(tmp_path / "journal"), create=True)
    yield found
    found.close()


@pytest.fixture(
    params=[
        pytest.param("v2", marks=[pytest.mark.root, root_only]),
        pytest.param("v1", marks=[pytest.mark.root, root_only]),
        "signal",
    ]
)
def wreck(request: pytest.FixtureRequest, journal: Journal) -> Iterator[Wreck]:
    found = Wreck(request.param, journal)
    yield found
    found.clear()


def test_the_app_runs_again_and_is_not_ended(wreck: Wreck, journal: Journal) -> None:
    assert wreck.is_asleep()
    mended = mend(wreck.record, journal, stop=False)
    assert not mended.frozen
    assert mended.found in ("frozen", "stopped")
    assert mended.pid == wreck.child.pid
    assert not wreck.is_asleep()
    assert wreck.child.poll() is None
    # It lives on in its cgroup, so the record stays for whoever ends it.
    assert journal.read(wreck.name) == wreck.record
    if wreck.plan.cpu is not None:
        throttle = CpuThrottle.open(wreck.plan.cpu)
        limit = throttle.read()
        throttle.close()
        assert limit is not None and limit.quota_us is None


@pytest.mark.fz("FZ-054")
def test_with_stop_it_ends_by_sigterm_and_nothing_is_left(wreck: Wreck, journal: Journal) -> None:
    mended = in_a_process(wreck, journal)
    assert wreck.child.wait(10) == -signal.SIGTERM
    assert "ended the app" in mended
    wreck_again = mend(wreck.record, journal, stop=True)
    assert not wreck_again.frozen
    assert wreck.left() == []
    assert journal.read(wreck.name) is None


def in_a_process(wreck: Wreck, journal: Journal) -> str:
    """Mend somewhere else, as the guardian does, and say what it did."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, mend(wreck.record, journal, stop=True).did.encode())
        finally:
            os._exit(0)
    os.close(writing)
    wreck.child.wait(20)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as output:
        return output.read()


def test_a_second_repair_finds_nothing_to_do(wreck: Wreck, journal: Journal) -> None:
    mend(wreck.record, journal, stop=False)
    again = mend(wreck.record, journal, stop=False)
    assert again.found == "running"
    assert not again.frozen


def test_a_recycled_pid_is_not_signalled(journal: Journal) -> None:
    """The record's app is long gone and its pid belongs to somebody else: that somebody must not notice anything."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        them = identity(stranger.pid)
        assert them is not None
        us = identity(os.getpid())
        assert us is not None
        record = Record(
            name=run_name(us),
            owner=Identity(us.pid, us.started + 1),
            boot=procfs.boot_id(),
            pids=procfs.pid_namespace(),
            mechanism="signal",
            app=Identity(them.pid, them.started - 1),
        )
        journal.write(record)
        os.kill(stranger.pid, signal.SIGSTOP)
        os.waitpid(stranger.pid, os.WUNTRACED)
        assert not mend(record, journal, stop=True).frozen
        stat = procfs.read_stat(stranger.pid)
        assert stat is not None and stat.state == "T"
        assert journal.read(record.name) is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_living_owner_is_left_alone_unless_forced(wreck: Wreck, journal: Journal) -> None:
    us = identity(os.getpid())
    assert us is not None
    journal.write(wreck.record.with_(owner=us))
    items = [item for item in mend_all([journal], force=False, stop=True) if item.name == wreck.name]
    assert [item.did for item in items] == ["left alone"]
    assert wreck.is_asleep()
    items = [item for item in mend_all([journal], force=True, stop=True) if item.name == wreck.name]
    assert not items[0].frozen
    assert not wreck.is_asleep()
    assert wreck.child.poll() is None


def test_records_of_another_boot_or_namespace_are_told_apart(journal: Journal) -> None:
    us = identity(os.getpid())
    assert us is not None
    base = Record(run_name(us), us, procfs.boot_id(), procfs.pid_namespace(), "signal")
    old, elsewhere = base.with_(boot="before"), base.with_(name=run_name(us), pids="pid:[1]")
    journal.write(old)
    journal.write(elsewhere)
    found = {item.name: item.found for item in mend_all([journal], force=False, stop=False)}
    assert found[old.name] == "from before the last boot"
    assert found[elsewhere.name] == "in another pid namespace"
    assert journal.read(old.name) is None
    assert journal.read(elsewhere.name) == elsewhere


@pytest.mark.root
@root_only
@pytest.mark.parametrize("way", ["v2", "v1"])
def test_a_frozen_cgroup_that_no_record_speaks_of_is_found_by_its_name(
    way: str, journal: Journal, tmp_path: Path
) -> None:
    wreck = Wreck(way, journal)
    try:
        journal.remove(wreck.name)
        out = io.StringIO()
        environ = {"XDG_RUNTIME_DIR": str(tmp_path / "none")}
        assert thaw_all(os.geteuid(), environ, as_json=True, force=False, stop=False, out=out) == 0
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert wreck.plan.freezer in [line.get("name") for line in lines]
        assert lines[-1]["event"] == "thaw-all"
        assert not wreck.is_asleep()
        assert wreck.child.poll() is None
    finally:
        wreck.clear()


@pytest.mark.root
@root_only
def test_what_stays_frozen_is_reported_and_the_exit_status_says_so(journal: Journal, tmp_path: Path) -> None:
    """A frozen parent: our thaw is not enough, and claiming success would be a lie (FZ-075)."""
    mounts, _ = placement.read_hierarchy()
    us = identity(os.getpid())
    assert us is not None
    parent = f"{mounts.v2}/qp-test-{us.pid}"
    name = run_name(Identity(us.pid, us.started + 1))
    os.makedirs(f"{parent}/{name}")
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        Path(f"{parent}/{name}/cgroup.procs").write_text(str(child.pid))
        Path(f"{parent}/cgroup.freeze").write_text("1")
        while "frozen 1" not in Path(f"{parent}/{name}/cgroup.events").read_text():
            os.sched_yield()
        out = io.StringIO()
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        assert thaw_all(os.geteuid(), environ, as_json=False, force=False, stop=False, out=out) == 1
        assert "an ancestor is frozen" in out.getvalue()
        assert out.getvalue().endswith("1 still frozen\n")
    finally:
        Path(f"{parent}/cgroup.freeze").write_text("0")
        child.kill()
        child.wait()
        assert placement.remove_cgroup(parent)


@pytest.mark.slow
def test_an_app_that_ignores_sigterm_is_killed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queueproxy.local.mend.STOP_WITHIN", 0.2)
    wreck = Wreck("signal", journal, code=OBSTINATE)
    try:
        assert "killed the app" in in_a_process(wreck, journal)
        assert wreck.child.wait(5) == -signal.SIGKILL
    finally:
        wreck.clear()
