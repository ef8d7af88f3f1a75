"""The app as a child: how it starts, how its end is told, what it leaves behind."""

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from queueproxy.local.child import Child, StartError, describe_exit, free_port
from queueproxy.local.ending import exit_code


def wait_until(child: Child, happened: Callable[[], bool]) -> None:
    """Reap as the loop would, at every SIGCHLD, until something is so; bounded."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        child.reap()
        while not happened():
            assert select.select([reading], [], [], 10)[0], "nothing ended within 10 s"
            os.read(reading, 4096)
            child.reap()
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, before)
        os.close(reading)
        os.close(writing)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_the_status_is_told_once() -> None:
    ends: list[int] = []
    child = Child(["sh", "-c", "exit 3"], os.environ, ())
    child.on_exit = ends.append
    wait_until(child, lambda: not child.alive)
    child.reap()
    assert ends == [3]
    assert repr(child) == f"<Child {child.pid} exited with status 3>"


def test_a_signal_reaches_the_first_process() -> None:
    child = Child(["sleep", "60"], os.environ, ())
    child.signal(signal.SIGTERM)
    wait_until(child, lambda: not child.alive)
    assert child.status == -signal.SIGTERM
    child.signal(signal.SIGTERM)  # nobody is there any more, and whoever has the pid next is not meant


def test_the_app_is_a_session_of_its_own_and_gets_the_environment() -> None:
    reading, writing = os.pipe()
    code = "import os; print(os.getsid(0) == os.getpid(), os.environ['PORT'])"
    child = Child(python(code), {**os.environ, "PORT": "4321"}, (), stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as output:
        assert output.read() == "True 4321\n"
    wait_until(child, lambda: not child.alive)


def test_signals_we_ignore_or_block_are_not_handed_down() -> None:
    reading, writing = os.pipe()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = Child(["sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status"], os.environ, (), stdout=writing)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(writing)
    with os.fdopen(reading) as output:
        blocked, ignored = (int(line.split()[1], 16) for line in output.read().splitlines())
    ours = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE))
    assert (blocked, ignored & ours) == (0, 0)
    wait_until(child, lambda: not child.alive)


def test_it_writes_itself_into_every_door_before_the_first_instruction(tmp_path: Path) -> None:
    doors = [os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in ("one", "two")]
    child = Child(["true"], os.environ, doors)
    for door in doors:
        os.close(door)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == b"0"
    wait_until(child, lambda: not child.alive)


def test_an_orphan_of_the_app_comes_to_us_and_is_collected() -> None:
    reading, writing = os.pipe()
    strays: list[tuple[int, int]] = []
    code = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.read(0, 1)
        os._exit(7)
"""
    stdin, feed = os.pipe()
    saved = os.dup(0)
    os.dup2(stdin, 0)
    try:
        child = Child(python(code), os.environ, (), stdout=writing)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    child.on_stray = lambda pid, code: strays.append((pid, code))
    os.close(writing)
    os.close(stdin)
    with os.fdopen(reading) as output:
        orphan = int(output.readline())
    wait_until(child, lambda: not child.alive)
    os.close(feed)  # its read ends, and it exits as our child, two forks away
    wait_until(child, lambda: (orphan, 7) in strays)


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        pytest.param(["no-such-command-at-all"], 127, "command not found: no-such-command-at-all", id="not found"),
        pytest.param(["/etc/passwd"], 126, "not executable: /etc/passwd", id="not executable"),
        pytest.param(["/"], 126, "not executable: /", id="a directory"),
    ],
)
def test_a_command_that_cannot_start_says_so_with_the_shells_status(command: list[str], status: int, says: str) -> None:
    with pytest.raises(StartError, match=says) as refused:
        Child(command, os.environ, ())
    assert refused.value.status == status


def test_a_door_that_does_not_open_stops_the_start() -> None:
    door = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(StartError, match="cannot start true"):
        Child(["true"], os.environ, (door,))
    os.close(door)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        pytest.param(0, 0, "exited with status 0", id="success"),
        pytest.param(3, 3, "exited with status 3", id="failure"),
        pytest.param(-9, 137, "was killed by SIGKILL", id="killed"),
        pytest.param(-15, 143, "was killed by SIGTERM", id="terminated"),
        pytest.param(-200, 328, "was killed by signal 200", id="a signal without a name"),
    ],
)
def test_an_end_is_told_as_a_shell_tells_it(status: int, code: int, words: str) -> None:
    assert (exit_code(status), describe_exit(status)) == (code, words)


def test_a_free_port_can_be_bound() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
