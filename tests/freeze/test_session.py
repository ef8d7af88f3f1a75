"""The session with a freezer: timelines on numbers for a clock, then anything in any order."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.dialogue import (
    DIAL,
    GET,
    HANG_UP,
    Down,
    Effect,
    Effects,
    Fault,
    Found,
    Patience,
    Phase,
    Say,
    Terms,
    Told,
    Up,
    Woken,
)
from queueproxy.freeze.session import Session
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import (
    OldAction,
    Problem,
    StateRequest,
    View,
    Wanted,
    encode_problem,
    encode_view,
)

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN
PATIENCE = Patience()


class Script:
    """A session and what came out of it; time moves by `to`, which fires every deadline on the way."""

    def __init__(self) -> None:
        self.session = Session(Random(5), DEFAULTS)
        self.now = 0.0
        self.log: list[Effect] = []

    def tell(self, event: str, *args: Any) -> Effects:
        effects: Effects = getattr(self.session, event)(self.now, *args)
        self.log += effects
        return effects

    def answer(self, view: View, status: int = 200) -> Effects:
        return self.tell("answered", status, encode_view(view))

    def refuse(self, problem: Problem, view: View | None = None, retry: float | None = None) -> Effects:
        return self.tell("answered", problem.status, encode_problem(problem, "why", view, retry))

    def to(self, end: float) -> list[Effect]:
        """What happened on the way."""
        before = len(self.log)
        for _ in range(10_000):
            due = self.session.next_deadline()
            if due is None or due > end:
                self.now = end
                return self.log[before:]
            self.now = max(self.now, due)
            self.tell("on_deadline")
        raise AssertionError(f"it spins: {self.session!r}")

    def dialled(self) -> "Script":
        """Let time pass until the next dial."""
        for _ in range(100):
            if self.session.phase is Phase.DIALLING:
                return self
            due = self.session.next_deadline()
            assert due is not None
            self.now = max(self.now, due)
            self.tell("on_deadline")
        raise AssertionError(f"it does not dial: {self.session!r}")


def greeted(view: View | None = None) -> Script:
    """A freezer is there and known."""
    script = Script()
    assert script.tell("began") == (DIAL,)
    assert script.tell("connected") == (Say(GET),)
    script.answer(view or View(RUNNING, 0))
    script.log.clear()
    return script


def asleep() -> Script:
    script = greeted()
    script.tell("asked", FROZEN, 1, "idle")
    assert script.answer(View(FROZEN, 1)) == (Told(1, FROZEN, ""),)
    script.log.clear()
    return script


def wish(wanted: Wanted, generation: int, reason: str, rung: Rung = FROZEN) -> Say:
    return Say(StateRequest(wanted, generation, reason=reason, rung=rung))


# === Finding a freezer. ===


@pytest.mark.fz("FZ-068", "FZ-110")
def test_the_first_answer_brings_what_it_holds_then_terms_then_the_freezer() -> None:
    """Terms may say shadow, and a wake in shadow is only words: what sleeps already is woken before they hold."""
    script = Script()
    script.tell("began")
    script.tell("connected")
    policy = DEFAULTS._replace(mode=Mode.SHADOW)
    assert script.answer(View(FROZEN, 9, "cgroup2", session="s", policy=policy)) == (
        Found(9, FROZEN), Terms(policy), Up("cgroup2"),
    )  # fmt: skip
    assert script.session.secret == "s" and script.session.phase is Phase.READY


def test_terms_are_told_when_they_change_and_the_fallback_when_there_are_none() -> None:
    script = Script()
    script.tell("began")
    script.tell("connected")
    assert script.answer(View(RUNNING, 0))[1] == Terms(DEFAULTS)
    script.tell("asked", FROZEN, 1, "")
    assert script.answer(View(FROZEN, 1)) == (Told(1, FROZEN, ""),), "none in this answer: none changed"
    script.tell("asked", RUNNING, 2, "")
    off = DEFAULTS._replace(mode=Mode.OFF)
    assert script.answer(View(RUNNING, 2, policy=off)) == (Terms(off), Told(2, RUNNING, ""))


@pytest.mark.fz("FZ-014", "FZ-063")
def test_a_dial_has_a_deadline_and_a_missing_freezer_is_said_once() -> None:
    script = Script()
    script.tell("began")
    assert script.session.next_deadline() == PATIENCE.connect
    said = script.to(3600.0)
    assert said[0] is HANG_UP and isinstance(said[1], Down) and "timed out" in said[1].reason
    assert [effect for effect in said if isinstance(effect, Down)] == said[1:2]
    dials = said.count(DIAL)
    assert 100 < dials < 300, "half a minute between dials in the end"
    assert script.session.outage.faults == {Fault.CONNECT: dials + 1 - (script.session.phase is Phase.DIALLING)}


@pytest.mark.fz("FZ-069")
@pytest.mark.parametrize(("status", "body"), [(400, b"no token"), (404, b"404 page not found"), (405, b"")])
def test_who_knows_no_version_1_is_a_daemon_of_old(status: int, body: bytes) -> None:
    script = Script()
    script.tell("began")
    script.tell("connected")
    assert script.tell("answered", status, body) == (Found(0, FROZEN), Terms(DEFAULTS), Up("container-freezer"))


@pytest.mark.fz("FZ-069", "FZ-097")
@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"oops"), (503, b""), (403, b"forbidden"), (301, b""), (404, encode_problem(Problem.NOT_FOUND))],
)  # fmt: skip
def test_who_refuses_is_not_taken_for_a_daemon_of_old(status: int, body: bytes) -> None:
    script = Script()
    script.tell("began")
    script.tell("connected")
    effects = script.tell("answered", status, body)
    assert effects[0] is HANG_UP and not [e for e in effects if isinstance(e, Up | Found)]
    assert script.session.phase is Phase.AWAY


def test_a_success_that_is_no_view_is_not_a_freezer() -> None:
    script = Script()
    script.tell("began")
    script.tell("connected")
    assert script.tell("answered", 200, b"<html>")[0] is HANG_UP
    assert script.session.outage.faults == {Fault.GARBAGE: 1}


# === Wishes. ===


@pytest.mark.fz("FZ-032", "FZ-039", "FZ-061")
def test_a_newer_wish_is_said_behind_the_older_whose_answer_then_counts_for_nothing() -> None:
    script = greeted()
    assert script.tell("asked", FROZEN, 1, "idle") == (wish(Wanted.IDLE, 1, "idle"),)
    assert script.tell("asked", RUNNING, 2, "request") == (wish(Wanted.ACTIVE, 2, "request"),)
    assert script.refuse(Problem.STALE_GENERATION, View(RUNNING, 2)) == ()
    assert script.answer(View(RUNNING, 2)) == (Told(2, RUNNING, ""),)


def test_asking_again_while_the_answer_is_on_its_way_says_nothing() -> None:
    script = greeted()
    script.tell("asked", RUNNING, 1, "request")
    script.now = 0.25
    assert script.tell("asked", RUNNING, 1, "request") == ()
    assert script.answer(View(RUNNING, 1)) == (Told(1, RUNNING, ""),)
    assert script.session.next_deadline() is None


@pytest.mark.fz("FZ-063")
def test_an_attempt_that_takes_too_long_is_made_again_on_another_connection() -> None:
    script = greeted()
    script.tell("asked", FROZEN, 1, "idle")
    assert script.to(0.31) == [HANG_UP]
    assert script.to(0.42) == [DIAL]
    assert script.tell("connected") == (wish(Wanted.IDLE, 1, "idle"),), "no greeting first: the freezer is known"
    assert script.answer(View(FROZEN, 1)) == (Told(1, FROZEN, ""),)


@pytest.mark.fz("FZ-063", "FZ-065")
def test_a_wish_that_does_not_get_across_has_failed_after_the_total() -> None:
    script = greeted()
    script.tell("asked", FROZEN, 1, "idle")
    told = [effect for effect in script.to(5.0) if isinstance(effect, Told)]
    assert told == [Told(1, None, "the freezer cannot be reached: timed out")]
    assert [effect for effect in script.log if isinstance(effect, Down)] != []


def test_too_many_questions_without_an_answer_end_the_connection() -> None:
    script = greeted()
    for generation in range(1, 5):
        script.tell("asked", RUNNING if generation % 2 else FROZEN, generation, "")
    assert script.tell("asked", RUNNING, 5, "")[0] is HANG_UP


@pytest.mark.fz("FZ-014")
def test_without_a_freezer_a_freeze_fails_at_once_and_a_thaw_dials() -> None:
    script = Script()
    assert script.tell("asked", FROZEN, 1, "") == (Told(1, None, "no freezer yet"),)
    script.tell("began")
    script.tell("lost", Fault.CONNECT, "refused")
    assert script.tell("asked", FROZEN, 1, "") == (Told(1, None, "refused"),)
    assert script.tell("asked", RUNNING, 2, "") == (DIAL,)


@pytest.mark.fz("FZ-061", "FZ-068")
def test_a_freezer_that_counts_further_is_followed_but_not_for_ever() -> None:
    script = greeted()
    for generation in (1, 11, 21):
        script.tell("asked", RUNNING, generation, "")
        further = View(RUNNING, generation + 9)
        assert script.refuse(Problem.STALE_GENERATION, further) == (Found(generation + 9, RUNNING),)
    script.tell("asked", RUNNING, 31, "")
    assert script.refuse(Problem.STALE_GENERATION, View(RUNNING, 40)) == (Told(31, None, "refused: why"),)


@pytest.mark.fz("FZ-062")
@pytest.mark.parametrize("problem", [Problem.NOT_CONFIRMED, Problem.TERMINAL, Problem.NOT_FOUND])
def test_a_refusal_is_an_answer_and_the_freezer_stays(problem: Problem) -> None:
    script = greeted()
    script.tell("asked", FROZEN, 1, "")
    assert script.refuse(problem, View(RUNNING, 0)) == (Told(1, None, "refused: why"),)
    assert script.session.phase is Phase.READY and script.session.up


@pytest.mark.fz("FZ-093", "FZ-065")
def test_a_freezer_that_is_stopping_is_gone_and_its_successor_is_news() -> None:
    """Were it only a failed freeze, the app would stay awake under the successor until its next request."""
    script = greeted()
    script.tell("asked", FROZEN, 1, "")
    assert script.refuse(Problem.DRAINING, View(RUNNING, 0)) == (HANG_UP, Down("refused: why"))
    assert script.tell("asked", RUNNING, 2, "") == (Told(2, RUNNING, "nobody stopped it"),)
    script.dialled()
    assert script.tell("connected") == (Say(GET),)
    assert script.answer(View(RUNNING, 0)) == (Up(""),)


@pytest.mark.fz("FZ-014", "FZ-038")
@pytest.mark.parametrize("refused", [True, False], ids=["turned away", "never said"])
def test_an_app_that_no_freezer_was_asked_to_stop_runs_without_asking(refused: bool) -> None:
    """Its requests would wait for a freezer that has nothing to thaw."""
    script = greeted()
    if refused:
        script.tell("asked", FROZEN, 1, "idle")
        script.refuse(Problem.DRAINING)
    else:
        script.tell("lost", Fault.CLOSED, "gone")
        assert script.tell("asked", FROZEN, 1, "idle") == (DIAL,)
        script.tell("lost", Fault.CONNECT, "refused")
    assert script.tell("asked", RUNNING, 2, "request") == (Told(2, RUNNING, "nobody stopped it"),)


@pytest.mark.fz("FZ-033", "FZ-035")
@pytest.mark.parametrize("came", ["nothing", "a thaw behind it", "not confirmed", "not ready", "garbage", "frozen"])
def test_an_app_that_may_have_been_stopped_has_to_be_thawed_by_somebody(came: str) -> None:
    script = greeted()
    script.tell("asked", FROZEN, 1, "idle")
    if came == "a thaw behind it":
        script.tell("asked", RUNNING, 2, "request")
    elif came == "not confirmed":
        script.refuse(Problem.NOT_CONFIRMED, None)
    elif came == "not ready":
        script.refuse(Problem.NOT_READY)
    elif came == "garbage":
        script.tell("answered", 200, b"?")
    elif came == "frozen":
        script.answer(View(FROZEN, 1))
    script.tell("lost", Fault.CLOSED, "gone")
    assert not any(isinstance(effect, Told) for effect in script.tell("asked", RUNNING, 3, "request"))


@pytest.mark.fz("FZ-035")
def test_a_refusal_of_one_wish_says_nothing_about_another_that_is_out() -> None:
    script = greeted()
    for generation, rung in ((1, FROZEN), (2, RUNNING), (3, FROZEN)):
        script.tell("asked", rung, generation, "")
    script.refuse(Problem.RATE_LIMITED)
    script.tell("lost", Fault.CLOSED, "gone")
    assert not any(isinstance(effect, Told) for effect in script.tell("asked", RUNNING, 4, "request"))


# === Sleep. ===


@pytest.mark.fz("FZ-090", "FZ-091")
def test_a_sleep_is_renewed_every_third_of_its_lease_from_when_it_was_said() -> None:
    script = asleep()
    assert script.session.next_deadline() == 10.0
    for number in range(1, 5):
        assert script.to(10.0 * number) == [wish(Wanted.IDLE, 1, "idle")]
        script.answer(View(FROZEN, 1))
        script.log.clear()


@pytest.mark.fz("FZ-090")
def test_a_renewal_that_is_lost_is_repeated_long_before_the_lease_is_over() -> None:
    script = asleep()
    said = script.to(10.0)
    assert said == [wish(Wanted.IDLE, 1, "idle")]
    assert script.dialled().now < 11.0
    assert script.tell("connected") == (Say(GET),)
    assert script.answer(View(FROZEN, 1)) == (wish(Wanted.IDLE, 1, "idle"),)
    assert script.answer(View(FROZEN, 1)) == () and script.session.next_deadline() == pytest.approx(20.5, abs=0.3)


@pytest.mark.fz("FZ-055", "FZ-084", "FZ-111")
def test_a_renewal_may_tell_that_the_app_runs() -> None:
    script = asleep()
    script.to(10.0)
    assert script.answer(View(RUNNING, 1)) == (Woken("thawed: from outside"),)
    script = asleep()
    script.to(10.0)
    assert script.refuse(Problem.TERMINAL, View(RUNNING, 1)) == (Woken("thawed: refused: why"),)


def test_a_renewal_refused_for_now_is_repeated_soon() -> None:
    script = asleep()
    script.to(10.0)
    assert script.refuse(Problem.RATE_LIMITED) == ()
    assert script.to(11.0)[-1] == wish(Wanted.IDLE, 1, "idle")


@pytest.mark.fz("FZ-092")
def test_a_restarted_freezer_may_have_adopted_thawed_or_forgotten_the_sleep() -> None:
    for view, effects in (
        (View(FROZEN, 1), (wish(Wanted.IDLE, 1, "idle"),)),
        (View(RUNNING, 1), (Woken("thawed: while the freezer was away"),)),
        (View(RUNNING, 0), (Woken("thawed: while the freezer was away"),)),
        (View(FROZEN, 0), (Woken("thawed: while the freezer was away"),)),
        (View(FROZEN, 7), (Found(7, FROZEN),)),
    ):
        script = asleep()
        script.tell("lost", Fault.CLOSED, "gone")
        script.dialled().tell("connected")
        assert script.answer(view) == effects


@pytest.mark.fz("FZ-068")
def test_a_freezer_that_holds_what_was_let_go_is_told_to_the_policy() -> None:
    script = asleep()
    script.tell("asked", RUNNING, 2, "request")
    script.answer(View(RUNNING, 2))
    script.tell("lost", Fault.CLOSED, "gone")
    script.dialled().tell("connected")
    assert script.answer(View(FROZEN, 1)) == (Found(1, FROZEN),)


def test_an_idle_connection_that_ends_is_no_outage() -> None:
    script = greeted()
    assert script.tell("lost", Fault.CLOSED, "closed") == ()
    assert 0.5 <= script.dialled().now <= 1.0
    assert script.session.up and script.session.outage.failures == 0


@pytest.mark.fz("FZ-014", "FZ-046")
def test_a_freezer_that_was_there_is_given_up_after_the_total_and_taken_back() -> None:
    script = asleep()
    script.tell("asked", RUNNING, 2, "")
    script.tell("lost", Fault.CLOSED, "gone")
    downs = [effect for effect in script.to(0.9) if isinstance(effect, Down)]
    assert downs == [] and script.session.up
    assert len([effect for effect in script.to(60.0) if isinstance(effect, Down)]) == 1
    while script.session.phase is not Phase.AWAY:
        script.to(script.now + 0.2)
    assert script.tell("asked", RUNNING, 2, "") == (DIAL,), "the policy's own pace, whatever the backoff"
    script.tell("connected")
    assert script.answer(View(RUNNING, 2)) == (Up(""), Told(2, RUNNING, ""))


# === Tokens. ===


@pytest.mark.fz("FZ-126")
def test_a_refused_token_is_read_again_once_without_a_word() -> None:
    script = greeted()
    script.tell("asked", FROZEN, 1, "")
    assert script.refuse(Problem.UNAUTHENTICATED) == (HANG_UP,)
    assert script.to(script.now) == [DIAL]
    script.tell("connected")
    effects = script.refuse(Problem.UNAUTHENTICATED)
    assert effects == (HANG_UP, Down("refused: why"))


@pytest.mark.fz("FZ-130")
def test_a_freezer_may_say_when_to_come_back() -> None:
    script = Script()
    script.tell("began")
    script.tell("connected")
    script.refuse(Problem.NOT_READY, retry=7.0)
    assert script.session.next_deadline() == 7.0


# === The end. ===


@pytest.mark.fz("FZ-050", "FZ-051")
def test_the_end_while_awake_is_said_at_once() -> None:
    script = greeted()
    assert script.tell("terminated") == (wish(Wanted.TERMINATING, 1, "terminating"),)
    assert script.answer(View(RUNNING, 1)) == () and script.session.next_deadline() is None
    assert script.tell("terminated") == ()


@pytest.mark.fz("FZ-050")
def test_the_end_while_asleep_travels_with_the_policys_thaw() -> None:
    script = asleep()
    assert script.tell("terminated") == ()
    assert script.tell("asked", RUNNING, 2, "terminating") == (wish(Wanted.TERMINATING, 3, "terminating"),)
    assert script.answer(View(RUNNING, 3)) == (Told(2, RUNNING, ""),)


@pytest.mark.fz("FZ-050")
def test_the_end_while_waking_is_said_behind_the_thaw_and_either_answer_counts() -> None:
    script = asleep()
    script.tell("asked", RUNNING, 2, "request")
    assert script.tell("terminated") == (wish(Wanted.TERMINATING, 3, "terminating"),)
    assert script.refuse(Problem.STALE_GENERATION, View(RUNNING, 3)) == ()
    assert script.answer(View(RUNNING, 3)) == (Told(2, RUNNING, ""),)


@pytest.mark.fz("FZ-051")
def test_the_end_without_a_connection_dials_and_gives_up_in_time() -> None:
    script = greeted()
    script.tell("lost", Fault.CLOSED, "gone")
    assert script.tell("terminated") == (DIAL,)
    assert script.tell("connected") == (wish(Wanted.TERMINATING, 1, "terminating"),)
    script.tell("lost", Fault.CLOSED, "gone")
    script.to(3.0)
    assert script.dialled().tell("connected") == (Say(GET),), "too late to be worth saying"


# === The daemon of old. ===


def old() -> Script:
    script = Script()
    script.tell("began")
    script.tell("connected")
    script.tell("answered", 400, b"no token")
    script.log.clear()
    return script


@pytest.mark.fz("FZ-069")
def test_the_daemon_of_old_hears_one_thing_at_a_time() -> None:
    script = old()
    assert script.tell("asked", FROZEN, 1, "idle") == (Say(OldAction.PAUSE),)
    assert script.tell("asked", RUNNING, 2, "request") == ()
    assert script.tell("answered", 200, b"") == (Say(OldAction.RESUME),)
    assert script.tell("answered", 200, b"") == (Told(2, RUNNING, "status 200"),)
    assert script.session.next_deadline() is None, "no lease to renew"


@pytest.mark.fz("FZ-069")
def test_what_the_daemon_of_old_refuses_has_failed() -> None:
    script = old()
    script.tell("asked", FROZEN, 1, "idle")
    assert script.tell("answered", 500, b"") == (Told(1, None, "status 500"),)
    script.tell("asked", RUNNING, 2, "")
    assert script.tell("answered", 403, b"") == (HANG_UP,)


@pytest.mark.fz("FZ-050", "FZ-069")
@pytest.mark.parametrize("sleeping", [True, False])
def test_the_end_is_a_resume_for_the_daemon_of_old(sleeping: bool) -> None:
    script = old()
    if sleeping:
        script.tell("asked", FROZEN, 1, "idle")
        script.tell("answered", 200, b"")
        assert script.tell("terminated") == ()
        assert script.tell("asked", RUNNING, 2, "terminating") == (Say(OldAction.RESUME),)
    else:
        assert script.tell("terminated") == (Say(OldAction.RESUME),)


@pytest.mark.fz("FZ-069")
def test_throttling_is_not_offered_to_a_daemon_of_old() -> None:
    session = Session(Random(1), DEFAULTS._replace(mode=Mode.THROTTLE))
    session.began(0.0)
    session.connected(0.0)
    _, terms, _ = session.answered(0.0, 404, b"")
    assert isinstance(terms, Terms) and terms.policy.mode is Mode.OFF


# === Anything, in any order. ===

VIEWS = st.tuples(st.sampled_from(Rung), st.integers(0, 6), st.sampled_from([0.0, 3.0, 30.0])).map(
    lambda drawn: View(drawn[0], drawn[1], lease_s=drawn[2])
)
ANSWERS = st.one_of(
    VIEWS.map(lambda view: (200, encode_view(view))),
    st.tuples(st.sampled_from(Problem), VIEWS | st.none()).map(
        lambda both: (both[0].status, encode_problem(both[0], "x", both[1]))
    ),
    st.tuples(st.sampled_from([200, 400, 404, 500]), st.binary(max_size=4)),
)
STEPS = st.one_of(
    st.tuples(st.just("asked"), st.sampled_from(Rung)),
    st.tuples(st.just("again"), st.none()),
    st.tuples(st.just("answered"), ANSWERS),
    st.tuples(st.just("connected"), st.none()),
    st.tuples(st.just("lost"), st.sampled_from(Fault)),
    st.tuples(st.just("terminated"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.2, 0.35, 1.0, 12.0, 61.0])),
)


@pytest.mark.slow
@pytest.mark.fz("FZ-063", "FZ-140")
@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.booleans())
def test_whatever_happens_the_session_never_spins_lies_or_waits_for_ever(steps: list[Any], was_old: bool) -> None:
    script = old() if was_old else greeted()
    session = script.session
    generation, asked = 0, {0: 0}
    rung, ended = RUNNING, 10**9
    for what, argument in steps:
        if what == "asked":
            generation, rung = generation + 1, argument
            asked[generation] = 1
            script.tell("asked", rung, generation, "")
        elif what == "again":
            asked[generation] = asked.get(generation, 0) + 1
            script.tell("asked", rung, generation, "")
        elif what == "answered":
            script.tell("answered", *argument)
        elif what == "lost":
            script.tell("lost", argument, "why")
        elif what == "wait":
            script.to(script.now + argument)
        else:
            if what == "terminated":
                ended = min(ended, len(script.log))
            script.tell(what)
        for effect in script.log:
            if isinstance(effect, Found):
                generation = max(generation, effect.generation)
        assert len(session._out) <= 4
        assert session.phase in (Phase.GREETING, Phase.READY) or not session._out, "out, but on what?"
        assert session.phase in (Phase.READY, Phase.CLOSED) or session.next_deadline() is not None
        assert not session.errand.asked or session.next_deadline() is not None, "somebody would wait for ever"
        assert not session.errand.held or session.errand.rung is not RUNNING
    script.to(script.now + 2.0)
    assert not session.errand.asked, "every wish has an end"
    told = [effect.generation for effect in script.log if isinstance(effect, Told)]
    assert all(told.count(one) <= asked.get(one, 0) for one in told), "at most one answer for each ask"
    changes = [effect for effect in script.log if isinstance(effect, Up | Down)]
    assert all(not (isinstance(a, Up) and isinstance(b, Up)) for a, b in pairwise(changes))
    said = [effect.what for effect in script.log[ended:] if isinstance(effect, Say)]
    assert all(what.wanted is Wanted.TERMINATING for what in said if isinstance(what, StateRequest)), "FZ-050"
    assert OldAction.PAUSE not in said
