"""Runs the fallback where no cgroup is writable: stops and continues a session's processes with SIGSTOP and SIGCONT.

Needs no privilege, and is the poorer way: the app's parent processes see their children stop (SIGCHLD, WUNTRACED), a
process that made a session of its own is not reached, and somebody else's SIGCONT wakes the app behind our back. A
stop is confirmed by reading state T of every process, and repeated until a look finds none running, since a process
may fork between the look and the signal. What was stopped before we came stays stopped after (FZ-076).
"""

from __future__ import annotations

import contextlib
import os
import signal

from queueproxy.freeze.node.transition import Outcome, Transition
from queueproxy.local import procfs

__all__ = ["SessionStopper"]


class SessionStopper:
    """The processes of one session, stopped or running: the subject of a `Transition`, with the face of the cgroup
    freezers."""

    __slots__ = ("_foreign", "session")

    def __init__(self, session: int) -> None:
        self.session = session
        self._foreign: frozenset[procfs.Identity] = frozenset()

    def __repr__(self) -> str:
        return f"<SessionStopper {self.session} foreign={len(self._foreign)}>"

    def freeze(self) -> Transition:
        return Transition(self, freeze=True)

    def thaw(self, *, force: bool = False) -> Transition:
        return Transition(self, freeze=False, force=force)

    def usage_usec(self) -> int:
        """CPU time of the session's living processes, in steps of a clock tick (10 ms)."""
        ticks = sum(stat.cpu_ticks for stat in procfs.in_session(self.session))
        return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")

    def pids(self) -> tuple[int, ...]:
        return tuple(stat.pid for stat in procfs.in_session(self.session))

    def kill(self) -> None:
        """SIGKILL to all of the session; it reaches stopped processes."""
        for pid in self.pids():
            _send(pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""

    # The subject's side.

    def refusal(self, freeze: bool, force: bool) -> tuple[Outcome, str]:
        living = procfs.in_session(self.session)
        if not living:
            return Outcome.GONE, f"no process is left in session {self.session}"
        if freeze:
            self._foreign = frozenset(_who(stat) for stat in living if stat.state == procfs.STOPPED)
            if len(self._foreign) == len(living):
                return Outcome.FOREIGN, "someone else has stopped every process"
        elif force:
            self._foreign = frozenset()
        return Outcome.PENDING, ""

    def push(self, freeze: bool, first: bool) -> None:
        for stat in procfs.in_session(self.session):
            if (stat.state == procfs.STOPPED) is not freeze and _who(stat) not in self._foreign:
                _send(stat.pid, signal.SIGSTOP if freeze else signal.SIGCONT)

    def settled(self, freeze: bool) -> tuple[Outcome, str]:
        living = procfs.in_session(self.session)
        if not living:
            return Outcome.GONE, f"no process is left in session {self.session}"
        for stat in living:
            if (stat.state == procfs.STOPPED) is not freeze and _who(stat) not in self._foreign:
                return Outcome.PENDING, ""
        return (Outcome.FROZEN if freeze else Outcome.THAWED), ""


def _who(stat: procfs.Stat) -> procfs.Identity:
    return procfs.Identity(stat.pid, stat.started)


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
