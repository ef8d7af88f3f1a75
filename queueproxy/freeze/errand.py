"""Holds what the session has to get across: the policy's newest wish, whether it was answered, and the pod's end.

Counterpart of `Wish`, which knows what the policy wants; this knows what the freezer was told about it.
"""

from math import inf

from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, StateRequest, Wanted

__all__ = ["Errand"]

_LEAST_RENEWAL = 0.5  # seconds: a lease shorter than three times this is not worth the traffic


class Errand:
    """One wish at a time; the end comes on top and stays."""

    __slots__ = ("asked", "asked_at", "end_by", "ending", "generation", "held", "reason", "renew_at", "rung")

    def __init__(self) -> None:
        self.rung = Rung.RUNNING
        self.generation = 0
        self.reason = ""
        self.asked = False  # and nobody was told yet
        self.asked_at = 0.0
        self.held = False  # the freezer confirmed this sleep
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

    def confirmed(self, rung: Rung, said_at: float, lease: float) -> None:
        """The freezer answered: what it holds now, and until when."""
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
