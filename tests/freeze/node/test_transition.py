"""The stepper: its schedule, deadlines and roll-back, with a scripted subject and time that is only a number."""

from collections.abc import Iterable

import pytest

from queueproxy.freeze.node.transition import (
    FREEZE_DEADLINE,
    NAPS,
    SLICE,
    THAW_DEADLINE,
    Outcome,
    Transition,
)

PENDING = (Outcome.PENDING, "")


class Script:
    """A subject that answers what it is told, and keeps what it was asked."""

    def __init__(
        self, *answers: tuple[Outcome, str] | OSError, refusal: tuple[Outcome, str] | OSError = PENDING
    ) -> None:
        self.answers: Iterable[tuple[Outcome, str] | OSError] = iter(answers)
        self.refused = refusal
        self.push_error: OSError | None = None
        self.said: list[tuple[bool, bool]] = []

    def refusal(self, freeze: bool, force: bool) -> tuple[Outcome, str]:
        if isinstance(self.refused, OSError):
            raise self.refused
        return self.refused

    def push(self, freeze: bool, first: bool) -> None:
        self.said.append((freeze, first))
        if self.push_error is not None:
            raise self.push_error

    def settled(self, freeze: bool) -> tuple[Outcome, str]:
        answer = next(iter(self.answers), PENDING)
        if isinstance(answer, OSError):
            raise answer
        return answer


def drive(transition: Transition, now: float = 100.0) -> tuple[float, list[float]]:
    """Obey every pause exactly; a pause of 0.0 costs 20 us, as a look does."""
    pauses = []
    while (pause := transition.step(now)) is not None:
        pauses.append(pause)
        now += pause or 0.00002
    return now, pauses


def test_a_state_reached_at_once_needs_one_step() -> None:
    subject = Script((Outcome.FROZEN, ""))
    freeze = Transition(subject, freeze=True)
    assert freeze.step(100.0) is None
    assert freeze.outcome is Outcome.FROZEN
    assert freeze.is_finished
    assert subject.said == [(True, True)]
    assert freeze.step(200.0) is None
    assert subject.said == [(True, True)], "nothing happens after the end"


@pytest.mark.fz("FZ-071")
def test_the_schedule_spins_then_naps_then_polls_until_the_deadline() -> None:
    subject = Script()
    freeze = Transition(subject, freeze=True)
    ended_at, pauses = drive(freeze)
    before_polling = pauses[: pauses.index(SLICE)]
    assert len(before_polling) - len(NAPS) in (5, 6), "100 us of spinning at 20 us a look"
    assert before_polling[-len(NAPS) :] == list(NAPS)
    assert set(before_polling[: -len(NAPS)]) == {0.0}
    assert freeze.outcome is Outcome.TIMED_OUT
    # The freeze overruns by no more than the looks themselves; the thaw then has its own deadline.
    assert ended_at - 100.0 == pytest.approx(FREEZE_DEADLINE + THAW_DEADLINE, abs=0.001)


@pytest.mark.fz("FZ-072")
def test_the_deadline_rolls_back_and_says_so() -> None:
    subject = Script(PENDING, PENDING, (Outcome.THAWED, ""))
    freeze = Transition(subject, freeze=True, deadline_for=0.05)
    assert freeze.step(1.0) == 0.0
    assert freeze.step(1.05) is None
    assert (freeze.outcome, freeze.detail, freeze.rolled_back) == (
        Outcome.TIMED_OUT,
        "not confirmed within 50 ms",
        True,
    )
    assert subject.said == [(True, True), (True, False), (False, True)]


def test_no_pause_reaches_beyond_the_deadline() -> None:
    freeze = Transition(Script(), freeze=True, deadline_for=0.0021)
    assert freeze.step(0.0) == 0.0
    assert freeze.step(0.002) == pytest.approx(0.0001)


def test_a_driver_that_was_held_up_still_looks_before_it_gives_up() -> None:
    freeze = Transition(Script(PENDING, (Outcome.FROZEN, "")), freeze=True)
    freeze.step(0.0)
    assert freeze.step(60.0) is None
    assert freeze.outcome is Outcome.FROZEN


def test_a_thaw_that_times_out_leaves_its_wish() -> None:
    subject = Script()
    thaw = Transition(subject, freeze=False)
    drive(thaw)
    assert (thaw.outcome, thaw.detail) == (Outcome.TIMED_OUT, "not confirmed within 2000 ms")
    assert not thaw.rolled_back
    assert {freeze for freeze, _ in subject.said} == {False}


@pytest.mark.parametrize("outcome", [Outcome.GONE, Outcome.FOREIGN, Outcome.FROZEN, Outcome.THAWED])
def test_a_refusal_ends_it_before_anything_is_written(outcome: Outcome) -> None:
    subject = Script(refusal=(outcome, "because"))
    freeze = Transition(subject, freeze=True)
    assert freeze.step(1.0) is None
    assert (freeze.outcome, freeze.detail) == (outcome, "because")
    assert subject.said == []


