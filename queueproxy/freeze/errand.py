"""Holds what the session has to get across: the policy's newest wish, whether it was answered, and the pod's end.

Counterpart of `Wish`, which knows what the policy wants; this knows what the freezer was told about it.
"""

from math import inf

from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, Refusal, StateRequest, Wanted

__all__ = ["Errand"]

_LEAST_RENEWAL = 0.5  # seconds: a lease shorter than three times this is not worth the traffic


class Errand:
    """One wish at a time; the end comes on top and stays."""

    __slots__ = (
        "asked", "asked_at", "end_by", "ending", "generation", "held", "reason", "renew_at", "rung", "runs", "slept_by",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rung = Rung.RUNNING
        self.generation = 0
        self.reason = ""
        self.asked = False  # and nobody was told yet
        self.asked_at = 0.0
        self.held = False  # the freezer confirmed this sleep
        self.runs = False  # the app certainly does: a freezer said so, and heard nothing of sleep since
        self.slept_by: float = -1  # generation of the newest wish to sleep that has left
        self.renew_at = inf
        self.ending = False
        self.end_by = -inf  # until when the end is still worth saying

    def __repr__(self) -> str:
        flags = (" asked" if self.asked else "") + (" held" if self.held else "") + (" ending" if self.ending else "")
        return f"{self.rung.name} gen={self.generation}{flags}"

    def put(self, now: float, rung: Rung, generation: int, reason: str) -> None:
        """A new wish, or the same once more."""
        self.rung, self.generation, self.reason = rung, generation, reason
        self.asked, self.asked_at = True, now
        self.let_go()

    def end(self, until: float) -> None:
        self.ending, self.end_by = True, until

    def ended(self) -> None:
        """The freezer knows."""
        self.end_by = -inf

    def let_go(self) -> None:
        """Nothing is held, as far as anybody knows."""
        self.held, self.renew_at = False, inf

    def woken(self) -> None:
        """Somebody else woke the app."""
        self.let_go()
        self.runs = True

    def said(self, what: object) -> bool:
        """It is on its way to the freezer. True: until now the app certainly ran."""
        ran = self.runs
        if what is OldAction.PAUSE:
            self.runs, self.slept_by = False, inf
        elif isinstance(what, StateRequest) and what.wanted is Wanted.IDLE:
            self.runs, self.slept_by = False, what.generation
        return ran

    def found(self, rung: Rung, generation: int) -> None:
        """What the freezer says first on a connection. A wish to sleep that left on an earlier one may still lie there
        unread; a freezer that knows its generation has read it."""
        self.runs = rung is Rung.RUNNING and generation >= self.slept_by

    def refused(self, ran: bool, refusal: Refusal) -> None:
        """ran: what `said` returned, if nothing was said since. A freezer that is stopping puts nobody to sleep any
        more; any other may still be told twice."""
        if refusal.problem is Problem.DRAINING:
            self.runs = self.runs or ran

    def confirmed(self, rung: Rung, said_at: float, lease: float) -> None:
        """The freezer answered: what it holds now, and until when."""
        self.runs = rung is Rung.RUNNING
        both = self.rung is not Rung.RUNNING and rung is not Rung.RUNNING
        self.held = both and (self.asked or self.held)
        self.renew_at = said_at + max(_LEAST_RENEWAL, lease / 3) if self.held else inf
        self.asked = False

    def pending(self, now: float) -> bool:
        """There is something to say."""
        return self.asked or self.end_by > now

    @property
    def urgent(self) -> bool:
        """The app sleeps, or somebody waits."""
        return self.asked or self.rung is not Rung.RUNNING or self.end_by > -inf

    def request(self, lease: float) -> StateRequest:
        """In the words of version 1. The end has a generation of its own: an old one only gets its old answer."""
        if self.ending:
            return StateRequest(Wanted.TERMINATING, self.generation + 1, reason="terminating")
        if self.rung is Rung.RUNNING:
            return StateRequest(Wanted.ACTIVE, self.generation, reason=self.reason)
        return StateRequest(Wanted.IDLE, self.generation, lease, self.reason, self.rung)

    def old(self) -> OldAction:
        """In the words of old."""
        return OldAction.RESUME if self.rung is Rung.RUNNING or self.ending else OldAction.PAUSE
