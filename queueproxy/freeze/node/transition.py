"""Decides when to look again while something is being frozen or thawed, and when to give up.

Theory of operation. A written wish is not a fact: the kernel stops tasks one by one, and may fail to. A `Transition`
owns the path from wish to confirmation and nothing else; it has no clock and never waits. Its driver, blocking or on
an event loop, calls `step(now)` and sleeps as long as the answer says (None: it is over; 0.0: again at once).

    BEGIN --refused--> done
      | push                         deadline or error (freeze only)
    MOVING --settled--> done        ------------------------------> ROLLING_BACK --settled or deadline--> done

The schedule (FZ-071): read back in the same step as the write, spin for SPIN_FOR, then NAPS, then SLICE. Freezing
1-16 tasks takes 50-200 us, so most transitions end within the first or second look; waiting for POLLPRI instead costs
9 ms, because the kernel holds notifications of one cgroup file back to 100 per second.

What a subject is (cgroup v1, v2, a process group stopped by signals) it does not know: see `Subject`.
"""

from enum import IntEnum
from typing import Protocol

__all__ = ["Outcome", "Subject", "Transition"]

# Most freezes of a few tasks are confirmed within 50-150 us (FZ-070). Where they are not, the task waits for the very
# core we spin on: on a loaded machine 300 us of spinning gave a median of 710 us where 100 us gave 410-480; elsewhere
# the two were within noise.
SPIN_FOR = 0.0001
NAPS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005)
# The kernel's own pace for notifications on one file, and runc's polling interval.
SLICE = 0.010
# FZ-072. Freezing that takes longer has met an uninterruptible task.
FREEZE_DEADLINE = 0.2
# A thaw is never taken back, so there is no reason to hurry the verdict.
THAW_DEADLINE = 2.0
# "Still frozen after our thaw" is believed only after this: the state is updated task by task.
FOREIGN_AFTER = 0.001


class Outcome(IntEnum):
    """How a transition ended. PENDING: it has not."""

    PENDING = 0
    FROZEN = 1
    THAWED = 2
    GONE = 3  # the subject has disappeared: nothing to freeze or thaw any more
    FOREIGN = 4  # someone else's freeze, or someone else's thaw: reported, not fought
    TIMED_OUT = 5  # a freeze: taken back (see `rolled_back`); a thaw: the wish stands
    FAILED = 6  # an error of the kernel, text in `detail`, number in `errno`
    ABANDONED = 7  # superseded by a newer transition


class Subject(Protocol):
    """What is moved. Each call may raise OSError."""

    def refusal(self, freeze: bool, force: bool) -> tuple[Outcome, str]:
        """Whether to start: PENDING, or the outcome and why."""

    def push(self, freeze: bool, first: bool) -> None:
        """Make the wish known; called again before each further look, where most subjects have nothing to do."""

    def settled(self, freeze: bool) -> tuple[Outcome, str]:
        """Read the effective state: PENDING, or where it has arrived."""


class _Phase(IntEnum):
    BEGIN = 0
    MOVING = 1
    ROLLING_BACK = 2
    DONE = 3


_BEGIN, _MOVING, _ROLLING_BACK, _DONE = _Phase  # Python 3.11: an enum's attribute is 900 instructions
_PENDING, _THAWED, _GONE = Outcome.PENDING, Outcome.THAWED, Outcome.GONE
_FOREIGN, _TIMED_OUT = Outcome.FOREIGN, Outcome.TIMED_OUT


