"""Decides whether and how to look for a reason not to sleep, and what an answer to that is worth.

A look is a numbered question: an answer to an older one, or one given after the idle period has ended, changes
nothing. An obstacle is looked at again after a while. CPU use is an obstacle for a limited time only, counted from
the first look of the idle period; a connection waiting at the app is one for as long as it waits.
"""

from math import inf

from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Look

__all__ = ["Lookout"]


class Lookout:
    """One idle period's looks."""

    __slots__ = ("_made", "_quiesce_until", "_set", "again_at", "number", "obstacle")

    def __init__(self, settings: IdleSettings) -> None:
        self._set = settings
        self._made = 0
        self.forget()

    def __repr__(self) -> str:
        return f"<Lookout number={self.number} again_at={self.again_at:g} obstacle={self.obstacle!r}>"

    def forget(self) -> None:
        """The idle period is over, or another rung is asked for."""
        self.number = 0  # of the look that is out, or 0
        self.again_at = -inf  # when that look is late or, with none out, when to look again
        self.obstacle = ""
        self._quiesce_until: float | None = None

    def configured(self, settings: IdleSettings) -> None:
        """Other settings. The numbers go on, lest a late answer meet a look of the same number."""
        self._set = settings
        self.forget()

    def look(self, now: float) -> Look | None:
        """The look to take, or None when there is nothing to look for."""
        cpu_above = self._set.quiesce_cpu
        if cpu_above is not None:
            if self._quiesce_until is None:
                self._quiesce_until = now + self._set.quiesce_for
            if now >= self._quiesce_until:
                cpu_above = None
        if not self._set.look_first and cpu_above is None:
            return None
        self._made += 1
        self.number = self._made
        self.again_at = now + self._set.look_deadline
        return Look(self.number, self._set.look_first, cpu_above)

    def obstructed(self, now: float, obstacle: str) -> None:
        """Something stands in the way: look again in a while."""
        self.number = 0
        self.obstacle = obstacle
        self.again_at = now + self._set.recheck_after
