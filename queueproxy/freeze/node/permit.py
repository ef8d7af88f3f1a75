"""Decides how deep one pod may sleep, and why no deeper.

Theory of operation. A permit is what is known about a pod apart from where it is: its facts from the API server, which
containers a move would move, and everything that forbids sleep. Some reasons refuse the request (the pod is ending, the
freezer stops, the pod is not known yet); the others are answered "running", so that the sidecar learns its policy from
the same answer.

Ending is remembered for container ids, for ever (FZ-050). Containers that take the place of all those named may sleep
again. Where the API server has spoken (`terminating`) it is the pod that ends, whatever containers it has.

`Terms` is what holds for all pods of the node.
"""

from __future__ import annotations

from math import inf

from queueproxy.freeze.annotations import Mode, PodPolicy
from queueproxy.freeze.node.actions import LedgerSettings
from queueproxy.freeze.node.fallback import Fallback
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.storm import Storm
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem

__all__ = ["Permit", "Terms"]

_CAPS = {Mode.OFF: Rung.RUNNING, Mode.SHADOW: Rung.RUNNING, Mode.THROTTLE: Rung.THROTTLED, Mode.FREEZE: Rung.FROZEN}


class Terms:
    """What holds for every pod of this node."""

    __slots__ = ("_number", "draining", "fallback", "settings", "storm")

    def __init__(self, settings: LedgerSettings) -> None:
        self.settings = settings
        self.storm = Storm(settings.pace, settings.burst)
        self.fallback = Fallback(settings.harm_for)
        self.draining = False
        self._number = 0

    def __repr__(self) -> str:
        return f"<Terms draining={self.draining} {self.storm!r} {self.fallback!r}>"

    def number(self) -> int:
        """Of a move, or of a request: never the same twice."""
        self._number += 1
        return self._number


class Permit:
    """May this pod sleep?"""

    __slots__ = ("_is_ending", "_terms", "ended", "facts", "hold_until", "ids", "is_gone", "is_outdated")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._is_ending = False
        self.facts: PodFacts | None = None  # None: only the journal knows the pod
        self.ids: frozenset[str] = frozenset()  # the containers a move moves
        self.ended: frozenset[str] = frozenset()  # those that never sleep again
        self.is_gone = False  # deleted
        self.is_outdated = False  # the pod has other containers now than those that are held
        self.hold_until = -inf  # an operator wants it awake

    def __repr__(self) -> str:
        flags = (
            ("terminal", self.is_terminal), ("gone", self.is_gone), ("outdated", self.is_outdated),
            ("unknown", self.facts is None),
        )  # fmt: skip
        return f"<Permit {' '.join(word for word, on in flags if on) or 'plain'}>"

    @property
    def is_terminal(self) -> bool:
        """The sidecar said so, a stop signal waits, or the pod is being deleted."""
        return self._is_ending or (self.facts is not None and self.facts.terminating)

    @property
    def revision(self) -> str:
        """As a key; empty when unknown."""
        return f"{self.facts.namespace}/{self.facts.revision}" if self.facts is not None else ""

    def cap(self, now: float) -> tuple[Rung, Problem | None]:
        """The deepest rung allowed, and the problem where asking for one is refused."""
        if self.is_terminal:
            return Rung.RUNNING, Problem.TERMINAL
        if self._terms.draining:
            return Rung.RUNNING, Problem.DRAINING
        facts = self.facts
        if facts is None or self.is_gone or self.is_outdated:
            return Rung.RUNNING, Problem.NOT_READY
        if facts.refusal or not facts.containers or now < self.hold_until:
            return Rung.RUNNING, None
        cap = _CAPS[facts.policy.mode]
        if cap is Rung.FROZEN and self._terms.fallback.why(now, self.revision):
            cap = Rung.THROTTLED
        return cap, None

    def may_stay(self, now: float, rung: Rung) -> bool:
        """Whether what sleeps already may go on. Not being known yet is no reason to wake it (FZ-064)."""
        cap, problem = self.cap(now)
        if problem is Problem.NOT_READY:
            return not self.is_gone and not self.is_outdated
        return rung <= cap

    def policy(self, now: float) -> PodPolicy | None:
        """What the sidecar is told; None when it is not known."""
        if self.facts is None:
            return None
        policy = self.facts.policy
        if self.facts.refusal:
            return policy._replace(mode=Mode.OFF, reason="may not be frozen")  # which reason is not for the network
        if policy.mode is Mode.FREEZE and (why := self._terms.fallback.why(now, self.revision)):
            return policy._replace(mode=Mode.THROTTLE, reason=why)
        return policy

    def why(self, now: float) -> str:
        """Why it may not sleep as deep as it might, for operators; empty when nothing is in its way."""
        if self.facts is None:
            return "not known yet"
        if self.facts.refusal:
            return self.facts.refusal
        if self.is_terminal:
            return "ending"
        if now < self.hold_until:
            return f"held by an operator for {self.hold_until - now:.0f} s"
        policy = self.policy(now)
        return policy.reason if policy is not None else ""

    def end(self) -> bool:
        """The containers it has now never sleep again: those held, and those the API server knows of. True: news."""
        before = self._is_ending, self.ended
        self._is_ending = True
        self.ended |= self.ids | self._named()
        return before != (True, self.ended)

    def known(self, facts: PodFacts) -> bool:
        """The pod as the API server has it; True when it has other containers than those a move would move."""
        self.facts = facts
        self.is_gone = False
        ids = self._named()
        return bool(ids) and ids != self.ids

    def renew(self) -> None:
        """Take the containers the facts name."""
        self.is_outdated = False
        self.ids = self._named() or self.ids
        if self._is_ending and self.ended.isdisjoint(self.ids):
            # Said before any container was known: then it was said about these.
            self._is_ending = not self.ended
            self.ended = self.ids if self._is_ending else frozenset()

    def _named(self) -> frozenset[str]:
        """The containers that the facts name; none while they name none, or are not known."""
        return frozenset(container.id for container in self.facts.containers) if self.facts is not None else frozenset()
