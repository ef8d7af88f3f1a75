"""SIGSTOP and SIGCONT as a freezer, on real processes."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from queueproxy.freeze.node.cgroup import open_freezer, run
from queueproxy.freeze.node.transition import Outcome
from queueproxy.local import placement, procfs
from queueproxy.local.stopper import SessionStopper

pytestmark = pytest.mark.clock  # milliseconds of cadence and deadlines

# A first process with two children of the same session, each writing to one pipe for ever: output means somebody runs.
BABBLERS = """
import os, sys
name = b"0"
for child in (b"1", b"2"):
    if os.fork() == 0:
        name = child
        break
while True:
    os.write(1, name)
"""


@pytest.fixture
def babblers() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", BABBLERS], stdout=subprocess.PIPE, start_new_session=True, pipesize=4096
    )
    assert child.stdout is not None
    seen: set[bytes] = set()
    while len(seen) < 3:
        seen.add(child.stdout.read(1))
    yield child
    SessionStopper(child.pid).kill()
    child.wait()
    child.stdout.close()


def drained(child: subprocess.Popen[bytes]) -> int:
    """Bytes in the pipe now; the babblers fill it again at once when they run."""
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    count = 0
    try:
        while data := os.read(child.stdout.fileno(), 65536):
            count += len(data)
    except BlockingIOError:
        pass
    os.set_blocking(child.stdout.fileno(), True)
    return count


def stop(pid: int) -> None:
    """As somebody else would; back when it has happened, which on another CPU takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    while (stat := procfs.read_stat(pid)) is not None and stat.state != "T":
        os.sched_yield()


@pytest.mark.fz("FZ-148")
def test_a_whole_session_stops_and_goes_on(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    assert run(stopper.freeze()) is Outcome.FROZEN
    assert [stat.state for stat in procfs.in_session(babblers.pid)] == ["T", "T", "T"]
    drained(babblers)
    assert drained(babblers) == 0
    assert run(stopper.thaw()) is Outcome.THAWED
    assert babblers.stdout is not None
    assert babblers.stdout.read(1) in b"012"


@pytest.mark.fz("FZ-076")
def test_what_somebody_else_has_stopped_stays_stopped(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    theirs = stopper.pids()[-1]
    stop(theirs)
    assert run(stopper.freeze()) is Outcome.FROZEN
    assert run(stopper.thaw()) is Outcome.THAWED
    stat = procfs.read_stat(theirs)
    assert stat is not None and stat.state == "T"
    # thaw-all and the guardian do not know whose stop it was, and must not leave anything behind.
    assert run(stopper.thaw(force=True)) is Outcome.THAWED
    stat = procfs.read_stat(theirs)
    assert stat is not None and stat.state != "T"


def test_a_session_that_is_stopped_whole_by_somebody_else_is_refused(babblers: subprocess.Popen[bytes]) -> None:
    for pid in SessionStopper(babblers.pid).pids():
        stop(pid)
    assert run(SessionStopper(babblers.pid).freeze()) is Outcome.FOREIGN


def test_a_session_without_processes_is_gone() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    child.wait()
    stopper = SessionStopper(child.pid)
    assert run(stopper.freeze()) is Outcome.GONE
    assert run(stopper.thaw()) is Outcome.GONE


def test_a_thaw_supersedes_a_stop_half_way(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    half = stopper.freeze()
    half.step(0.0)
    half.abandon()
    assert run(stopper.thaw()) is Outcome.THAWED
    assert all(stat.state != "T" for stat in procfs.in_session(babblers.pid))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: holding a stop signal back needs a cgroup, which needs root")
@pytest.mark.fz("FZ-039")
def test_a_thaw_takes_back_a_stop_that_has_not_reached_its_process_yet(babblers: subprocess.Popen[bytes]) -> None:
    """Frozen by a cgroup, a process cannot act on SIGSTOP: the same as one that is busy on another CPU, only longer."""
    mounts, _ = placement.read_hierarchy()
    assert mounts.v2 is not None
    held = f"{mounts.v2}/queueproxy-stop-{os.urandom(4).hex()}"
    os.mkdir(held)
    stopper = SessionStopper(babblers.pid)
    try:
        for pid in stopper.pids():
            with open(f"{held}/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(pid))
        with contextlib.closing(open_freezer(held)) as freezer:
            assert run(freezer.freeze()) is Outcome.FROZEN
            half = stopper.freeze()
            assert half.step(0.0) is not None, "the stop was confirmed: nothing held it back"
            half.abandon()
            assert run(stopper.thaw()) is Outcome.THAWED
            assert run(freezer.thaw()) is Outcome.THAWED
        drained(babblers)
        assert select.select([babblers.stdout], [], [], 5)[0], "all of them stopped after the thaw was confirmed"
        assert all(stat.state != "T" for stat in procfs.in_session(babblers.pid))
    finally:
        stopper.kill()
        babblers.wait()
        assert placement.remove_cgroup(held)


def test_kill_reaches_stopped_processes(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    assert run(stopper.freeze()) is Outcome.FROZEN
    stopper.kill()
    assert babblers.wait(5) == -signal.SIGKILL


def test_cpu_time_of_the_session_grows(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    before = stopper.usage_usec()
    while stopper.usage_usec() == before:
        assert babblers.stdout is not None
        babblers.stdout.read(4096)
    assert stopper.usage_usec() > before


def test_a_thaw_after_a_whole_stop_reads_no_process_but_the_apps(
    babblers: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake is what a request waits for: its cost must not depend on what else the machine runs."""
    stopper = SessionStopper(babblers.pid)
    assert run(stopper.freeze()) is Outcome.FROZEN
    read: set[int] = set()
    read_stat = procfs.read_stat
    with monkeypatch.context() as patch:
        patch.setattr(procfs, "in_session", lambda session: pytest.fail("looked at the whole machine"))
        patch.setattr(procfs, "read_stat", lambda pid: read.add(pid) or read_stat(pid))
        assert run(stopper.thaw()) is Outcome.THAWED
    assert read == set(stopper.pids())


def test_a_process_that_died_while_stopped_does_not_keep_the_others_stopped(babblers: subprocess.Popen[bytes]) -> None:
    stopper = SessionStopper(babblers.pid)
    assert run(stopper.freeze()) is Outcome.FROZEN
    victim = stopper.pids()[-1]
    os.kill(victim, signal.SIGKILL)
    assert run(stopper.thaw()) is Outcome.THAWED
    left = [stat for stat in procfs.in_session(babblers.pid) if stat.pid != victim]
    assert len(left) == 2 and all(stat.state != "T" for stat in left)
