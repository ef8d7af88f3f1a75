"""Runs the kernel's two freezers over a held cgroup, v1 and v2, and reports only what the kernel confirmed.

What it touches: the freezer files of one cgroup, and signals to its processes in `kill`. What happens when that
breaks: a cgroup that vanished is the outcome GONE; a freeze that is not confirmed in time is taken back; a cgroup
frozen by somebody else is refused both ways (FZ-076), and one that an ancestor keeps frozen after our thaw is
reported, not fought (FZ-075).

The decision is shared in `Freezer`; `FreezerV1` and `FreezerV2` are the two dialects. State lives in the kernel; all
we add is `owned`: whether the freeze in the kernel is ours to lift. After a crash the journal says so and `adopt`
tells us.

SIGKILL: on v2 it kills frozen processes at once. On v1 it is ignored until the thaw, so `kill` lifts the freeze after
it.
"""

import errno
import os
import select
import signal
import time
from abc import ABC, abstractmethod
from typing import NamedTuple

from queueproxy.clock import monotonic
from queueproxy.freeze.node.directory import (
    CGROUP_EVENTS,
    CGROUP_FREEZE,
    CGROUP_KILL,
    CGROUP_PROCS,
    CGROUP_STAT_LOCAL,
    FREEZER_PARENT,
    FREEZER_SELF,
    FREEZER_STATE,
    Cgroup,
    NotACgroup,
    Version,
    Where,
    keyed,
)
from queueproxy.freeze.node.transition import SLICE, Outcome, Subject, Transition

__all__ = [
    "Cgroup",
    "Freezer",
    "FreezerV1",
    "FreezerV2",
    "NotACgroup",
    "Observation",
    "Outcome",
    "Transition",
    "Version",
    "freezer_of",
    "open_freezer",
    "run",
]

# One pass signals all there are; more are only needed when they fork faster than we signal.
KILL_PASSES = 16
# Kernels before 5.3, where v1 is at home, and seccomp profiles of that age.
NO_PIDFD = frozenset({errno.ENOSYS, errno.EPERM})
# Python 3.11: an enum's attribute is 900 instructions.
_PENDING, _FROZEN, _THAWED, _GONE, _FOREIGN = (Outcome(number) for number in range(5))


class Observation(NamedTuple):
    """One look at a cgroup. `foreign`: somebody else's freeze is in force, on it or above it."""

    wanted_frozen: bool  # its own wish, whoever wrote it
    frozen: bool  # effective and complete: every task has stopped
    populated: bool
    foreign: bool
    gone: bool


class _Look(NamedTuple):
    """What the freezer files say, in one vocabulary for both versions."""

    own: bool  # the wish written to this cgroup
    above: bool  # an ancestor is being frozen, as far as it can be seen
    frozen: bool  # every task has stopped


