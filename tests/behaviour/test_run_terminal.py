"""`queueproxy run` as a person sees it: on a terminal, and into a file."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from queueproxy.local.terminal import RESET
from tests.support.local_run import TICKER

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("runs")]

RUN = [sys.executable, "-m", "queueproxy", "run", "--port", "0", "--metrics-port", "0", "--freeze-after", "200ms", "--"]


class Terminal:
    """A run with a pseudo-terminal for its stderr and stdout."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
        self.process = subprocess.Popen([*RUN, sys.executable, "-u", TICKER], stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.seen = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 15
        while text not in self.seen:
            assert select.select([self.ours], [], [], deadline - time.monotonic())[0], self.seen[-2000:]
            try:
                self.seen += os.read(self.ours, 65536)
            except OSError:
                assert text in self.seen, self.seen[-2000:]

    def close(self) -> None:
        self.process.wait(15)
        os.close(self.ours)


def test_on_a_terminal_one_line_tells_the_state_and_the_app_is_untouched() -> None:
    terminal = Terminal()
    try:
        terminal.until(b"queueproxy: asleep since ")
        assert b"0 in flight" in terminal.seen
        assert b"tick " in terminal.seen  # the app's own output, as it is
        assert b" info    asleep" not in terminal.seen
        terminal.process.send_signal(signal.SIGTERM)
        terminal.until(RESET)
        terminal.until(b"served 0 requests in ")
    finally:
        terminal.process.send_signal(signal.SIGTERM)
        terminal.close()
    assert terminal.process.returncode == 0


def test_the_guardian_gives_the_last_row_back_when_we_are_killed() -> None:
    terminal = Terminal()
    try:
        terminal.until(b"queueproxy: asleep since ")
        terminal.process.kill()
        terminal.until(RESET)
        terminal.until(b"terminated ")
    finally:
        terminal.process.kill()
        terminal.close()


def test_into_a_file_each_change_is_a_line() -> None:
    with subprocess.Popen(
        [*RUN, sys.executable, "-u", TICKER], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if " asleep reason=" in line:
                break
        run.send_signal(signal.SIGTERM)
        rest = run.stderr.read()
    assert run.returncode == 0
    assert " awake reason=terminating" in rest
    assert "served 0 requests in " in rest
    assert "\x1b" not in rest
