"""Decides how the process ends: when probes start to fail, when listeners close, who may still finish, when to exit.

Theory of operation
-------------------
One machine for the whole process. It owns no clock, timer, listener or counter: events come in with `now` (monotonic
seconds), effects go out as a tuple, and the caller keeps one timer armed at `next_deadline()`.

      SERVING   --terminated-->            DRAINING
      SERVING   --waited-->                ASKED
      ASKED     --terminated-->            DRAINING
      ASKED     --1 s without SIGTERM-->   SERVING
      ASKED     --quiet-->                 QUIET        (only with a quiet period below 1 s)
      QUIET     --terminated-->            CLOSING
      QUIET     --request arrived-->       ASKED
      QUIET     --1 s without SIGTERM-->   SERVING
      DRAINING  --quiet-->                 CLOSING
      CLOSING   --emptied-->               STOPPED, or HIJACKED when upgraded ones remain
      HIJACKED  --ended, or 60 s-->        STOPPED
      any but the first two and QUIET --terminated again--> STOPPED, by EXIT_NOW

* SERVING    nothing is going on. The request path reads one attribute, `draining`, and goes on.
* ASKED      a preStop hook called /wait-for-drain but no SIGTERM has come. Probes fail. After 1 s the call was a mere
             container restart: back to SERVING, callers released (kubelet runs preStop for a failed liveness too, and
             we must not block that). Further callers join; they do not extend the second.
* DRAINING   SIGTERM or SIGINT was seen. Probes fail, ordinary traffic is served as before. Shares the quiet period
             with ASKED when the hook came first: one period per drain, not one per caller.
* QUIET      the quiet period passed before SIGTERM came; callers are released at once.
* CLOSING    listeners are closed; ordinary requests in flight finish, without limit (kubelet's SIGKILL is the limit).
* HIJACKED   only upgraded connections and h2c streams are left; they get 60 s.
* STOPPED    told to exit. A second SIGTERM in any state is EXIT_NOW.

The quiet period runs from the later of entering the drain and the last *arrival* of an ordinary request; completions
and probes do not matter. Arrivals only move an instant, so the caller's timer may be early: `on_deadline` then answers
with nothing, and `next_deadline()` says how long is left.

What is in flight is the caller's fact. While CLOSING it reports `emptied` once no ordinary request is left (at once, if
there is none when it closes the listeners) and says whether upgraded ones remain; while HIJACKED, `hijacked_ended`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "HIJACK_FOR",
    "QUIET_FOR",
    "TRANSITIONS",
    "WAIT_CANCEL_AFTER",
    "Drain",
    "Effect",
    "Event",
    "Settings",
    "State",
]

QUIET_FOR = 30.0  # Knative: drainSleepDuration (contract 7.1); time for endpoints to leave every load balancer
WAIT_CANCEL_AFTER = 1.0  # Knative: adminHandler (contract 7.3); kubelet runs preStop and sends SIGTERM together
HIJACK_FOR = 60.0  # Knative: hijack drain budget, since 1.22 (contract 7.2 step 5)


class Settings(NamedTuple):
    quiet_for: float = QUIET_FOR
    wait_cancel_after: float = WAIT_CANCEL_AFTER
    hijack_for: float = HIJACK_FOR


class State(IntEnum):
    SERVING = 0
    ASKED = 1
    DRAINING = 2
    QUIET = 3
    CLOSING = 4
    HIJACKED = 5
    STOPPED = 6


class Event(IntEnum):
    TERMINATED = 0  # SIGTERM or SIGINT
    WAITED = 1  # a /wait-for-drain call
    REQUEST_ARRIVED = 2  # an ordinary request; never a probe
    EMPTIED = 3  # nothing is in flight
    ONLY_HIJACKED_LEFT = 4  # nothing but upgraded connections and h2c streams is in flight
    HIJACKED_ENDED = 5  # the last of those ended
    WAIT_EXPIRED = 6  # deadlines, from on_deadline
    QUIET_REACHED = 7
    HIJACK_EXPIRED = 8


class Effect(IntEnum):
    FAIL_PROBES = 0  # health checks and network probes answer 503 `shutting down`
    RECOVER_PROBES = 1
    RELEASE_WAITERS = 2  # answer every /wait-for-drain caller: 200, empty
    CLOSE_LISTENERS = 3  # the request listeners; 8022 and 9090 stay until EXIT (D13)
    GIVE_UP_HIJACKED = 4  # log `Hijack connection drain failed`, cut what is left
    EXIT = 5  # flush telemetry, exit 0
    EXIT_NOW = 6  # exit 1, without ceremony

    @property
    def exit_code(self) -> int | None:
        """The process's exit code for EXIT and EXIT_NOW, None for the rest."""
        return {Effect.EXIT: 0, Effect.EXIT_NOW: 1}.get(self)


_Move = tuple[State, tuple[Effect, ...]]


