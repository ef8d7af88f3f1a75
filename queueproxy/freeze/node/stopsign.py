"""Watches whether a frozen container has been told to stop: its init has a stop signal pending (FZ-055).

What it touches: `/proc/<pid>/status` of the container's init, held open from the first look on. A runtime that stops a
container sends a signal, which a frozen process cannot take; nobody thaws it, and when the grace period is over it is
killed unheard. The kernel shows the signal as pending, so we look, a few times a second and only while it is frozen.

A held status file can never come to mean another process (it reads ESRCH once its process is gone), and a second look
costs 10 us instead of 16.

Which signals: the container's own, and those that runtimes and image authors usually take (SIGTERM; SIGQUIT for nginx
and php-fpm, SIGINT for databases): a pod does not tell what its image asks for. SIGKILL as well, because the v1
freezer holds back even that. An app's own timers and children leave other signals pending, and those count for
nothing. A signal sent before its receiver handles it is dropped by the kernel and never pends.

Who init is: the process that is number 1 in the container's own pid namespace; when the pod shares one namespace among
its containers, the oldest process. Processes in cgroups the container made within its own are not looked at (T-25).
Without a view of the host's processes (hostPID) the kernel shows them all as 0, and `blind` is set.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from queueproxy.freeze.node.directory import Cgroup

__all__ = ["StopSign"]

USUAL = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
# Where nobody is number 1, at most so many are asked for their age; init is nearly always the first.
MOST_ASKED = 256

_GONE = (FileNotFoundError, ProcessLookupError)


class _Process(NamedTuple):
    depth: int  # pid namespaces down from ours
    innermost: int  # its number in its own
    started: int  # clock ticks since boot
    pid: int


class StopSign:
    """Of one container."""

    __slots__ = ("_cgroup", "_mask", "_proc", "_status", "blind", "pid")

    def __init__(self, cgroup: Cgroup, stop_signal: int = signal.SIGTERM, *, proc: str = "/proc") -> None:
        self._cgroup = cgroup
        self._mask = _bits(stop_signal, *USUAL)
        self._proc = proc
        self._status = -1
        self.pid = 0  # of init, once it is known
        self.blind = False  # processes are there, and we cannot see them

    def is_pending(self) -> bool:
        """Whether init waits to be thawed for a stop signal. False when there is no init to be found."""
        for _ in range(2):  # the second time with a new init
            if self._status < 0 and not self._find():
                return False
            try:
                return pending(os.pread(self._status, 8192, 0)) & self._mask != 0
            except _GONE:
                self.close()
        return False

    def close(self) -> None:
        """Let go of init; the next look finds it again."""
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
            self.pid = 0

    def _find(self) -> bool:
        pids = self._cgroup.pids()
        self.blind = 0 in pids
        pid = self._init([pid for pid in pids if pid])
        if pid is None:
            return False
        with suppress(*_GONE):
            status = os.open(f"{self._proc}/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
            # Held before it is asked again: if the number is still in the cgroup now, what we hold is no namesake's.
            if pid in self._cgroup.pids():
                self._status, self.pid = status, pid
                return True
            os.close(status)
        return False

    def _init(self, pids: list[int]) -> int | None:
        seen: list[_Process] = []
        for process in self._ask(pids[:MOST_ASKED]):
            if not seen and process.depth == 2 and process.innermost == 1:
                return process.pid  # the usual case: a namespace of its own, and init is the first to be listed
            seen.append(process)
        if not seen:
            return None
        # A sandbox inside the container has a number 1 as well, but one namespace further down.
        depth = min(process.depth for process in seen)
        level = [process for process in seen if process.depth == depth]
        return min(level, key=lambda process: (process.innermost != 1, process.started, process.pid)).pid

    def _ask(self, pids: list[int]) -> Iterator[_Process]:
        for pid in pids:
            with suppress(*_GONE):
                numbers = _field(_read(f"{self._proc}/{pid}/status"), b"\nNSpid:").split()
                # The name in brackets may hold anything; 20 fields after it comes the start time.
                started = _read(f"{self._proc}/{pid}/stat").rpartition(b")")[2].split()[19]
                yield _Process(len(numbers), int(numbers[-1]) if numbers else 0, int(started), pid)

    def __repr__(self) -> str:
        return f"<StopSign {self._cgroup.name!r} pid={self.pid}{' blind' if self.blind else ''}>"


def pending(status: bytes) -> int:
    """The signals pending for a process or its main thread, as a mask, from its status file."""
    return int(_field(status, b"\nSigPnd:") or b"0", 16) | int(_field(status, b"\nShdPnd:") or b"0", 16)


def _field(status: bytes, name: bytes) -> bytes:
    begin = status.find(name)
    return b"" if begin < 0 else status[begin + len(name) : status.index(b"\n", begin + 1)].strip()


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 8192)
    finally:
        os.close(fd)


def _bits(*signals: int) -> int:
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    return mask
