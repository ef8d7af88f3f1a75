"""The order in which a run ends, and its status: told as conversations in numbers."""

import signal

import pytest

from queueproxy.local.ending import LAST_WORDS_FOR, Do, Ending, Step

TERM, INT = signal.SIGTERM, signal.SIGINT


def ending(step: Step) -> Ending:
    """An ending brought to a step the way it gets there."""
    found = Ending(10.0)
    if step in (Step.FINISHING, Step.TOLD):
        found.signalled(0.0, TERM, 1)
    if step is Step.TOLD:
        found.emptied(1.0)
    if step in (Step.LAST_WORDS, Step.OVER):
        found.app_ended(0.0, 1, 1)
    if step is Step.OVER:
        found.emptied(0.5)
    assert found.step is step
    return found


EVENTS = {
    "signal, idle": lambda it: it.signalled(100.0, INT, 0),
    "signal, busy": lambda it: it.signalled(100.0, INT, 2),
    "emptied": lambda it: it.emptied(100.0),
    "app ended, idle": lambda it: it.app_ended(100.0, 3, 0),
    "app ended, busy": lambda it: it.app_ended(100.0, 3, 2),
    "deadline": lambda it: it.on_deadline(100.0),
}
S, F, T, L, END = Step
BEGIN = (Do.THAW, Do.STOP_ACCEPTING)
ANSWERS = {
    (S, "signal, idle"): ((*BEGIN, Do.HAND_ON), T, 0),
    (S, "signal, busy"): (BEGIN, F, 0),
    (S, "emptied"): ((), S, 0),
    (S, "app ended, idle"): ((Do.STOP_ACCEPTING, Do.END), END, 3),
    (S, "app ended, busy"): ((Do.STOP_ACCEPTING,), L, 3),
    (S, "deadline"): ((), S, 0),
    (F, "signal, idle"): ((Do.END,), END, 130),
    (F, "signal, busy"): ((Do.END,), END, 130),
    (F, "emptied"): ((Do.HAND_ON,), T, 0),
    (F, "app ended, idle"): ((Do.STOP_ACCEPTING, Do.END), END, 3),
    (F, "app ended, busy"): ((Do.STOP_ACCEPTING,), L, 3),
    (F, "deadline"): ((Do.HAND_ON,), T, 0),
    (T, "signal, idle"): ((Do.END,), END, 130),
    (T, "signal, busy"): ((Do.END,), END, 130),
    (T, "emptied"): ((), T, 0),
    (T, "app ended, idle"): ((Do.STOP_ACCEPTING, Do.END), END, 3),
    (T, "app ended, busy"): ((Do.STOP_ACCEPTING,), L, 3),
    (T, "deadline"): ((Do.GIVE_UP, Do.END), END, 137),
    (L, "signal, idle"): ((Do.END,), END, 130),
    (L, "signal, busy"): ((Do.END,), END, 130),
    (L, "emptied"): ((Do.END,), END, 1),
    (L, "app ended, idle"): ((), L, 1),
    (L, "app ended, busy"): ((), L, 1),
    (L, "deadline"): ((Do.END,), END, 1),
    **{(END, event): ((), END, 1) for event in EVENTS},
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
def test_every_step_meets_every_event(step: Step, event: str) -> None:
    it = ending(step)
    effects = EVENTS[event](it)
    assert (effects, it.step, it.status) == ANSWERS[step, event]


@pytest.mark.parametrize("status", [0, -TERM, 128 + TERM], ids=["exited 0", "killed by it", "128 + signal"])
def test_an_end_we_asked_for_and_got_is_a_success(status: int) -> None:
    it = ending(Step.TOLD)
    it.app_ended(2.0, status, 0)
    assert it.status == 0


def test_the_same_end_before_we_passed_it_on_is_the_apps_own() -> None:
    it = ending(Step.FINISHING)
    it.app_ended(2.0, -TERM, 0)
    assert it.status == 143


def test_both_waits_last_the_grace_and_the_edges_hold() -> None:
    it = Ending(10.0)
    it.signalled(5.0, TERM, 1)
    assert it.next_deadline() == 15.0
    assert it.on_deadline(14.999) == ()
    assert it.on_deadline(15.0) == (Do.HAND_ON,)
    assert it.next_deadline() == 25.0
    assert it.on_deadline(25.0) == (Do.GIVE_UP, Do.END)
    assert it.next_deadline() is None


def test_answers_of_a_dead_app_have_a_second_to_leave() -> None:
    it = ending(Step.LAST_WORDS)
    assert it.next_deadline() == LAST_WORDS_FOR
    assert repr(it) == "<Ending LAST_WORDS signal=None status=1>"
