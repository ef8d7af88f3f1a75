"""Decides what a sidecar says to its freezer and when: the session, a pure state machine.

    CLOSED ── began ──> AWAY <──── lost: refused, late, garbage, closed ────┐
                         │ dial is due, or a thaw is wanted                 │
                         v                                                  │
                      DIALLING ── connected ──> GREETING ── answered ──> READY

Theory of operation.
The idle policy wishes, the session gets the wish across. There is one wish at a time, with the policy's generation;
it is said as soon as there is a connection, behind whatever is out already: a wake never waits for the answer to the
freeze that it takes back. An answer counts only for the newest wish. A wish that could not be got across in `total`
seconds has failed; the policy knows what that means (a freeze is taken back, a thaw repeated for ever).

The first exchange on a connection is the wish if one is out, else GET. What GET finds is compared with what is known
here: the same sleep under the same generation is gone on with (a restarted freezer adopted it), any other is told to
the policy, which wakes the app. A sleep is a lease, renewed by saying it again every third of it; "running" in answer
means that somebody else woke the app. Without a freezer, an app that certainly runs is awake without asking.

Failures move the next dial away, doubling, with jitter: to half a minute while the app runs, to a second while it
sleeps or somebody waits. A freezer that was there is given up after `total` seconds, one that refuses us at once.
A refused token means a dial at once: it is read again before each dial. Refused again, it is a failure.

A node that knows no `/v1` is a daemon of old: pause and resume, one at a time, no lease and no generation. Each new
connection asks for `/v1` again: nodes may be upgraded in any order.

`terminated` says for good that the app must run. It has its own deadline and nobody waits for it (FZ-051).
"""

from __future__ import annotations

from collections import deque
from math import inf
from random import Random

from queueproxy.freeze.annotations import PodPolicy
from queueproxy.freeze.dialogue import (
    DIAL,
    GET,
    HANG_UP,
    QUIET,
    Down,
    Effect,
    Effects,
    Fault,
    Found,
    Out,
    Patience,
    Phase,
    Say,
    Signal,
    Terms,
    Told,
    Up,
    Woken,
)
from queueproxy.freeze.errand import Errand
from queueproxy.freeze.outage import Outage
from queueproxy.freeze.plainview import decode_view
from queueproxy.freeze.terms import spoken_to_old
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import (
    OldAction,
    Problem,
    Refusal,
    StateRequest,
    View,
    Wanted,
    WireError,
    decode_problem,
)

__all__ = ["Session"]

_RUNNING, (_CLOSED, _AWAY, _DIALLING, _GREETING, _READY) = Rung.RUNNING, Phase  # enums are slow in Python 3.11
_MOST_OUT = 4  # exchanges on one connection: a renewal, a freeze, the thaw that takes it back, the end
_MOST_STALE = 3  # generations to learn from a freezer in a row before it is taken for broken
_AGAIN_AFTER = 1.0  # seconds to the next renewal after a refused one
_NOT_V1 = frozenset({400, 404, 405})  # what a daemon of old, or its web server, says to a GET without its header