def test_foreign_after_a_thaw_is_believed_only_when_it_lasts() -> None:
    foreign = (Outcome.FOREIGN, "an ancestor is frozen")
    brief = Transition(Script(foreign, (Outcome.THAWED, "")), freeze=False)
    assert brief.step(0.0) == 0.0
    assert brief.step(0.0005) is None
    assert brief.outcome is Outcome.THAWED
    lasting = Transition(Script(foreign, foreign), freeze=False)
    assert lasting.step(0.0) == 0.0
    assert lasting.step(0.001) is None
    assert lasting.outcome is Outcome.FOREIGN


def test_foreign_during_a_freeze_is_believed_at_once() -> None:
    freeze = Transition(Script((Outcome.FOREIGN, "thawed by someone else meanwhile")), freeze=True)
    assert freeze.step(0.0) is None
    assert freeze.outcome is Outcome.FOREIGN


def test_an_error_before_the_wish_is_written_needs_no_roll_back() -> None:
    for subject in (Script(refusal=PermissionError(13, "Permission denied", "x/cgroup.freeze")), Script()):
        subject.push_error = PermissionError(13, "Permission denied", "x/cgroup.freeze")
        freeze = Transition(subject, freeze=True)
        assert freeze.step(1.0) is None
        assert (freeze.outcome, freeze.errno) == (Outcome.FAILED, 13)
        assert freeze.detail == "Permission denied: x/cgroup.freeze"
        assert (False, True) not in subject.said


def test_an_error_after_the_wish_is_written_rolls_back() -> None:
    subject = Script(OSError(5, "Input/output error"), PENDING, (Outcome.THAWED, ""))
    freeze = Transition(subject, freeze=True)
    assert freeze.step(1.0) == 0.0
    assert freeze.outcome is Outcome.PENDING
    assert freeze.step(1.0001) is None
    assert (freeze.outcome, freeze.errno, freeze.detail) == (Outcome.FAILED, 5, "Input/output error")
    assert freeze.rolled_back
    assert subject.said == [(True, True), (False, True), (False, False)]


def test_a_roll_back_that_fails_says_both_things() -> None:
    freeze = Transition(Script(PENDING, PENDING, OSError(5, "Input/output error")), freeze=True)
    freeze.step(0.0)
    assert freeze.step(1.0) is None
    assert freeze.outcome is Outcome.TIMED_OUT
    assert freeze.detail == "not confirmed within 200 ms; thaw failed: Input/output error"
    assert not freeze.rolled_back


def test_a_roll_back_that_meets_an_ancestor_s_freeze_says_so() -> None:
    foreign = (Outcome.FOREIGN, "an ancestor is frozen")
    freeze = Transition(Script(PENDING, PENDING, foreign, foreign), freeze=True)
    freeze.step(0.0)
    assert freeze.step(1.0) == 0.0
    assert freeze.step(1.002) is None
    assert freeze.detail == "not confirmed within 200 ms; an ancestor is frozen"
    assert not freeze.rolled_back


def test_gone_during_a_roll_back_is_gone() -> None:
    freeze = Transition(Script(PENDING, PENDING, (Outcome.GONE, "")), freeze=True)
    freeze.step(0.0)
    assert freeze.step(1.0) is None
    assert freeze.outcome is Outcome.GONE


def test_an_error_of_a_thaw_is_final() -> None:
    thaw = Transition(Script(OSError(5, "Input/output error")), freeze=False)
    assert thaw.step(0.0) is None
    assert (thaw.outcome, thaw.errno) == (Outcome.FAILED, 5)


def test_an_abandoned_transition_writes_nothing_more() -> None:
    subject = Script()
    freeze = Transition(subject, freeze=True)
    freeze.step(0.0)
    freeze.abandon()
    assert freeze.step(9.0) is None
    assert freeze.outcome is Outcome.ABANDONED
    assert subject.said == [(True, True)]
    freeze.abandon()
    finished = Transition(Script((Outcome.FROZEN, "")), freeze=True)
    finished.step(0.0)
    finished.abandon()
    assert finished.outcome is Outcome.FROZEN, "what is finished stays finished"


def test_took_runs_until_the_end_and_the_first_answer_after_it_stays() -> None:
    freeze = Transition(Script(PENDING, (Outcome.FROZEN, "")), freeze=True)
    assert freeze.took(5.0) == 0.0
    freeze.step(10.0)
    assert freeze.took(10.25) == 0.25
    freeze.step(10.25)
    assert freeze.took(10.5) == 0.5
    assert freeze.took(99.0) == 0.5


def test_a_transition_shows_where_it_is() -> None:
    thaw = Transition(Script(), freeze=False)
    assert repr(thaw) == "<Transition thaw BEGIN PENDING looks=0 ''>"
    thaw.step(0.0)
    thaw.step(0.05)
    assert repr(thaw) == "<Transition thaw MOVING PENDING looks=1 ''>"
