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

What it refuses to know: clocks, tasks, mechanisms, sockets, log lines. `busy`, `half_read`, `state`, `generation`,
`is_open` and `stuck` are plain attributes for speed; only this module sets them. AWAKE <-> GRACE happens twice per
request on a quiet app and is not announced by `Moved`: both mean running.
"""

from math import inf

from queueproxy.freeze.grace import AdaptiveGrace, FlapLimiter, FreezeBreaker
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import (
    DROP_POOL,
    NOTHING,
    OPEN,
    TRANSITIONS,
    Ask,
    Effect,
    Effects,
    Look,
    Moved,
    Refuse,
    Rung,
    Signal,
    State,
)

__all__ = [
    "DROP_POOL", "NOTHING", "OPEN", "TRANSITIONS",
    "Ask", "Effect", "Effects", "IdlePolicy", "IdleSettings", "Look", "Moved", "Refuse", "Rung", "Signal",
    "State",
]  # fmt: skip


# Globals are looked up faster than enum attributes, and these are compared on each request.
_RUNNING, _AWAKE, _GRACE = Rung.RUNNING, State.AWAKE, State.GRACE
_ASLEEP = frozenset({State.THROTTLED, State.FROZEN})
_STATE_OF = {Rung.THROTTLED: State.THROTTLED, Rung.FROZEN: State.FROZEN}


def _ladder(settings: IdleSettings) -> tuple[tuple[float, Rung], ...]:
    """Rungs with their delays, soonest and shallowest first; a throttle that would not come before the freeze is
    left out."""
    throttle, freeze = settings.throttle_after, settings.freeze_after
    rungs = []
    if throttle is not None and (freeze is None or throttle < freeze):
        rungs.append((throttle, Rung.THROTTLED))
    if freeze is not None:
        rungs.append((freeze, Rung.FROZEN))
    return tuple(rungs)


class IdlePolicy:
    """May the app sleep, and is it awake?"""

    __slots__ = (
        "_adaptive", "_again_at", "_armed_at", "_asked_at", "_attempts", "_breaker", "_detail", "_first_ready_at",
        "_flaps", "_held_until", "_hold_for", "_idle_at", "_keep_until", "_ladder", "_look", "_looks", "_obstacle",
        "_off", "_out", "_pause", "_quick", "_quiesce_until", "_set", "_spent", "_until", "_wish",
        "busy", "generation", "half_read", "is_open", "settled", "state", "stuck",
    )  # fmt: skip

    def __init__(self, settings: IdleSettings) -> None:
        self._set = settings
        self._ladder = _ladder(settings)
        self.busy = 0  # requests: executing, queued, streaming, upgraded
        self.half_read = 0  # connections with the beginning of a request on them
        self.generation = 0
        self.is_open = True  # a request may be forwarded
        self.settled = True  # the answer to the newest wish is in
        self.stuck = False  # the app could not be woken: not ready
        self.state = State.AWAKE if self._ladder else State.DISABLED

        self._wish = _RUNNING
        self._out = False  # a question is out and not late yet
        self._until = inf  # when the question is late or, with none out, when the thaw is asked for again
        self._asked_at = 0.0
        self._attempts = 0  # thaws failed since the wish to run
        self._pause = 0.0
        self._detail = ""  # why awake although idle, why waking, why asleep

        self._off = "" if self._ladder else "freezing is off"
        self._first_ready_at: float | None = None
        self._armed_at = inf  # never before the first readiness
        self._idle_at = 0.0
        self._keep_until = -inf  # hysteresis: minimum running time, minimum time between freezes, touches
        self._hold_for = 0.0  # what a touch asked for, counted from the confirmed thaw
        self._spent = False  # a freeze failed in this idle period
        self._held_until = inf  # the latest of all the above and the breaker

        self._look = 0  # number of the look that is out, or 0
        self._looks = 0
        self._again_at = -inf  # when the look is late, or is to be repeated
        self._obstacle = ""
        self._quiesce_until: float | None = None

        self._adaptive = (
            AdaptiveGrace(self._ladder[0][0], settings.adaptive_floor, settings.grace_cap, settings.wait_weight)
            if settings.adaptive and self._ladder
            else None
        )
        self._flaps = FlapLimiter(settings.flap_limit, settings.flap_window, settings.grace_cap)
        self._breaker = FreezeBreaker(settings.breaker_failures, settings.breaker_backoff, settings.breaker_cap)
        self._quick = self._adaptive is None  # nothing to remember when an idle, running app gets a request

    def __repr__(self) -> str:
        flags = ("" if self.settled else " unsettled") + (" stuck" if self.stuck else "")
        return (
            f"<IdlePolicy {self.state.name} wish={self._wish.name} gen={self.generation}"
            f" busy={self.busy} half_read={self.half_read}{flags}>"
        )

    # === Counts: the request path. No tuples, no checks, nothing that grows. ===

    def arrived(self, now: float) -> Effects:
        """A request counts from here, waiting or not, until `finished`."""
        busy = self.busy
        self.busy = busy + 1
        if busy or self.half_read or (self.state is _AWAKE and self._quick):
            return NOTHING
        return self._stirred(now, "request")

    def finished(self, now: float) -> Effects:
        """The last byte of a response was handed over, or the request was given up; exactly once per `arrived`
        (FZ-026)."""
        busy = self.busy - 1
        assert busy >= 0, "finished without arrived"
        self.busy = busy
        if not busy and not self.half_read:
            self._idle_at = now
            if self.state is _AWAKE and now >= self._held_until:
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
            if self.state is _AWAKE and now >= self._held_until:
                self.state = _GRACE
        return NOTHING

    # === Events from the app's life. ===

    def touched(self, now: float, why: str = "touched", hold_for: float | None = None) -> Effects:
        """A sign that somebody may need the app (accepted connection, knock, heartbeat): run for `hold_for` seconds
        at least (None: `min_running`), counted from the confirmed thaw. It is no request: it does not end an idle
        period (FZ-098)."""
        hold = self._set.min_running if hold_for is None else hold_for
        if self.state in _ASLEEP:
            self._hold_for = max(self._hold_for, hold)
            return self._wake(now, why)
        if self.state is State.WAKING:
            self._hold_for = max(self._hold_for, hold)
        elif self.state is not State.TERMINATING:
            self._keep_until = max(self._keep_until, now + hold)
            self._rehold()
        return self._checked(NOTHING)

    def ready(self, now: float) -> Effects:
        """The app's readiness probe succeeded (as often as it must): arm, once `min_uptime` has passed (FZ-010,
        FZ-011)."""
        if self._armed_at != inf:
            return NOTHING
        if self._first_ready_at is None:
            self._first_ready_at = now
        self._armed_at = max(now, self._first_ready_at + self._set.min_uptime)
        self._new_period(now)
        return self._checked(NOTHING)

    def unready(self, now: float, why: str = "not ready") -> Effects:
        """A real probe failed. Never sleep on a bad answer: it would be repeated to the kubelet until the next
        request."""
        self._armed_at = inf
        self._rehold()
        return self._wake(now, why) if self.state in _ASLEEP else self._checked(NOTHING)

    def app_restarted(self, now: float) -> Effects:
        """Another process is the app now: it arms anew, with its own readiness and its own `min_uptime` (FZ-012)."""
        self._first_ready_at = None
        return self.unready(now, "app restarted")

    def disabled(self, now: float, reason: str) -> Effects:
        """Freezing is not to be had (no freezer, switched off): stay awake, thawing first if need be (FZ-014, D13)."""
        if self.state is State.TERMINATING or not self._ladder:
            return NOTHING
        self._off = reason
        if self.state in _ASLEEP:
            return self._wake(now, reason)
        if self.state is _AWAKE or self.state is _GRACE:
            return self._checked((self._move(State.DISABLED, reason),))
        return self._checked(NOTHING)

    def enabled(self, now: float) -> Effects:
        """Freezing is to be had again; a new idle period begins."""
        if not self._ladder or not self._off or self.state is State.TERMINATING:
            return NOTHING
        self._off = ""
        self._new_period(now)
        return self._checked((self._move(State.AWAKE, "enabled"),) if self.state is State.DISABLED else NOTHING)

    def terminated(self, now: float) -> Effects:
        """SIGTERM or drain: running for ever after, thawing first unless running is certain (FZ-050)."""
        if self.state is State.TERMINATING:
            return NOTHING
        moved = self._move(State.TERMINATING, "terminating")
        self._detail = "terminating"
        if self._wish is not _RUNNING:
            return self._checked((moved, self._ask(now, _RUNNING, "terminating")))
        if not self.settled and not self._out:  # a failed thaw waits for its turn: the turn is now
            return self._checked((moved, self._repeat(now, "terminating")))
        return self._checked((moved,))

    def adopted(self, now: float, generation: int, rung: Rung) -> Effects:
        """After our own restart the mechanism said what it holds: go on from its generation, and wake the app
        (FZ-068)."""
        self.generation = max(self.generation, generation)
        if rung is _RUNNING and self._wish is _RUNNING and self.settled:
            return NOTHING
        return self._wake(now, f"found {rung.name.lower()}")

    # === Answers to `Ask` and `Look`. ===

    def confirmed(self, now: float, generation: int, rung: Rung) -> Effects:
        """The mechanism says the app is at `rung` now."""
        if generation != self.generation or self.settled:
            return NOTHING
        if self._wish is _RUNNING:
            if rung is _RUNNING:
                return self._awoke(now)
            return self._thaw_failed(now, f"still {rung.name.lower()}") if self._out else NOTHING
        if rung is _RUNNING:
            return self._freeze_failed(now, "still running")
        self._breaker.succeeded()
        self._settle()
        # Another rung than the one asked for is taken as it is: shallower is not asked for twice, deeper is deeper.
        self._wish = max(self._wish, rung)
        to = _STATE_OF[rung]
        return self._checked((self._move(to, f"{rung.name.lower()} instead"),) if to is not self.state else NOTHING)

    def failed(self, now: float, generation: int, detail: str) -> Effects:
        """The mechanism could not do it, or nobody knows whether it did."""
        if generation != self.generation or not self._out:
            return NOTHING
        return self._thaw_failed(now, detail) if self._wish is _RUNNING else self._freeze_failed(now, detail)

    def looked(self, now: float, number: int, obstacle: str | None) -> Effects:
        """Nothing found: sleep. Otherwise look again in a while."""
        if not self._look or number != self._look:
            return NOTHING
        self._look = 0
        if obstacle is not None:
            self._obstacle = obstacle
            self._again_at = now + self._set.recheck_after
            return self._checked(NOTHING)
        rung = self._rung_due(now)
        assert rung is not None, "looked before anything was due"
        return self._sleep(now, rung)

    # === Time. ===

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to wait for."""
        if not self.settled:
            return self._until
        if self.busy or self.half_read:
            return None
        if self.state is _AWAKE:
            return self._held_until if self._held_until < inf else None
        if self.state is _GRACE or self.state in _ASLEEP:
            if self._look:
                return self._again_at
            due = self._next_due()
            return None if due is None else max(due, self._again_at)
        return None

    def on_deadline(self, now: float) -> Effects:
        """Whatever is due by `now`; harmless when nothing is."""
        if not self.settled:
            if now < self._until:
                return NOTHING
            if not self._out:
                return self._checked((self._repeat(now, self._detail),))
            late = f"no answer in {now - self._asked_at:.3g} s"
            return self._thaw_failed(now, late) if self._wish is _RUNNING else self._freeze_failed(now, late)
        if self.busy or self.half_read:
            return NOTHING
        if self.state is _AWAKE:
            if now < self._held_until:
                return NOTHING
            self._move(_GRACE, "")
        elif self.state is not _GRACE and self.state not in _ASLEEP:
            return NOTHING
        return self._descend(now)

    # === What an operator asks. ===

    @property
    def asleep(self) -> bool:
        """Probes are answered from the last real result. Never in shadow mode."""
        return not self.is_open

    @property
    def shadow(self) -> bool:
        return self._set.shadow

    @property
    def grace(self) -> float | None:
        """Seconds of idleness before the first rung, as it stands now; None without rungs."""
        return self._grace() if self._ladder else None

    def reason(self, now: float) -> str:
        """Why the app is awake, or asleep, in words for a status page."""
        words = self._words(now)
        return f"shadow: {words}" if self._set.shadow else words

    def _words(self, now: float) -> str:
        state = self.state
        if state is State.DISABLED:
            return self._off
        if state is State.WAKING or state is State.TERMINATING:
            return self._detail + (f", cannot thaw after {self._attempts} attempts" if self.stuck else "")
        if state in _ASLEEP:
            return self._detail
        if self.busy:
            return f"busy: {self.busy} request{'s' if self.busy > 1 else ''}"
        if self.half_read:
            return f"busy: {self.half_read} half-read request{'s' if self.half_read > 1 else ''}"
        if self._armed_at == inf:
            return "not ready yet"
        if now < self._armed_at:
            return f"min uptime: {self._armed_at - now:.0f} s to go"
        if self._spent:
            return f"{self._detail}; not again before the next request"
        if now < self._breaker.until:
            return f"{self._breaker.failures} freezes failed: suspended for {self._breaker.until - now:.0f} s"
        if now < self._keep_until:
            return f"held: {self._keep_until - now:.2g} s to go"
        if self._obstacle:
            return f"idle, but {self._obstacle}"
        return f"grace: idle for {now - self._idle_since():.2g} of {self._grace():.3g} s"

    # === Going down. ===

    def _idle_since(self) -> float:
        """The idle period's beginning. Idleness before the app was armed does not count (FZ-013)."""
        return max(self._idle_at, self._armed_at)

    def _grace(self) -> float:
        base = self._ladder[0][0] if self._adaptive is None else self._adaptive.grace
        # As of the period's beginning: a doubling that decays while the app is idle must not pull the deadline forward.
        return self._flaps.stretch(base, self._idle_at)

    def _dues(self) -> list[tuple[float, Rung]]:
        """Rungs below the present one, with their instants. What stretches the first delay shifts the others."""
        start = self._idle_since() + self._grace() - self._ladder[0][0]
        return [(start + delay, rung) for delay, rung in self._ladder if rung > self._wish]

    def _next_due(self) -> float | None:
        return min((due for due, _ in self._dues()), default=None)

    def _rung_due(self, now: float) -> Rung | None:
        return max((rung for due, rung in self._dues() if now >= due), default=None)

    def _descend(self, now: float) -> Effects:
        if now < self._again_at:
            return self._checked(NOTHING)
        if self._look:
            return self.looked(now, self._look, "no answer to the look")
        rung = self._rung_due(now)
        if rung is None:
            return self._checked(NOTHING)
        cpu_above = self._set.quiesce_cpu
        if cpu_above is not None:
            if self._quiesce_until is None:
                self._quiesce_until = now + self._set.quiesce_for
            if now >= self._quiesce_until:
                cpu_above = None
        if not self._set.look_first and cpu_above is None:
            return self._sleep(now, rung)
        self._looks += 1
        self._look = self._looks
        self._again_at = now + self._set.look_deadline
        return self._checked((Look(self._look, self._set.look_first, cpu_above),))

    def _sleep(self, now: float, rung: Rung) -> Effects:
        why = f"idle for {now - self._idle_since():.3g} s"
        first = self.state is _GRACE
        moved = self._move(_STATE_OF[rung], why)
        if first:
            self._keep_until = max(self._keep_until, now + self._set.min_between_freezes)
        ask = self._ask(now, rung, why)
        return self._checked((moved, DROP_POOL, ask) if first and not self._set.shadow else (moved, ask))

    def _freeze_failed(self, now: float, detail: str) -> Effects:
        self._breaker.failed(now)
        self._spent = True  # not again before the next idle period (FZ-065)
        self._quick = False
        return self._wake(now, f"freeze failed: {detail}")

    # === Coming up. ===

    def _stirred(self, now: float, why: str) -> Effects:
        """A request ended the idle period."""
        if self._spent:
            self._spent = False
            self._quick = self._adaptive is None
            self._rehold()
        if self._adaptive is not None and self._armed_at < inf and self.state is not State.WAKING:
            self._adaptive.gap_seen(now - self._idle_at)
        if self.state is _GRACE:
            self.state = _AWAKE
            self._forget_look()
        elif self.state in _ASLEEP:
            self._flaps.cycled(now)
            return self._wake(now, why)
        return NOTHING

    def _wake(self, now: float, why: str) -> Effects:
        """Wish to run, now, whatever is out; the answer that may still come belongs to an older generation (FZ-032,
        FZ-039)."""
        if self.state is State.WAKING or self.state is State.TERMINATING:
            return self._checked((self._ask(now, _RUNNING, why),))
        return self._checked((self._move(State.WAKING, why), self._ask(now, _RUNNING, why)))

    def _awoke(self, now: float) -> Effects:
        if self._adaptive is not None:
            self._adaptive.thaw_seen(now - self._asked_at)
        self._settle()
        self.is_open = True
        self._keep_until = max(self._keep_until, now + max(self._set.min_running, self._hold_for))
        self._hold_for = 0.0
        self._rehold()
        if self.state is State.TERMINATING:
            return self._checked((OPEN,))
        moved = self._move(State.DISABLED, self._off) if self._off else self._move(_AWAKE, self._detail)
        return self._checked((moved, OPEN))

    def _thaw_failed(self, now: float, detail: str) -> Effects:
        """Fast retries first, then refuse and go on more slowly: an unready pod gets no request that could start
        another try."""
        self._attempts += 1
        self._out = False
        if self._attempts == self._set.thaw_retries + 1:
            self.stuck = True
            self._pause = self._set.thaw_backoff
        self._until = now + self._pause
        self._pause = min(self._set.thaw_backoff_cap, self._pause * 2)
        if self._attempts <= self._set.thaw_retries:
            return self._checked(NOTHING)
        return self._checked((Refuse(detail),))

    # === Small parts. ===

    def _ask(self, now: float, rung: Rung, why: str) -> Ask:
        """A new wish: a new generation, and nothing is certain."""
        self._wish = rung
        self.generation += 1
        self.settled = False
        self.is_open = self._set.shadow
        self._asked_at = now
        self._attempts = 0
        self._pause = self._set.thaw_retry_after
        self._detail = why
        return self._repeat(now, why)

    def _repeat(self, now: float, why: str) -> Ask:
        """The same wish again, under the same generation."""
        self._out = True
        self._until = now + (self._set.thaw_deadline if self._wish is _RUNNING else self._set.freeze_deadline)
        return Ask(self._wish, self.generation, why)

    def _settle(self) -> None:
        self.settled = True
        self.stuck = self._out = False
        self._until = inf

    def _forget_look(self) -> None:
        self._look = 0
        self._again_at = -inf
        self._obstacle = ""
        self._quiesce_until = None

    def _new_period(self, now: float) -> None:
        """Idleness counts from here."""
        self._idle_at = now
        self._spent = False
        self._quick = self._adaptive is None
        self._rehold()

    def _rehold(self) -> None:
        self._held_until = inf if self._spent else max(self._armed_at, self._keep_until, self._breaker.until)
        if self.state is _GRACE:
            self._move(_AWAKE, "")

    def _move(self, to: State, why: str) -> Moved:
        assert to in TRANSITIONS[self.state], f"{self!r} cannot move to {to.name}"
        moved = Moved(self.state, to, why)
        self.state = to
        self._forget_look()
        return moved

    def _checked(self, effects: Effects) -> Effects:
        if __debug__:
            self._check()
        return effects

    def _check(self) -> None:
        """What must hold between two events, whatever happened."""
        state, running = self.state, self._wish is _RUNNING
        idle = not self.busy and not self.half_read
        assert self.busy >= 0 and self.half_read >= 0, self
        assert idle or (running and state is not _GRACE), f"busy, yet not kept running: {self!r}"
        assert running == (state not in _ASLEEP), f"state and wish differ: {self!r}"
        assert self.settled or state in _ASLEEP or state in (State.WAKING, State.TERMINATING), f"unsettled: {self!r}"
        assert not (self.settled and state is State.WAKING), f"waking, but for what? {self!r}"
        assert self.is_open == (self._set.shadow or (running and self.settled)), f"the gate is wrong: {self!r}"
        assert self.settled or self._until < inf, f"would wait for ever: {self!r}"
        assert not self.stuck or (running and not self.settled), f"stuck without reason: {self!r}"
        assert (state is _GRACE) <= (not self._off and self._held_until < inf), f"may not sleep: {self!r}"
        assert not self._look or state is _GRACE or state is State.THROTTLED, f"a look without use: {self!r}"
