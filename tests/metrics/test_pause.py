"""Sleep in numbers: seconds per state add up, labels stay few."""

import pytest

from queueproxy.metrics.pause import REASONS, STATES, PauseCounts


@pytest.mark.fz("FZ-100", "FZ-103")
def test_seconds_per_state_add_up_to_the_time_that_passed() -> None:
    pause = PauseCounts(100.0)
    pause.moved("running", "frozen", "idle", "ok", 103.0)
    pause.moved("frozen", "waking", "request", "ok", 110.0)
    pause.moved("waking", "running", "request", "ok", 110.5)
    assert {state: pause.in_state(state, 112.0) for state in STATES} == {
        "running": 4.5, "waking": 0.5, "throttled": 0.0, "frozen": 7.0,
    }  # fmt: skip
    assert sum(pause.in_state(state, 500.0) for state in STATES) == 400.0


@pytest.mark.fz("FZ-065", "FZ-100")
def test_a_failed_transition_is_counted_and_moves_nothing() -> None:
    pause = PauseCounts(0.0)
    pause.moved("running", "frozen", "idle", "failed", 1.0)
    assert (pause.state, pause.in_state("running", 2.0)) == ("running", 2.0)
    assert pause.transitions == {("running", "frozen", "idle", "failed"): 1}


@pytest.mark.fz("FZ-100")
def test_reasons_are_bounded() -> None:
    pause = PauseCounts(0.0)
    for number in range(1000):
        pause.moved("running", "frozen", f"errno {number}", "failed", 1.0)
    for reason in REASONS:
        pause.moved("running", "frozen", reason, "failed", 1.0)
    assert len(pause.transitions) == len(REASONS) + 1
    assert pause.transitions["running", "frozen", "other", "failed"] == 1000


@pytest.mark.fz("FZ-100", "FZ-113")
def test_what_is_timed_waited_for_and_would_have_been() -> None:
    pause = PauseCounts(0.0)
    pause.timed("thaw", 0.0002)
    pause.waited("total", 0.001)
    pause.would("freeze")
    pause.would("freeze")
    pause.answered("health", "asleep")
    assert (pause.durations["thaw"].count, pause.waits["total"].sum) == (1, 0.001)
    assert (pause.shadow, pause.probe_answers) == ({"freeze": 2}, {("health", "asleep"): 1})
    assert repr(pause) == "<PauseCounts running transitions=0>"
