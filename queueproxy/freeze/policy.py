"""Decides when the app may sleep and when it has to wake: the idle policy, a pure state machine.

    DISABLED <── disabled / enabled ──> AWAKE ── idle, not held ──> GRACE
                                        ^   <── arrived, touched ──  │
                                        │                            │ a rung is due, the look found nothing
                     confirmed running  │                            v
    adopted asleep ──> WAKING ──────────┘              THROTTLED ──────> FROZEN
                         ^                                 │               │
                         └── arrived, touched, failed, disabled, unready ──┘

    TERMINATING is reached from everywhere and left to nowhere; it thaws first. The exact edges are in `TRANSITIONS`.

Busy is a count: requests (executing, queued, streaming, upgraded) through `arrived`/`finished`, half-read ones
through `reading_began`/`reading_ended`. At zero the app is idle. It sleeps once it is armed (ready, and up for
`min_uptime`), nothing holds it awake (hysteresis, a failed freeze, the breaker), it has been idle for a rung's
delay, and a look at its socket found nobody waiting. Every rung goes back to running in one step.

Events are the methods; each takes `now` and returns a tuple of effects. Whoever owns the policy (the door) carries
them out in order, and feeds what it learns back as new events, during the last effect if it likes: what can be
answered always comes last, and there is at most one such effect (`Ask`, `Look`, `OPEN` or `Refuse`) in a tuple. The
door keeps one timer: set it to `next_deadline()` after each call that returned effects and, when no timer runs,
after `finished`, `reading_ended` and any event other than a count; call `on_deadline` when it fires. Early is
harmless, so a request need never move the timer.

Wishes are fenced: each change of wish has a new generation, and an answer to an older one changes nothing. A
repeated thaw keeps its generation, so that a slow but successful answer still counts. The app is open only when
running is *confirmed* for the newest wish. When in doubt the wish is to run.

What it refuses to know: clocks, tasks, mechanisms, sockets, log lines. `busy`, `half_read`, `state` and `is_open`
are plain attributes for speed; only this module sets them. AWAKE <-> GRACE happens twice per request on a quiet app
and is not announced by `Moved`: both mean running.
"""

from math import inf

from queueproxy.freeze.hold import Hold
from queueproxy.freeze.ladder import Ladder
from queueproxy.freeze.lookout import Lookout
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.standing import Standing, check
from queueproxy.freeze.vocabulary import (
    DROP_POOL,
    NOTHING,
    OPEN,
    TRANSITIONS,
    Ask,
    Effects,
    Look,
    Moved,
    Refuse,
    Rung,
    State,
)
from queueproxy.freeze.wish import Wish

__all__ = [
    "DROP_POOL", "NOTHING", "OPEN", "TRANSITIONS",
    "Ask", "Effects", "IdlePolicy", "IdleSettings", "Look", "Moved", "Refuse", "Rung", "State",
]  # fmt: skip

# Globals are looked up faster than enum attributes, and these are compared on each request.
_RUNNING, _AWAKE, _GRACE = Rung.RUNNING, State.AWAKE, State.GRACE
_ASLEEP = frozenset({State.THROTTLED, State.FROZEN})
_STATE_OF = {Rung.THROTTLED: State.THROTTLED, Rung.FROZEN: State.FROZEN}


