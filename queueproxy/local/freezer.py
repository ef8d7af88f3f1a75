"""Runs the app up and down its rungs in this process: the `Mechanism` of local mode, stepped by the event loop.

Touches the freezer of the app's cgroup (or the processes of its session) and its CPU limit. A question is answered
when the kernel has confirmed, often before `ask` returns, because most transitions end within the first looks. A
newer question abandons the older one, whose answer never comes. The CPU limit is lifted before the thaw and before
the freeze as well: a throttled task needs its next period to reach the point where it can stop (FZ-083). A cgroup
that was removed under us holds nothing any more: as an answer to a thaw that is "running", to a freeze it is a
failure, and `on_gone` tells once.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.node.throttle import CpuThrottle, Squeeze
from queueproxy.freeze.node.transition import Outcome, Transition
from queueproxy.freeze.policy import Rung

__all__ = ["LocalFreezer", "Stoppable"]

Answered = Callable[[int, Rung | None, str], None]


class Stoppable(Protocol):
    """What can be frozen whole: a cgroup's freezer, or a session under signals."""

    def freeze(self) -> Transition: ...

    def thaw(self, *, force: bool = False) -> Transition: ...

    def thaw_at_once(self) -> bool: ...


class LocalFreezer:
    """Moves one app between running, throttled and frozen."""

    __slots__ = (
        "_answered",
        "_generation",
        "_gone",
        "_loop",
        "_rung",
        "_stoppable",
        "_throttle",
        "_timer",
        "_transition",
        "name",
        "on_gone",
        "took",
    )

    def __init__(
        self, loop: AbstractEventLoop, name: str, stoppable: Stoppable, throttle: CpuThrottle | None = None
    ) -> None:
        self.name = name
        self.took = 0.0  # seconds the latest confirmed transition took in the kernel
        self.on_gone: Callable[[], None] | None = None
        self._loop = loop
        self._stoppable = stoppable
        self._throttle = throttle
        self._gone = False
        self._transition: Transition | None = None
        self._timer: TimerHandle | None = None
        self._generation = 0
        self._rung = Rung.RUNNING
        self._answered: Answered | None = None

    def __repr__(self) -> str:
        return f"<LocalFreezer {self.name} {self._rung.name} generation={self._generation} {self._transition!r}>"

    def ask(self, rung: Rung, generation: int, answered: Answered) -> None:
        """Start towards `rung`; `answered(generation, rung or None, detail)` at most once, perhaps before this
        returns."""
        self._drop()
        self._generation, self._rung, self._answered = generation, rung, answered
        problem = self._squeeze() if rung is Rung.THROTTLED else self._restore()
        if problem:
            self._answer(None, problem)
            return
        if rung is Rung.RUNNING:
            # A request waits for this, and the stepped way costs 0.2 ms more from cold caches.
            began_at = monotonic()
            if self._stoppable.thaw_at_once():
                self.took = monotonic() - began_at
                self._answer(rung, "")
                return
        self._transition = self._stoppable.freeze() if rung is Rung.FROZEN else self._stoppable.thaw()
        self._step()

    def close(self) -> None:
        """No answer comes after this."""
        self._drop()
        self._answered = None

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transition is not None:
            self._transition.abandon()
            self._transition = None

    def _step(self) -> None:
        self._timer = None
        transition = self._transition
        assert transition is not None
        # Spinning is bounded by the schedule of the transition: 0.3 ms, less than a timer and a turn of the loop cost.
        while (pause := transition.step(monotonic())) == 0.0:
            pass
        if pause is not None:
            self._timer = self._loop.call_later(pause, self._step)
            return
        self._transition = None
        self.took = transition.took(monotonic())
        self._finished(transition.outcome, transition.detail)

    def _finished(self, outcome: Outcome, detail: str) -> None:
        if outcome is Outcome.GONE:
            self._tell_gone()
            # Nothing holds the app where nothing of ours is left.
            self._answer(Rung.RUNNING if self._rung is Rung.RUNNING else None, detail)
        elif outcome is Outcome.FROZEN or outcome is Outcome.THAWED:
            self._answer(self._rung, detail)
        else:
            self._answer(None, f"{outcome.name.lower().replace('_', ' ')}: {detail}")

    def _answer(self, rung: Rung | None, detail: str) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(self._generation, rung, detail)

    def _tell_gone(self) -> None:
        if not self._gone:
            self._gone = True
            if self.on_gone is not None:
                self.on_gone()

    def _squeeze(self) -> str:
        """Lower the CPU limit; what went wrong, or nothing."""
        if self._throttle is None:
            return "no cpu controller for this app"
        outcome = self._throttle.squeeze()
        if outcome in (Squeeze.SQUEEZED, Squeeze.UNCHANGED):
            return ""
        if outcome is Squeeze.GONE:
            self._tell_gone()
        return f"cannot throttle: {outcome.name.lower()} {self._throttle.detail}".rstrip()

    def _restore(self) -> str:
        """Lift the CPU limit. A vanished cgroup limits nothing, and somebody else's limit is theirs (FZ-082)."""
        if self._throttle is not None and self._throttle.restore() is Squeeze.FAILED:
            return f"cannot restore the CPU limit: {self._throttle.detail}"
        return ""
