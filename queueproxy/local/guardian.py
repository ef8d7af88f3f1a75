"""Runs beside us for one purpose: when we die without a word, it mends what we leave.

A process forked before the event loop and any thread exist, in a session of its own, blocked in read() on a pipe
whose only write end is ours. The kernel closes that end whatever kills us, so end-of-file without the farewell byte
means: dead, SIGKILL included. Then the journal record tells what to thaw, stop and remove. Costs no CPU while it
waits. When it is killed as well, the next start or `queueproxy thaw-all` reads the same record.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable

from queueproxy.local.child import name_process

__all__ = ["Guardian"]

_FAREWELL = b"b"
_GONE_WITHIN = 1.0

# What a terminal, a shell or a service manager sends around us. The guardian outlives them: it goes when we say so or
# are gone.
_OUTLIVED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGPIPE,
)


class Guardian:
    """The write end of the pipe, and the pid behind it."""

    __slots__ = ("_pipe", "pid")

    def __init__(self, mend: Callable[[], None], *, keep: tuple[int, ...] = ()) -> None:
        """Fork. `mend` runs there after our death; `keep`: descriptors it needs."""
        reading, self._pipe = os.pipe()
        # Held back until the child ignores them: a Ctrl-C in the first millisecond must not take the guardian.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OUTLIVED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                status = 1
                try:
                    _watch(reading, mend, keep)
                    status = 0
                finally:
                    os._exit(status)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)

    def __repr__(self) -> str:
        return f"<Guardian {self.pid}>"

    def dismiss(self) -> None:
        """Say goodbye: there is nothing left to mend. It ends at once and is collected."""
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, _FAREWELL)
        except BrokenPipeError:
            pass  # killed before us: nothing to tell
        os.close(self._pipe)
        self._pipe = -1
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return  # collected already
        # Bounded: somebody may have stopped it with a signal, and that must not keep us.
        select.select([pidfd], [], [], _GONE_WITHIN)
        os.close(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def _watch(pipe: int, mend: Callable[[], None], keep: tuple[int, ...]) -> None:
    os.setsid()
    for signum in _OUTLIVED:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _close_all_but({pipe, *keep})
    name_process("qp-guardian")
    os.chdir("/")
    if os.read(pipe, 1) != _FAREWELL:
        mend()


def _close_all_but(kept: set[int]) -> None:
    """Hold nothing of ours open: a port, a pipe to a pager or a cgroup held here would outlive us."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in kept:
            os.dup2(null, standard)
    kept = kept | {0, 1, 2}
    start = 3
    for fd in sorted(kept):
        if fd >= start:
            os.closerange(start, fd)
            start = fd + 1
    os.closerange(start, 1 << 20)  # one close_range(2) call
