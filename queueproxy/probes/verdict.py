"""Decides, for one probe, when to try, when to try again and what the tries add up to (contract 6.3).

Theory of operation
-------------------
One machine per probe, for the life of the process; a *run* is one pass from `begun` to PASS or FAIL. Attempts, clocks
and timers belong to the caller: it starts an attempt on TRY, reports how it went, and calls `on_deadline(now)` at
`next_deadline()`.

      IDLE     --begun-->                      TRYING
      TRYING   --passed, enough in a row-->    IDLE       PASS
      TRYING   --failed, normal mode-->        IDLE       FAIL
      TRYING   --any other answer-->           PAUSING    (at once back to TRYING when the attempt took over 50 ms)
      PAUSING  --50 ms since the last start--> TRYING
      either   --10 s since begun-->           IDLE       STOP (an attempt is out), FAIL
      any      --abandoned-->                  IDLE

* Normal mode (periodSeconds set): one attempt, with the probe's own timeout; it decides. Thresholds are the kubelet's.
* Aggressive mode (periodSeconds 0): attempts of at most 100 ms, started at once and then every 50 ms counted start to
  start, one at a time, until successThreshold of them passed in a row; 10 s for the whole run.
* The count of successes in a row outlives the run, and only a failure zeroes it: once ready with threshold 3, the next
  run needs a single success.
* An abandoned run (the app was put to sleep meanwhile) proves nothing and leaves the count as it was.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ATTEMPT_FOR", "RETRY_EVERY", "RUN_FOR", "Effect", "State", "Verdict"]

# Contract 6.3; in Go: aggressiveProbeTimeout, retryInterval, PollTimeout.
ATTEMPT_FOR = 0.1
RETRY_EVERY = 0.05
RUN_FOR = 10.0


class State(IntEnum):
    IDLE = 0
    TRYING = 1
    PAUSING = 2


class Effect(IntEnum):
    TRY = 0  # start an attempt with the timeout `attempt_for`
    STOP = 1  # drop the attempt that is out; its answer is not wanted any more
    PASS = 2  # the run is over: ready
    FAIL = 3  # the run is over: not ready; `complaint` says why


class Verdict:
    """See the module docstring. Events out of place (no attempt is out, a run is going on) are the caller's bug."""

    __slots__ = (
        "_begun_at",
        "_failures",
        "_last_error",
        "_tried_at",
        "aggressive",
        "attempt_for",
        "in_a_row",
        "need",
        "state",
    )

    def __init__(self, *, aggressive: bool, timeout_for: float, success_threshold: int) -> None:
        self.aggressive = aggressive
        self.attempt_for = ATTEMPT_FOR if aggressive else timeout_for
        self.need = success_threshold if aggressive else 1
        self.state = State.IDLE
        self.in_a_row = 0
        self._begun_at = 0.0
        self._tried_at = 0.0
        self._failures = 0  # in this run
        self._last_error = ""

    def __repr__(self) -> str:
        mode = "aggressive" if self.aggressive else "normal"
        return f"<Verdict {self.state.name} {mode} {self.in_a_row}/{self.need} in a row, {self._failures} failed>"

    # --- events ---

    def begun(self, now: float) -> tuple[Effect, ...]:
        """A health check wants to know."""
        assert self.state is State.IDLE, self
        self._begun_at = now
        self._failures = 0
        self._last_error = ""
        return self._try(now)

    def passed(self, now: float) -> tuple[Effect, ...]:
        """The attempt succeeded."""
        assert self.state is State.TRYING, self
        self.in_a_row += 1
        if self.in_a_row >= self.need:
            self.state = State.IDLE
            return (Effect.PASS,)
        # Go keeps the error of an earlier attempt out of the report when the last one passed.
        self._last_error = ""
        return self._pause(now)

    def failed(self, now: float, error: str) -> tuple[Effect, ...]:
        """The attempt failed, its timeout included."""
        assert self.state is State.TRYING, self
        self.in_a_row = 0
        self._failures += 1
        self._last_error = error
        if self.aggressive:
            return self._pause(now)
        self.state = State.IDLE
        return (Effect.FAIL,)

    def abandoned(self) -> None:
        """Nobody wants the result of this run; drop the attempt that may be out."""
        self.state = State.IDLE

    def on_deadline(self, now: float) -> tuple[Effect, ...]:
        """Whatever is due at `now`; nothing when called early."""
        if self.state is State.IDLE or not self.aggressive:
            return ()
        if now >= self._begun_at + RUN_FOR:
            out = self.state is State.TRYING
            self.state = State.IDLE
            return (Effect.STOP, Effect.FAIL) if out else (Effect.FAIL,)
        if self.state is State.PAUSING and now >= self._tried_at + RETRY_EVERY:
            return self._try(now)
        return ()

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do. The attempt's own timeout is the attempt's."""
        if self.state is State.IDLE or not self.aggressive:
            return None
        over_at = self._begun_at + RUN_FOR
        return min(over_at, self._tried_at + RETRY_EVERY) if self.state is State.PAUSING else over_at

    # --- what the failed run has to say, one line each (contract 6.6) ---

    @property
    def complaint(self) -> str:
        """The error of the run as a whole."""
        return "context deadline exceeded" if self.aggressive else self._last_error

    @property
    def summary(self) -> str:
        """The line that sums up an exhausted aggressive run; empty when there is nothing to sum up."""
        if not self.aggressive or not self._last_error:
            return ""
        return f"aggressive probe error (failed {self._failures} times): {self._last_error}"

    # --- inside ---

    def _try(self, now: float) -> tuple[Effect, ...]:
        self.state = State.TRYING
        self._tried_at = now
        return (Effect.TRY,)

    def _pause(self, now: float) -> tuple[Effect, ...]:
        self.state = State.PAUSING
        return self.on_deadline(now)
