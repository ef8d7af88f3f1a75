"""Who a process is, read from /proc."""

import os
import signal
import subprocess

import pytest

from queueproxy.local import procfs

LINE = "4242 ({name}) {state} 1 4242 4240 0 -1 4194304 93 0 0 0 7 5 0 0 20 0 1 0 987654 0 0"


@pytest.mark.parametrize("name", ["sh", "a b", "a) S 9 (b", "((", ")) )"], ids=repr)
def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields(name: str) -> None:
    stat = procfs.parse_stat(LINE.format(name=name, state="T"))
    assert stat == procfs.Stat(pid=4242, state="T", parent=1, session=4240, cpu_ticks=12, started=987654)


@pytest.mark.parametrize("state", ["Z", "X", "x"])
def test_a_zombie_is_dead(state: str) -> None:
    assert procfs.parse_stat(LINE.format(name="sh", state=state)).dead


def test_we_find_ourselves() -> None:
    stat = procfs.read_stat(os.getpid())
    assert stat is not None
    assert (stat.parent, stat.session) == (os.getppid(), os.getsid(0))
    assert procfs.identity(os.getpid()) == (os.getpid(), stat.started)


def test_a_pid_that_nobody_has_is_nobody() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert procfs.identity(child.pid) is None


def test_an_uncollected_child_is_nobody_either() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.read_stat(child.pid) is not None
    assert procfs.identity(child.pid) is None
    child.wait()


def test_a_session_lists_its_living_processes_only() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert [stat.pid for stat in procfs.in_session(child.pid)] == [child.pid]
    finally:
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert procfs.in_session(child.pid) == []
        child.wait()


def test_boot_and_namespace_are_told() -> None:
    assert len(procfs.boot_id()) == 36
    assert procfs.pid_namespace().startswith("pid:")