class Freezer(ABC, Subject):
    """Freezes and thaws one held cgroup; at most one transition at a time, a newer one supersedes."""

    mechanism: str
    wish: str  # the file that it is written to
    looks: tuple[str, ...]  # the others that are read again and again

    def __init__(self, cgroup: Cgroup) -> None:
        self.cgroup = cgroup
        cgroup.keep(self.wish, writable=True)
        cgroup.keep(*self.looks)
        self.owned = False
        self._current: Transition | None = None

    def freeze(self, *, deadline_for: float | None = None) -> Transition:
        """Start towards frozen; drive the result with `step` or `run`."""
        return self._start(Transition(self, freeze=True, deadline_for=deadline_for))

    def thaw(self, *, force: bool = False, deadline_for: float | None = None) -> Transition:
        """Start towards running: only what we froze or adopted, unless forced (thaw-all). Supersedes a freeze."""
        return self._start(Transition(self, freeze=False, deadline_for=deadline_for, force=force))

    def thaw_at_once(self) -> bool:
        """The wake path: lift a freeze of ours with one write and confirm it with one look. True: it runs. False:
        anything else, and nothing is certain: take the long way, `thaw`, which repeats the write."""
        if not self.owned or (self._current is not None and not self._current.is_finished):
            return False
        try:
            confirmed = self._thaw_at_once()
        except OSError:
            return False
        self.owned = not confirmed
        return confirmed

    def adopt(self) -> bool:
        """Declare a freeze found in the kernel ours (a journal says so); False when there is none."""
        look = self._look()
        self.owned = look is not None and look.own
        return self.owned

    def observe(self) -> Observation:
        """Read everything afresh."""
        look = self._look()
        populated = self._populated() if look is not None else None
        if look is None or populated is None:
            return Observation(False, False, False, False, True)
        return Observation(look.own, look.frozen, populated, look.above or (look.own and not self.owned), False)

    def frozen_usec(self) -> int | None:
        """Time spent frozen as the kernel counts it, None where it does not."""
        return None

    def pids(self) -> tuple[int, ...]:
        return self.cgroup.pids()

    def kill(self) -> int:
        """SIGKILL everything, frozen or not, whoever froze it; returns to how many. Watch `populated` for the end.

        A process may fork between the list and the signal, so the list is read again until it holds nothing new.
        """
        signalled: set[int] = set()
        for _ in range(KILL_PASSES):
            fresh = set(self.pids()) - signalled
            if 0 in fresh:
                raise OSError(errno.ESRCH, "a process outside our pid namespace", self.cgroup.name)
            for pid in fresh:
                self._kill_one(pid)
            signalled |= fresh
            look = self._look()
            if look is not None and look.own:
                self._write_wish(False)
                self.owned = False
            if not fresh:
                break
        return len(signalled)

    def open_events(self) -> int | None:
        """A descriptor on which poll(POLLPRI) wakes at a change of state, where the kernel offers one."""
        return None

    def close(self) -> None:
        self.cgroup.close()

    # The subject's side of a transition: the decisions both versions share.

    def refusal(self, freeze: bool, force: bool) -> tuple[Outcome, str]:
        if self.owned and not freeze:
            return _PENDING, ""  # the wake path: a look could not change the decision, so it does not cost one
        look = self._look()
        if look is None:
            return self._gone()
        return self._refuses_freeze(look) if freeze else self._refuses_thaw(look, force)

    def _refuses_freeze(self, look: _Look) -> tuple[Outcome, str]:
        if look.own and not self.owned:
            return _FOREIGN, "frozen by someone else"
        if look.own and look.frozen:
            return _FROZEN, "already frozen"
        if look.above and not look.own:
            return _FOREIGN, "an ancestor is frozen"
        if self.cgroup.has_pid(os.getpid()):
            # Nobody would be left to thaw us (T-10).
            raise OSError(errno.EDEADLK, "would freeze ourselves", self.cgroup.name)
        return _PENDING, ""

    def _refuses_thaw(self, look: _Look, force: bool) -> tuple[Outcome, str]:
        if not (look.own or look.above or look.frozen):
            return _THAWED, "already running"
        if force:
            return _PENDING, ""
        return _FOREIGN, "frozen by someone else" if look.own else "an ancestor is frozen"

    def push(self, freeze: bool, first: bool) -> None:
        if not first and not self._needs_pushing(freeze):
            return
        owned, self.owned = self.owned, self.owned or freeze
        try:
            self._write_wish(freeze)
        except OSError:
            self.owned = owned
            raise

    def settled(self, freeze: bool) -> tuple[Outcome, str]:
        look = self._look()
        if look is None:
            return self._gone()
        if freeze:
            if not look.own:
                self.owned = False
                return _FOREIGN, "thawed by someone else meanwhile"
            return (_FROZEN, "") if look.frozen else (_PENDING, "")
        self.owned = False
        if look.own:
            return _FOREIGN, "frozen again by someone else meanwhile"
        if look.above or look.frozen:
            return _FOREIGN, "an ancestor is frozen"
        return _THAWED, ""

    def _gone(self) -> tuple[Outcome, str]:
        self.owned = False
        return _GONE, "the cgroup is gone"

    def _start(self, transition: Transition) -> Transition:
        if self._current is not None:
            self._current.abandon()
        self._current = transition
        return transition

    def _kill_one(self, pid: int) -> None:
        """Through a pidfd, and only if the pid still is in the cgroup once held: a recycled pid is never hit."""
        pidfd = None
        try:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                if error.errno not in NO_PIDFD:
                    raise
            if pid not in self.pids():
                return
            if pidfd is None:
                os.kill(pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _needs_pushing(self, freeze: bool) -> bool:
        """Whether the wish must be repeated at each look until it is confirmed."""
        return False

    @abstractmethod
    def _thaw_at_once(self) -> bool:
        """Write the wish to run, read the effective state."""

    @abstractmethod
    def _look(self) -> _Look | None:
        """Read the freezer files, None when gone."""

    @abstractmethod
    def _populated(self) -> bool | None: ...

    @abstractmethod
    def _write_wish(self, freeze: bool) -> bool: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cgroup.name!r} owned={self.owned} current={self._current!r}>"


