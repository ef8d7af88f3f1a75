"""Virtual time: a little driver plays the caller, and says how each attempt goes and how long it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from queueproxy.probes.verdict import Effect, State, Verdict

TRY, STOP, PASS, FAIL = Effect.TRY, Effect.STOP, Effect.PASS, Effect.FAIL

# attempt number (from 1) and start -> how long it takes, error or None
App = Callable[[int, float], tuple[float, str | None]]


def aggressive(threshold: int = 1) -> Verdict:
    return Verdict(aggressive=True, timeout_for=0.0, success_threshold=threshold)


def normal(timeout_for: float = 1.0, threshold: int = 1) -> Verdict:
    return Verdict(aggressive=False, timeout_for=timeout_for, success_threshold=threshold)


class Run:
    """Drives one run to its end: `starts` of attempts, the `outcome`, and when it was known."""

    def __init__(self, verdict: Verdict, app: App, begun_at: float = 0.0) -> None:
        self.starts: list[float] = []
        self.outcome: Effect | None = None
        self.over_at = begun_at
        answer: tuple[float, str | None] | None = None  # of the attempt that is out: when, and how
        now = begun_at
        effects = verdict.begun(now)
        while True:
            for effect in effects:
                if effect is TRY:
                    assert answer is None, "two attempts at once"
                    self.starts.append(round(now - begun_at, 6))
                    took, error = app(len(self.starts), now)
                    answer = (now + min(took, verdict.attempt_for or took), error)
                elif effect is STOP:
                    assert answer is not None
                    answer = None
                else:
                    self.outcome, self.over_at = effect, round(now - begun_at, 6)
            if self.outcome is not None:
                assert answer is None and verdict.next_deadline() is None
                return
            deadline = verdict.next_deadline()
            if answer is not None and (deadline is None or answer[0] < deadline):
                now, error = answer
                answer = None
                effects = verdict.passed(now) if error is None else verdict.failed(now, error)
            else:
                assert deadline is not None and deadline >= now
                now = deadline
                effects = verdict.on_deadline(now)


def up_from(instant: float) -> App:
    """Refuses at once until `instant`, then passes at once."""
    return lambda _n, now: (0.0, None if now >= instant else "refused")


@pytest.mark.qp("QP-256")
def test_normal_mode_makes_one_attempt_and_believes_it() -> None:
    verdict = normal(timeout_for=3.0, threshold=5)
    assert verdict.attempt_for == 3.0
    assert verdict.begun(10.0) == (TRY,)
    assert verdict.next_deadline() is None and verdict.on_deadline(1e9) == ()
    assert verdict.passed(10.1) == (PASS,)
    assert verdict.begun(20.0) == (TRY,)
    assert verdict.failed(23.0, "no answer") == (FAIL,)
    assert (verdict.complaint, verdict.summary) == ("no answer", "")


@pytest.mark.qp("QP-257")
def test_aggressive_mode_tries_at_once_and_then_every_fifty_milliseconds() -> None:
    run = Run(aggressive(), up_from(0.12))
    assert run.starts == [0.0, 0.05, 0.1, 0.15]
    assert (run.outcome, run.over_at) == (PASS, 0.15)


@pytest.mark.qp("QP-257")
def test_an_attempt_gets_a_hundred_milliseconds_whatever_the_probe_says() -> None:
    verdict = Verdict(aggressive=True, timeout_for=5.0, success_threshold=1)
    assert verdict.attempt_for == 0.1


@pytest.mark.qp("QP-257")
@pytest.mark.parametrize(
    "took, starts",
    [(0.02, [0.0, 0.05, 0.1, 0.15]), (0.06, [0.0, 0.06, 0.12, 0.18]), (5.0, [0.0, 0.1, 0.2, 0.3])],
    ids=["quick", "over the period", "timed out"],
)
def test_the_cadence_is_start_to_start_and_a_slow_attempt_delays_the_next(took: float, starts: list[float]) -> None:
    run = Run(aggressive(), lambda n, _now: (took, None if n == 5 else "slow"))
    assert run.starts[:4] == starts
    assert run.outcome is PASS


@pytest.mark.qp("QP-257")
def test_an_aggressive_run_ends_after_ten_seconds_and_two_hundred_attempts() -> None:
    verdict = aggressive()
    run = Run(verdict, up_from(1e9))
    assert (run.outcome, run.over_at, len(run.starts)) == (FAIL, 10.0, 200)
    assert verdict.summary == "aggressive probe error (failed 200 times): refused"
    assert verdict.complaint == "context deadline exceeded"


@pytest.mark.qp("QP-257")
def test_the_attempt_that_is_out_after_ten_seconds_is_stopped() -> None:
    verdict = aggressive()
    run = Run(verdict, lambda _n, now: (0.099, "late"))
    assert (run.outcome, run.over_at) == (FAIL, 10.0)
    assert run.starts[-1] == pytest.approx(9.999)
    assert verdict.summary == "aggressive probe error (failed 101 times): late"


@pytest.mark.qp("QP-258")
def test_successes_must_come_in_a_row() -> None:
    verdict = aggressive(threshold=3)
    answers = [None, None, "hiccup", None, None, None]
    run = Run(verdict, lambda n, _now: (0.0, answers[n - 1]))
    assert (run.outcome, len(run.starts), run.over_at) == (PASS, 6, 0.25)


@pytest.mark.qp("QP-259")
def test_once_ready_the_next_run_needs_one_success() -> None:
    verdict = aggressive(threshold=3)
    assert len(Run(verdict, up_from(0.0)).starts) == 3
    assert len(Run(verdict, up_from(0.0), begun_at=100.0).starts) == 1


@pytest.mark.qp("QP-258", "QP-259")
def test_a_failure_in_a_later_run_starts_the_count_again() -> None:
    verdict = aggressive(threshold=3)
    Run(verdict, up_from(0.0))
    run = Run(verdict, lambda n, _now: (0.0, "hiccup" if n == 1 else None), begun_at=100.0)
    assert (run.outcome, len(run.starts)) == (PASS, 4)


def test_a_run_that_ends_on_successes_too_few_has_no_last_error() -> None:
    verdict = aggressive(threshold=1000)
    run = Run(verdict, up_from(0.0))
    assert run.outcome is FAIL
    assert (verdict.summary, verdict.complaint) == ("", "context deadline exceeded")


def test_each_run_counts_its_own_failures() -> None:
    verdict = aggressive()
    Run(verdict, up_from(1e9))
    Run(verdict, up_from(100.1), begun_at=100.0)
    assert repr(verdict) == "<Verdict IDLE aggressive 1/1 in a row, 2 failed>"


@pytest.mark.fz("FZ-041")
@pytest.mark.parametrize("mode", [aggressive, normal], ids=["aggressive", "normal"])
def test_an_abandoned_run_leaves_the_count_and_nothing_due(mode: Callable[[], Verdict]) -> None:
    verdict = mode()
    Run(verdict, up_from(0.0))
    verdict.begun(100.0)
    verdict.abandoned()
    assert (verdict.state, verdict.in_a_row, verdict.next_deadline()) == (State.IDLE, 1, None)
    assert verdict.on_deadline(200.0) == ()
    assert verdict.begun(200.0) == (TRY,)


@pytest.mark.parametrize("mode", [aggressive, normal], ids=["aggressive", "normal"])
@pytest.mark.parametrize("state", list(State), ids=lambda s: s.name)
def test_every_state_meets_every_event(state: State, mode: Callable[[], Verdict]) -> None:
    def fresh() -> Verdict:
        verdict = mode()
        if state is not State.IDLE:
            verdict.begun(0.0)
        if state is State.PAUSING:
            verdict.failed(0.01, "no")
        return verdict

    if state is State.PAUSING and mode is normal:
        assert fresh().state is State.IDLE  # one attempt decides: normal mode never pauses
        return
    wanted: dict[str, tuple[Effect, ...] | type[AssertionError]] = {
        "begun": (TRY,) if state is State.IDLE else AssertionError,
        "passed": (PASS,) if state is State.TRYING else AssertionError,
        "failed": ((() if mode is aggressive else (FAIL,)) if state is State.TRYING else AssertionError),
        "early": (),
        "due": (TRY,) if state is State.PAUSING else (),
        "over": {State.IDLE: (), State.TRYING: (STOP, FAIL) if mode is aggressive else (), State.PAUSING: (FAIL,)}[
            state
        ],
    }
    events: dict[str, Callable[[Verdict], tuple[Effect, ...]]] = {
        "begun": lambda v: v.begun(0.02),
        "passed": lambda v: v.passed(0.02),
        "failed": lambda v: v.failed(0.02, "no"),
        "early": lambda v: v.on_deadline(0.04),
        "due": lambda v: v.on_deadline(0.05),
        "over": lambda v: v.on_deadline(10.0),
    }
    for name, event in events.items():
        expected = wanted[name]
        if isinstance(expected, tuple):
            assert event(fresh()) == expected, name
        else:
            with pytest.raises(expected):
                event(fresh())


def test_the_repr_tells_state_mode_and_counts() -> None:
    verdict = aggressive(threshold=2)
    verdict.begun(0.0)
    verdict.failed(0.01, "no")
    assert repr(verdict) == "<Verdict PAUSING aggressive 0/2 in a row, 1 failed>"