class IdlePolicy(Standing):
    """May the app sleep, and is it awake?"""

    __slots__ = (
        "_hold", "_idle_at", "_ladder", "_lookout", "_off", "_pending", "_quick", "_wish",
        "busy", "half_read", "is_open", "shadow", "state",
    )  # fmt: skip

    def __init__(self, settings: IdleSettings) -> None:
        self.shadow = settings.shadow
        self._ladder = Ladder(settings)
        self.busy = 0  # requests: executing, queued, streaming, upgraded
        self.half_read = 0  # connections with the beginning of a request on them
        self.is_open = True  # a request may be forwarded
        self.state = State.AWAKE if self._ladder.rungs else State.DISABLED
        self._off = ""  # why there is no freezing, when it is not the settings' doing
        self._pending: IdleSettings | None = None  # hold from the next certain running
        self._idle_at = 0.0
        self._hold = Hold(settings)
        self._wish = Wish(settings)
        self._lookout = Lookout(settings)
        self._quick = not self._ladder.learns  # nothing to note when an idle, running app gets a request

    def __repr__(self) -> str:
        return f"<IdlePolicy {self.state.name} {self._wish!r} busy={self.busy} half_read={self.half_read}>"

    # === Counts: the request path. No tuples, no checks, nothing that grows. ===

    def arrived(self, now: float) -> Effects:
        """A request counts from here, waiting or not, until `finished`."""
        busy = self.busy
        self.busy = busy + 1
        if busy or self.half_read or (self.state is _AWAKE and self._quick):
            return NOTHING
        return self._stirred(now, "request")

    def finished(self, now: float) -> Effects:
        """The last response byte was handed over, or the request given up; exactly once per `arrived` (FZ-026)."""
        busy = self.busy - 1
        assert busy >= 0, "finished without arrived"
        self.busy = busy
        if not busy and not self.half_read:
            self._idle_at = now
            if self.state is _AWAKE and now >= self._hold.until:
                self.state = _GRACE
        return NOTHING

    def reading_began(self, now: float) -> Effects:
        """The first bytes of a request are here: wake now, read meanwhile (FZ-036)."""
        half_read = self.half_read
        self.half_read = half_read + 1
        if half_read or self.busy or (self.state is _AWAKE and self._quick):
            return NOTHING
        return self._stirred(now, "first bytes")

    def reading_ended(self, now: float) -> Effects:
        """The request is read (after its `arrived`, lest the app look idle in between) or its connection is gone."""
        half_read = self.half_read - 1
        assert half_read >= 0, "reading_ended without reading_began"
        self.half_read = half_read
        if not half_read and not self.busy:
            self._idle_at = now
            if self.state is _AWAKE and now >= self._hold.until:
                self.state = _GRACE
        return NOTHING

    # === Events from the app's life. ===

    def touched(self, now: float, why: str = "touched", hold_for: float | None = None) -> Effects:
        """A sign that somebody may need the app (accepted connection, knock, heartbeat): run for `hold_for` seconds
        (None: `min_running`), counted from the confirmed thaw. It is no request and ends no idle period (FZ-098)."""
        if self.state in _ASLEEP or self.state is State.WAKING:
            self._hold.pledge(hold_for)
            return self._wake(now, why) if self.state in _ASLEEP else NOTHING
        self._hold.keep(now, hold_for)
        return self._held()

    def ready(self, now: float) -> Effects:
        """The readiness probe succeeded (as often as it must): arm, once `min_uptime` has passed (FZ-010, FZ-011)."""
        if self._hold.armed_at < inf:
            return NOTHING
        self._hold.ready(now)
        return self._new_period(now)

    def unready(self, now: float, why: str = "not ready") -> Effects:
        """A real probe failed. Never sleep on a bad answer: the kubelet would hear it until the next request."""
        self._hold.unready()
        return self._wake(now, why) if self.state in _ASLEEP else self._held()

    def app_restarted(self, now: float) -> Effects:
        """Another process is the app now: it arms anew, with its own readiness and its own `min_uptime` (FZ-012)."""
        self._hold.restarted()
        return self.unready(now, "app restarted")

    def disabled(self, now: float, reason: str) -> Effects:
        """Freezing is not to be had (no freezer, switched off): stay awake, thawing first if need be (FZ-014, D13)."""
        self._off = reason
        if self.state in _ASLEEP:
            return self._wake(now, reason)
        running = self.state is _AWAKE or self.state is _GRACE
        return self._checked((self._move(State.DISABLED, reason),) if running else NOTHING)

    def enabled(self, now: float) -> Effects:
        """Freezing is to be had again; a new idle period begins."""
        if not self._off:
            return NOTHING
        self._off = ""
        self._new_period(now)
        return self._allowed("enabled")

    def configured(self, now: float, settings: IdleSettings) -> Effects:
        """Other settings: at once while running is certain, otherwise the app is woken and they hold from then."""
        if self._wish.rung is not _RUNNING or not self._wish.settled:
            self._pending = settings
            return self._wake(now, "configured") if self.state in _ASLEEP else NOTHING
        self._configure(settings)
        stops = self.off and (self.state is _AWAKE or self.state is _GRACE)
        moved = (self._move(State.DISABLED, self.off),) if stops else NOTHING
        self._new_period(now)
        return moved or self._allowed("configured")

    def terminated(self, now: float) -> Effects:
        """SIGTERM or drain: running for ever after, thawing first unless running is certain (FZ-050)."""
        if self.state is State.TERMINATING:
            return NOTHING
        moved = self._move(State.TERMINATING, "terminating")
        wish = self._wish
        if wish.rung is not _RUNNING:
            return self._checked((moved, self._ask(now, _RUNNING, "terminating")))
        wish.why = "terminating"
        if not wish.settled and not wish.out:  # a failed thaw waits for its turn: the turn is now
            return self._checked((moved, wish.repeat(now)))
        return self._checked((moved,))

    def adopted(self, now: float, generation: int, rung: Rung) -> Effects:
        """What the mechanism holds, after our restart: go on from its generation, and wake the app (FZ-068)."""
        wish = self._wish
        wish.generation = max(wish.generation, generation)
        if rung is _RUNNING and wish.rung is _RUNNING and wish.settled:
            return NOTHING
        return self._wake(now, f"found {rung.name.lower()}")

    def woken(self, now: float, why: str) -> Effects:
        """The mechanism says the app runs, and nobody here asked for it: an operator, a stop signal, an expired lease.
        Take its word, have it confirmed, and let a whole idle period pass before the next sleep."""
        if self.state not in _ASLEEP:
            return NOTHING
        self._idle_at = now
        return self._wake(now, why)

    # === Answers to `Ask` and `Look`. ===

    def confirmed(self, now: float, generation: int, rung: Rung) -> Effects:
        """The mechanism says the app is at `rung` now."""
        wish = self._wish
        if generation != wish.generation or wish.settled:
            return NOTHING
        if (rung is _RUNNING) is not (wish.rung is _RUNNING):
            return self.failed(now, generation, f"still {rung.name.lower()}")
        if rung is _RUNNING:
            return self._awoke(now)
        self._hold.succeeded()
        wish.settle()
        # Another rung than the one asked for is taken as it is: shallower is not asked for twice, deeper is deeper.
        wish.rung = max(wish.rung, rung)
        to = _STATE_OF[rung]
        return self._checked((self._move(to, f"{rung.name.lower()} instead"),) if to is not self.state else NOTHING)

    def failed(self, now: float, generation: int, detail: str) -> Effects:
        """The mechanism could not do it, or nobody knows whether it did."""
        wish = self._wish
        if generation != wish.generation or not wish.out:
            return NOTHING
        return self._thaw_failed(now, detail) if wish.rung is _RUNNING else self._freeze_failed(now, detail)

    def looked(self, now: float, number: int, obstacle: str | None) -> Effects:
        """Nothing found: sleep. Otherwise look again in a while."""
        if not self._lookout.number or number != self._lookout.number:
            return NOTHING
        if obstacle is not None:
            self._lookout.obstructed(now, obstacle)
            return self._checked(NOTHING)
        rung = self._ladder.deepest_due(now, self._idle_since(), self._wish.rung)
        assert rung is not None, "looked before anything was due"
        return self._sleep(now, rung)

    # === Time. ===

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to wait for."""
        if not self._wish.settled:
            return self._wish.until
        if self.busy or self.half_read:
            return None
        if self.state is _AWAKE:
            return self._hold.until if self._hold.until < inf else None
        if self.state is not _GRACE and self.state not in _ASLEEP:
            return None
        if self._lookout.number:
            return self._lookout.again_at
        due = self._ladder.next_due(self._idle_since(), self._wish.rung)
        return None if due is None else max(due, self._lookout.again_at)

    def on_deadline(self, now: float) -> Effects:
        """Whatever is due by `now`; harmless when nothing is."""
        wish = self._wish
        if not wish.settled:
            if now < wish.until:
                return NOTHING
            if not wish.out:
                return self._checked((wish.repeat(now),))
            return self.failed(now, wish.generation, f"no answer in {now - wish.asked_at:.3g} s")
        if self.busy or self.half_read:
            return NOTHING
        if self.state is _AWAKE:
            if now < self._hold.until:
                return NOTHING
            self._move(_GRACE, "")
        return self._descend(now) if self.state is _GRACE or self.state in _ASLEEP else NOTHING

    # === Going down. ===

    def _descend(self, now: float) -> Effects:
        if now < self._lookout.again_at:
            return self._checked(NOTHING)
        if self._lookout.number:
            return self.looked(now, self._lookout.number, "no answer to the look")
        rung = self._ladder.deepest_due(now, self._idle_since(), self._wish.rung)
        if rung is None:
            return self._checked(NOTHING)
        look = self._lookout.look(now)
        return self._sleep(now, rung) if look is None else self._checked((look,))

    def _sleep(self, now: float, rung: Rung) -> Effects:
        why = f"idle for {now - self._idle_since():.3g} s"
        first = self.state is _GRACE
        if first:
            self._hold.slept(now)
        moved = self._move(_STATE_OF[rung], why)
        ask = self._ask(now, rung, why)
        return self._checked((moved, DROP_POOL, ask) if first and not self.shadow else (moved, ask))

    def _freeze_failed(self, now: float, detail: str) -> Effects:
        self._hold.failed(now, detail)
        self._quick = False
        return self._wake(now, f"freeze failed: {detail}")

    # === Coming up. ===

    def _stirred(self, now: float, why: str) -> Effects:
        """A request ended the idle period."""
        if not self._quick:
            if self._hold.armed_at < inf and self.state is not State.WAKING:
                self._ladder.gap_seen(now - self._idle_at)
            if self._hold.spent:
                self._hold.renew()
            self._quick = not self._ladder.learns
        if self.state is _GRACE:
            self.state = _AWAKE
            self._lookout.forget()
        elif self.state in _ASLEEP:
            self._ladder.cycled(now)
            return self._wake(now, why)
        return NOTHING

    def _wake(self, now: float, why: str) -> Effects:
        """Wish to run, now, whatever is out: an answer to that belongs to an older generation (FZ-032, FZ-039)."""
        if self.state is State.WAKING or self.state is State.TERMINATING:
            return self._checked((self._ask(now, _RUNNING, why),))
        return self._checked((self._move(State.WAKING, why), self._ask(now, _RUNNING, why)))

    def _awoke(self, now: float) -> Effects:
        self._ladder.thaw_seen(now - self._wish.asked_at)
        self._wish.settle()
        self._hold.awoke(now, wanted=self.busy > 0 or self.half_read > 0)
        self.is_open = True
        if self._pending is not None:
            self._configure(self._pending)
        if self.state is State.TERMINATING:
            return self._checked((OPEN,))
        off = self.off
        moved = self._move(State.DISABLED, off) if off else self._move(_AWAKE, self._wish.why)
        return self._checked((moved, OPEN))

    def _thaw_failed(self, now: float, detail: str) -> Effects:
        """Goes on for ever: an unready pod gets no request that could start another try."""
        return self._checked((Refuse(detail),) if self._wish.thaw_failed(now) else NOTHING)

    # === Small parts. ===

    def _configure(self, settings: IdleSettings) -> None:
        self._pending = None
        self.shadow = settings.shadow
        self._ladder = Ladder(settings)
        self._lookout.configured(settings)
        self._hold.configured(settings)
        self._wish.configured(settings)
        self._quick = not (self._ladder.learns or self._hold.spent)

    def _allowed(self, why: str) -> Effects:
        """Sleep is possible as far as freezer and settings go."""
        back = self.state is State.DISABLED and not self.off
        return self._checked((self._move(_AWAKE, why),) if back else NOTHING)

    def _ask(self, now: float, rung: Rung, why: str) -> Ask:
        self.is_open = self.shadow
        return self._wish.ask(now, rung, why)

    def _new_period(self, now: float) -> Effects:
        """Idleness counts from here."""
        self._idle_at = now
        self._hold.renew()
        self._quick = not self._ladder.learns
        return self._held()

    def _held(self) -> Effects:
        """The hold has changed: GRACE has to be earned again."""
        if self.state is _GRACE:
            self._move(_AWAKE, "")
        return self._checked(NOTHING)

    def _move(self, to: State, why: str) -> Moved:
        assert to in TRANSITIONS[self.state], f"{self!r} cannot move to {to.name}"
        moved = Moved(self.state, to, why)
        self.state = to
        self._lookout.forget()
        return moved

    def _checked(self, effects: Effects) -> Effects:
        if __debug__:
            check(self)
        return effects