class FreezerV2(Freezer):
    """`cgroup.freeze` holds the wish, `cgroup.events` the fact, ancestors included."""

    mechanism = "cgroup2"
    wish = CGROUP_FREEZE
    looks = (CGROUP_EVENTS, CGROUP_STAT_LOCAL, CGROUP_PROCS)

    def _thaw_at_once(self) -> bool:
        # The kernel updates the fact before the write returns, so the first look tells (measured: always).
        return self.cgroup.swap(CGROUP_FREEZE, b"0", CGROUP_EVENTS).endswith(b"frozen 0\n")

    def _look(self) -> _Look | None:
        wish, events = self.cgroup.raw(CGROUP_FREEZE), self.cgroup.raw(CGROUP_EVENTS)
        if wish is None or events is None:
            return None
        own, frozen = wish.startswith(b"1"), keyed(events, b"frozen ") == 1
        # An ancestor's freeze shows only in the fact: frozen without a wish of our own.
        return _Look(own, frozen and not own, frozen)

    def _populated(self) -> bool | None:
        events = self.cgroup.raw(CGROUP_EVENTS)
        return None if events is None else keyed(events, b"populated ") == 1

    def _write_wish(self, freeze: bool) -> bool:
        return self.cgroup.write(CGROUP_FREEZE, "1" if freeze else "0")

    def frozen_usec(self) -> int | None:
        try:
            data = self.cgroup.raw(CGROUP_STAT_LOCAL)
        except FileNotFoundError:  # before 6.18
            return None
        return None if data is None else keyed(data, b"frozen_usec ")

    def kill(self) -> int:
        if not self.cgroup.has(CGROUP_KILL):
            return super().kill()  # before 5.14
        count = len(self.pids())
        self.cgroup.write(CGROUP_KILL, "1")
        return count

    def open_events(self) -> int | None:
        return self.cgroup.open_file(CGROUP_EVENTS)


class FreezerV1(Freezer):
    """`freezer.state` is wish and fact in one file; FREEZING may stick until FROZEN is written again (FZ-077)."""

    mechanism = "cgroup1"
    wish = FREEZER_STATE
    looks = (FREEZER_SELF, FREEZER_PARENT)

    def _thaw_at_once(self) -> bool:
        return self.cgroup.swap(FREEZER_STATE, b"THAWED", FREEZER_STATE) == b"THAWED\n"

    def _look(self) -> _Look | None:
        state = self.cgroup.read(FREEZER_STATE)
        if state == "THAWED":
            return _Look(False, False, False)
        own, above = self.cgroup.read(FREEZER_SELF), self.cgroup.read(FREEZER_PARENT)
        if state is None or own is None or above is None:
            return None
        return _Look(own == "1", above == "1", state == "FROZEN")

    def _populated(self) -> bool | None:
        if self.pids():  # of this cgroup alone; v2 counts its descendants too
            return True
        return None if self.cgroup.is_gone else False

    def _write_wish(self, freeze: bool) -> bool:
        return self.cgroup.write(FREEZER_STATE, "FROZEN" if freeze else "THAWED")

    def _needs_pushing(self, freeze: bool) -> bool:
        return freeze


def open_freezer(where: Where, *, require_cgroupfs: bool = True, inode: int | None = None) -> Freezer:
    """Hold the cgroup (see `Cgroup.open`) and pick the version by what the kernel offers there."""
    cgroup = Cgroup.open(where, require_cgroupfs=require_cgroupfs, inode=inode)
    try:
        return freezer_of(cgroup)
    except BaseException:
        cgroup.close()
        raise


def freezer_of(cgroup: Cgroup) -> Freezer:
    """The freezer of a cgroup held already. NotACgroup where it has none; the cgroup then stays the caller's."""
    # A root cgroup has neither file: nobody freezes the whole machine by a wrong path.
    if cgroup.version is not Version.V1 and cgroup.has(CGROUP_FREEZE):
        return FreezerV2(cgroup)
    if cgroup.version is not Version.V2 and cgroup.has(FREEZER_STATE):
        return FreezerV1(cgroup)
    raise NotACgroup(f"{cgroup.name!r}: no freezer here")


def run(transition: Transition) -> Outcome:
    """Drive a transition to its end, blocking; long pauses wait on `cgroup.events` where there is one."""
    events: int | None = None
    try:
        while (pause := transition.step(monotonic())) is not None:
            if pause >= SLICE and events is None and isinstance(transition.subject, Freezer):
                events = transition.subject.open_events()
            if pause >= SLICE and events is not None:
                os.pread(events, 1, 0)  # a change counts from the last read on
                poll = select.poll()
                poll.register(events, select.POLLPRI)
                poll.poll(pause * 1000)
            elif pause > 0:
                time.sleep(pause)
    finally:
        if events is not None:
            os.close(events)
    return transition.outcome
