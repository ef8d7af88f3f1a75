"""Counts what the gate does and tells it: the observer between the idle policy and the run's tally, report and idle
CPU.

Only confirmed rungs are told as states: a freeze that was asked for and taken back half-way never happened. In shadow
mode nothing happens to the app, so the tally stays awake and each would-be change is an event of its own.
"""

from __future__ import annotations

from queueproxy.freeze.policy import Ask, Moved, Rung
from queueproxy.local.idlecpu import IdleCpu
from queueproxy.local.report import Report
from queueproxy.local.tally import Tally

__all__ = ["RunWatch"]


class RunWatch:
    """One run's observer of its gate."""

    __slots__ = ("_idle_cpu", "_report", "_shadow", "_tally")

    def __init__(self, tally: Tally, report: Report, idle_cpu: IdleCpu, *, shadow: bool) -> None:
        self._tally = tally
        self._report = report
        self._idle_cpu = idle_cpu
        self._shadow = shadow

    def __repr__(self) -> str:
        return f"<RunWatch {self._tally!r} shadow={self._shadow}>"

    def moved(self, moved: Moved, now: float) -> None:
        """States are told when they are confirmed."""

    def asked(self, ask: Ask, now: float) -> None:
        if ask.rung is not Rung.RUNNING:
            self._idle_cpu.stop()

    def answered(self, ask: Ask, rung: Rung | None, detail: str, took: float, now: float) -> None:
        if self._shadow:
            if ask.rung is not Rung.RUNNING:
                would = "freeze" if ask.rung is Rung.FROZEN else "throttle"
                self._report.event("would", f"would {would} now", rung=ask.rung.name.lower(), reason=ask.reason)
            self._idle_cpu.start()
            return
        if rung is None:
            self._report.problem(f"could not reach {ask.rung.name.lower()}: {detail}", generation=ask.generation)
            return
        origin, to = self._tally.state, rung.name.lower()
        if rung is Rung.RUNNING:
            self._idle_cpu.start()
        if origin == to:
            return  # a freeze taken back before it was confirmed, or a rung asked for twice
        self._tally.moved(to, now)
        if rung is Rung.RUNNING:
            self._tally.woke(took)
        elif rung is Rung.FROZEN:
            self._tally.fell_asleep()
        self._report.state(origin, to, ask.reason, ask.generation, took, now)

    def waited(self, waited_for: float) -> None:
        """The metrics count this; a status line has no use for it."""