def _table() -> dict[tuple[State, Event], _Move]:
    """Every state meets every event: first "stay, do nothing", then what differs."""
    s, e, do = State, Event, Effect
    table: dict[tuple[State, Event], _Move] = {(state, event): (state, ()) for state in s for event in e}
    table |= {
        (s.SERVING, e.TERMINATED): (s.DRAINING, (do.FAIL_PROBES,)),
        (s.SERVING, e.WAITED): (s.ASKED, (do.FAIL_PROBES,)),
        (s.ASKED, e.TERMINATED): (s.DRAINING, ()),
        (s.ASKED, e.WAIT_EXPIRED): (s.SERVING, (do.RECOVER_PROBES, do.RELEASE_WAITERS)),
        (s.ASKED, e.QUIET_REACHED): (s.QUIET, (do.RELEASE_WAITERS,)),
        (s.QUIET, e.TERMINATED): (s.CLOSING, (do.CLOSE_LISTENERS,)),
        (s.QUIET, e.WAIT_EXPIRED): (s.SERVING, (do.RECOVER_PROBES,)),
        (s.QUIET, e.REQUEST_ARRIVED): (s.ASKED, ()),
        # Callers before closing: the answer must be on its way while 8022 is certainly still up.
        (s.DRAINING, e.QUIET_REACHED): (s.CLOSING, (do.RELEASE_WAITERS, do.CLOSE_LISTENERS)),
        (s.CLOSING, e.EMPTIED): (s.STOPPED, (do.EXIT,)),
        (s.CLOSING, e.ONLY_HIJACKED_LEFT): (s.HIJACKED, ()),
        (s.HIJACKED, e.HIJACKED_ENDED): (s.STOPPED, (do.EXIT,)),
        (s.HIJACKED, e.EMPTIED): (s.STOPPED, (do.EXIT,)),
        (s.HIJACKED, e.HIJACK_EXPIRED): (s.STOPPED, (do.GIVE_UP_HIJACKED, do.EXIT)),
    }
    quiet = (s.QUIET, s.CLOSING, s.HIJACKED, s.STOPPED)
    table |= {(state, e.WAITED): (state, (do.RELEASE_WAITERS,)) for state in quiet}
    # STOPPED too: the exit may still be flushing telemetry when the operator loses patience.
    told = (s.DRAINING, s.CLOSING, s.HIJACKED, s.STOPPED)
    table |= {(state, e.TERMINATED): (s.STOPPED, (do.EXIT_NOW,)) for state in told}
    return table


TRANSITIONS = _table()


class Drain:
    """See the module docstring. `draining` is a plain attribute: the request path reads it once per request."""

    __slots__ = ("_arrived_at", "_asked_at", "_hijacked_at", "_settings", "draining", "state")

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self.state = State.SERVING
        self.draining = False  # health checks and network probes answer 503
        self._asked_at = 0.0  # the first /wait-for-drain call of this episode
        self._arrived_at = 0.0  # the later of entering the drain and the last ordinary arrival
        self._hijacked_at = 0.0

    def __repr__(self) -> str:
        deadline = self.next_deadline()
        return f"<Drain {self.state.name}{'' if deadline is None else f' until {deadline:.3f}'}>"

    # --- events ---

    def terminated(self, now: float) -> tuple[Effect, ...]:
        """SIGTERM or SIGINT was received."""
        return self._meet(Event.TERMINATED, now)

    def waited(self, now: float) -> tuple[Effect, ...]:
        """/wait-for-drain was called. Put the caller among the waiters first: the answer may be to release them."""
        return self._meet(Event.WAITED, now)

    def request_arrived(self, now: float) -> None:
        """An ordinary request arrived: restarts the quiet period. On the hot path, ask `draining` before calling."""
        if self.draining:
            self._arrived_at = max(self._arrived_at, now)
            self._meet(Event.REQUEST_ARRIVED, now)

    def emptied(self, now: float, *, hijacked: bool = False) -> tuple[Effect, ...]:
        """No ordinary request is in flight; `hijacked`: upgraded connections or h2c streams still are."""
        return self._meet(Event.ONLY_HIJACKED_LEFT if hijacked else Event.EMPTIED, now)

    def hijacked_ended(self, now: float) -> tuple[Effect, ...]:
        """The last upgraded connection or h2c stream ended."""
        return self._meet(Event.HIJACKED_ENDED, now)

    def on_deadline(self, now: float) -> tuple[Effect, ...]:
        """Everything that is due at `now`, in order; nothing when called early."""
        effects: tuple[Effect, ...] = ()
        while (due := self._due()) is not None and due[0] <= now:
            effects += self._meet(due[1], now)
        return effects

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do; moves with every ordinary arrival while draining."""
        due = self._due()
        return None if due is None else due[0]

    # --- inside ---

    def _due(self) -> tuple[float, Event] | None:
        state = self.state
        if state is State.DRAINING:
            return self._arrived_at + self._settings.quiet_for, Event.QUIET_REACHED
        if state is State.ASKED:
            # Event order breaks a tie in favour of serving again.
            return min(
                (self._asked_at + self._settings.wait_cancel_after, Event.WAIT_EXPIRED),
                (self._arrived_at + self._settings.quiet_for, Event.QUIET_REACHED),
            )
        if state is State.QUIET:
            return self._asked_at + self._settings.wait_cancel_after, Event.WAIT_EXPIRED
        if state is State.HIJACKED:
            return self._hijacked_at + self._settings.hijack_for, Event.HIJACK_EXPIRED
        return None

    def _meet(self, event: Event, now: float) -> tuple[Effect, ...]:
        to, effects = TRANSITIONS[self.state, event]
        if to is not self.state:
            self._move(to, now)
        return effects

    def _move(self, to: State, now: float) -> None:
        if self.state is State.SERVING:
            self._arrived_at = self._asked_at = now
        if to is State.HIJACKED:
            self._hijacked_at = now
        self.state = to
        self.draining = to is not State.SERVING
