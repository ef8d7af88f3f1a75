"""Decides in what order a run ends, and with which status.

    SERVING --signal--> FINISHING --requests done, or grace over--> TOLD --grace over--> OVER
       |                    |                                        |                    ^
       +--------------------+---- the app ended --> LAST_WORDS ------+--- answers out ----+

A signal: thaw, stop accepting, let requests finish, then pass it on to the app and wait for it; both waits last
`grace`. A second signal ends everything at once. When the app ends first, for whatever reason, its requests get a
moment to be answered (502). The status is the app's, except that an end we asked for and got is 0, and that an app we
had to kill counts as killed. The caller thaws, closes, signals and kills; this machine has no clock and knows no
process.
"""

from __future__ import annotations

import signal
from enum import Enum, IntEnum

__all__ = ["Do", "Ending", "Step", "exit_code"]

# How long answers of a dead app's requests may take to leave.
LAST_WORDS_FOR = 1.0


class Step(IntEnum):
    """Where the end stands."""

    SERVING = 0
    FINISHING = 1
    TOLD = 2
    LAST_WORDS = 3
    OVER = 4


class Do(Enum):
    """What the caller is to do, in the order given."""

    THAW = "thaw"
    STOP_ACCEPTING = "stop accepting"
    HAND_ON = "hand the signal to the app"
    GIVE_UP = "say that the app would not end"
    END = "end: kill what is left"


TRANSITIONS: dict[Step, frozenset[Step]] = {
    Step.SERVING: frozenset({Step.FINISHING, Step.LAST_WORDS}),
    Step.FINISHING: frozenset({Step.TOLD, Step.LAST_WORDS, Step.OVER}),
    Step.TOLD: frozenset({Step.LAST_WORDS, Step.OVER}),
    Step.LAST_WORDS: frozenset({Step.OVER}),
    Step.OVER: frozenset(),
}


class Ending:
    """The end of one run. `number` is the signal that began it, if one did; `status` what the run exits with."""

    __slots__ = ("_deadline_at", "_grace_for", "number", "status", "step")

    def __init__(self, grace_for: float) -> None:
        self._grace_for = grace_for
        self._deadline_at: float | None = None
        self.step = Step.SERVING
        self.number: int | None = None
        self.status = 0

    def __repr__(self) -> str:
        return f"<Ending {self.step.name} signal={self.number} status={self.status}>"

    def signalled(self, now: float, number: int, in_flight: int) -> tuple[Do, ...]:
        """We were told to end."""
        if self.step is Step.OVER:
            return ()
        if self.step is not Step.SERVING:
            self.status = 128 + number
            return self._over()
        self.number = number
        self._move(Step.FINISHING, now + self._grace_for)
        return (Do.THAW, Do.STOP_ACCEPTING, *(() if in_flight else self.emptied(now)))

    def emptied(self, now: float) -> tuple[Do, ...]:
        """No request is left."""
        if self.step is Step.FINISHING:
            self._move(Step.TOLD, now + self._grace_for)
            return (Do.HAND_ON,)
        return self._over() if self.step is Step.LAST_WORDS else ()

    def app_ended(self, now: float, status: int, in_flight: int) -> tuple[Do, ...]:
        """The app's first process ended; negative for a signal, as everywhere in Python."""
        if self.step in (Step.LAST_WORDS, Step.OVER):
            return ()
        obeyed = self.step is Step.TOLD and self.number is not None and status in (0, -self.number, 128 + self.number)
        self.status = 0 if obeyed else exit_code(status)
        self._move(Step.LAST_WORDS, now + LAST_WORDS_FOR)
        return (Do.STOP_ACCEPTING, *(() if in_flight else self._over()))

    def next_deadline(self) -> float | None:
        return self._deadline_at

    def on_deadline(self, now: float) -> tuple[Do, ...]:
        """A wait is over; harmless when none is."""
        if self._deadline_at is None or now < self._deadline_at:
            return ()
        if self.step is Step.TOLD:
            self.status = 128 + signal.SIGKILL
            return (Do.GIVE_UP, *self._over())
        return self.emptied(now)

    def _over(self) -> tuple[Do, ...]:
        self._move(Step.OVER, None)
        return (Do.END,)

    def _move(self, to: Step, deadline_at: float | None) -> None:
        assert to in TRANSITIONS[self.step], f"{self!r} cannot move to {to.name}"
        self.step = to
        self._deadline_at = deadline_at


def exit_code(status: int) -> int:
    """What a shell reports: the exit status, or 128 + signal."""
    return status if status >= 0 else 128 - status
