"""What a gate does, as words with few values."""

import pytest

from queueproxy.freeze.policy import Ask, Moved, Rung, State
from queueproxy.freeze.watch import STATE_NAMES, GateWatch
from queueproxy.metrics.pause import REASONS, STATES, PauseCounts


@pytest.mark.fz("FZ-100")
def test_every_state_has_a_name_that_the_metrics_know() -> None:
    assert set(STATE_NAMES) == set(State) and set(STATE_NAMES.values()) == set(STATES)


@pytest.mark.fz("FZ-100")
@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("idle for 2 s", "idle"), ("freeze failed: [Errno 5] EIO", "freeze failed"), ("request", "request"),
        ("first bytes", "first bytes"), ("terminating", "terminating"), ("not ready", "not ready"), ("SIGHUP", "other"),
    ],
)  # fmt: skip
def test_a_reason_becomes_a_label(said: str, label: str) -> None:
    counts = PauseCounts(0.0)
    GateWatch(counts).moved(Moved(State.GRACE, State.FROZEN, said), 1.0)
    assert counts.transitions == {("running", "frozen", label, "ok"): 1}
    assert label in REASONS or label == "other"


@pytest.mark.fz("FZ-100")
def test_a_cycle_is_counted_timed_and_its_states_are_summed() -> None:
    counts = PauseCounts(0.0)
    watch = GateWatch(counts)
    freeze, thaw = Ask(Rung.FROZEN, 1, "idle for 2 s"), Ask(Rung.RUNNING, 2, "request")
    watch.moved(Moved(State.AWAKE, State.GRACE, ""), 0.5)
    watch.moved(Moved(State.GRACE, State.FROZEN, "idle for 2 s"), 1.0)
    watch.asked(freeze, 1.0)
    watch.answered(freeze, Rung.FROZEN, "", 0.0001, 1.0)
    watch.moved(Moved(State.FROZEN, State.WAKING, "request"), 5.0)
    watch.answered(thaw, Rung.RUNNING, "", 0.0002, 5.0)
    watch.moved(Moved(State.WAKING, State.AWAKE, "request"), 5.0)
    watch.waited(0.0003)
    assert sorted(counts.transitions) == [
        ("frozen", "waking", "request", "ok"), ("running", "frozen", "idle", "ok"),
        ("waking", "running", "request", "ok"),
    ]  # fmt: skip
    assert counts.in_state("frozen", 9.0) == 4.0 and counts.shadow == {}
    assert {op: h.sum for op, h in counts.durations.items()} == {"freeze": 0.0001, "thaw": 0.0002}
    assert {phase: h.sum for phase, h in counts.waits.items()} == {"kernel": 0.0002, "total": 0.0003}


@pytest.mark.fz("FZ-065", "FZ-100")
@pytest.mark.parametrize(
    ("rung", "key"),
    [
        (Rung.FROZEN, ("running", "frozen", "idle", "failed")),
        (Rung.THROTTLED, ("running", "throttled", "idle", "failed")),
        (Rung.RUNNING, ("waking", "running", "idle", "failed")),
    ],
)
def test_a_failure_is_counted_and_not_timed(rung: Rung, key: tuple[str, str, str, str]) -> None:
    counts = PauseCounts(0.0)
    GateWatch(counts).answered(Ask(rung, 1, "idle for 2 s"), None, "EIO", 0.1, 1.0)
    assert counts.transitions == {key: 1} and counts.durations == {}


@pytest.mark.fz("FZ-113")
def test_in_shadow_only_what_would_have_been_is_counted() -> None:
    counts = PauseCounts(0.0)
    watch = GateWatch(counts, shadow=True)
    ask = Ask(Rung.FROZEN, 1, "idle for 2 s")
    watch.moved(Moved(State.GRACE, State.FROZEN, "idle for 2 s"), 1.0)
    watch.asked(ask, 1.0)
    watch.answered(ask, Rung.FROZEN, "shadow", 0.0, 1.0)
    watch.waited(0.0)
    assert counts.waits == {}
    assert (counts.shadow, counts.transitions, counts.durations, counts.state) == ({"freeze": 1}, {}, {}, "running")
    assert repr(watch) == "<GateWatch shadow=True>"
