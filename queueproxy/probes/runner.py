"""Runs the readiness probes when somebody asks, once for everybody who asks meanwhile (contract 6.2).

A *run* begins with the first `check` and ends when every probe has said PASS or FAIL; all must pass. It belongs to
nobody: a caller that gives up changes nothing, and callers that come during the run share its result. Nothing is
cached: the next check begins the next run. A failed run says why on stderr, once (6.6); retries inside it are silent.

While the app sleeps nothing is dialled. `check` answers with the last real result, a run caught by the sleep is
abandoned and answered likewise, and neither counts as a result: a frozen app is neither well nor ill, it is asleep
(FZ-040, FZ-041). Whoever puts the app to sleep calls `slept()` *before* the app stops answering; `is_asleep` is asked
again before every dial and before any failure is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from queueproxy.clock import monotonic
from queueproxy.probes.attempt import Attempt
from queueproxy.probes.spec import ProbeSpec
from queueproxy.probes.verdict import Effect, Verdict

__all__ = ["Prober"]

# uvloop's timers have a resolution of a millisecond and may fire that much early.
TIMER_GRAIN = 0.001


class _Lane:
    """One probe: what it asks, its machine, and the attempt and timer it has out."""

    __slots__ = ("attempt", "spec", "spoken", "timer", "verdict")

    def __init__(self, spec: ProbeSpec) -> None:
        self.spec = spec
        self.verdict = Verdict(
            aggressive=spec.aggressive, timeout_for=spec.timeout_for, success_threshold=spec.success_threshold
        )
        self.attempt: Attempt | None = None
        self.spoken = 0
        self.timer: asyncio.TimerHandle | None = None

    def drop(self) -> None:
        """Leave the app alone: no connection, no timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.attempt is not None:
            self.attempt.close()
            self.attempt = None


class Prober:
    """Answers "is the app ready?" from truth. `last_result` is that of the last real run, None before the first.

    `on_result(ready)` is called after each real run, before those who asked: the first success arms the freeze policy.
    `on_http2()` is called once, when the serving container has passed a detecting probe over HTTP/2.
    `stderr` gets one line at a time, without the newline.
    """

    __slots__ = (
        "_closed",
        "_errors",
        "_is_asleep",
        "_lanes",
        "_loop",
        "_pending",
        "_stderr",
        "_summaries",
        "_told_http2",
        "_waiting",
        "last_result",
        "on_http2",
        "on_result",
    )

    def __init__(
        self,
        specs: Sequence[ProbeSpec],
        loop: asyncio.AbstractEventLoop,
        is_asleep: Callable[[], bool],
        stderr: Callable[[str], None],
    ) -> None:
        self._lanes = [_Lane(spec) for spec in specs]
        self._loop = loop
        self._is_asleep = is_asleep
        self._stderr = stderr
        self._waiting: list[Callable[[bool], None]] = []
        self._pending = 0  # lanes without a verdict in this run
        self._errors: list[str] = []
        self._summaries: list[str] = []
        self._closed = False
        self.last_result: bool | None = None
        self.on_result: Callable[[bool], None] = _ignore
        self._told_http2 = False
        self.on_http2: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"running, {len(self._waiting)} waiting" if self._pending else "idle"
        return f"<Prober {state}, last {self.last_result}, {[lane.verdict for lane in self._lanes]}>"

    @property
    def spoken(self) -> int:
        """The major version of HTTP in which the serving container, the first, last passed a detecting probe, or 0.

        For whoever may choose how to talk to the app. Detection itself begins anew with each attempt, as upstream.
        """
        return self._lanes[0].spoken if self._lanes else 0

    @property
    def running(self) -> bool:
        return self._pending > 0

    def check(self, done: Callable[[bool], None]) -> None:
        """Calls `done(ready)` once: before returning if the answer is at hand, else at the end of the run."""
        if self._closed:
            done(False)
        elif self._is_asleep():
            self.slept()
            done(self.last_result is True)
        elif self._pending:
            self._waiting.append(done)
        elif not self._lanes:
            self._finish(True, [done])
        else:
            self._waiting.append(done)
            self._begin()

    def slept(self) -> None:
        """The app was put to sleep, or is about to be: let go of it. Who is waiting gets the last real result."""
        for lane in self._lanes:
            lane.drop()
            lane.verdict.abandoned()
        self._pending = 0
        self._answer(self._taken(), self.last_result is True)

    def close(self) -> None:
        """The process ends: nothing is dialled any more, and nobody is told the app is ready."""
        self._closed = True
        self.last_result = False
        self.slept()

    # --- a run ---

    def _begin(self) -> None:
        self._pending = len(self._lanes)
        self._errors, self._summaries = [], []
        now = monotonic()
        for lane in self._lanes:
            self._do(lane, lane.verdict.begun(now))

    def _attempted(self, lane: _Lane, error: str | None) -> None:
        if error is None:
            if lane.attempt is not None and lane.attempt.spoken:
                self._heard(lane, lane.attempt.spoken)
            self._do(lane, lane.verdict.passed(monotonic()))
        elif self._is_asleep():
            self.slept()
        else:
            self._do(lane, lane.verdict.failed(monotonic(), error))

    def _heard(self, lane: _Lane, spoken: int) -> None:
        lane.spoken = spoken
        if spoken == 2 and lane is self._lanes[0] and not self._told_http2:
            self._told_http2 = True
            self.on_http2()

    def _on_timer(self, lane: _Lane) -> None:
        lane.timer = None
        if self._is_asleep():
            self.slept()
        else:
            self._do(lane, lane.verdict.on_deadline(monotonic()))

    def _do(self, lane: _Lane, effects: tuple[Effect, ...]) -> None:
        over: bool | None = None
        for effect in effects:
            if effect is Effect.TRY:
                if self._is_asleep():
                    self.slept()
                    return
                if lane.attempt is not None:
                    lane.attempt.close()  # its answer is in, its connection may linger: never two at once
                lane.attempt = Attempt(
                    self._loop, lane.spec.handler, lane.verdict.attempt_for, partial(self._attempted, lane)
                )
            elif effect is Effect.STOP and lane.attempt is not None:
                lane.attempt.close()
            elif effect is Effect.PASS:
                over = True
            elif effect is Effect.FAIL:
                over = False
        self._arm(lane)
        if over is not None:
            self._lane_over(lane, over)

    def _arm(self, lane: _Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        deadline = lane.verdict.next_deadline()
        if deadline is not None:
            lane.timer = self._loop.call_later(max(deadline - monotonic(), TIMER_GRAIN), self._on_timer, lane)

    def _lane_over(self, lane: _Lane, passed: bool) -> None:
        if not passed:
            if lane.verdict.summary:
                self._summaries.append(lane.verdict.summary)
            self._errors.append(lane.verdict.complaint)
        self._pending -= 1
        if self._pending:
            return
        if self._errors:
            for line in (*self._summaries, self._errors[0]):
                self._stderr(line)
        self._finish(not self._errors, self._taken())

    def _finish(self, ready: bool, waiting: list[Callable[[bool], None]]) -> None:
        self.last_result = ready
        self._answer([self.on_result, *waiting], ready)

    def _taken(self) -> list[Callable[[bool], None]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _answer(self, callbacks: list[Callable[[bool], None]], ready: bool) -> None:
        for callback in callbacks:
            try:
                callback(ready)
            except Exception as error:  # one caller's fault must not leave the others waiting
                self._loop.call_exception_handler({"message": "a health check's callback failed", "exception": error})


def _ignore(_ready: bool) -> None:
    pass


def _nothing() -> None:
    pass
