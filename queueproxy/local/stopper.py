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

    __slots__ = ("_foreign", "_living", "_stopped", "session")

    def __init__(self, session: int) -> None:
        self.session = session
        self._foreign: frozenset[procfs.Identity] = frozenset()
        self._living: list[procfs.Stat] = []
        self._stopped: tuple[procfs.Identity, ...] = ()  # the whole session, once all of it has been seen stopped

    def __repr__(self) -> str:
        return f"<SessionStopper {self.session} foreign={len(self._foreign)}>"

    def freeze(self) -> Transition:
        return Transition(self, freeze=True)

    def thaw(self, *, force: bool = False) -> Transition:
        return Transition(self, freeze=False, force=force)

    def thaw_at_once(self) -> bool:
        """Never: a signal is confirmed by looks."""
        return False

    def usage_usec(self) -> int:
        """CPU time of the session's processes, in steps of a clock tick (10 ms). Those known from the last freeze are
        asked, which costs a read each; a look at the whole machine only when none of them lives."""
        known = [stat for stat in (procfs.read_stat(stat.pid) for stat in self._living) if stat is not None]
        living = [stat for stat in known if stat.session == self.session]
        if not living:
            living = self._living = procfs.in_session(self.session)
        return sum(stat.cpu_ticks for stat in living) * 1_000_000 // os.sysconf("SC_CLK_TCK")

    def pids(self) -> tuple[int, ...]:
        return tuple(stat.pid for stat in procfs.in_session(self.session))

    def kill(self) -> None:
        """SIGKILL to all of the session; it reaches stopped processes."""
        for pid in self.pids():
            _send(pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held."""

    # The subject's side. A look at the whole session reads /proc once (10 us for each process of the machine), so a
    # freeze looks twice, and a thaw not at all: what is stopped cannot fork, so those it stopped are those to continue.

    def refusal(self, freeze: bool, force: bool) -> tuple[Outcome, str]:
        if not freeze and self._stopped and not force:
            return Outcome.PENDING, ""
        self._living = procfs.in_session(self.session)
        if not self._living:
            return self._gone()
        if freeze:
            self._stopped = ()
            self._foreign = frozenset(_who(stat) for stat in self._living if stat.state == procfs.STOPPED)
            if len(self._foreign) == len(self._living):
                return Outcome.FOREIGN, "someone else has stopped every process"
        elif force:
            self._foreign = frozenset()
            self._stopped = ()
        return Outcome.PENDING, ""

    def push(self, freeze: bool, first: bool) -> None:
        for stat in self._living if first and not self._stopped else self._look(freeze):
            if _who(stat) in self._foreign:
                continue
            if not freeze:
                # To those not yet stopped as well: a SIGSTOP of ours may still be on its way to a process on another
                # CPU, which would stop after a look that found it running. SIGCONT takes a pending stop back.
                _send(stat.pid, signal.SIGCONT)
            elif stat.state != procfs.STOPPED:
                _send(stat.pid, signal.SIGSTOP)

    def settled(self, freeze: bool) -> tuple[Outcome, str]:
        living = self._look(freeze)
        if not living:
            return self._gone()
        for stat in living:
            if (stat.state == procfs.STOPPED) is not freeze and _who(stat) not in self._foreign:
                return Outcome.PENDING, ""
        # Half a stop that is given up is a thaw that has to look for itself: only a whole one is remembered.
        self._stopped = tuple(map(_who, living)) if freeze else ()
        return (Outcome.FROZEN if freeze else Outcome.THAWED), ""

    def _look(self, freeze: bool) -> list[procfs.Stat]:
        if freeze or not self._stopped:
            return procfs.in_session(self.session)
        found = (procfs.read_stat(who.pid) for who in self._stopped)
        return [
            stat
            for stat, who in zip(found, self._stopped, strict=True)
            if stat is not None and _who(stat) == who and not stat.dead
        ]

    def _gone(self) -> tuple[Outcome, str]:
        self._stopped = ()
        return Outcome.GONE, f"no process is left in session {self.session}"


def _who(stat: procfs.Stat) -> procfs.Identity:
    return procfs.Identity(stat.pid, stat.started)


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
