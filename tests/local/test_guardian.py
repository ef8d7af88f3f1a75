"""The guardian: quiet while we live, at work when we are gone, away when told so."""

import faulthandler
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from queueproxy.local.guardian import Guardian


def owner(body: Callable[[], None]) -> int:
    """A process with a guardian of its own, so that its death does not cost us the test run."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # a SIGSEGV is one of the deaths tried; its traceback would only be noise
        try:
            body()
        finally:
            os._exit(0)
    return pid


def heard(fd: int, within: float = 10.0) -> bytes:
    assert select.select([fd], [], [], within)[0], "nothing came"
    return os.read(fd, 100)


@pytest.fixture
def pipes() -> tuple[int, int, int, int]:
    told, tell = os.pipe()
    hold, release = os.pipe()
    return told, tell, hold, release


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda s: s.name)
def test_it_mends_whatever_killed_us(pipes: tuple[int, int, int, int], signum: signal.Signals) -> None:
    told, tell, hold, release = pipes

    def live() -> None:
        guardian = Guardian(lambda: void(os.write(tell, b"mended")), keep=(tell,))
        os.write(tell, b"%d" % guardian.pid)
        os.read(hold, 1)

    pid = owner(live)
    guardian = int(heard(told))
    os.kill(pid, signum)
    os.waitpid(pid, 0)
    assert heard(told) == b"mended"
    os.close(tell)
    assert heard(told) == b"", f"guardian {guardian} still holds the pipe"
    for fd in (told, hold, release):
        os.close(fd)


def test_it_leaves_without_a_word_when_dismissed(pipes: tuple[int, int, int, int]) -> None:
    told, tell, hold, release = pipes
    guardian = Guardian(lambda: void(os.write(tell, b"mended")), keep=(tell,))
    guardian.dismiss()
    with pytest.raises(ChildProcessError):
        os.waitpid(guardian.pid, 0)  # collected already
    guardian.dismiss()
    os.close(tell)
    assert heard(told) == b""
    for fd in (told, hold, release):
        os.close(fd)


def test_what_ends_us_politely_does_not_end_it() -> None:
    told, tell = os.pipe()
    guardian = Guardian(lambda: void(os.write(tell, b"mended")), keep=(tell,))
    # Its own session: what a terminal sends to our group never reaches it. Ignored: what a service manager sends to
    # all of us.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian.pid, signum)
    assert os.waitpid(guardian.pid, os.WNOHANG) == (0, 0)
    guardian.dismiss()
    os.close(tell)
    assert heard(told) == b""
    os.close(told)


def test_it_holds_nothing_open_but_its_pipe() -> None:
    spare, other = os.pipe()
    guardian = Guardian(lambda: None)
    os.close(other)
    # End-of-file comes only when the guardian has closed its copy of the other end.
    assert heard(spare) == b""
    while (comm := Path(f"/proc/{guardian.pid}/comm").read_text()) != "qp-guardian\n":
        assert comm  # it names itself once all is closed
    links = [os.readlink(entry) for entry in Path(f"/proc/{guardian.pid}/fd").iterdir()]
    assert sorted(link.partition(":")[0] for link in links) == [os.devnull] * 3 + ["pipe"]
    assert os.getsid(guardian.pid) == guardian.pid
    guardian.dismiss()
    os.close(spare)


def test_dismissing_a_guardian_that_was_killed_is_no_error() -> None:
    guardian = Guardian(lambda: None)
    os.kill(guardian.pid, signal.SIGKILL)
    os.waitpid(guardian.pid, 0)
    guardian.dismiss()


def void(_: object) -> None:
    return None
