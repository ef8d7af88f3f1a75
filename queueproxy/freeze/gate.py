"""Runs the idle policy against a mechanism and holds the requests that wait for a thaw.

The only owner of its policy. It carries out effects in order, keeps the policy's one timer, and feeds answers back. A
request costs two counts while the app is awake; everything else happens between requests. Waiters are released
together, and none is lost because another one failed (FZ-031).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from queueproxy.clock import monotonic
from queueproxy.errors import Failure, not_awake, not_ready
from queueproxy.freeze.policy import (
    DROP_POOL,
    OPEN,
    Ask,
    Effects,
    IdlePolicy,
    IdleSettings,
    Look,
    Moved,
    Refuse,
    Rung,
    State,
)

__all__ = ["Gate", "Mechanism", "Observer", "Waiter"]

# Seconds. Long enough for the request that woke the app to be dialled and sent first: a status line costs as much as
# the thaw itself.
TELL_AFTER = 0.002
# Seconds between the end of our connections to the app and the look before its sleep. An app frozen with our hang-ups
# still unread deals with them first when it wakes, while a request waits: 0.1 to 0.2 ms.
SETTLE_FOR = 0.02

Answered = Callable[[int, Rung | None, str], None]
Looked = Callable[[int, str | None], None]


class Mechanism(Protocol):
    """Moves the app to a rung: cgroups in-process, signals, or a node freezer."""

    name: str

    def ask(self, rung: Rung, generation: int, answered: Answered) -> None:
        """Starts towards `rung`. `answered(generation, rung reached or None, detail)` at most once, perhaps before
        this returns; a newer ask supersedes an older one, whose answer may then never come."""


class Waiter(Protocol):
    """A request held until the app runs. Exactly one of the two is called, once."""

    def awake(self) -> None: ...
    def refused(self, failure: Failure) -> None: ...


class Observer(Protocol):
    """Told what happened, for metrics, status lines and logs: in order and a moment later, so that no request waits
    for a log line."""

    def moved(self, moved: Moved, now: float) -> None: ...
    def asked(self, ask: Ask, now: float) -> None: ...
    def answered(self, ask: Ask, rung: Rung | None, detail: str, took: float, now: float) -> None: ...
    def waited(self, waited_for: float) -> None: ...


class Gate:
    """drop_pool: closes idle connections to the app. look: searches for a reason not to sleep; None finds nothing.
    patience: seconds that requests go on waiting once the fast thaws have failed; readiness fails meanwhile."""

    __slots__ = (
        "_arrived", "_ask", "_asked_at", "_chores", "_depth", "_drop_pool", "_finished", "_look", "_loop",
        "_mechanism", "_news", "_observers", "_patience", "_refusal", "_refuse_at", "_settling", "_telling", "_timer",
        "_unsure", "_waiters", "_why", "is_open", "policy",
    )  # fmt: skip

    def __init__(
        self,
        policy: IdlePolicy,
        loop: asyncio.AbstractEventLoop,
        mechanism: Mechanism | None,
        *,
        drop_pool: Callable[[], None],
        look: Callable[[Look, Looked], None] | None = None,
        observers: Sequence[Observer] = (),
        patience: float = 0.0,
    ) -> None:
        self.policy = policy
        self._loop = loop
        self._mechanism = mechanism
        self._drop_pool = drop_pool
        self._look = look
        self._observers = tuple(observers)
        self._news: list[tuple[str, tuple[object, ...]]] = []
        self._telling: asyncio.TimerHandle | None = None
        self._chores: asyncio.Handle | None = None
        self._waiters: dict[Waiter, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._refusal: str | None = None
        self._unsure: asyncio.TimerHandle | None = None
        self._patience = patience
        self._refuse_at: asyncio.TimerHandle | None = None
        self._why = ""  # the thaw failed last
        self._depth = 0
        self.is_open = policy.is_open  # a request may be forwarded now; an attribute, read for every request
        self._ask: Ask | None = None
        self._asked_at = 0.0
        if mechanism is None and not policy.shadow:
            policy.disabled(monotonic(), "nothing here can freeze")  # fail open, and never ask in vain
        self._arrived = policy.arrived  # bound once: called for every request
        self._finished = policy.finished

    def __repr__(self) -> str:
        return f"<Gate {self.policy!r} waiting={len(self._waiters)}>"

    @property
    def waiting(self) -> int:
        """Requests held."""
        return len(self._waiters)

    # -- the request path

    def arrived(self, now: float) -> None:
        """A request began; wakes the app if it sleeps."""
        effects = self._arrived(now)
        if effects:
            # Timers are set once the request has left: two of them are 0.05 ms from cold caches.
            self._depth += 1
            try:
                self._run(effects)
                if self.is_open:  # the thaw was confirmed on the spot: it waited too, if only for microseconds
                    self._note("waited", monotonic() - now)
            finally:
                self._depth -= 1
                if self._chores is None:
                    self._chores = self._loop.call_soon(self._do_chores)

    def left(self, now: float) -> None:
        """A request ended."""
        self._finished(now)
        if self._timer is None:
            policy = self.policy
            if not policy.busy and policy.state is not State.DISABLED:
                self._rearm()

    def reading(self, now: float) -> None:
        """The first bytes of a request are here (FZ-036)."""
        self._stir(self.policy.reading_began(now))

    def read(self, now: float) -> None:
        """That request is whole, or its client is gone."""
        self._stir(self.policy.reading_ended(now))

    def wait(self, waiter: Waiter) -> None:
        """Holds the request until the app runs; refused at once when it is known that it cannot be woken."""
        if self._refusal is not None:
            waiter.refused(not_ready(self._refusal))
        elif self.policy.stuck and self._refuse_at is None:
            waiter.refused(not_awake("the app could not be woken"))
        else:
            self._waiters[waiter] = monotonic()

    def cancel(self, waiter: Waiter) -> None:
        """The request is over before the thaw was confirmed."""
        self._waiters.pop(waiter, None)

    # -- the app's life

    def refuse_with(self, text: str) -> None:
        """Local mode, before the first readiness: requests get 503 with this line instead of being forwarded."""
        self._refusal = text
        self.is_open = False

    def accept(self) -> None:
        """Requests are forwarded from now on."""
        self._refusal = None
        self.is_open = self.policy.is_open and self._unsure is None

    def unsure(self, patience: float) -> None:
        """Somebody may have put the app to sleep before we came: requests wait until `sure`, for `patience` seconds at
        most (FZ-033, FZ-068)."""
        self._unsure = self._loop.call_later(patience, self.sure)
        self.is_open = False

    def sure(self) -> None:
        """It is known whether the app sleeps, or it will not be."""
        if self._unsure is None:
            return
        self._unsure.cancel()
        self._unsure = None
        self.is_open = self.policy.is_open and self._refusal is None
        if self.is_open:
            self._release(lambda waiter: waiter.awake())

    def ready(self) -> None:
        """A real readiness probe succeeded: arms the policy (FZ-010)."""
        self._feed(self.policy.ready(monotonic()))

    def unready(self) -> None:
        """A real readiness probe failed."""
        self._feed(self.policy.unready(monotonic()))

    def touched(self, why: str, hold_for: float | None = None) -> None:
        """A sign that somebody needs the app soon; for how long, where that is known (FZ-098)."""
        self._feed(self.policy.touched(monotonic(), why, hold_for))

    def app_restarted(self) -> None:
        """Another process is the app now (FZ-012)."""
        self._feed(self.policy.app_restarted(monotonic()))

    def terminate(self) -> None:
        """SIGTERM or drain: awake for ever after (FZ-050)."""
        self._feed(self.policy.terminated(monotonic()))

    def disable(self, reason: str) -> None:
        """Freezing is not to be had: stay awake (D13)."""
        self._feed(self.policy.disabled(monotonic(), reason))

    def enable(self) -> None:
        """Freezing is to be had again."""
        self._feed(self.policy.enabled(monotonic()))

    def configure(self, settings: IdleSettings) -> None:
        """The pod's own terms arrived, or changed."""
        self._feed(self.policy.configured(monotonic(), settings))

    def adopted(self, generation: int, rung: Rung) -> None:
        """What the mechanism held before we came (FZ-068)."""
        self._feed(self.policy.adopted(monotonic(), generation, rung))

    def woken(self, why: str) -> None:
        """The mechanism thawed the app of its own accord."""
        self._feed(self.policy.woken(monotonic(), why))

    def close(self) -> None:
        """No timer and no waiter is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in (self._unsure, self._settling, self._chores):
            if waiting is not None:
                waiting.cancel()
        self._hope()
        self._release(lambda waiter: waiter.refused(not_awake("shutting down")))
        self._tell()

    # -- effects

    def _stir(self, effects: Effects) -> None:
        """After a count: a timer that runs already may fire early, so it is not moved for a count alone."""
        if effects:
            self._run(effects)
        elif self._timer is None:
            self._rearm()

    def _feed(self, effects: Effects) -> None:
        if effects:
            self._run(effects)
        else:
            self._rearm()

    def _run(self, effects: Effects) -> None:
        """In order; what can be answered comes last, so an answer before `ask` returns is only a nested call."""
        self.is_open = self.policy.is_open and self._refusal is None and self._unsure is None
        self._depth += 1
        try:
            for effect in effects:
                if isinstance(effect, Moved):
                    self._note("moved", effect, monotonic())
                elif isinstance(effect, Ask):
                    self._put(effect)
                elif effect is OPEN:
                    self.sure()  # confirmed by the kernel: nothing is surer
                    self._hope()
                    self._release(lambda waiter: waiter.awake())
                elif effect is DROP_POOL:
                    self._drop_pool()
                elif isinstance(effect, Look):
                    self._search(effect)
                elif isinstance(effect, Refuse):
                    self._despair(effect.detail)
        finally:
            self._depth -= 1
        self._rearm()

    def _do_chores(self) -> None:
        self._chores = None
        self._rearm()

    def _despair(self, why: str) -> None:
        """The fast thaws have failed. Whoever waits does so until patience ends, once; later ones are not held."""
        first, self._why = not self._why, why or "no reason was given"
        if first and self._patience:
            self._refuse_at = self._loop.call_later(self._patience, self._refuse)
        elif self._refuse_at is None:
            self._refuse()

    def _refuse(self) -> None:
        self._refuse_at = None
        failure = not_awake(f"the app could not be woken: {self._why}")
        self._release(lambda waiter: waiter.refused(failure))

    def _hope(self) -> None:
        """The app runs."""
        self._why = ""
        if self._refuse_at is not None:
            self._refuse_at.cancel()
            self._refuse_at = None

    def _put(self, ask: Ask) -> None:
        now = monotonic()
        self._ask, self._asked_at = ask, now
        self._note("asked", ask, now)
        if self.policy.shadow:
            self._answered(ask.generation, ask.rung, "shadow")
        elif self._mechanism is None:
            self._answered(ask.generation, None, "nothing here can freeze")
        else:
            self._mechanism.ask(ask.rung, ask.generation, self._answered)

    def _answered(self, generation: int, rung: Rung | None, detail: str) -> None:
        now = monotonic()
        ask = self._ask
        if ask is not None and ask.generation == generation:
            self._note("answered", ask, rung, detail, now - self._asked_at, now)
        policy = self.policy
        if rung is None:
            self._feed(policy.failed(now, generation, detail))
        else:
            self._feed(policy.confirmed(now, generation, rung))

    def _search(self, look: Look) -> None:
        if self.policy.shadow:
            self._found(look.number, None)
            return
        self._drop_pool()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = self._loop.call_later(SETTLE_FOR, self._settled, look)

    def _settled(self, look: Look) -> None:
        """The answer to a look that a request has overtaken is ignored by the policy."""
        self._settling = None
        if self._look is None:
            self._found(look.number, None)
        else:
            self._look(look, self._found)

    def _found(self, number: int, obstacle: str | None) -> None:
        self._feed(self.policy.looked(monotonic(), number, obstacle))

    def _release(self, tell: Callable[[Waiter], None]) -> None:
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, {}
        now = monotonic()
        for waiter, since in waiters.items():
            self._note("waited", now - since)
            try:
                tell(waiter)
            except Exception as error:  # one request's fault must not leave the others waiting
                self._loop.call_exception_handler({"message": "a held request failed", "exception": error})

    def _note(self, what: str, *facts: object) -> None:
        if self._observers:
            self._news.append((what, facts))
            if self._telling is None and not self._depth:
                self._telling = self._loop.call_later(TELL_AFTER, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        news, self._news = self._news, []
        for what, facts in news:
            for observer in self._observers:
                getattr(observer, what)(*facts)

    def _rearm(self) -> None:
        if self._depth:
            return  # an answer came while its question was being put: the outermost call sets the timers, once
        if self._news and self._telling is None:
            self._telling = self._loop.call_later(TELL_AFTER, self._tell)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        policy = self.policy
        if policy.state is State.DISABLED and policy.settled:
            return
        deadline = policy.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._feed(self.policy.on_deadline(monotonic()))
