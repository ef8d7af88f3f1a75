"""Decides about one pod: what the sidecar wants, what the kernel confirmed, and how long that may last.

    RUNNING ── idle ──> SINKING ── reached ──> ASLEEP ── lease over, policy, drain ──> DUE
       ^                   │ failed              │ active, terminating, stop            │ its turn, or asked
       │ reached           v                     v                                      v
       └──────────────── RISING <───────────────────────────────────────────────────────┘
                         │    ^
                  failed v    │ in a while, or asked
                         STUCK

Theory of operation. `asked` brings a sidecar's wish with its generation; an older generation than the newest known is
refused, the same one gets the same answer, a newer one overtakes whoever still waits. `reached` brings what the kernel
confirmed for the newest move; answers to older moves are not heard. Only one move is out at a time. A thaw under way
serves every wish to run. Whatever is not certain counts as asleep, and whatever goes wrong ends in a thaw, repeated
until the kernel confirms it or the containers are gone. `rung` is the deepest the pod may be at.

Terminating is no phase: the permit remembers it. It is heard whatever its generation, because no order of messages
makes it wrong.

It knows no other pod and no timer: `until` says when `on_deadline` is due, and the storm when it is its `turn`.
"""

from __future__ import annotations

from math import inf

from queueproxy.freeze.node.actions import (
    TRANSITIONS,
    Action,
    Answer,
    Close,
    Event,
    Forget,
    Kind,
    Move,
    Phase,
    Remember,
    Reply,
    Verdict,
)
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.permit import Permit, Terms
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, StateRequest, View, Wanted

__all__ = ["Entry"]

_RUNNING, _SINKING, _ASLEEP, _DUE, _RISING, _STUCK = Phase  # Python 3.11: an enum's attribute is 900 instructions
(_, _IDLE, _TERMINATING), _AWAKE, _THAWED, _ACCEPTED = Wanted, Rung.RUNNING, Kind.THAWED, Answer.ACCEPTED
_SLEEPING = frozenset({_ASLEEP, _DUE})
_LEASE_OVER = "lease over"
_SAID = {wanted: Kind[wanted.name] for wanted in Wanted}
_DONE = {Rung.THROTTLED: Kind.THROTTLED, Rung.FROZEN: Kind.FROZEN}

Out = list[Action]