class Session:
    """What is out, what was confirmed, and when to do what next."""

    __slots__ = (
        "_adopted", "_dialled_at", "_fallback", "_old", "_out", "_patience", "_stale", "_terms", "errand", "outage",
        "phase", "secret", "up",
    )  # fmt: skip

    def __init__(self, random: Random, fallback: PodPolicy, patience: Patience | None = None) -> None:
        """fallback: the pod's policy where the freezer names none."""
        self._fallback = fallback
        self._patience = patience or Patience()
        self.outage = Outage(random, self._patience)
        self.errand = Errand()
        self.phase = _CLOSED
        self.up = False  # the policy was told that there is a freezer
        self.secret: str | None = None  # the session secret to send along (FZ-129)
        self._old: bool | None = None  # a daemon of old; None: not known yet
        self._adopted = False  # what was there before us is known
        self._terms: PodPolicy | None = None
        self._stale = 0  # generations learnt in a row
        self._out: deque[Out] = deque()
        self._dialled_at = 0.0

    def __repr__(self) -> str:
        old = "" if not self._old else " old"
        return f"<Session {self.phase.name}{old} {self.errand!r} out={len(self._out)}>"

    # === Events. ===

    def began(self, now: float) -> Effects:
        """There is a token: look for the freezer."""
        return self._dial(now)

    def asked(self, now: float, rung: Rung, generation: int, reason: str) -> Effects:
        """The policy's wish; the same generation again means that an answer took too long."""
        errand = self.errand
        errand.put(now, rung, generation, reason)
        if self._may_speak():
            return self._say_wish(now)
        if rung is _RUNNING and errand.runs:
            return tuple(self._tell(rung, "nobody stopped it"))  # nor is anybody there who could
        if self.phase is _AWAY and (rung is _RUNNING or self.up):
            return self._dial(now)  # whatever the backoff: the policy has a pace of its own
        return tuple(self._tell(None, self.outage.why)) if self.phase in (_AWAY, _CLOSED) else QUIET

    def terminated(self, now: float) -> Effects:
        """The pod ends. If the app sleeps, the policy asks for a thaw next, and that carries the message."""
        if self.errand.ending:
            return QUIET
        self.errand.end(now + self._patience.terminate)
        if self.phase is _AWAY:
            return self._dial(now)
        return self._say_wish(now) if self._may_speak() and self.errand.rung is _RUNNING else QUIET

    def connected(self, now: float) -> Effects:
        """The dial succeeded."""
        if self.phase is not _DIALLING:
            return QUIET
        self.phase = _GREETING
        if self.errand.pending(now) and self._old is not None:
            return self._say_wish(now)
        return self._say(now, GET, -1)

    def lost(self, now: float, fault: Fault, why: str) -> Effects:
        """The dial failed, or the connection is gone and nothing more comes of it."""
        if self.phase is _CLOSED or self.phase is _AWAY:
            return QUIET
        # A freezer that closes a connection on which nothing is out has done nothing wrong.
        failed = bool(self._out) or self.phase is not _READY
        self._out.clear()
        self.phase = _AWAY
        if failed:
            return self._failed(now, fault, why)
        self.outage.rested(now)
        # While the app sleeps: a freezer that leaves has thawed it. At once, but not to one that does nothing else.
        return self._dial(now) if self.errand.held and now - self._dialled_at > 0.2 else QUIET

    def answered(self, now: float, status: int, body: bytes) -> Effects:
        """A whole answer to the oldest exchange that is out."""
        if not self._out:
            return self._drop(now, Fault.GARBAGE, "an answer to nothing")
        out = self._out.popleft()
        if out.said is GET:
            return self._got(now, status, body)
        if isinstance(out.said, OldAction):
            return self._old_answered(now, out, out.said, status)
        if status != 200:
            return self._refused(now, out, decode_problem(status, body))
        try:
            view = decode_view(body)
        except WireError as error:
            return self._drop(now, Fault.GARBAGE, f"the freezer's answer: {error}")
        return self._confirmed(now, out, view)

    # === Time. ===

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to wait for."""
        late = self._out[0].late_at if self._out else inf
        due = min(self._turn_at(), late, self._give_up_at(), self._renew_at(), self.outage.announce_at)
        return due if due < inf else None

    def on_deadline(self, now: float) -> Effects:
        """Whatever is due by `now`; harmless when nothing is."""
        outage = self.outage
        effects: list[Effect] = []
        if now >= self._give_up_at():
            effects += self._tell(None, outage.why if outage.failures else "the freezer is too slow")
        if now >= outage.announce_at:
            effects += self._given_up()
        if self._out and now >= self._out[0].late_at:
            effects += self._drop(now, Fault.TIMEOUT, "the freezer does not answer")
        elif now >= self._turn_at():
            if self.phase is _AWAY:
                effects += self._dial(now)
            else:
                effects += self._drop(now, Fault.CONNECT, "the freezer cannot be reached: timed out")
        elif now >= self._renew_at():
            self.errand.renew_at = inf
            effects += self._say_wish(now)
        return tuple(effects)

    def _give_up_at(self) -> float:
        return self.errand.asked_at + self._patience.total if self.errand.asked else inf

    def _renew_at(self) -> float:
        return self.errand.renew_at if self.phase is _READY and not self._out else inf

    def _turn_at(self) -> float:
        """When the dial is due, or has taken too long."""
        if self.phase is _AWAY:
            return self.outage.dial_at
        return self._dialled_at + self._patience.connect if self.phase is _DIALLING else inf

    # === Answers. ===

    def _got(self, now: float, status: int, body: bytes) -> Effects:
        """What GET found: the first words of a connection."""
        if status == 200:
            try:
                view = decode_view(body)
            except WireError as error:
                return self._drop(now, Fault.GARBAGE, f"not a freezer: {error}")
            return self._greeted(now, view)
        refusal = decode_problem(status, body)
        if refusal.problem is None and status in _NOT_V1:
            return self._greeted_old(now)
        return self._turned_away(now, refusal)

    def _greeted(self, now: float, view: View) -> Effects:
        self._old = False
        effects = self._well(view)
        errand = self.errand
        stranger = not self._adopted or view.generation > errand.generation
        self._adopted = True
        errand.found(view.rung, view.generation)
        if errand.pending(now):
            effects += self._say_wish(now)
        elif stranger or (view.rung is not _RUNNING and errand.rung is _RUNNING):
            errand.let_go()
            effects.insert(0, Found(view.generation, view.rung))  # before terms: shadow would wake in words only
        elif errand.held and view.rung is not _RUNNING and view.generation == errand.generation:
            effects += self._say_wish(now)  # renews the lease
        elif errand.held:
            effects += self._woken("while the freezer was away")
        return tuple(effects)

    def _greeted_old(self, now: float) -> Effects:
        self._old = True
        effects = self._well(None)
        first, self._adopted = not self._adopted, True
        if self.errand.pending(now):
            effects += self._say_wish(now)
        elif first:  # nobody knows what we did before our restart: resuming what runs does no harm
            effects.insert(0, Found(self.errand.generation, Rung.FROZEN))
        return tuple(effects)

    def _confirmed(self, now: float, out: Out, view: View) -> Effects:
        """200 to a PUT."""
        effects = self._well(view)
        errand = self.errand
        if isinstance(out.said, StateRequest) and out.said.wanted is Wanted.TERMINATING:
            errand.ended()
        if out.generation != errand.generation:
            return tuple(effects)
        self._stale = 0
        asked, held = errand.asked, errand.held
        errand.confirmed(view.rung, out.late_at - self._patience.attempt, view.lease_s)
        if asked:
            effects.append(Told(errand.generation, view.rung, view.mechanism))
        elif held and not errand.held:
            effects += self._woken("from outside")
        return tuple(effects)

    def _refused(self, now: float, out: Out, refusal: Refusal) -> Effects:
        """Anything but 200 to a PUT."""
        self.errand.refused(out.ran and not self._out, refusal)
        if refusal.status in (401, 403) or refusal.problem is Problem.DRAINING:
            return self._turned_away(now, refusal)
        self._answering()
        errand, view = self.errand, refusal.view
        if out.generation != errand.generation or self._is_out():
            return QUIET  # overtaken by a newer wish, or by the end
        if refusal.problem is Problem.TERMINAL:
            errand.ended()
        if refusal.problem is Problem.STALE_GENERATION and view is not None and self._stale < _MOST_STALE:
            if view.generation > errand.generation:
                # Somebody counted further, most likely we before a restart: count on from there.
                self._stale += 1
                errand.asked = False
                errand.let_go()
                return (Found(view.generation, view.rung),)
        if errand.asked:
            self.outage.count(Fault.REFUSED)
            return tuple(self._tell(None, refusal.words))
        if errand.held and view is not None and view.rung is _RUNNING:
            return tuple(self._woken(refusal.words))
        if errand.held:
            errand.renew_at = now + _AGAIN_AFTER
        return QUIET

    def _old_answered(self, now: float, out: Out, said: OldAction, status: int) -> Effects:
        if status in (401, 403):
            return self._turned_away(now, Refusal(status, None))
        self._answering()
        errand, done = self.errand, status == 200
        if said is OldAction.RESUME and done:
            errand.ended()
        if out.generation != errand.generation or said is not errand.old():
            return self._say_wish(now) if errand.pending(now) else QUIET  # it waited: one at a time
        if not errand.asked:
            return QUIET
        errand.confirmed(errand.rung if done else _RUNNING, now, inf)
        return (Told(errand.generation, errand.rung if done else None, f"status {status}"),)

    # === What to say. ===

    def _say_wish(self, now: float) -> Effects:
        errand = self.errand
        if self._old:
            return QUIET if self._out else self._say(now, errand.old(), errand.generation)
        wish = errand.request(self._patience.lease)
        if any(out.said == wish for out in self._out):
            return QUIET  # the answer is on its way
        if len(self._out) >= _MOST_OUT:
            return self._drop(now, Fault.TIMEOUT, "too many questions without an answer")
        return self._say(now, wish, errand.generation)

    def _say(self, now: float, what: StateRequest | OldAction | Signal, generation: int) -> Effects:
        patience = self._patience.old_attempt if isinstance(what, OldAction) else self._patience.attempt
        self._out.append(Out(what, generation, now + patience, self.errand.said(what)))
        return (Say(what),)

    def _may_speak(self) -> bool:
        """A wish may be sent behind whatever is out."""
        return self.phase is _READY or (self.phase is _GREETING and self._old is False)

    def _is_out(self) -> bool:
        return any(out.generation == self.errand.generation for out in self._out)

    def _tell(self, rung: Rung | None, detail: str) -> list[Effect]:
        self.errand.asked = False
        return [Told(self.errand.generation, rung, detail)]

    # === How well it goes. ===

    def _answering(self) -> None:
        """The freezer is well, whatever it says."""
        self.phase = _READY
        self.outage.over()

    def _well(self, view: View | None) -> list[Effect]:
        """It knows us: terms, if they changed, and that it is there, if that is news."""
        self._answering()
        effects: list[Effect] = []
        if view is not None and view.session is not None:
            self.secret = view.session
        terms = spoken_to_old(self._fallback) if view is None else view.policy or self._terms or self._fallback
        if terms != self._terms:
            self._terms = terms
            effects.append(Terms(terms))
        if not self.up:
            self.up = True
            effects.append(Up(view.mechanism if view is not None else "container-freezer"))
        return effects

    def _woken(self, why: str) -> list[Effect]:
        self.errand.woken()
        return [Woken(f"thawed: {why}")]

    def _turned_away(self, now: float, refusal: Refusal) -> Effects:
        """Refused as such: not our token, not our session, not now. A new token may be in the file already."""
        first = refusal.status in (401, 403) and not self.outage.failures
        effects = [*self._drop(now, Fault.REFUSED, refusal.words, announce=not first)]
        if first:
            self.outage.dial_at = now
        elif not self.outage.announced:
            effects += self._given_up()
        if refusal.retry_after_s is not None:
            self.outage.postponed(now, refusal.retry_after_s, urgent=self.errand.urgent)
        return tuple(effects)

    def _drop(self, now: float, fault: Fault, why: str, *, announce: bool = True) -> Effects:
        self._out.clear()
        self.phase = _AWAY
        return (HANG_UP, *self._failed(now, fault, why, announce=announce))

    def _failed(self, now: float, fault: Fault, why: str, *, announce: bool = True) -> Effects:
        self.outage.failed(now, fault, why, urgent=self.errand.urgent)
        # Nobody relies on a freezer that was never there, so there is nothing to wait for.
        return tuple(self._given_up()) if announce and not self.up and not self.outage.announced else QUIET

    def _given_up(self) -> list[Effect]:
        self.outage.announced, self.up = True, False
        return [Down(self.outage.why)]

    def _dial(self, now: float) -> Effects:
        self.phase, self._dialled_at = _DIALLING, now
        return (DIAL,)