class Transition:
    """One move of one subject, driven from outside by `step`."""

    __slots__ = (
        "_began_at", "_deadline_for", "_force", "_look", "_phase", "_started_at", "_took_for", "_verdict",
        "detail", "errno", "is_freeze", "outcome", "rolled_back", "subject",
    )  # fmt: skip

    def __init__(
        self, subject: Subject, *, freeze: bool, deadline_for: float | None = None, force: bool = False
    ) -> None:
        self.subject = subject
        self.is_freeze = freeze
        self.outcome = _PENDING
        self.detail = ""
        self.errno = 0
        self.rolled_back = False
        self._force = force
        self._deadline_for = deadline_for if deadline_for is not None else FREEZE_DEADLINE if freeze else THAW_DEADLINE
        self._began_at = 0.0  # of the present phase
        self._started_at: float | None = None
        self._took_for: float | None = None
        self._look = 0
        self._phase = _BEGIN
        self._verdict = (_PENDING, "", 0)

    @property
    def is_finished(self) -> bool:
        return self._phase is _DONE

    def step(self, now: float) -> float | None:
        """Do what is due. None: finished, see `outcome`; else seconds until the next step, 0.0 for at once."""
        if self._phase is _DONE:
            return None
        try:
            if self._phase is _BEGIN:
                return self._begin(now)
            return self._look_again(now)
        except OSError as error:
            return self._failed(error, now)

    def took(self, now: float) -> float:
        """Seconds from the first step until `now`, or to the end once it is over.

        A step that confirms began before the work it did, so its own `now` would leave that work out: the driver asks
        right after the step that ended it, and that first answer is kept.
        """
        if self._started_at is None:
            return 0.0
        if self._phase is not _DONE:
            return now - self._started_at
        if self._took_for is None:
            self._took_for = now - self._started_at
        return self._took_for

    def abandon(self) -> None:
        """Superseded: stop here, whatever has been written stays. The opposite transition may start at once."""
        if self._phase is not _DONE:
            self._finish(Outcome.ABANDONED, "superseded", 0)

    def _begin(self, now: float) -> float | None:
        self._started_at = self._began_at = now
        outcome, detail = self.subject.refusal(self.is_freeze, self._force)
        if outcome is not _PENDING:
            return self._finish(outcome, detail, 0)
        self.subject.push(self.is_freeze, True)  # fails whole: then nothing has changed and nothing needs taking back
        self._phase = _MOVING
        return self._settle(self.is_freeze, now)

    def _look_again(self, now: float) -> float | None:
        freeze = self.is_freeze and self._phase is _MOVING
        self.subject.push(freeze, False)
        return self._settle(freeze, now)

    def _settle(self, freeze: bool, now: float) -> float | None:
        outcome, detail = self.subject.settled(freeze)
        hasty = outcome is _FOREIGN and not freeze and now - self._began_at < FOREIGN_AFTER
        if outcome is _PENDING or hasty:
            # Only after a look: a driver that was itself held up must not call a finished freeze overdue.
            return self._overdue(now) if now - self._began_at >= self._deadline_for else self._next_look(now)
        if self._phase is _ROLLING_BACK:
            return self._rolled_back(outcome, detail)
        return self._finish(outcome, detail, 0)

    def _next_look(self, now: float) -> float:
        waited = now - self._began_at
        if waited < SPIN_FOR:
            return 0.0
        pause = NAPS[self._look] if self._look < len(NAPS) else SLICE
        self._look += 1
        return min(pause, self._deadline_for - waited)

    def _overdue(self, now: float) -> float | None:
        waited = f"not confirmed within {self._deadline_for * 1000:.0f} ms"
        if self._phase is _ROLLING_BACK:
            outcome, detail, number = self._verdict
            return self._finish(outcome, f"{detail}; thaw {waited}", number)
        if not self.is_freeze:
            return self._finish(_TIMED_OUT, waited, 0)
        return self._roll_back(_TIMED_OUT, waited, 0, now)

    def _failed(self, error: OSError, now: float) -> float | None:
        detail, number = error.strerror or str(error), error.errno or 0
        if error.filename:
            detail += f": {error.filename}"
        if self._phase is _ROLLING_BACK:
            outcome, first, first_number = self._verdict
            return self._finish(outcome, f"{first}; thaw failed: {detail}", first_number or number)
        if self._phase is _MOVING and self.is_freeze:
            return self._roll_back(Outcome.FAILED, detail, number, now)
        return self._finish(Outcome.FAILED, detail, number)

    def _roll_back(self, outcome: Outcome, detail: str, number: int, now: float) -> float | None:
        """Never leave half a freeze behind (FZ-072): thaw, confirm, then report why."""
        self._phase = _ROLLING_BACK
        self._verdict = (outcome, detail, number)
        self._deadline_for = THAW_DEADLINE
        self._began_at = now
        self._look = 0
        try:
            self.subject.push(False, True)
            return self._settle(False, now)
        except OSError as error:
            return self._failed(error, now)

    def _rolled_back(self, outcome: Outcome, detail: str) -> float | None:
        verdict, why, number = self._verdict
        if outcome is _GONE:
            return self._finish(_GONE, why, number)
        self.rolled_back = outcome is _THAWED
        return self._finish(verdict, why if self.rolled_back else f"{why}; {detail}", number)

    def _finish(self, outcome: Outcome, detail: str, number: int) -> float | None:
        self._phase = _DONE
        self.outcome = outcome
        self.detail = detail
        self.errno = number
        return None

    def __repr__(self) -> str:
        what = "freeze" if self.is_freeze else "thaw"
        return f"<Transition {what} {self._phase.name} {self.outcome.name} looks={self._look} {self.detail!r}>"