class Entry:
    """One pod."""

    __slots__ = (
        "_attempts", "_failure", "_refused", "_settled", "_terms", "_waiting", "_why",
        "generation", "lease_until", "mechanism", "move", "permit", "phase", "rung", "since", "slept_for", "took_us",
        "uid", "until", "wakes", "wanted",
    )  # fmt: skip

    def __init__(self, terms: Terms, uid: str, now: float) -> None:
        self._terms = terms
        self.uid = uid
        self.permit = Permit(terms)
        self.phase = _RUNNING
        self.since = now  # of `phase`
        self.until = inf  # of `phase`
        self.rung = _AWAKE
        self.generation = 0
        self.wanted = Wanted.ACTIVE
        self.lease_until = -inf
        self.move = 0  # the number of the one that is out
        self.mechanism = ""
        self.took_us = 0
        self.wakes = 0
        self.slept_for = 0.0  # seconds, up to the latest change
        self._settled = False  # the newest wish is carried out and confirmed
        self._refused: Problem | None = None  # what the newest wish was told instead
        self._failure = ""  # of the newest move
        self._waiting: list[int] = []  # numbers of requests that the end of the present move answers
        self._attempts = 0  # thaws that failed in a row
        self._why = ""  # of the newest move, or of its plan

    def __repr__(self) -> str:
        waiting = f" waiting={len(self._waiting)}" if self._waiting else ""
        return (
            f"<Entry {self.uid} {self.phase.name} {self.rung.name} {self.wanted.name} gen={self.generation}"
            f"{waiting} {self.permit!r} {self._why!r}>"
        )

    # === What may be told. ===

    def view(self, now: float) -> View:
        """To the pod's own sidecar."""
        left = max(0.0, self.lease_until - now) if self.rung else 0.0
        return View(self.rung, self.generation, self.mechanism, self.took_us, None, left, self.permit.policy(now))

    def reason(self, now: float) -> str:
        """Why it is awake or asleep, to operators."""
        if self.phase is _STUCK:
            return f"{self._why}, cannot thaw after {self._attempts} attempts: {self._failure}"
        return self._why if self.phase is not _RUNNING else self.permit.why(now) or self._failure or self._why

    # === What the sidecar says. ===

    def asked(self, now: float, request: StateRequest) -> Verdict:
        """A wish; the verdict carries the actions."""
        wanted, generation = request.wanted, request.generation
        number = self._terms.number()
        out: Out = []
        known = generation <= self.generation
        to_run, was_to_run = wanted is not _IDLE, self.wanted is not _IDLE
        # Under one generation the wish to run wins over the wish to sleep, in whichever order they come.
        if wanted is not _TERMINATING and (generation < self.generation or (known and was_to_run and not to_run)):
            return self._answer(now, number, out, Problem.STALE_GENERATION)
        repeated = known and (wanted is self.wanted or (to_run and self.wanted is _TERMINATING))
        if not repeated:
            if not (known and to_run and was_to_run):  # otherwise those who wait get what they want
                self._reply(now, out, Problem.STALE_GENERATION, "overtaken")
            self.generation, self.wanted = max(self.generation, generation), wanted
            self._settled, self._refused = False, None
            out.append(Event(self.uid, _SAID[wanted], self.generation, request.reason))
        if not to_run:
            return self._asked_to_sleep(now, number, request, out, repeated=repeated)
        if wanted is _TERMINATING:
            self._end(out)
        if self.phase is _RUNNING and self._settled:
            return self._answer(now, number, out)
        return self._wait(now, number, request.reason or wanted.name.lower(), out)

    def _asked_to_sleep(self, now: float, number: int, request: StateRequest, out: Out, *, repeated: bool) -> Verdict:
        cap, problem = self.permit.cap(now)
        self._refused = self._refused if repeated else problem
        if self._refused is not None:
            return self._answer(now, number, out, self._refused)
        if repeated:
            return self._repeated(now, number, request, out)
        if self.phase is _STUCK:
            return self._answer(now, number, out, Problem.NOT_CONFIRMED, self._failure)
        rung = min(cap, request.rung)
        if rung:
            self._lease(now, request.lease_s)
            return self._sink(now, number, rung, request.reason or "idle", out)
        self._failure = ""
        if self.phase is _RUNNING:
            self._settled = True
            return self._answer(now, number, out)
        return self._wait(now, number, "may not sleep", out)

    def _repeated(self, now: float, number: int, request: StateRequest, out: Out) -> Verdict:
        """The same wish to sleep: a renewal, or an answer was lost."""
        if self.phase is _DUE and self._why == _LEASE_OVER and self.permit.may_stay(now, self.rung):
            self._terms.storm.discard(self.uid)  # late, but not too late
            self._set(now, _ASLEEP)
        if self.phase is _ASLEEP:
            self._lease(now, request.lease_s)
            self.until = self.lease_until
            return self._answer(now, number, out)
        if self.phase is _RUNNING and not self._failure:
            return self._answer(now, number, out)  # it was thawed meanwhile
        if self.phase is _RUNNING or self.phase is _STUCK:
            return self._answer(now, number, out, Problem.NOT_CONFIRMED, self._failure)
        if self.phase is _SINKING:
            return self._join(now, number, out)
        return self._wait(now, number, self._why, out)

    # === What the kernel, the API server, operators and the node say. ===

    def reached(self, now: float, moved: Moved, out: Out) -> None:
        """The move that is out has ended."""
        self.move = 0
        self.mechanism = moved.mechanism or self.mechanism
        self.took_us = round(moved.took * 1e6)
        if self.phase is _RISING:
            if moved.gone or moved.rung is _AWAKE:
                self._rose(now, out, gone=moved.gone)
            else:
                self._thaw_failed(now, moved.detail or "still asleep", out)
        elif moved.gone or not moved.rung:
            self._sink_failed(now, moved.detail or ("gone" if moved.gone else "still running"), out, gone=moved.gone)
        else:
            self.rung = moved.rung
            self._settled = True
            self._set(now, _ASLEEP)
            self.until = self.lease_until
            self._reply(now, out)
            out += (Event(self.uid, _DONE[self.rung], self.generation, self._why), Remember(self.uid))

    def known(self, now: float, facts: PodFacts, out: Out) -> None:
        """The pod as the API server has it now."""
        if not self.permit.known(facts):
            self.permit.is_outdated = False
        elif self.phase is _RUNNING:
            self._renew(out)
        else:
            self.permit.is_outdated = True
        self.review(now, facts.refusal or ("containers changed" if self.permit.is_outdated else "policy"), out)

    def vanished(self, now: float, out: Out) -> None:
        """Deleted. Its containers may linger, so what is held is let go first."""
        self.permit.is_gone = True
        if self.phase is _RUNNING:
            self._leave(out)
        self.review(now, "pod deleted", out)

    def stopping(self, now: float, out: Out) -> None:
        """A stop signal waits for a frozen container (FZ-055)."""
        self._end(out)
        if self.phase is not _RUNNING:
            self._rise(now, "stop signal", out, urgent=True)

    def held_awake(self, now: float, until: float, out: Out, *, urgent: bool) -> None:
        """An operator wants it to run, and go on running."""
        self.permit.hold_until = max(self.permit.hold_until, until)
        if not urgent:
            self._due(now, "operator", out)
        elif self.phase is not _RUNNING:
            self._rise(now, "operator", out, urgent=True)

    def review(self, now: float, why: str, out: Out, *, soon: bool = True) -> None:
        """Something changed: may what sleeps go on sleeping?"""
        if self.phase is not _RUNNING and not self.permit.may_stay(now, self.rung):
            self._due(now, why, out, soon=soon)

    def adopted(self, now: float, generation: int, rung: Rung, out: Out) -> None:
        """What a former freezer left: leased once more (FZ-092). What looks awake is made certain: half a freeze
        looks like none."""
        self.generation, self.wanted = generation, _IDLE
        self._settled = True
        self._lease(now, 0.0)
        self.rung = rung or Rung.THROTTLED
        self._set(now, _ASLEEP)
        self._why = "adopted"
        self.until = self.lease_until
        if not rung or not self.permit.may_stay(now, rung):
            self._due(now, "found awake" if not rung else "may not sleep", out)

    # === Time. ===

    def on_deadline(self, now: float, out: Out) -> None:
        """`until` has come."""
        if self.phase is _ASLEEP:
            out.append(Event(self.uid, Kind.EXPIRED, self.generation, _LEASE_OVER))
            self._due(now, _LEASE_OVER, out)
        elif self.phase is _STUCK:
            self._rise(now, self._why, out, urgent=False)
        elif self.phase is _RISING:
            self._thaw_failed(now, "no answer", out)
        elif self.phase is _SINKING:
            self._sink_failed(now, "no answer", out, gone=False)

    def turn(self, now: float, out: Out) -> None:
        """The storm lets it thaw."""
        if self.phase is _DUE:
            self._rise(now, self._why, out, urgent=False)

    # === Going down. ===

    def _lease(self, now: float, wished: float) -> None:
        settings = self._terms.settings
        self.lease_until = now + min(wished if wished > 0 else settings.lease_default, settings.lease_cap)

    def _sink(self, now: float, number: int, rung: Rung, why: str, out: Out) -> Verdict:
        """From here on it may be asleep. Remembered before the kernel is asked."""
        self._terms.storm.discard(self.uid)
        self._waiting.append(number)
        self._failure = ""
        self._set(now, _SINKING)
        self.rung = max(self.rung, rung)
        out.append(Remember(self.uid))
        self._put(now, rung, why, out, urgent=False)
        return Verdict(_ACCEPTED, number, None, actions=tuple(out))

    def _sink_failed(self, now: float, detail: str, out: Out, *, gone: bool) -> None:
        """Leaves the pod running, and makes sure of it (FZ-065)."""
        self._failure = detail
        self._reply(now, out, Problem.NOT_CONFIRMED, detail)
        out.append(Event(self.uid, Kind.FAILED, self.generation, detail))
        if gone:
            self._rose(now, out, gone=True)
        else:
            self._rise(now, f"freeze failed: {detail}", out, urgent=True)

    # === Coming up. ===

    def _due(self, now: float, why: str, out: Out, *, soon: bool = True) -> None:
        """Has to run again, and nobody waits for it."""
        if self.phase is _SINKING:
            self._rise(now, why, out, urgent=False)
        elif self.phase in _SLEEPING:
            settings = self._terms.settings
            self._why = why
            if self.phase is _ASLEEP:
                self._set(now, _DUE)
            self._terms.storm.add(now, self.uid, now + (settings.expiry_for if soon else settings.calm_for), soon=soon)

    def _wait(self, now: float, number: int, why: str, out: Out) -> Verdict:
        """Answered when it runs."""
        verdict = self._join(now, number, out)
        if verdict.problem is None:
            self._rise(now, why, out, urgent=True)
        return verdict._replace(actions=tuple(out))

    def _join(self, now: float, number: int, out: Out) -> Verdict:
        """Answered by the end of the move that is out."""
        if len(self._waiting) >= self._terms.settings.waiting_cap:
            return self._answer(now, number, out, Problem.RATE_LIMITED, "too many wait")
        self._waiting.append(number)
        return Verdict(_ACCEPTED, number, None, actions=tuple(out))

    def _rise(self, now: float, why: str, out: Out, *, urgent: bool) -> None:
        if self.phase is _RISING:
            return  # a thaw is a thaw
        self._terms.storm.discard(self.uid)
        if urgent:
            self._terms.storm.requested(now)
        self._set(now, _RISING)
        self._put(now, _AWAKE, why, out, urgent=urgent)

    def _rose(self, now: float, out: Out, *, gone: bool) -> None:
        held = self.rung is not _AWAKE
        self.rung = _AWAKE
        self._attempts = 0
        self._settled = True
        self._set(now, _RUNNING)
        self._reply(now, out)
        if held:
            self.wakes += not gone
            out.append(Event(self.uid, _THAWED, self.generation, "gone" if gone else self._why))
        if self.permit.is_gone:
            self._leave(out)
            return
        if held:
            out.append(Remember(self.uid) if self.permit.ended else Forget(self.uid))
        if gone or self.permit.is_outdated:
            self._renew(out)

    def _thaw_failed(self, now: float, detail: str, out: Out) -> None:
        """Goes on for ever. A request to run does not wait for the next attempt."""
        settings = self._terms.settings
        self._failure = detail
        self.rung = self.rung or Rung.FROZEN  # it should have run already: somebody else's freeze
        self._set(now, _STUCK)
        self.until = now + min(settings.thaw_retry_cap, settings.thaw_retry_after * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        self._reply(now, out, Problem.NOT_CONFIRMED, detail)
        out.append(Event(self.uid, Kind.FAILED, self.generation, detail))

    # === Small parts. ===

    def _put(self, now: float, rung: Rung, why: str, out: Out, *, urgent: bool) -> None:
        self._why = why
        self.move = self._terms.number()
        self.until = now + self._terms.settings.move_deadline
        out.append(Move(self.uid, rung, self.move, urgent))

    def _set(self, now: float, phase: Phase) -> None:
        self.move = 0
        if phase is not self.phase:  # else another wish to sleep, while one is out
            assert phase in TRANSITIONS[self.phase], f"{self!r} cannot move to {phase.name}"
            if self.phase in _SLEEPING:
                self.slept_for += now - self.since
            self.phase = phase
            self.since = now
        self.until = inf

    def _answer(self, now: float, number: int, out: Out, problem: Problem | None = None, detail: str = "") -> Verdict:
        answer = Answer.ANSWER if problem is None else Answer.REFUSED
        return Verdict(answer, number, self.view(now), problem, detail, tuple(out))

    def _reply(self, now: float, out: Out, problem: Problem | None = None, detail: str = "") -> None:
        if self._waiting:
            view = self.view(now)
            out += [Reply(self.uid, number, view, problem, detail) for number in self._waiting]
            self._waiting = []

    def _end(self, out: Out) -> None:
        """A freezer that takes over must know, even if this one dies in the next moment."""
        if self.permit.end():
            out.append(Remember(self.uid))

    def _renew(self, out: Out) -> None:
        """The containers a move would move are not the pod's any more, or none of them is left."""
        permit = self.permit
        had, ended = permit.ids, permit.ended
        permit.renew()
        if had:
            out.append(Close(self.uid))
        if ended and not permit.ended:
            out.append(Forget(self.uid))

    def _leave(self, out: Out) -> None:
        out += (Forget(self.uid), Close(self.uid))
