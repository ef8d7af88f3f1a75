"""Holds what the mechanism was asked for last and how that goes: one wish at a time, fenced by its generation.

A new wish has a new generation and supersedes whatever is out; only an answer that names the newest generation is
heard. A thaw that failed or is late is asked for again under the same generation: fast and a few times first, then
more and more slowly, and from then on the app counts as stuck. `until` is the next instant at which something must
happen while the wish is not settled: the question is late, or it is time to repeat it.
"""

from math import inf

from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Ask, Rung

__all__ = ["Wish"]


class Wish:
    """Where the app should be, and whether it is known to be there."""

    __slots__ = (
        "_pause", "_set", "asked_at", "attempts", "generation", "out", "rung", "settled", "stuck", "until", "why",
    )  # fmt: skip

    def __init__(self, settings: IdleSettings) -> None:
        self._set = settings
        self._pause = 0.0
        self.rung = Rung.RUNNING
        self.generation = 0
        self.settled = True  # confirmed; at first because nobody ever put the app to sleep
        self.out = False  # a question is out and not late yet
        self.until = inf
        self.asked_at = 0.0
        self.attempts = 0  # thaws that failed under this generation
        self.stuck = False
        self.why = ""

    def __repr__(self) -> str:
        flags = ("" if self.settled else " unsettled") + (" stuck" if self.stuck else "")
        return f"wish={self.rung.name} gen={self.generation}{flags}"

    def configured(self, settings: IdleSettings) -> None:
        """Other settings from here on; what holds already goes on holding."""
        self._set = settings

    def ask(self, now: float, rung: Rung, why: str) -> Ask:
        """A new wish; from here on nothing is certain."""
        self.rung = rung
        self.generation += 1
        self.settled = False
        self.asked_at = now
        self.attempts = 0
        self._pause = self._set.thaw_retry_after
        self.why = why
        return self.repeat(now)

    def repeat(self, now: float) -> Ask:
        """The same wish again."""
        self.out = True
        self.until = now + (self._set.freeze_deadline if self.rung else self._set.thaw_deadline)
        return Ask(self.rung, self.generation, self.why)

    def settle(self) -> None:
        """The mechanism confirmed it."""
        self.settled = True
        self.out = self.stuck = False
        self.until = inf

    def thaw_failed(self, now: float) -> bool:
        """Plan the next attempt; True when the fast ones are used up (FZ-067)."""
        self.attempts += 1
        self.out = False
        if self.attempts == self._set.thaw_retries + 1:
            self.stuck = True
            self._pause = self._set.thaw_backoff
        self.until = now + self._pause
        self._pause = min(self._set.thaw_backoff_cap, self._pause * 2)
        return self.attempts > self._set.thaw_retries
