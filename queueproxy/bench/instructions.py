"""Runs `perf stat` beside a process: on a noisy machine instructions tell more than time, where they can be had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from types import TracebackType

__all__ = ["Counter", "available", "counted"]


EVENTS = ("instructions", "instructions:u")


def counted(report: str, event: str = EVENTS[0]) -> int | None:
    """The count in `perf stat -x,` output, or None where the machine has no such counter (many virtual ones)."""
    for line in report.splitlines():
        fields = line.split(",")
        # Where the kernel may not be watched, perf adds `:u` to the first as well.
        if len(fields) > 2 and (fields[2] == event or (event == EVENTS[0] and fields[2].startswith(event))):
            return int(fields[0]) if fields[0].isdigit() else None
    return None


def available() -> bool:
    """Tries it on this process: perf may be missing, forbidden, or without a counter."""
    if shutil.which("perf") is None:
        return False
    try:
        with Counter(os.getpid()) as counter:
            sum(range(10_000))
    except OSError:
        return False
    return counter.instructions > 0


class Counter:
    """Counts a process's instructions, all threads, between enter and exit. 0 when it could not.

    instructions: user and kernel. user: without the kernel's, which depend on how many events come at once.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.instructions = 0
        self.user = 0

    def __repr__(self) -> str:
        return f"<Counter pid={self.pid} instructions={self.instructions}>"

    def __enter__(self) -> Counter:
        # perf takes a tenth of a second to attach: it starts disabled and is switched on through a pipe.
        control, self._control = os.pipe()
        self._answer, answer = os.pipe()
        self._report = tempfile.NamedTemporaryFile("r")
        argv = ["perf", "stat", "-x,", "-e", ",".join(EVENTS), "-D", "-1", f"--control=fd:{control},{answer}"]
        argv += ["-o", self._report.name, "-p", str(self.pid)]
        try:
            self._perf = subprocess.Popen(
                argv, pass_fds=(control, answer), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        finally:
            os.close(control)
            os.close(answer)
        self._tell(b"enable\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(b"disable\n")
        self._perf.send_signal(signal.SIGINT)
        self._perf.wait()
        report = self._report.read()
        self.instructions = counted(report) or 0
        self.user = counted(report, EVENTS[1]) or 0
        self._report.close()
        os.close(self._control)
        os.close(self._answer)

    def _tell(self, word: bytes) -> None:
        """Waits for the acknowledgement; end of file means perf is gone, and then there is simply no count."""
        try:
            os.write(self._control, word)
        except BrokenPipeError:
            return
        os.read(self._answer, 16)
